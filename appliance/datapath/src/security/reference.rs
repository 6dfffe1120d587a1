//! The stage against a list of connections and plain loops over rules.

extern crate std;
use core::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use nve_protocol::{
    Binding, Family, Group, GroupId, Key, Prefix, Record, Remote, Rule, TableSizes,
};

use super::*;
use crate::connections::Timeouts;
use crate::packet::L4;
use crate::tables::Tables;

const VM: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));

fn peer(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, last])
}

/// A packet, as the VM sees it. Of ICMP, `remote_port` is the type.
#[derive(Debug, Clone, Copy)]
struct Sent {
    vlan: Vlan,
    direction: Direction,
    protocol: u8,
    remote: IpAddr,
    local_port: u16,
    remote_port: u16,
    flags: u8,
}

impl Sent {
    fn l4(&self) -> L4 {
        let (source, destination) = match self.direction {
            Direction::Ingress => (self.remote_port, self.local_port),
            Direction::Egress => (self.local_port, self.remote_port),
        };
        let flags = self.flags;
        match self.protocol {
            protocol::TCP => L4::Tcp {
                source,
                destination,
                flags,
            },
            protocol::UDP => L4::Ports {
                source,
                destination,
            },
            protocol::ICMP => L4::Icmp {
                kind: self.remote_port as u8,
                code: 0,
                id: self.local_port,
            },
            _ => L4::None,
        }
    }

    fn ip(&self) -> Ip {
        let (source, destination) = match self.direction {
            Direction::Ingress => (self.remote, VM),
            Direction::Egress => (VM, self.remote),
        };
        Ip {
            source,
            destination,
            protocol: self.protocol,
            hop_limit: 64,
            traffic_class: 0,
            header: 14,
            transport: 34,
            end: 60,
            fragment: None,
            l4: self.l4(),
        }
    }

    fn flags(&self) -> u8 {
        match self.protocol {
            protocol::TCP => self.flags,
            _ => 0,
        }
    }

    /// What rules know as ports.
    fn service(&self) -> u16 {
        match (self.protocol, self.direction) {
            (protocol::TCP | protocol::UDP, Direction::Ingress) => self.local_port,
            (protocol::TCP | protocol::UDP, Direction::Egress) => self.remote_port,
            (protocol::ICMP, _) => self.remote_port << 8,
            _ => 0,
        }
    }

    /// Whether both are of one connection.
    fn is_with(&self, other: &Sent) -> bool {
        let ports = |sent: &Sent| match sent.protocol {
            protocol::TCP | protocol::UDP => (sent.local_port, sent.remote_port),
            // Query and answer.
            protocol::ICMP => (sent.local_port, 8),
            _ => (0, 0),
        };
        (self.vlan, self.protocol, self.remote, ports(self))
            == (other.vlan, other.protocol, other.remote, ports(other))
    }
}

#[derive(Debug, Clone)]
struct Known {
    opener: Sent,
    state: State,
    seen: u64,
    epoch: u32,
    rule: RuleId,
}

#[derive(Default)]
struct Reference {
    rules: Vec<Rule>,
    known: Vec<Known>,
    now: u64,
    epoch: u32,
}

impl Reference {
    /// The lowest rule of groups that are stateful, or not.
    fn rule(&self, sent: &Sent, stateful: bool) -> Option<RuleId> {
        let fits = |rule: &&Rule| {
            (rule.group == STATEFUL) == stateful
                && rule.direction == sent.direction
                && rule.protocol.is_none_or(|number| {
                    number == sent.protocol
                        && rule.low <= sent.service()
                        && sent.service() <= rule.high
                })
                && match rule.remote {
                    Remote::Any => true,
                    Remote::Prefix(prefix) => prefix.contains(sent.remote),
                    Remote::Group(_) => false,
                }
        };
        self.rules.iter().filter(fits).map(|rule| rule.id).min()
    }

    fn is_dead(&self, known: &Known) -> bool {
        const TICK: u64 = 1 << 29;
        let limit = u64::from(Timeouts::default().get(known.state)) * 1_000_000_000;
        self.now / TICK - known.seen / TICK > limit.div_ceil(TICK)
    }

