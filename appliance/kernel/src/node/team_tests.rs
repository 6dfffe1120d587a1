//! Several processors in one thread, a turn of each at a time.

use std::time::Duration;

use nve_datapath::{Nanos, Side};
use nve_nic::Pool;
use nve_protocol::handover::{Handover, Known, TakeOver};
use nve_protocol::inspect::{Ask, Origin, Part, Probe, ProbeHead, Question};
use nve_protocol::{
    Address, Begin, Binding, Commit, Direction, Family, Group, GroupId, Limit, PortId, Prefix,
    Presence, Qos, Record, Remote, Rule, RuleId, ToNve, ToShim, Vlan, Vni,
};

use super::shim::Shim;
use super::tests::{
    Bench, NOW, NVE, OTHER_VTEP, PEER, REMOTE, SHIM_KEY, VM, VTEP, WOKEN, bulk, checksum,
};
use super::{Looped, Turn};

const MILLI: u64 = 1_000_000;
const PROCESSORS: usize = 3;

/// A packet of UDP between two hosts of 10.0.0.0/24.
fn packet(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend([10, 0, 0, from, 10, 0, 0, to]);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    ip.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat());
    ip.extend([0, 8, 0, 0]);
    ip
}

fn from_vm(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let link = [&REMOTE.0[..], &VM.0, &[0x81, 0, 0, 101, 8, 0]].concat();
    [link, packet(from, to, ports)].concat()
}

/// The answer to it, in a tunnel.
fn from_remote(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let inner = [&VM.0[..], &REMOTE.0, &[8, 0], &packet(from, to, ports)].concat();
    let udp = 16 + inner.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend([OTHER_VTEP.octets(), VTEP.octets()].concat());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    ip.extend([0xc0, 0, 0x12, 0xb5]);
    ip.extend(udp.to_be_bytes());
    ip.extend([0, 0, 8, 0, 0, 0, 0, 0x13, 0x88, 0]);
    [&NVE.0[..], &PEER.0, &[8, 0], &ip, &inner].concat()
}

/// The VAP with a stateful group that lets it begin.
fn stateful() -> Vec<Record> {
    let (vlan, group) = (Vlan::new(101).unwrap(), GroupId([3; 16]));
    let vap = nve_protocol::Vap {
        vlan,
        port: PortId([7; 16]),
        vni: Vni::new(5000).unwrap(),
        mac: VM,
        port_security: true,
        presence: Presence::Active,
    };
    let address = Address {
        vlan,
        mac: VM,
        prefix: Prefix::new([10, 0, 0, 0].into(), 24).unwrap(),
        fixed: false,
    };
    let rule = Rule {
        id: RuleId([4; 16]),
        group,
        direction: Direction::Egress,
        family: Family::Ipv4,
        protocol: None,
        low: 0,
        high: u16::MAX,
        remote: Remote::Any,
    };
    let group = Group {
        group,
        stateful: true,
    };
    let binding = Binding {
        vlan,
        group: group.group,
    };
    vec![
        Record::Vap(vap),
        Record::Address(address),
        Record::Group(group),
        Record::Rule(rule),
        Record::Binding(binding),
    ]
}

impl Bench {
    fn put(&mut self, records: &[Record]) {
        let put = |tables: &mut nve_datapath::Tables| {
            for record in records {
                tables.put(record).unwrap();
            }
        };
        self.node.datapath().update(self.now, put);
        for other in &mut self.others {
            other.follower.datapath().update(self.now, put);
        }
    }

    fn bring(&self, processor: usize, side: Side, frame: &[u8]) {
        let nic = self.nics(side).nth(processor).unwrap();
        nic.wire.borrow_mut().incoming.push_back(frame.to_vec());
    }

    /// Who sent what there is, on a side.
    fn sender(&mut self, side: Side) -> Option<usize> {
        while self.turn() {}
        let sent: Vec<usize> = self.nics(side).map(|nic| nic.take_sent().len()).collect();
        assert!(sent.iter().sum::<usize>() <= 1, "{sent:?}");
        sent.iter().position(|count| *count == 1)
    }

