//! What passes, scenario by scenario.

extern crate std;
use core::net::IpAddr;
use std::vec::Vec;

use etherparse::PacketBuilder;

use nve_protocol::{Binding, Family, Group, GroupId, Key, Record, Remote, Rule, TableSizes};

use super::*;
use crate::connections::{ACK, FIN, RST, SYN, Timeouts};
use crate::packet::{Fragment, L4};
use crate::tables::Tables;

const VM: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2));
const STATEFUL: GroupId = GroupId([1; 16]);
const STATELESS: GroupId = GroupId([2; 16]);
const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;
const DENIED: Result<Admission, DropReason> = Err(DropReason::SecurityGroup);

fn vlan(id: u16) -> Vlan {
    Vlan::new(id).unwrap()
}

fn rule(id: u8, direction: Direction, protocol: u8, ports: (u16, u16)) -> Rule {
    Rule {
        id: RuleId([id; 16]),
        group: STATEFUL,
        direction,
        family: Family::Ipv4,
        protocol: Some(protocol),
        low: ports.0,
        high: ports.1,
        remote: Remote::Any,
    }
}

struct Rig {
    tables: Tables,
    security: Security,
    now: Nanos,
}

impl Rig {
    fn new(rules: &[Rule]) -> Rig {
        let config = Config {
            connections: 64,
            connections_per_vap: 32,
            fragments: 64,
            seed: 1,
            timeouts: Timeouts::default(),
        };
        let mut rig = Rig {
            tables: Tables::new(TableSizes::uniform(100)),
            security: Security::new(&config),
            now: Nanos(1 << 40),
        };
        rig.tables.tell_changes_apart();
        for (group, stateful) in [(STATEFUL, true), (STATELESS, false)] {
            rig.put(Record::Group(Group { group, stateful }));
            for id in 1..10 {
                rig.put(Record::Binding(Binding {
                    vlan: vlan(id),
                    group,
                }));
            }
        }
        for rule in rules {
            rig.put(Record::Rule(*rule));
        }
        rig
    }

    fn put(&mut self, record: Record) {
        self.tables.put(&record).unwrap();
        self.commit();
    }

    fn delete(&mut self, rule: u8) {
        let id = RuleId([rule; 16]);
        assert!(self.tables.delete(&Key::Rule { id }).is_some());
        self.commit();
    }

    fn commit(&mut self) {
        self.tables.settle();
    }

    fn touch(&mut self, handle: Handle, direction: Direction, flags: u8) -> Result<bool, Stale> {
        let changes = self.tables.changes();
        self.security
            .touch(handle, direction, flags, self.now, changes)
    }

    fn wait(&mut self, seconds: u64) {
        self.now.0 += seconds * 1_000_000_000;
    }

    fn admit_frame(&mut self, packet: &Packet<'_>) -> Result<Admission, DropReason> {
        let rules = self.tables.rules();
        let judged = self.security.judge(rules, packet, self.now, None);
        let admitted = self.security.admit(rules, packet, self.now);
        // A trace tells the same, but for lack of room.
        match (judged, admitted) {
            (_, Err(DropReason::ConnectionLimit)) => {}
            (judged, Err(reason)) => assert_eq!(judged, Err(reason)),
            (judged, Ok(admission)) => assert_eq!(judged.unwrap().rule, admission.rule),
        }
        admitted
    }

    fn admit(
        &mut self,
        id: u16,
        direction: Direction,
        number: u8,
        l4: L4,
    ) -> Result<Admission, DropReason> {
        let ip = ip(direction, number, l4);
        self.admit_frame(&Packet {
            vlan: vlan(id),
            direction,
            ip: &ip,
            frame: &[],
        })
    }

    /// TCP between the VM's port 5000 and the peer's `port`.
    fn tcp(&mut self, direction: Direction, port: u16, flags: u8) -> Result<Admission, DropReason> {
        let (source, destination) = ends(direction, 5000, port);
        let l4 = L4::Tcp {
            source,
            destination,
            flags,
        };
        self.admit(1, direction, protocol::TCP, l4)
    }

    fn udp(
        &mut self,
        direction: Direction,
        local: u16,
        remote: u16,
    ) -> Result<Admission, DropReason> {
        let (source, destination) = ends(direction, local, remote);
        let l4 = L4::Ports {
            source,
            destination,
        };
        self.admit(1, direction, protocol::UDP, l4)
    }

    fn icmp(&mut self, direction: Direction, kind: u8, id: u16) -> Result<Admission, DropReason> {
        let l4 = L4::Icmp { kind, code: 0, id };
        self.admit(1, direction, protocol::ICMP, l4)
    }

