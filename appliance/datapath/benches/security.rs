//! What the security stage costs: the first packet of a flow against the number
//! of rules and members, and each packet after it. Fails if 10,000 of either cost
//! more than three times as much as 10.
//!
//!     cargo bench -p nve-datapath --bench security

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Instant;

use nve_datapath::connections::{ACK, BYTES_PER_CONNECTION, Config, SYN, Timeouts};
use nve_datapath::packet::{Ip, L4};
use nve_datapath::security::{Packet, Security};
use nve_datapath::{Nanos, Tables};
use nve_protocol::{
    Binding, Direction, Family, Group, GroupId, Member, Prefix, Record, Remote, Rule, RuleId,
    TableSizes, Vlan,
};

const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];
const MOST: f64 = 3.0;
const FLOWS: u32 = 50_000;
const ROUND: usize = 2_500;
const ROUNDS: usize = 200;
const TCP: u8 = 6;
const GROUP: GroupId = GroupId([0xff; 16]);

fn uuid(number: u32) -> [u8; 16] {
    // Spread as those of Neutron are.
    let word = u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&word.to_le_bytes());
    bytes[8..].copy_from_slice(&word.rotate_left(29).to_be_bytes());
    bytes
}

fn vlan() -> Vlan {
    Vlan::new(1).expect("in range")
}

/// The address of the peer that matters to rule or member `n`.
fn peer(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + (n << 6)).into()
}

fn port(n: u32) -> u16 {
    (1 + n % 60_000) as u16
}

/// Rules that differ in one thing each, or in all of them by turns.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Ports,
    Prefixes,
    Groups,
    Mixed,
}

fn rule(shape: Shape, n: u32) -> Rule {
    let remote = match (shape, n % 3) {
        (Shape::Ports, _) | (Shape::Mixed, 0) => Remote::Any,
        (Shape::Prefixes, _) | (Shape::Mixed, 1) => {
            Remote::Prefix(Prefix::around(peer(n), 26).expect("in range"))
        }
        (Shape::Groups, _) | (Shape::Mixed, _) => Remote::Group(GroupId(uuid(n))),
    };
    Rule {
        id: RuleId(uuid(n)),
        group: GROUP,
        direction: Direction::Ingress,
        family: Family::Ipv4,
        protocol: Some(TCP),
        low: port(n),
        high: port(n),
        remote,
    }
}

fn tables(records: impl IntoIterator<Item = Record>) -> Tables {
    let mut tables = Tables::new(TableSizes::uniform(100_000));
    let group = Record::Group(Group {
        group: GROUP,
        stateful: true,
    });
    let binding = Record::Binding(Binding {
        vlan: vlan(),
        group: GROUP,
    });
    for record in [group, binding].into_iter().chain(records) {
        tables.put(&record).expect("there is room");
    }
    tables.settle();
    tables
}

fn with_rules(shape: Shape, count: u32) -> Tables {
    tables((0..count).flat_map(|n| {
        let member = Member {
            group: GroupId(uuid(n)),
            prefix: Prefix::host(peer(n)),
        };
        [Record::Rule(rule(shape, n)), Record::Member(member)]
    }))
}

fn with_members(count: u32) -> Tables {
    let members = (0..count).map(|n| {
        Record::Member(Member {
            group: GroupId(uuid(0)),
            prefix: Prefix::host(peer(n)),
        })
    });
    let rules = (0..10).map(|n| {
        Record::Rule(Rule {
            remote: Remote::Group(GroupId(uuid(0))),
            ..rule(Shape::Ports, n)
        })
    });
    tables(rules.chain(members).collect::<Vec<_>>())
}

fn security() -> Security {
    Security::new(&Config {
        connections: 2 * FLOWS,
        connections_per_vap: 2 * FLOWS,
        fragments: 64,
        seed: 7,
        timeouts: Timeouts::default(),
    })
}

fn packet(remote: IpAddr, source: u16, destination: u16, flags: u8) -> Ip {
    Ip {
        source: remote,
        destination: Ipv4Addr::new(192, 0, 2, 1).into(),
        protocol: TCP,
        hop_limit: 64,
        traffic_class: 0,
        header: 14,
        transport: 34,
        end: 54,
        fragment: None,
        l4: L4::Tcp {
            source,
            destination,
            flags,
        },
    }
}

fn wrap(ip: &Ip) -> Packet<'_> {
    Packet {
        vlan: vlan(),
        direction: Direction::Ingress,
        ip,
        frame: &[],
    }
}