    fn pools(&self) -> Vec<&'static Pool> {
        let others = self.others.iter().map(|other| other.pool);
        std::iter::once(self.pool).chain(others).collect()
    }
}

fn team() -> Bench {
    let mut bench = Bench::with_processors(PROCESSORS);
    bench.resolve();
    bench
}

/// With a shim.
fn connected() -> (Bench, Shim) {
    let mut bench = Bench::with_processors(PROCESSORS);
    let mut shim = Shim::new(SHIM_KEY, PEER, OTHER_VTEP);
    run(&mut bench, &mut shim, 1500);
    assert_eq!(shim.sessions(), 1);
    (bench, shim)
}

/// Runs both for `millis`, a millisecond at a time.
fn run(bench: &mut Bench, shim: &mut Shim, millis: u64) {
    for _ in 0..millis {
        bench.now = Nanos(bench.now.0 + MILLI);
        NOW.set(bench.now);
        for frame in bench.run(Side::Uplink) {
            shim.wire.incoming.push_back(frame);
        }
        exchange(bench, shim);
    }
}

fn exchange(bench: &mut Bench, shim: &mut Shim) {
    shim.poll(Duration::from_nanos(bench.now.0));
    let mut wire = bench.uplink.wire.borrow_mut();
    wire.incoming.extend(shim.wire.outgoing.drain(..));
}

/// Asks, and waits for the answer's parts.
fn ask(bench: &mut Bench, shim: &mut Shim, question: Question) -> Vec<Part> {
    shim.heard.clear();
    let number = 9;
    shim.send(&[ToNve::Ask(Ask { number, question })]);
    exchange(bench, shim);
    run(bench, shim, 20);
    let parts = shim.heard.iter().filter_map(|message| match message {
        ToShim::Answer(answer) if answer.number == number => Some(answer.part),
        _ => None,
    });
    parts.collect()
}

#[test]
fn packets_between_two_addresses_are_one_processors_wherever_they_come_in() {
    let mut bench = team();
    bench.put(&stateful());
    let mut owners = [0; PROCESSORS];
    for host in 10..30 {
        let out = from_vm(1, host, (1000, 2000));
        let back = from_remote(host, 1, (2000, 1000));
        bench.bring(0, Side::Trunk, &out);
        let owner = bench.sender(Side::Uplink).expect("it is allowed");
        owners[owner] += 1;
        for processor in 0..PROCESSORS {
            bench.bring(processor, Side::Uplink, &back);
            assert_eq!(
                bench.sender(Side::Trunk),
                Some(owner),
                "its connection is there"
            );
            bench.bring(processor, Side::Trunk, &out);
            assert_eq!(bench.sender(Side::Uplink), Some(owner));
        }
    }
    assert!(owners.iter().all(|count| *count > 0), "{owners:?}");
}

#[test]
fn what_was_not_asked_for_does_not_come_in_on_any_processor() {
    let mut bench = team();
    bench.put(&stateful());
    for processor in 0..PROCESSORS {
        bench.bring(processor, Side::Uplink, &from_remote(10, 1, (2000, 1000)));
        assert_eq!(bench.sender(Side::Trunk), None);
    }
}

#[test]
fn buffers_come_back_to_where_frames_come_in() {
    let mut bench = team();
    let free = |bench: &Bench| -> Vec<usize> {
        bench.pools().iter().map(|pool| pool.available()).collect()
    };
    let before: usize = free(&bench).iter().sum();
    for round in 0..200 {
        for host in 0..100 {
            bench.bring(0, Side::Trunk, &from_vm(1, host, (1, round)));
        }
        assert_eq!(bench.run(Side::Uplink).len(), 100);
    }
    let after = free(&bench);
    assert_eq!(after.iter().sum::<usize>(), before, "none is lost");
    assert!(after[0] >= 64, "{after:?}");
    let handed = bench.node.forwarder.handed();
    assert!(handed > 8000, "{handed}");
}