    fn state(&self) -> Option<State> {
        let mut all = self.security.connections(vlan(1), self.now);
        all.next().map(|connection| connection.state)
    }
}

fn ends(direction: Direction, local: u16, remote: u16) -> (u16, u16) {
    match direction {
        Direction::Ingress => (remote, local),
        Direction::Egress => (local, remote),
    }
}

fn ip(direction: Direction, protocol: u8, l4: L4) -> Ip {
    let (source, destination) = match direction {
        Direction::Ingress => (PEER, VM),
        Direction::Egress => (VM, PEER),
    };
    Ip {
        source,
        destination,
        protocol,
        hop_limit: 64,
        traffic_class: 0,
        header: 14,
        transport: 34,
        end: 60,
        fragment: None,
        l4,
    }
}

#[test]
fn replies_pass_and_nothing_else() {
    let mut rig = Rig::new(&[rule(7, OUT, 6, (80, 80))]);
    assert_eq!(rig.tcp(IN, 80, SYN), DENIED);
    assert_eq!(rig.tcp(OUT, 81, SYN), DENIED);
    let opened = rig.tcp(OUT, 80, SYN).unwrap();
    assert_eq!(opened.rule, Some(RuleId([7; 16])));
    assert!(!opened.lasting);
    assert!(rig.tcp(IN, 80, SYN | ACK).unwrap().lasting);
    assert!(rig.tcp(OUT, 80, ACK).is_ok());
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.tcp(IN, 81, SYN | ACK), DENIED);
    assert_eq!(rig.udp(IN, 5000, 80), DENIED);
    assert_eq!(rig.security.count(), 1);
    let other = rig.admit(
        2,
        IN,
        protocol::TCP,
        L4::Tcp {
            source: 80,
            destination: 5000,
            flags: ACK,
        },
    );
    assert_eq!(other, DENIED);
}

#[test]
fn a_port_without_groups_gets_nothing() {
    let mut rig = Rig::new(&[rule(7, OUT, 17, (0, 65535))]);
    let l4 = L4::Ports {
        source: 1,
        destination: 2,
    };
    assert_eq!(rig.admit(20, OUT, protocol::UDP, l4), DENIED);
    assert!(rig.admit(2, OUT, protocol::UDP, l4).is_ok());
}

#[test]
fn idle_connections_end() {
    let mut rig = Rig::new(&[rule(7, OUT, 17, (0, 65535))]);
    assert!(rig.udp(OUT, 1, 2).is_ok());
    rig.wait(29);
    assert!(rig.udp(IN, 1, 2).is_ok());
    rig.wait(119);
    assert!(rig.udp(IN, 1, 2).is_ok());
    rig.wait(121);
    assert_eq!(rig.udp(IN, 1, 2), DENIED);
    assert_eq!(rig.security.age(rig.now, 10), 1);
    assert_eq!(rig.security.count(), 0);
}

#[test]
fn a_rule_change_cuts_what_is_no_longer_allowed_and_nothing_else() {
    let all = [rule(1, IN, 6, (5000, 5000)), rule(2, OUT, 6, (0, 65535))];
    let mut rig = Rig::new(&all);
    for (first, second, port) in [(IN, OUT, 1), (OUT, IN, 2)] {
        assert!(rig.tcp(first, port, SYN).is_ok());
        assert!(rig.tcp(second, port, SYN | ACK).is_ok());
        assert!(rig.tcp(first, port, ACK).is_ok());
    }
    let kept = rig.tcp(OUT, 2, ACK).unwrap().connection.unwrap();
    let lost = rig.tcp(OUT, 1, ACK).unwrap().connection.unwrap();
    rig.delete(1);
    assert!(rig.touch(lost, OUT, ACK).is_err());
    // Its answers would be allowed as packets of their own, and are not.
    assert_eq!(rig.tcp(OUT, 1, ACK), DENIED);
    assert_eq!(rig.tcp(IN, 1, ACK), DENIED);
    rig.wait(100);
    assert_eq!(rig.tcp(OUT, 1, ACK), DENIED);
    assert!(rig.touch(lost, OUT, ACK).is_err());
    assert_eq!(rig.tcp(IN, 2, ACK).unwrap().connection, Some(kept));
    assert!(rig.touch(kept, OUT, ACK).is_ok());
    // A connection of its own, the other way, is none of that.
    assert!(rig.tcp(OUT, 1, SYN).is_ok());
    assert!(rig.tcp(IN, 1, SYN | ACK).is_ok());
    assert_eq!(rig.security.count(), 2);
}