    fn admit(&mut self, sent: &Sent) -> Result<Option<RuleId>, DropReason> {
        let at = self.known.iter().position(|k| k.opener.is_with(sent));
        if let Some(at) = at {
            let known = self.known[at].clone();
            if !self.is_dead(&known) && !known.state.is_reopened_by(sent.flags()) {
                return self.follow(at, sent);
            }
        }
        let stateful = self.rule(sent, true);
        let answers = sent.protocol == protocol::ICMP && sent.remote_port != 8;
        let state = State::opening(sent.protocol, sent.flags()).filter(|_| !answers);
        if let (Some(rule), Some(state)) = (stateful, state) {
            self.known.retain(|k| !k.opener.is_with(sent));
            self.known.push(Known {
                opener: *sent,
                state,
                seen: self.now,
                epoch: self.epoch,
                rule,
            });
        }
        let rule = stateful.or(self.rule(sent, false));
        rule.map(Some).ok_or(DropReason::SecurityGroup)
    }

    /// The rule that allows a packet of a connection that none allows.
    fn alone(&self, known: &Known, sent: &Sent) -> Option<RuleId> {
        let answers = known.opener.direction != sent.direction;
        let own = match sent.protocol {
            protocol::TCP => None,
            _ if answers => self.rule(sent, true),
            _ => None,
        };
        self.rule(sent, false).or(own)
    }

    fn follow(&mut self, at: usize, sent: &Sent) -> Result<Option<RuleId>, DropReason> {
        let mut known = self.known[at].clone();
        if known.epoch != self.epoch {
            let rule = self.rule(&known.opener, true);
            if rule.is_none() && self.alone(&known, sent).is_some() {
                return Ok(self.alone(&known, sent));
            }
            known.epoch = self.epoch;
            match (rule, known.state) {
                (Some(rule), State::Cut) => {
                    known.rule = rule;
                    known.state = State::resuming(sent.protocol);
                }
                (Some(rule), _) => known.rule = rule,
                (None, _) => known.state = State::Cut,
            }
        }
        if known.state == State::Cut {
            if self.alone(&known, sent).is_some() {
                return Ok(self.alone(&known, sent));
            }
            known.seen = self.now;
            self.known[at] = known;
            return Err(DropReason::SecurityGroup);
        }
        let opener = known.opener.direction == sent.direction;
        known.state = known.state.after(opener, sent.flags());
        known.seen = self.now;
        let rule = known.rule;
        self.known[at] = known;
        Ok(Some(rule))
    }
}

const STATEFUL: GroupId = GroupId([1; 16]);
const STATELESS: GroupId = GroupId([2; 16]);

#[derive(Debug, Clone)]
enum Step {
    Send(Sent),
    Wait(u64),
    Put(Rule),
    Delete(usize),
    Age,
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)]
}

