//! Increments against the whole, whatever changes in whatever order.

use std::collections::BTreeSet;

use nve_protocol::{Mac, Record, Vni};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::*;
use super::fixtures::*;
use crate::events::types::VmStatus;
use crate::intent::State;
use crate::model::*;

fn some_network() -> impl Strategy<Value = Mutation> {
    let attributes = (prop::bool::weighted(0.8), 0u32..2, 0u16..2, any_policy());
    (1u8..4, attributes).prop_map(|(n, (up, vni, mtu, qos_policy_id))| {
        let network = network(n, up);
        Mutation::PutNetwork(Network {
            vni: Vni::new(network.vni.get() + 100 * vni).unwrap(),
            mtu: 1400 + mtu,
            qos_policy_id,
            ..network
        })
    })
}

fn some_subnet() -> impl Strategy<Value = Mutation> {
    let cidr = select(vec!["10.0.0.0/24", "10.0.0.0/16"]);
    (1u8..4, cidr, any::<bool>()).prop_map(|(on, cidr, has_dns)| {
        Mutation::PutSubnet(Subnet {
            cidr: cidr.parse().unwrap(),
            dns_nameservers: has_dns.then(|| [9, 9, 9, 9].into()).into_iter().collect(),
            host_routes: vec![route("10.9.0.0/16", "10.0.0.9")],
            ..subnet(on)
        })
    })
}

fn any_policy() -> impl Strategy<Value = Option<uuid::Uuid>> {
    prop::option::weighted(0.3, (1u8..3).prop_map(|n| id(14, n)))
}

fn some_port() -> impl Strategy<Value = Port> {
    let place = (1u8..7, 1u8..4, 1u8..4, prop::bool::weighted(0.8));
    let groups = subsequence(vec![1u8, 2, 3], 0..3);
    let pairs = subsequence(vec!["10.0.1.1/32", "10.0.0.0/8", "10.7.0.0/16"], 0..2);
    (place, any::<bool>(), groups, pairs, any_policy()).prop_map(
        |((n, on, bound, up), secure, groups, pairs, qos_policy_id)| {
            let port = port(n, on, bound, up);
            Port {
                port_security_enabled: secure,
                security_groups: groups.into_iter().map(|n| id(11, n)).collect(),
                allowed_address_pairs: pairs
                    .into_iter()
                    .map(|net| pair(net, port.mac_address))
                    .collect(),
                qos_policy_id,
                ..port
            }
        },
    )
}

fn some_rule() -> impl Strategy<Value = SecurityGroupRule> {
    let remote = prop_oneof![
        Just((None, None)),
        (1u8..4).prop_map(|n| (Some(id(11, n)), None)),
        (1u8..3).prop_map(|n| (None, Some(id(13, n)))),
    ];
    (1u8..6, 1u8..4, remote, 0u16..3).prop_map(|(n, of, (group, addresses), low)| {
        SecurityGroupRule {
            remote_group_id: group,
            remote_address_group_id: addresses,
            port_range_min: Some(low),
            ..rule(n, of)
        }
    })
}

fn some_vtep() -> impl Strategy<Value = Mutation> {
    (1u8..3, 1u8..4, 1u8..10).prop_map(|(n, on, mac)| {
        let mut vtep = vtep(n, on);
        // It may be a port's as well.
        vtep.endpoints[0].mac_address = Mac([2, 0, 0, 0, 0, mac]);
        Mutation::PutVtep(vtep)
    })
}

/// Moves of a VM, with or without sense.
fn moves() -> impl Strategy<Value = (Option<Migration>, Option<Departed>)> {
    let to = subsequence(vec![1u8, 2, 3], 1..3);
    let migration = (to, any::<bool>()).prop_map(|(to, awake)| Migration {
        since: time::OffsetDateTime::UNIX_EPOCH,
        awake: awake.then(|| host(to[0])),
        awake_since: None,
        to: to.into_iter().map(host).collect(),
    });
    let vaps = subsequence(vec![1u8, 2, 3, 4, 5, 6], 1..4);
    let departed = (1u8..4, vaps).prop_map(|(at, ports)| Departed {
        host: host(at),
        vaps: ports.into_iter().map(|n| (id(2, n), tag(n % 3))).collect(),
    });
    (
        prop::option::weighted(0.4, migration),
        prop::option::weighted(0.4, departed),
    )
}

fn placement() -> impl Strategy<Value = Mutation> {
    let status = prop_oneof![Just(VmStatus::Running), Just(VmStatus::Stop)];
    let ports = prop::collection::vec(1u8..7, 0..3);
    prop_oneof![
        2 => (1u8..5, 1u8..4, status, ports, 0i64..3, moves()).prop_map(
            |(n, at, status, ports, t, (migration, departed))| {
                Mutation::PutVm(PlacedVm {
                    migration,
                    departed,
                    ..vm(n, at, status, &ports, t)
                })
            }
        ),
        1 => (1u8..5).prop_map(|n| Mutation::DeleteVm(id(5, n))),
        1 => (1u8..4, 0u8..2).prop_map(|(n, other)| Mutation::PutNve(Nve {
            vtep: [192, 0, 2, n + 10 * other].into(),
            ..nve(n)
        })),
        1 => (1u8..4).prop_map(|n| Mutation::DeleteNve(id(3, n))),
        1 => some_vtep(),
        1 => (1u8..3).prop_map(|n| Mutation::DeleteVtep(id(4, n))),
    ]
}