#[test]
fn what_is_allowed_again_goes_on() {
    let mut rig = Rig::new(&[rule(1, IN, 17, (53, 53))]);
    assert!(rig.udp(IN, 53, 9).is_ok());
    rig.delete(1);
    assert_eq!(rig.udp(OUT, 53, 9), DENIED);
    assert_eq!(rig.udp(IN, 53, 9), DENIED);
    rig.put(Record::Rule(rule(3, IN, 17, (50, 60))));
    let again = rig.udp(OUT, 53, 9).unwrap();
    assert_eq!(again.rule, Some(RuleId([3; 16])));
    // Another rule that allows it in time changes nothing but the answer.
    rig.put(Record::Rule(rule(2, IN, 17, (53, 53))));
    assert_eq!(rig.udp(IN, 53, 9).unwrap().rule, Some(RuleId([2; 16])));
    assert_eq!(rig.security.count(), 1);
}

#[test]
fn what_is_cut_one_way_may_be_allowed_the_other() {
    let rules = [rule(1, IN, 47, (0, 65535)), rule(2, OUT, 47, (0, 65535))];
    let mut rig = Rig::new(&rules);
    assert!(rig.admit(1, IN, 47, L4::None).is_ok());
    assert!(rig.admit(1, OUT, 47, L4::None).is_ok());
    rig.delete(1);
    for _ in 0..2 {
        let sent = rig.admit(1, OUT, 47, L4::None).unwrap();
        assert_eq!((sent.connection, sent.lasting), (None, false));
        assert_eq!(rig.admit(1, IN, 47, L4::None), DENIED);
    }
    // Answers pass when the other end has been silent for long enough.
    rig.wait(181);
    assert!(
        rig.admit(1, OUT, 47, L4::None)
            .unwrap()
            .connection
            .is_some()
    );
    assert!(rig.admit(1, IN, 47, L4::None).is_ok());
}

#[test]
fn the_middle_of_tcp_opens_a_connection_but_its_end_does_not() {
    let mut rig = Rig::new(&[rule(1, OUT, 6, (0, 65535))]);
    for flags in [RST, RST | ACK, FIN | ACK, SYN | ACK, 0] {
        let alone = rig.tcp(OUT, 1, flags).unwrap();
        assert_eq!((alone.connection, alone.lasting), (None, false));
    }
    assert_eq!(rig.tcp(IN, 1, ACK), DENIED);
    assert!(rig.tcp(OUT, 1, ACK).unwrap().connection.is_some());
    assert!(rig.tcp(IN, 1, ACK).is_ok());
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn a_syn_begins_another_connection_by_the_rules() {
    let mut rig = Rig::new(&[rule(1, OUT, 6, (0, 65535))]);
    let first = rig.tcp(OUT, 1, SYN).unwrap().connection.unwrap();
    assert!(rig.tcp(IN, 1, RST | ACK).is_ok());
    assert_eq!(rig.tcp(IN, 1, SYN), DENIED);
    assert!(rig.touch(first, OUT, ACK).is_ok());
    assert!(rig.touch(first, OUT, SYN).is_err());
    let second = rig.tcp(OUT, 1, SYN).unwrap().connection.unwrap();
    assert_ne!(first, second);
    assert!(rig.touch(first, OUT, ACK).is_err());
    assert_eq!(rig.security.count(), 1);
}

#[test]
fn stateless_groups_allow_each_packet_by_itself() {
    let stateless = |rule: Rule| Rule {
        group: STATELESS,
        ..rule
    };
    let mut rig = Rig::new(&[stateless(rule(1, OUT, 17, (53, 53)))]);
    let sent = rig.udp(OUT, 9, 53).unwrap();
    assert_eq!((sent.connection, sent.lasting), (None, true));
    assert_eq!(rig.udp(IN, 9, 53), DENIED);
    rig.put(Record::Rule(stateless(rule(2, IN, 17, (9, 9)))));
    assert!(rig.udp(IN, 9, 53).is_ok());
    assert_eq!(rig.security.count(), 0);
    // Both kinds: replies pass by the connection.
    rig.put(Record::Rule(rule(3, OUT, 17, (53, 53))));
    rig.delete(2);
    assert_eq!(rig.udp(OUT, 9, 53).unwrap().rule, Some(RuleId([3; 16])));
    assert!(rig.udp(IN, 9, 53).is_ok());
    // What is cut as a connection still passes by itself.
    rig.delete(3);
    assert_eq!(rig.udp(IN, 9, 53), DENIED);
    assert_eq!(rig.udp(OUT, 9, 53).unwrap().rule, Some(RuleId([1; 16])));
}

#[test]
fn icmp_echo_has_answers_and_only_to_its_identifier() {
    let mut rig = Rig::new(&[rule(1, OUT, 1, (8 << 8, 8 << 8 | 255))]);
    assert_eq!(rig.icmp(IN, 0, 7), DENIED);
    assert_eq!(rig.icmp(OUT, 0, 7), DENIED);
    assert!(rig.icmp(OUT, 8, 7).is_ok());
    assert!(rig.icmp(IN, 0, 7).is_ok());
    assert_eq!(rig.icmp(IN, 0, 8), DENIED);
    // The peer's own query of the same identifier is not an answer.
    assert_eq!(rig.icmp(OUT, 13, 0), DENIED);
    rig.delete(1);
    assert_eq!(rig.icmp(OUT, 8, 7), DENIED);
    assert_eq!(rig.icmp(IN, 0, 7), DENIED);
}

#[test]
fn other_protocols_go_by_addresses() {
    let mut rig = Rig::new(&[rule(1, OUT, 47, (0, 65535))]);
    assert_eq!(rig.admit(1, IN, 47, L4::None), DENIED);
    assert!(rig.admit(1, OUT, 47, L4::None).is_ok());
    assert!(rig.admit(1, IN, 47, L4::None).is_ok());
    assert_eq!(rig.admit(1, IN, 50, L4::None), DENIED);
}

/// An ICMP error towards the VM that quotes what the VM has sent from `port`.
fn unreachable(port: u16, cut: usize) -> Vec<u8> {
    let mut quoted = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 1)
        .udp(port, 2)
        .write(&mut quoted, &[1; 40])
        .unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 9, 9, 9], [10, 0, 0, 1], 64)
        .icmpv4_raw(3, 1, [0; 4])
        .write(&mut frame, &quoted[..quoted.len() - cut])
        .unwrap();
    frame
}

