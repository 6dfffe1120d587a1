//! Which verdicts a change of the tables makes stale: those that it may concern, and
//! hardly any other.

use nve_datapath::*;
use nve_protocol::inspect::{Part, Question};
use nve_protocol::*;

use crate::rig::*;
use crate::routing::{self, GREEN, ROUTER};

/// The flows of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// From red's VAP 101 to 102.
    Here,
    /// From red's VAP 101 to .3 behind PEER.
    Away,
    /// From .3 behind PEER to red's VAP 101.
    From,
    /// From red's VAP 101 by the router to green's VAP 301.
    Routed,
    /// From red's VAP 101 by a route to green's .22 behind PEER.
    Onward,
}

use Flow::*;

const ALL: [Flow; 5] = [Here, Away, From, Routed, Onward];

impl Flow {
    fn send(self, rig: &mut Rig) {
        let to = |last| with_tag(&untagged(mac(1), mac(last), 10), 101);
        let routed = |ip| with_tag(&routing::packet(ip, 64, 10), 101);
        let outcome = match self {
            Here => rig.trunk(&to(2)),
            Away => rig.trunk(&to(3)),
            From => rig.uplink(&tunnelled(PEER, RED, &untagged(mac(3), mac(1), 10))),
            Routed => rig.trunk(&routed(routing::at(3, 21))),
            Onward => rig.trunk(&routed("10.9.0.1".parse().unwrap())),
        };
        assert!(matches!(outcome.verdict, Verdict::Send(_)), "{self:?}");
    }
}

/// A rig in which all flows are known.
fn rig() -> Rig {
    let mut rig = routing::rig();
    for flow in ALL {
        flow.send(&mut rig);
    }
    assert_eq!(good(&mut rig), ALL.len());
    rig
}

/// How many verdicts are good.
fn good(rig: &mut Rig) -> usize {
    let every = Question::Flows {
        cursor: 0,
        vlan: None,
    };
    let answer = rig.datapath.answer(rig.now, &every);
    let parts = answer.into_list();
    let is_flow = |part: &&Part| matches!(part, Part::Flow(_));
    parts.iter().filter(is_flow).count()
}

/// Flows whose verdicts a change makes stale.
fn stale(change: impl Fn(&mut Tables)) -> Vec<Flow> {
    let is_stale = |flow: &Flow| {
        let mut rig = routing::rig();
        flow.send(&mut rig);
        assert_eq!(good(&mut rig), 1);
        rig.datapath.update(rig.now, &change);
        good(&mut rig) == 0
    };
    ALL.into_iter().filter(is_stale).collect()
}

fn put(record: Record) -> Vec<Flow> {
    stale(|tables| {
        tables.put(&record).unwrap();
    })
}

fn delete(record: Record) -> Vec<Flow> {
    stale(|tables| {
        assert!(tables.delete(&record.key()).is_some());
    })
}

fn vlan(id: u16) -> Vlan {
    Vlan::new(id).unwrap()
}

fn qos(id: u16) -> Record {
    Record::Qos(Qos {
        vlan: vlan(id),
        egress: Limit::default(),
        ingress: Limit::default(),
        dscp: Some(9),
    })
}

fn host_member(last: u8) -> Record {
    Record::Member(Member {
        group: GroupId([7; 16]),
        prefix: Prefix::host(ip(last).into()),
    })
}

fn binding(id: u16) -> Record {
    Record::Binding(Binding {
        vlan: vlan(id),
        group: GroupId([7; 16]),
    })
}

fn rule(group: GroupId) -> Record {
    Record::Rule(Rule {
        id: RuleId([7; 16]),
        group,
        direction: Direction::Ingress,
        family: Family::Ipv4,
        protocol: None,
        low: 0,
        high: u16::MAX,
        remote: Remote::Any,
    })
}

const NOTHING: [Flow; 0] = [];

#[test]
fn vaps() {
    assert_eq!(put(vap(102, RED, 9)), [Here]);
    assert_eq!(delete(vap(301, GREEN, 21)), [Routed]);
    assert_eq!(delete(vap(101, RED, 1)), ALL);
    assert_eq!(put(vap(103, RED, 9)), NOTHING);
    // It claims the address.
    assert_eq!(put(vap(103, RED, 3)), [Away]);
    assert_eq!(delete(vap(201, BLUE, 1)), NOTHING);
}

#[test]
fn what_belongs_to_a_vap() {
    for id_of in [qos, binding, |id| address(id, 77)] {
        assert_eq!(put(id_of(101)), ALL);
        assert_eq!(put(id_of(102)), [Here]);
        assert_eq!(put(id_of(301)), [Routed]);
        assert_eq!(put(id_of(201)), NOTHING);
    }
    assert_eq!(delete(address(101, 1)), ALL);
    assert_eq!(delete(address(102, 2)), [Here]);
}