#[test]
fn a_large_frame_goes_to_its_processor_whole() {
    let mut bench = team();
    let free = |bench: &Bench| -> usize { bench.pools().iter().map(|pool| pool.available()).sum() };
    bench.bring(0, Side::Trunk, &from_vm(1, 2, (1, 2)));
    let owner = bench.sender(Side::Uplink).unwrap();
    let before = free(&bench);
    for round in 0..20 {
        let elsewhere = (owner + 1 + round % 2) % PROCESSORS;
        bench.bring(elsewhere, Side::Trunk, &bulk(REMOTE, 60_000));
        while bench.turn() {}
        let uplinks = bench.nics(Side::Uplink);
        let sent: Vec<usize> = uplinks.map(|nic| nic.take_sent().len()).collect();
        let segments = 60_000usize.div_ceil(1400);
        for (number, count) in sent.into_iter().enumerate() {
            assert_eq!(count, if number == owner { segments } else { 0 });
        }
    }
    assert_eq!(free(&bench), before, "none is lost");
}

/// A turn of one processor.
fn poll(bench: &mut Bench, processor: usize) {
    let now = bench.now;
    match processor.checked_sub(1) {
        None => bench.node.poll(now),
        Some(other) => bench.others[other].follower.poll(now),
    };
}

#[test]
fn whose_frames_are_taken_first_changes() {
    let mut bench = team();
    bench.bring(0, Side::Trunk, &from_vm(1, 2, (1, 2)));
    let owner = bench.sender(Side::Uplink).unwrap();
    for (steady, bulky) in [(1, 2), (2, 1)] {
        let [steady, bulky] = [steady, bulky].map(|away| (owner + away) % PROCESSORS);
        bench.bring(bulky, Side::Trunk, &bulk(REMOTE, 60_000));
        poll(&mut bench, bulky);
        let mut sent = 0;
        for _ in 0..PROCESSORS {
            bench.bring(steady, Side::Trunk, &from_vm(1, 2, (1, 2)));
            poll(&mut bench, steady);
            poll(&mut bench, owner);
            sent += bench
                .nics(Side::Uplink)
                .nth(owner)
                .unwrap()
                .take_sent()
                .len();
        }
        assert!(sent >= 60_000usize.div_ceil(1400), "{sent}");
        bench.run(Side::Uplink);
    }
}

#[test]
fn what_only_looks_tunnelled_takes_no_buffers() {
    let mut bench = team();
    let mut frame = from_remote(10, 1, (2000, 1000));
    // The outer packet ends before the headers of UDP.
    frame[16..18].copy_from_slice(&[0, 20]);
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum);
    let free = |bench: &Bench| -> Vec<usize> {
        bench.pools().iter().map(|pool| pool.available()).collect()
    };
    let before = free(&bench);
    for _ in 0..200 {
        for processor in 0..PROCESSORS {
            bench.bring(processor, Side::Uplink, &frame);
        }
        bench.run(Side::Trunk);
    }
    let after = free(&bench);
    assert_eq!(after.iter().sum::<usize>(), before.iter().sum::<usize>());
}

#[test]
fn a_processor_that_does_not_run_holds_up_nobody() {
    let mut bench = team();
    for host in 0..100 {
        for _ in 0..10 {
            bench.bring(0, Side::Trunk, &from_vm(1, host, (1, 2)));
        }
    }
    for _ in 0..200 {
        bench.node.poll(bench.now);
    }
    let sent = bench.uplink.take_sent().len();
    let stats = bench.node.stats(bench.now);
    let lost: u64 = stats.drops.iter().sum();
    assert!(sent > 100, "{sent}");
    assert!(lost > 0, "rings were full");
    let rest = bench.run(Side::Uplink).len();
    assert_eq!(sent + rest + lost as usize, 1000);
}