#[test]
fn icmp_errors_pass_if_they_tell_of_a_connection() {
    let mut rig = Rig::new(&[rule(1, OUT, 17, (0, 65535))]);
    let send = |rig: &mut Rig, frame: &[u8], direction| {
        let headers = crate::packet::Headers::parse(frame).unwrap();
        rig.admit_frame(&Packet {
            vlan: vlan(1),
            direction,
            ip: &headers.ip.unwrap(),
            frame,
        })
    };
    assert_eq!(send(&mut rig, &unreachable(1, 0), IN), DENIED);
    assert!(rig.udp(OUT, 1, 2).is_ok());
    rig.wait(20);
    for cut in [0, 40] {
        let related = send(&mut rig, &unreachable(1, cut), IN).unwrap();
        assert_eq!(related.rule, Some(RuleId([1; 16])));
        assert!(!related.lasting);
    }
    assert_eq!(send(&mut rig, &unreachable(3, 0), IN), DENIED);
    // Quotes what its sender has sent, not its receiver.
    assert_eq!(send(&mut rig, &unreachable(1, 0), OUT), DENIED);
    // Nor does an error keep the connection alive.
    rig.wait(11);
    assert_eq!(send(&mut rig, &unreachable(1, 0), IN), DENIED);
    assert_eq!(rig.security.count(), 1);
}

fn piece(direction: Direction, offset: u16, id: u32, l4: L4) -> Ip {
    Ip {
        fragment: Some(Fragment {
            id,
            offset,
            more: true,
        }),
        ..ip(direction, protocol::UDP, l4)
    }
}

#[test]
fn later_fragments_follow_their_first() {
    let mut rig = Rig::new(&[rule(1, OUT, 17, (53, 53))]);
    let ports = L4::Ports {
        source: 9,
        destination: 53,
    };
    let send = |rig: &mut Rig, direction, ip: Ip| {
        rig.admit_frame(&Packet {
            vlan: vlan(1),
            direction,
            ip: &ip,
            frame: &[],
        })
    };
    const DROPPED: Result<Admission, DropReason> = Err(DropReason::Fragment);
    assert_eq!(send(&mut rig, OUT, piece(OUT, 1400, 5, L4::None)), DROPPED);
    let first = send(&mut rig, OUT, piece(OUT, 0, 5, ports)).unwrap();
    assert!(!first.lasting);
    let later = send(&mut rig, OUT, piece(OUT, 1400, 5, L4::None)).unwrap();
    assert_eq!(later.connection, first.connection);
    assert_eq!(send(&mut rig, OUT, piece(OUT, 1400, 6, L4::None)), DROPPED);
    assert_eq!(send(&mut rig, IN, piece(IN, 1400, 5, L4::None)), DROPPED);
    rig.delete(1);
    assert_eq!(send(&mut rig, OUT, piece(OUT, 1400, 5, L4::None)), DENIED);
    // Its connection is cut, and with it the handle.
    assert_eq!(send(&mut rig, OUT, piece(OUT, 1400, 5, L4::None)), DROPPED);
    rig.put(Record::Rule(Rule {
        group: STATELESS,
        ..rule(2, IN, 17, (9, 9))
    }));
    let ports = L4::Ports {
        source: 53,
        destination: 9,
    };
    assert!(send(&mut rig, IN, piece(IN, 0, 8, ports)).is_ok());
    assert!(send(&mut rig, IN, piece(IN, 1400, 8, L4::None)).is_ok());
    rig.wait(31);
    assert_eq!(send(&mut rig, IN, piece(IN, 1400, 8, L4::None)), DROPPED);
}