/// First packets, each of a connection of its own, as rule after rule allows them.
fn flows(rules: u32, members: u32) -> Vec<Ip> {
    (0..FLOWS)
        .map(|n| {
            // In no order, so that caches do not know what comes.
            let n = n.wrapping_mul(40_503);
            let (rule, member) = (n % rules, n % members.max(1));
            let remote = if members > 0 { member } else { rule };
            packet(peer(remote), (n % 65_521) as u16, port(rule), SYN)
        })
        .collect()
}

/// What first packets cost, the connection included, in nanoseconds: the best of
/// many short rounds, which go through all cases by turns.
fn first_packets(cases: &[(Tables, Vec<Ip>)]) -> Vec<f64> {
    let mut security = security();
    let mut best = vec![f64::INFINITY; cases.len()];
    for round in 0..ROUNDS {
        for ((tables, flows), best) in cases.iter().zip(&mut best) {
            let from = round * ROUND % flows.len();
            let cost = first_round(&mut security, tables, &flows[from..from + ROUND]);
            *best = best.min(cost);
        }
    }
    best
}

fn first_round(security: &mut Security, tables: &Tables, flows: &[Ip]) -> f64 {
    security.forget(vlan());
    let mut refused = 0;
    let start = Instant::now();
    for ip in flows {
        let admitted = security.admit(tables.rules(), &wrap(ip), Nanos(1 << 40));
        refused += u32::from(black_box(admitted).is_err());
    }
    let elapsed = start.elapsed();
    assert_eq!(refused, 0, "all are allowed");
    elapsed.as_nanos() as f64 / flows.len() as f64
}

/// What each packet after it costs, of so many connections by turns.
fn known_packet(connections: u32) -> f64 {
    let tables = with_rules(Shape::Ports, 10);
    let mut security = security();
    let now = Nanos(1 << 40);
    let mut handles: Vec<_> = flows(10, 0)[..connections as usize]
        .iter()
        .map(|ip| {
            let admitted = security.admit(tables.rules(), &wrap(ip), now);
            let handle = admitted.expect("allowed").connection.expect("stateful");
            for (direction, flags) in [(Direction::Egress, SYN | ACK), (Direction::Ingress, ACK)] {
                let touched = security.touch(handle, direction, flags, now, tables.changes());
                touched.expect("just admitted");
            }
            handle
        })
        .collect();
    // In no order of memory.
    handles.sort_by_cached_key(|handle| format!("{handle:?}").bytes().rev().collect::<Vec<_>>());
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for handle in handles.iter().cycle().take(FLOWS as usize) {
            let touched = security.touch(
                black_box(*handle),
                Direction::Egress,
                ACK,
                now,
                tables.changes(),
            );
            assert!(touched.is_ok());
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(FLOWS));
    }
    best
}

/// Prints the costs of each size, and whether the last is within bounds.
fn row(name: &str, cases: [(Tables, Vec<Ip>); SIZES.len()]) -> bool {
    let costs = first_packets(&cases);
    print!("{name:>12}");
    for (size, cost) in SIZES.iter().zip(&costs) {
        print!("  {size:>6}: {cost:>5.0} ns");
    }
    let ratio = match (costs.first(), costs.last()) {
        (Some(few), Some(many)) => many / few,
        _ => 1.0,
    };
    println!("  {ratio:.2}x");
    ratio <= MOST
}

fn main() -> ExitCode {
    let mut within = true;
    println!("first packet, by rules");
    for shape in [Shape::Ports, Shape::Prefixes, Shape::Groups, Shape::Mixed] {
        let cases = SIZES.map(|count| (with_rules(shape, count), flows(count, 0)));
        within &= row(&format!("{shape:?}"), cases);
    }
    println!("first packet, by members of a remote group");
    let cases = SIZES.map(|count| (with_members(count), flows(10, count)));
    within &= row("members", cases);
    println!("packet of a known connection, by connections");
    for connections in [1, 1_000, 50_000] {
        println!("{connections:>12}  {:>5.1} ns", known_packet(connections));
    }
    println!("{BYTES_PER_CONNECTION} bytes per connection");
    println!("10,000 rules compiled in {} us", compile_time());
    match within {
        true => ExitCode::SUCCESS,
        false => {
            println!("more than {MOST}x");
            ExitCode::FAILURE
        }
    }
}

/// Microseconds to compile 10,000 rules.
fn compile_time() -> u128 {
    let rounds = (0..9).map(|_| {
        let mut tables = with_rules(Shape::Mixed, 10_000);
        let again = Record::Rule(rule(Shape::Mixed, 0));
        tables.put(&again).expect("there is room");
        let start = Instant::now();
        tables.settle();
        start.elapsed().as_micros()
    });
    rounds.min().expect("several")
}