#[test]
fn a_sleeping_processor_is_woken_for_frames_and_mail() {
    let mut bench = team();
    let host = (0..100)
        .find(|host| {
            bench.bring(0, Side::Trunk, &from_vm(1, *host, (1, 2)));
            bench.sender(Side::Uplink) == Some(2)
        })
        .unwrap();
    WOKEN.take();
    let other = &mut bench.others[1].follower;
    assert!(!other.arm_interrupts());
    bench.bring(0, Side::Trunk, &from_vm(1, host, (1, 2)));
    bench.node.poll(bench.now);
    assert_eq!(WOKEN.take(), [2]);
    let other = &mut bench.others[1].follower;
    assert!(other.arm_interrupts(), "it would not have slept");
    other.disarm_interrupts();
    bench.node.poll(bench.now);
    assert_eq!(WOKEN.take(), []);
}

#[test]
fn a_commit_is_acknowledged_when_it_holds_everywhere() {
    let (mut bench, mut shim) = connected();
    shim.send_state(4, &stateful());
    exchange(&mut bench, &mut shim);
    // The others stand still.
    for _ in 0..100 {
        bench.now = Nanos(bench.now.0 + MILLI);
        NOW.set(bench.now);
        bench.node.poll(bench.now);
        shim.wire.incoming.extend(bench.uplink.take_sent());
        exchange(&mut bench, &mut shim);
    }
    assert_eq!(bench.node.tables().sizes().rules, 1);
    assert_eq!(shim.applied(), None);
    run(&mut bench, &mut shim, 50);
    assert_eq!(shim.applied(), Some(4));
    for other in &bench.others {
        assert_eq!(
            other.follower.tables().digest(),
            bench.node.tables().digest()
        );
    }
    bench.bring(0, Side::Uplink, &from_remote(10, 1, (2000, 1000)));
    assert_eq!(bench.sender(Side::Trunk), None, "its rules hold");
}

#[test]
fn a_limit_holds_for_all_processors_together() {
    let mut bench = team();
    let limit = Limit {
        kbps: 0,
        burst_kbit: 0,
        pps: 1,
        burst_packets: 10,
    };
    bench.put(&[Record::Qos(Qos {
        vlan: Vlan::new(101).unwrap(),
        egress: limit,
        ingress: Limit::default(),
        dscp: None,
    })]);
    for host in 0..50 {
        bench.bring(
            usize::from(host) % PROCESSORS,
            Side::Trunk,
            &from_vm(1, host, (1, 2)),
        );
    }
    assert_eq!(bench.run(Side::Uplink).len(), 10);
}

#[test]
fn processors_whose_tables_differ_are_reset() {
    let (mut bench, mut shim) = connected();
    bench.others[0]
        .follower
        .datapath()
        .update(Nanos(0), |tables| {
            tables.put(&stateful()[2]).unwrap();
        });
    // A change on top of what is there: the digest is another one.
    let records = &stateful()[4..];
    let mut digest = bench.node.tables().digest();
    digest.add(&records[0]);
    let (generation, full) = (4, false);
    shim.send(&[
        ToNve::Begin(Begin { generation, full }),
        ToNve::Put(records[0]),
        ToNve::Commit(Commit { generation, digest }),
    ]);
    exchange(&mut bench, &mut shim);
    let mut last = Turn::Idle;
    for _ in 0..100 {
        for other in &mut bench.others {
            other.follower.poll(bench.now);
        }
        last = bench.node.poll(bench.now);
        if last == Turn::Split {
            break;
        }
    }
    assert_eq!(last, Turn::Split);
}

#[test]
fn counters_are_those_of_all_processors() {
    let mut bench = team();
    let mut unknown = from_vm(1, 2, (1, 2));
    unknown[15] = 77;
    for processor in 0..PROCESSORS {
        bench.bring(processor, Side::Trunk, &unknown);
    }
    bench.now = Nanos(bench.now.0 + 200 * MILLI);
    bench.run(Side::Uplink);
    bench.now = Nanos(bench.now.0 + 200 * MILLI);
    bench.run(Side::Uplink);
    let stats = bench.node.stats(bench.now);
    assert_eq!(stats.drops.iter().sum::<u64>(), 3);
}