#[test]
fn fragments_may_not_write_over_the_header_of_tcp() {
    let mut rig = Rig::new(&[rule(1, OUT, 6, (80, 80))]);
    let mut send = |offset, l4| {
        let ip = Ip {
            protocol: protocol::TCP,
            ..piece(OUT, offset, 5, l4)
        };
        rig.admit_frame(&Packet {
            vlan: vlan(1),
            direction: OUT,
            ip: &ip,
            frame: &[],
        })
    };
    let syn = L4::Tcp {
        source: 1,
        destination: 80,
        flags: SYN,
    };
    assert!(send(0, syn).is_ok());
    assert_eq!(send(8, L4::None), Err(DropReason::Fragment));
    assert_eq!(send(16, L4::None), Err(DropReason::Fragment));
    assert!(send(24, L4::None).is_ok());
}

#[test]
fn discovery_and_dhcp_need_no_rule() {
    let mut rig = Rig::new(&[]);
    let six = |last: u16| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
    let mut send = |direction, kind, hop_limit| {
        let l4 = L4::Icmp {
            kind,
            code: 0,
            id: 0,
        };
        let ip = Ip {
            source: six(1),
            destination: six(2),
            hop_limit,
            ..ip(direction, protocol::ICMPV6, l4)
        };
        rig.admit_frame(&Packet {
            vlan: vlan(1),
            direction,
            ip: &ip,
            frame: &[],
        })
    };
    for kind in [135, 136] {
        assert_eq!(send(IN, kind, 255).unwrap().rule, None);
        assert!(send(OUT, kind, 255).is_ok());
        assert_eq!(send(IN, kind, 64), DENIED);
    }
    assert!(send(OUT, 143, 1).is_ok());
    assert!(send(OUT, 133, 255).is_ok());
    assert_eq!(send(IN, 133, 255), DENIED);
    assert_eq!(send(IN, 134, 255), DENIED);
    assert_eq!(send(IN, 128, 255), DENIED);
    assert!(rig.udp(OUT, 68, 67).is_ok());
    assert!(rig.udp(IN, 68, 67).is_ok());
    assert_eq!(rig.udp(OUT, 67, 68), DENIED);
    assert_eq!(rig.security.count(), 0);
}

#[test]
fn connections_move_to_another_nve() {
    let rules = [rule(1, OUT, 6, (80, 80))];
    let mut old = Rig::new(&rules);
    assert!(old.tcp(OUT, 80, SYN).is_ok());
    assert!(old.tcp(IN, 80, SYN | ACK).is_ok());
    assert!(old.tcp(OUT, 80, ACK).is_ok());
    old.wait(60);
    let listed: Vec<Connection> = old.security.connections(vlan(1), old.now).collect();
    // In steps of 2^29 ns.
    let idle = listed[0].idle.0 / 100_000_000;
    assert!((595..=600).contains(&idle), "{idle}");
    let mut new = Rig::new(&rules);
    for connection in &listed {
        let moved = new.security.import(connection, new.now);
        assert_eq!(moved, Ok(()));
    }
    let relisted: Vec<Connection> = new.security.connections(vlan(1), new.now).collect();
    assert_eq!(relisted, listed);
    assert!(new.tcp(IN, 80, ACK).is_ok());
    new.security.forget(vlan(1));
    assert_eq!((new.security.count(), new.tcp(IN, 80, ACK)), (0, DENIED));
    // The rules are those of where it is now.
    let mut strict = Rig::new(&[]);
    assert!(strict.security.import(&listed[0], strict.now).is_ok());
    assert_eq!(strict.tcp(IN, 80, ACK), DENIED);
}
