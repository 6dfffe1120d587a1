//! The compiled rules against plain loops over the records.

extern crate std;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use proptest::prelude::*;

use nve_protocol::{Binding, Group, Key, Member, Prefix, Record, TableSizes};

use super::*;
use crate::tables::Tables;

/// Addresses that fall into few prefixes, and often into several.
fn address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0u8..3, 0u8..8).prop_map(|(six, high, low)| {
        let high = [0, 10, 255][usize::from(high)];
        let low = low * 36;
        match six {
            false => Ipv4Addr::new(high, 0, 255, low).into(),
            true => Ipv6Addr::new(u16::from(high) * 257, 0, 0, 0, 0, 0, 0, low.into()).into(),
        }
    })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let lengths = prop_oneof![Just(0u8), Just(8), Just(24), 25u8..33, 100u8..129];
    (address(), lengths).prop_map(|(ip, length)| {
        let length = if ip.is_ipv4() { length.min(32) } else { length };
        Prefix::around(ip, length).unwrap()
    })
}

fn group() -> impl Strategy<Value = GroupId> {
    (0u8..4).prop_map(|id| GroupId([id; 16]))
}

fn vlan() -> impl Strategy<Value = Vlan> {
    (1u16..4).prop_map(|id| Vlan::new(id).unwrap())
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let remote = prop_oneof![
        Just(Remote::Any),
        prefix().prop_map(Remote::Prefix),
        group().prop_map(Remote::Group),
    ];
    let family = prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)];
    let protocol = prop_oneof![Just(None), Just(Some(6)), Just(Some(17)), Just(Some(255))];
    let port = || prop_oneof![Just(0u16), 0u16..6, Just(65535)];
    let ids = any::<u8>().prop_map(|id| RuleId([id; 16]));
    let ports = (port(), port());
    (ids, group(), direction(), family, protocol, ports, remote).prop_map(
        |(id, group, direction, family, protocol, (low, high), remote)| Rule {
            id,
            group,
            direction,
            family,
            protocol,
            low,
            high,
            remote,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        1 => (group(), any::<bool>())
            .prop_map(|(group, stateful)| Record::Group(Group { group, stateful })),
        6 => rule().prop_map(Record::Rule),
        3 => (group(), prefix()).prop_map(|(group, prefix)| Record::Member(Member { group, prefix })),
        2 => (vlan(), group()).prop_map(|(vlan, group)| Record::Binding(Binding { vlan, group })),
    ]
}

fn question() -> impl Strategy<Value = (Vlan, Question)> {
    let protocol = prop_oneof![Just(6u8), Just(17), Just(255), Just(1)];
    let port = prop_oneof![0u16..7, Just(65535)];
    (vlan(), direction(), address(), protocol, port).prop_map(
        |(vlan, direction, remote, protocol, service)| {
            let question = Question {
                direction,
                remote,
                protocol,
                service,
            };
            (vlan, question)
        },
    )
}

type Model = BTreeMap<Key, Record>;

fn in_group(model: &Model, ip: IpAddr, wanted: GroupId) -> bool {
    model.values().any(|record| {
        matches!(record, Record::Member(member)
            if member.group == wanted && member.prefix.contains(ip))
    })
}

fn reference(model: &Model, vlan: Vlan, question: &Question) -> Answer {
    let mut answer = Answer::default();
    for record in model.values() {
        let Record::Rule(rule) = record else { continue };
        let group = rule.group;
        let Some(Record::Group(owner)) = model.get(&Key::Group { group }) else {
            continue;
        };
        let allows = model.contains_key(&Key::Binding { vlan, group })
            && rule.direction == question.direction
            && (rule.family == Family::Ipv4) == question.remote.is_ipv4()
            && match rule.protocol {
                None => true,
                Some(number) => {
                    number == question.protocol
                        && rule.low <= question.service
                        && question.service <= rule.high
                }
            }
            && match rule.remote {
                Remote::Any => true,
                Remote::Prefix(prefix) => prefix.contains(question.remote),
                Remote::Group(group) => in_group(model, question.remote, group),
            };
        let lowest = match owner.stateful {
            true => &mut answer.stateful,
            false => &mut answer.stateless,
        };
        // In the order of identifiers, so the first is the lowest.
        if allows && lowest.is_none() {
            *lowest = Some(rule.id);
        }
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn agree_with_plain_loops(
        operations in proptest::collection::vec((0u8..10, record()), 1..120),
        questions in proptest::collection::vec(question(), 40),
        settles: u8,
    ) {
        let mut tables = Tables::new(TableSizes::uniform(60));
        let mut model = Model::new();
        for (at, (kind, record)) in operations.into_iter().enumerate() {
            if kind < 8 {
                match tables.put(&record) {
                    Ok(replaced) => assert_eq!(replaced, model.insert(record.key(), record)),
                    Err(error) => assert_eq!(error, TableError::Full),
                }
            } else {
                assert_eq!(tables.delete(&record.key()), model.remove(&record.key()));
            }
            if settles.is_multiple_of(2) && at % 30 == 7 {
                tables.settle();
            }
        }
        let wanted: Vec<Answer> = questions
            .iter()
            .map(|(vlan, question)| reference(&model, *vlan, question))
            .collect();
        for settled in [false, true] {
            if settled {
                tables.settle();
                assert!(tables.groups().dirty.is_empty());
            }
            for ((vlan, question), wanted) in questions.iter().zip(&wanted) {
                assert_eq!(tables.groups().judge(*vlan, question), *wanted, "{question:?}");
            }
        }
        for key in model.keys() {
            assert!(tables.delete(key).is_some());
        }
        assert!(tables.groups().by_id.is_empty());
        assert!(tables.groups().places.is_empty());
        assert_eq!(tables.groups().free.len(), tables.groups().slots.len());
    }
}