#[test]
fn questions_are_answered_for_all_processors() {
    let (mut bench, mut shim) = connected();
    bench.put(&stateful());
    for host in 10..20 {
        bench.bring(0, Side::Trunk, &from_vm(1, host, (1000, 2000)));
    }
    bench.run(Side::Uplink);
    for host in 10..20 {
        bench.bring(1, Side::Uplink, &from_remote(host, 1, (2000, 1000)));
        bench.bring(2, Side::Uplink, &from_remote(host, 1, (2000, 1001)));
    }
    bench.run(Side::Uplink);
    for host in 10..20 {
        bench.bring(0, Side::Trunk, &from_vm(1, host, (1000, 2000)));
    }
    bench.run(Side::Uplink);
    let (mut cursor, mut flows) = (0, 0);
    loop {
        let parts = ask(
            &mut bench,
            &mut shim,
            Question::Flows { cursor, vlan: None },
        );
        flows += parts
            .iter()
            .filter(|part| matches!(part, Part::Flow(_)))
            .count();
        let Some(Part::Done(done)) = parts.last() else {
            panic!("{parts:?}");
        };
        if done.next == 0 {
            break;
        }
        cursor = done.next as u32;
    }
    assert!(flows >= 10, "{flows}");
    let parts = ask(&mut bench, &mut shim, Question::Drops { after: 0 });
    let drops = parts
        .iter()
        .filter(|part| matches!(part, Part::Drop(_)))
        .count();
    assert_eq!(drops, 10, "{parts:?}");
    // A trace knows of the connection, wherever that is.
    for host in 10..20 {
        let inner = &from_remote(host, 1, (2000, 1000))[50..];
        let probe = Probe {
            origin: Origin::Tunnel(nve_protocol::inspect::Tunnel {
                vni: Vni::new(5000).unwrap(),
                vtep: OTHER_VTEP.into(),
            }),
            length: inner.len() as u16,
            head: ProbeHead::front(inner),
        };
        let parts = ask(&mut bench, &mut shim, Question::Trace(probe));
        let text = format!("{parts:?}");
        assert!(text.contains("connection: Some"), "{text}");
    }
}

fn on_standby() -> Vec<Record> {
    let mut records = stateful();
    if let Record::Vap(vap) = &mut records[0] {
        vap.presence = Presence::Standby;
    }
    records
}

fn place() -> nve_protocol::inspect::Place {
    nve_protocol::inspect::Place {
        vlan: Vlan::new(101).unwrap(),
        port: PortId([7; 16]),
    }
}

#[test]
fn a_vm_is_there_for_all_processors_wherever_it_is_heard() {
    // Hosts whose packets are each processor's.
    let mut probe = team();
    let hosts: Vec<u8> = (0..PROCESSORS)
        .map(|owner| {
            let is_owners = |host: &u8| {
                probe.bring(0, Side::Trunk, &from_vm(1, *host, (1, 2)));
                probe.sender(Side::Uplink) == Some(owner)
            };
            (10..100).find(is_owners).unwrap()
        })
        .collect();
    for host in hosts {
        let (mut bench, mut shim) = connected();
        shim.send_state(4, &on_standby());
        exchange(&mut bench, &mut shim);
        run(&mut bench, &mut shim, 50);
        assert_eq!(shim.applied(), Some(4));
        let is_here = |tables: &nve_datapath::Tables| {
            let vap = tables.vap(101).unwrap();
            tables.is_here(vap)
        };
        let all_here = |bench: &Bench| {
            let mut others = bench.others.iter();
            is_here(bench.node.tables()) && others.all(|other| is_here(other.follower.tables()))
        };
        assert!(!is_here(bench.node.tables()));
        bench.bring(0, Side::Trunk, &from_vm(1, host, (1, 2)));
        run(&mut bench, &mut shim, 5);
        assert!(all_here(&bench));
        let awake = ToShim::Awake(place());
        let told = |shim: &Shim| shim.heard.iter().filter(|heard| **heard == awake).count();
        assert_eq!(told(&shim), 1);
        // The same state again: it is awake still, on all.
        shim.send_state(5, &on_standby());
        run(&mut bench, &mut shim, 50);
        assert_eq!(shim.applied(), Some(5));
        assert!(all_here(&bench));
        assert_eq!(told(&shim), 1);
    }
}