fn sent() -> impl Strategy<Value = Sent> {
    let numbers = prop_oneof![4 => Just(6u8), 2 => Just(17), 2 => Just(1), 1 => Just(47)];
    // SYN, SYN ACK, ACK, FIN ACK, RST.
    let flags = prop_oneof![Just(2u8), Just(0x12), Just(0x10), Just(0x11), Just(4)];
    let ports = (1u16..3, prop_oneof![Just(0u16), Just(8)]);
    (1u16..3, direction(), numbers, 1u8..3, ports, flags).prop_map(
        |(vlan, direction, protocol, remote, (local_port, remote_port), flags)| Sent {
            vlan: Vlan::new(vlan).unwrap(),
            direction,
            protocol,
            remote: peer(remote),
            local_port,
            remote_port,
            flags,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let remote = prop_oneof![
        2 => Just(Remote::Any),
        1 => (1u8..3).prop_map(|last| Remote::Prefix(Prefix::host(peer(last)))),
    ];
    let protocol = prop_oneof![Just(None), Just(Some(6u8)), Just(Some(17)), Just(Some(1))];
    let group = prop_oneof![3 => Just(STATEFUL), 1 => Just(STATELESS)];
    let ports = prop_oneof![Just((0u16, 65535u16)), Just((2, 8)), Just((8 << 8, 8 << 8))];
    (any::<u8>(), group, direction(), protocol, ports, remote).prop_map(
        |(id, group, direction, protocol, (low, high), remote)| Rule {
            id: RuleId([id; 16]),
            group,
            direction,
            family: Family::Ipv4,
            protocol,
            low,
            high,
            remote,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => sent().prop_map(Step::Send),
        3 => prop_oneof![1u64..40, 100u64..400].prop_map(Step::Wait),
        2 => rule().prop_map(Step::Put),
        1 => (0usize..6).prop_map(Step::Delete),
        1 => Just(Step::Age),
    ]
}

fn tables() -> Tables {
    let mut tables = Tables::new(TableSizes::uniform(300));
    tables.tell_changes_apart();
    for (group, stateful) in [(STATEFUL, true), (STATELESS, false)] {
        tables
            .put(&Record::Group(Group { group, stateful }))
            .unwrap();
        for vlan in [1, 2] {
            let vlan = Vlan::new(vlan).unwrap();
            tables
                .put(&Record::Binding(Binding { vlan, group }))
                .unwrap();
        }
    }
    tables
}

fn security() -> Security {
    Security::new(&Config {
        connections: 100,
        connections_per_vap: 100,
        fragments: 0,
        seed: 3,
        timeouts: Timeouts::default(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn agree_with_a_plain_list(
        first in proptest::collection::vec(rule(), 1..6),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let (mut tables, mut security) = (tables(), security());
        let mut reference = Reference { now: 1 << 40, ..Reference::default() };
        let mut held: Vec<(Sent, Handle)> = Vec::new();
        for step in first.into_iter().map(Step::Put).chain(steps) {
            match step {
                Step::Put(rule) => {
                    tables.put(&Record::Rule(rule)).unwrap();
                    reference.rules.retain(|old| old.id != rule.id);
                    reference.rules.push(rule);
                    reference.epoch += 1;
                }
                Step::Delete(at) if at < reference.rules.len() => {
                    let id = reference.rules.remove(at).id;
                    let key = Key::Rule { id };
                    prop_assert!(tables.delete(&key).is_some());
                    reference.epoch += 1;
                }
                Step::Delete(_) => {}
                Step::Wait(seconds) => reference.now += seconds * 1_000_000_000,
                Step::Age => {
                    security.age(Nanos(reference.now), 100);
                    let mut known = core::mem::take(&mut reference.known);
                    known.retain(|known| !reference.is_dead(known));
                    reference.known = known;
                    prop_assert_eq!(security.count(), reference.known.len());
                }
                Step::Send(sent) => {
                    tables.settle();
                    let now = Nanos(reference.now);
                    // The quick way, if it agrees, is the same as the long one.
                    if let Some((_, handle)) = held.iter().rfind(|(other, _)| other.is_with(&sent)) {
                        let flags = sent.flags();
                        let changes = tables.changes();
                        if security.touch(*handle, sent.direction, flags, now, changes).is_ok() {
                            prop_assert!(reference.admit(&sent).is_ok());
                            continue;
                        }
                    }
                    let ip = sent.ip();
                    let packet = Packet {
                        vlan: sent.vlan,
                        direction: sent.direction,
                        ip: &ip,
                        frame: &[],
                    };
                    let judged = security.judge(tables.rules(), &packet, now, None);
                    let admitted = security.admit(tables.rules(), &packet, now);
                    let wanted = reference.admit(&sent);
                    prop_assert_eq!(judged.map(|j| j.rule), wanted);
                    prop_assert_eq!(admitted.map(|a| a.rule), wanted);
                    if let Ok(Admission { connection: Some(handle), .. }) = admitted {
                        held.push((sent, handle));
                    }
                }
            }
        }
        for id in [1, 2] {
            let vlan = Vlan::new(id).unwrap();
            let mut states: Vec<State> = security
                .connections(vlan, Nanos(reference.now))
                .map(|connection| connection.state)
                .collect();
            let mut wanted: Vec<State> = reference.known
                .iter()
                .filter(|known| known.opener.vlan == vlan && !reference.is_dead(known))
                .map(|known| known.state)
                .collect();
            states.sort_by_key(|state| *state as u8);
            wanted.sort_by_key(|state| *state as u8);
            prop_assert_eq!(states, wanted);
        }
    }
}