fn put() -> impl Strategy<Value = Mutation> {
    let addresses = subsequence(vec!["10.0.1.1/32", "10.0.0.0/8", "10.3.0.0/16"], 0..3);
    prop_oneof![
        1 => some_network(),
        1 => some_subnet(),
        2 => some_port().prop_map(Mutation::PutPort),
        2 => (7u8..11, 1u8..4, 1u8..3)
            .prop_map(|(n, on, of)| Mutation::PutPort(interface(n, on, of))),
        1 => (1u8..3, prop::bool::weighted(0.8), 1u8..4).prop_map(|(n, up, hop)| {
            let routes = vec![route("10.99.0.0/16", &format!("10.0.1.{hop}"))];
            Mutation::PutRouter(Router { routes, ..router(n, up) })
        }),
        1 => (1u8..4, any::<bool>()).prop_map(|(n, s)| Mutation::PutSecurityGroup(group(n, s))),
        2 => some_rule().prop_map(Mutation::PutSecurityGroupRule),
        1 => (1u8..3, addresses)
            .prop_map(|(n, list)| Mutation::PutAddressGroup(address_group(n, &list))),
        1 => (1u8..3, 0u32..3).prop_map(|(n, kbps)| Mutation::PutQosPolicy(policy(n, kbps))),
    ]
}

fn delete() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (1u8..4).prop_map(|n| Mutation::DeleteNetwork(id(1, n))),
        (1u8..4).prop_map(|n| Mutation::DeleteSubnet(id(9, n))),
        (1u8..11).prop_map(|n| Mutation::DeletePort(id(2, n))),
        (1u8..3).prop_map(|n| Mutation::DeleteRouter(id(10, n))),
        (1u8..4).prop_map(|n| Mutation::DeleteSecurityGroup(id(11, n))),
        (1u8..6).prop_map(|n| Mutation::DeleteSecurityGroupRule(id(12, n))),
        (1u8..3).prop_map(|n| Mutation::DeleteAddressGroup(id(13, n))),
        (1u8..3).prop_map(|n| Mutation::DeleteQosPolicy(id(14, n))),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![2 => placement(), 3 => put(), 1 => delete()]
}

fn check_keys(tables: &NveTables) {
    let keys: BTreeSet<_> = tables.records().map(Record::key).collect();
    assert_eq!(keys.len(), tables.records().count(), "no key twice");
    assert_eq!(tables.digest(), tables.records().collect(), "the digest");
    let counted = tables.records().fold(0, |count, _| count + 1);
    let sizes = tables.sizes();
    let told: u32 = nve_protocol::Table::ALL.iter().map(|t| sizes.get(*t)).sum();
    assert_eq!(told, counted, "the sizes");
}

/// All that the mutations can name, with VMs that contend for ports and tags.
fn busy() -> State {
    let mut mutations: Vec<Mutation> = (1..4).map(|n| Mutation::PutNve(nve(n))).collect();
    mutations.extend((1..4).map(|n| Mutation::PutNetwork(network(n, n != 2))));
    mutations.extend((1..4).map(|n| Mutation::PutSubnet(subnet(n))));
    mutations.extend((1..3).map(|n| Mutation::PutRouter(router(n, true))));
    mutations.extend((1..4).map(|n| Mutation::PutSecurityGroup(group(n, true))));
    mutations.extend((1..7).map(|n| {
        let port = port(n, n % 3 + 1, n % 2 + 1, true);
        Mutation::PutPort(Port {
            port_security_enabled: true,
            security_groups: vec![id(11, n % 3 + 1)],
            ..port
        })
    }));
    mutations.extend([(7, 1, 1), (8, 3, 1)].map(|(n, on, of)| {
        let interface = interface(n, on, of);
        Mutation::PutPort(interface)
    }));
    let running = VmStatus::Running;
    mutations.extend((1..5).map(|n| {
        let placed = vm(n, n % 2 + 1, running, &[n, n + 2], i64::from(n % 3));
        Mutation::PutVm(placed)
    }));
    State::replay(&mutations)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn increments_agree_with_the_whole(
        batches in prop::collection::vec(prop::collection::vec(mutation(), 1..4), 1..25),
    ) {
        let mut state = busy();
        let mut compiler = Compiler::new(&state);
        for batch in batches {
            let before: Vec<_> =
                (1..4).map(|n| compiler.tables(id(3, n)).cloned()).collect();
            batch.iter().for_each(|mutation| state.apply(mutation));
            let changed = compiler.follow(&state, &batch);
            let whole = Compiler::new(&state);
            for (n, before) in (1..4).zip(before) {
                let tables = compiler.tables(id(3, n));
                prop_assert_eq!(tables, whole.tables(id(3, n)));
                if let Some(tables) = tables {
                    check_keys(tables);
                }
                prop_assert_eq!(changed.contains(&id(3, n)), tables != before.as_ref());
            }
            for port in 1..11 {
                let place = compiler.compiled().place(id(2, port));
                prop_assert_eq!(place, whole.compiled().place(id(2, port)));
                let asides = compiler.compiled().asides(id(2, port));
                prop_assert_eq!(asides, whole.compiled().asides(id(2, port)));
            }
        }
    }
}