#[test]
fn a_sleeping_first_processor_is_woken_for_a_vm_that_was_heard() {
    let mut bench = team();
    bench.put(&on_standby());
    let host = (0..100)
        .find(|host| {
            bench.bring(0, Side::Trunk, &from_vm(1, *host, (1, 2)));
            bench.sender(Side::Uplink) == Some(2)
        })
        .unwrap();
    // Anew, since it was heard in finding out.
    bench.put(&stateful());
    bench.put(&on_standby());
    while bench.turn() {}
    assert!(!bench.node.arm_interrupts());
    WOKEN.take();
    bench.bring(2, Side::Trunk, &from_vm(1, host, (1, 2)));
    poll(&mut bench, 2);
    assert!(WOKEN.take().contains(&0));
    assert!(bench.node.arm_interrupts(), "it would not have slept");
    bench.node.disarm_interrupts();
}

/// Everything that is known of the VAP.
fn handed_over(bench: &mut Bench, shim: &mut Shim) -> Vec<Known> {
    let (mut cursor, mut all) = (0, Vec::new());
    loop {
        let question = Question::Handover(Handover {
            place: place(),
            cursor,
            within_ms: u32::MAX,
        });
        let mut parts = ask(bench, shim, question);
        let Some(Part::Done(done)) = parts.pop() else {
            panic!("{parts:?}");
        };
        all.extend(parts.into_iter().filter_map(|part| match part {
            Part::Known(known) => Some(known),
            _ => None,
        }));
        if !done.more {
            return all;
        }
        cursor = done.next;
    }
}

#[test]
fn connections_of_all_processors_go_to_those_of_another_nve() {
    let (mut source, mut shim) = connected();
    let limit = Limit {
        pps: 1_000_000,
        ..Limit::default()
    };
    let qos = Record::Qos(Qos {
        vlan: Vlan::new(101).unwrap(),
        egress: limit,
        ingress: limit,
        dscp: None,
    });
    source.put(&stateful());
    source.put(&[qos]);
    for host in 10..30 {
        source.bring(0, Side::Trunk, &from_vm(1, host, (1000, 2000)));
    }
    source.run(Side::Uplink);
    let known = handed_over(&mut source, &mut shim);
    let is_level = |known: &&Known| matches!(known, Known::Level(_));
    assert_eq!(known.iter().filter(is_level).count(), 2);
    assert_eq!(known.len(), 2 + 20);
    let (mut new, mut shim) = connected();
    new.put(&on_standby());
    new.put(&[qos]);
    let place = place();
    let told = known.iter().map(|known| {
        let known = *known;
        ToNve::TakeOver(TakeOver { place, known })
    });
    shim.send(&told.collect::<Vec<_>>());
    exchange(&mut new, &mut shim);
    run(&mut new, &mut shim, 50);
    assert_eq!(
        handed_over(&mut new, &mut shim).len(),
        known.len(),
        "each once"
    );
    new.bring(0, Side::Trunk, &from_vm(1, 99, (1, 2)));
    run(&mut new, &mut shim, 5);
    for host in 10..30 {
        new.bring(1, Side::Uplink, &from_remote(host, 1, (2000, 1000)));
        assert!(new.sender(Side::Trunk).is_some(), "{host}");
    }
}