#[test]
fn stations() {
    assert_eq!(put(fdb(RED, 3, OTHER)), [Away]);
    assert_eq!(delete(fdb(RED, 3, PEER)), [Away]);
    assert_eq!(put(fdb(RED, 99, OTHER)), NOTHING);
    assert_eq!(put(fdb(BLUE, 3, OTHER)), NOTHING);
    assert_eq!(put(fdb(GREEN, 22, OTHER)), [Onward]);
    // The same again is no change.
    assert_eq!(put(fdb(RED, 3, PEER)), NOTHING);
}

#[test]
fn neighbors() {
    let neighbor = |last, mac| {
        Record::Neighbor(Neighbor {
            vni: vni(GREEN),
            ip: routing::at(3, last),
            mac,
        })
    };
    assert_eq!(put(neighbor(21, mac(99))), [Routed]);
    assert_eq!(delete(neighbor(22, mac(22))), [Onward]);
    assert_eq!(put(neighbor(99, mac(99))), NOTHING);
}

#[test]
fn tunnels() {
    let peer = Record::Peer(Peer {
        vni: vni(RED),
        vtep: [192, 0, 2, 77].into(),
    });
    assert_eq!(put(peer), [From]);
    assert_eq!(delete(flood(RED, PEER)), [From]);
    assert_eq!(put(flood(GREEN, PEER)), NOTHING);
}

#[test]
fn networks_and_routers() {
    let network = |id| {
        Record::Network(Network {
            vni: vni(id),
            mtu: 1300,
        })
    };
    let from_red = [Here, Away, Routed, Onward];
    assert_eq!(put(network(RED)), from_red);
    assert_eq!(put(network(GREEN)), [Routed, Onward]);
    let route = |router| {
        Record::Route(Route {
            router,
            destination: "10.9.1.0/24".parse().unwrap(),
            next_hop: routing::at(3, 21),
        })
    };
    assert_eq!(put(route(ROUTER)), from_red);
    assert_eq!(put(route(RouterId([8; 16]))), NOTHING);
    let gateway = |id, router| {
        Record::Gateway(Gateway {
            vni: vni(id),
            ip: routing::at(5, 254),
            prefix: "10.0.5.0/24".parse().unwrap(),
            mac: mac(200),
            router,
        })
    };
    assert_eq!(put(gateway(BLUE, ROUTER)), from_red);
    assert_eq!(put(gateway(BLUE, RouterId([8; 16]))), NOTHING);
    assert_eq!(put(gateway(RED, RouterId([8; 16]))), from_red);
}

#[test]
fn groups() {
    let open = open_group(101).into_iter();
    let of_open = open.filter(|record| !matches!(record, Record::Binding(_)));
    for record in of_open {
        assert_eq!(delete(record), ALL);
    }
    let other = GroupId([7; 16]);
    assert_eq!(put(rule(other)), NOTHING);
    let group = Record::Group(Group {
        group: other,
        stateful: true,
    });
    assert_eq!(put(group), NOTHING);
    let bound = |record| {
        stale(|tables| {
            // What came before is no concern.
            tables.put(&binding(102)).unwrap();
            tables.put(&record).unwrap();
        })
    };
    assert_eq!(bound(rule(other)), [Here]);
    assert_eq!(bound(group), [Here]);
    assert_eq!(put(host_member(3)), [Away, From]);
    // Red's .1 sends them all.
    assert_eq!(put(host_member(1)), [Here, Routed]);
    assert_eq!(put(host_member(99)), NOTHING);
    let wide = Record::Member(Member {
        group: other,
        prefix: "10.0.0.0/24".parse().unwrap(),
    });
    assert_eq!(put(wide), ALL);
}

#[test]
fn what_the_nve_answers() {
    let dns = Record::Dns(Dns {
        vni: vni(RED),
        subnet: "10.0.0.0/24".parse().unwrap(),
        index: 0,
        server: ip(53).into(),
    });
    assert_eq!(put(dns), NOTHING);
}

#[test]
fn other_tables_are_others() {
    let replaced = stale(|tables| {
        let other = Tables::new(tables.capacity());
        tables.replace(other);
    });
    assert_eq!(replaced, ALL);
}

#[test]
fn what_is_no_concern_stays_so_however_often() {
    let mut rig = rig();
    for round in 0..20_000u32 {
        let last = 50 + (round % 100) as u8;
        rig.datapath.update(rig.now, |tables| {
            match round / 100 % 2 {
                0 => drop(tables.put(&fdb(RED, last, OTHER)).unwrap()),
                _ => drop(tables.delete(&fdb(RED, last, OTHER).key())),
            };
        });
        // Each flow now and then, the others after many commits.
        if round % 997 == 0 {
            ALL[round as usize % ALL.len()].send(&mut rig);
        }
    }
    assert_eq!(good(&mut rig), ALL.len());
}
