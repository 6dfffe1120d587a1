//! Increments against the whole, and what a network puts on each NVE.

use std::collections::BTreeSet;

use nve_protocol::{Mac, Record, Vlan, Vni};
use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::events::types::{VmState, VmStatus, Vnic};
use crate::intent::State;
use crate::model::*;

fn id(kind: u8, number: u8) -> Uuid {
    Uuid::from_bytes([kind, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, number])
}

fn common(id: Uuid) -> Common {
    Common {
        id,
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        revision_number: 0,
        created_at: OffsetDateTime::UNIX_EPOCH,
        updated_at: OffsetDateTime::UNIX_EPOCH,
        tags: vec![],
    }
}

fn network(number: u8, up: bool) -> Network {
    let vni = Vni::new(5000 + u32::from(number)).unwrap();
    Network {
        common: common(id(1, number)),
        admin_state_up: up,
        shared: false,
        mtu: 1450,
        vni,
        port_security_enabled: true,
        qos_policy_id: None,
        dns_domain: String::new(),
    }
}

fn tag(number: u8) -> Vlan {
    Vlan::new(100 + u16::from(number)).unwrap()
}

fn host(number: u8) -> String {
    format!("hv-{number}")
}

fn port(number: u8, on: u8, bound: u8, up: bool) -> Port {
    Port {
        common: common(id(2, number)),
        network_id: id(1, on),
        admin_state_up: up,
        mac_address: Mac([2, 0, 0, 0, 0, number]),
        fixed_ips: vec![FixedIp {
            subnet_id: id(9, on),
            ip_address: [10, 0, on, number].into(),
        }],
        device_id: String::new(),
        device_owner: String::new(),
        binding_host_id: host(bound),
        segmentation_id: Some(tag(number % 3)),
        port_security_enabled: false,
        security_groups: vec![],
        allowed_address_pairs: vec![],
        extra_dhcp_opts: vec![],
        qos_policy_id: None,
        dns_name: String::new(),
    }
}

fn nve(number: u8) -> Nve {
    Nve {
        id: id(3, number),
        name: format!("nve-{number}"),
        host_name: host(number),
        host_uuid: None,
        vtep: [192, 0, 2, number].into(),
        public_key: format!("{number:064x}"),
    }
}

fn vtep(number: u8, on: u8) -> Vtep {
    let endpoint = Endpoint {
        network_id: id(1, on),
        mac_address: Mac([2, 0, 0, 0, 9, number]),
        ip_address: Some([10, 0, on, 200 + number].into()),
    };
    Vtep {
        id: id(4, number),
        name: String::new(),
        address: [198, 51, 100, number].into(),
        networks: vec![id(1, on)],
        endpoints: vec![endpoint],
    }
}

fn vm(number: u8, at: u8, status: VmStatus, ports: &[u8], second: i64) -> PlacedVm {
    let vnic = |port: &u8| Vnic {
        vnic_name: "eth0".into(),
        vnic_uuid: id(6, *port),
        pg_name: format!("{}_{}", id(2, *port), tag(port % 3)),
        pg_uuid: id(7, *port),
        mac: Mac([2, 0, 0, 0, 0, *port]),
        port_segmentation_id: tag(port % 3).get(),
        ip_list: vec![],
        ipv6_list: vec![],
    };
    PlacedVm {
        manager: "lab".into(),
        as_of: OffsetDateTime::from_unix_timestamp(second).unwrap(),
        vm: VmState {
            vm_name: String::new(),
            vm_uuid: id(5, number),
            vm_status: status,
            host_name: host(at),
            host_uuid: id(8, at),
            vnic_list: ports.iter().map(vnic).collect(),
        },
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let status = prop_oneof![Just(VmStatus::Running), Just(VmStatus::Stop)];
    let ports = prop::collection::vec(1u8..7, 0..3);
    prop_oneof![
        (1u8..4, prop::bool::weighted(0.8))
            .prop_map(|(n, up)| Mutation::PutNetwork(network(n, up))),
        (1u8..4).prop_map(|n| Mutation::DeleteNetwork(id(1, n))),
        (1u8..7, 1u8..4, 1u8..4, prop::bool::weighted(0.8))
            .prop_map(|(n, on, bound, up)| Mutation::PutPort(port(n, on, bound, up))),
        (1u8..7).prop_map(|n| Mutation::DeletePort(id(2, n))),
        (1u8..4).prop_map(|n| Mutation::PutNve(nve(n))),
        (1u8..4).prop_map(|n| Mutation::DeleteNve(id(3, n))),
        (1u8..3, 1u8..4).prop_map(|(n, on)| Mutation::PutVtep(vtep(n, on))),
        (1u8..3).prop_map(|n| Mutation::DeleteVtep(id(4, n))),
        (1u8..5, 1u8..4, status, ports, 0i64..3)
            .prop_map(|(n, at, status, ports, t)| Mutation::PutVm(vm(n, at, status, &ports, t))),
        (1u8..5).prop_map(|n| Mutation::DeleteVm(id(5, n))),
    ]
}

fn check_keys(tables: &NveTables) {
    let keys: BTreeSet<_> = tables.records().map(Record::key).collect();
    assert_eq!(keys.len(), tables.records().count(), "no key twice");
}

/// All that the mutations can name, with VMs that contend for ports and tags.
fn busy() -> State {
    let mut mutations: Vec<Mutation> = (1..4).map(|n| Mutation::PutNve(nve(n))).collect();
    mutations.extend((1..4).map(|n| Mutation::PutNetwork(network(n, n != 2))));
    mutations.extend((1..7).map(|n| Mutation::PutPort(port(n, n % 3 + 1, n % 2 + 1, true))));
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
                if tables != before.as_ref() {
                    prop_assert!(changed.contains(&id(3, n)), "a change is told");
                }
            }
        }
    }
}

/// Network 1: port 1 on host 1, port 2 on host 2, VTEP 1; network 2: port 3 on host 1.
fn small() -> (State, Vec<Mutation>) {
    let mutations = vec![
        Mutation::PutNve(nve(1)),
        Mutation::PutNve(nve(2)),
        Mutation::PutNetwork(network(1, true)),
        Mutation::PutNetwork(network(2, true)),
        Mutation::PutPort(port(1, 1, 1, true)),
        Mutation::PutPort(port(2, 1, 2, true)),
        Mutation::PutPort(port(3, 2, 1, true)),
        Mutation::PutVtep(vtep(1, 1)),
        Mutation::PutVm(vm(1, 1, VmStatus::Running, &[1, 3], 1)),
        Mutation::PutVm(vm(2, 2, VmStatus::Running, &[2], 1)),
    ];
    (State::replay(&mutations), mutations)
}

#[test]
fn an_nve_gets_what_its_ports_need_and_nothing_else() {
    let (state, _) = small();
    let compiler = Compiler::new(&state);
    let tables = compiler.tables(id(3, 1)).unwrap();
    let got: Vec<String> = tables
        .records()
        .map(|r| serde_json::to_string(r).unwrap())
        .collect();
    let p1 = id(2, 1);
    let p3 = id(2, 3);
    assert_eq!(
        got,
        [
            format!(
                r#"{{"vap":{{"vlan":101,"port":"{p1}","vni":5001,"mac":"02:00:00:00:00:01","port_security":false}}}}"#
            ),
            r#"{"fdb":{"vni":5001,"mac":"02:00:00:00:00:02","vtep":"192.0.2.2"}}"#.into(),
            r#"{"fdb":{"vni":5001,"mac":"02:00:00:00:09:01","vtep":"198.51.100.1"}}"#.into(),
            r#"{"neighbor":{"vni":5001,"ip":"10.0.1.1","mac":"02:00:00:00:00:01"}}"#.into(),
            r#"{"neighbor":{"vni":5001,"ip":"10.0.1.2","mac":"02:00:00:00:00:02"}}"#.into(),
            r#"{"neighbor":{"vni":5001,"ip":"10.0.1.201","mac":"02:00:00:00:09:01"}}"#.into(),
            r#"{"flood":{"vni":5001,"vtep":"192.0.2.2"}}"#.into(),
            r#"{"flood":{"vni":5001,"vtep":"198.51.100.1"}}"#.into(),
            format!(
                r#"{{"vap":{{"vlan":100,"port":"{p3}","vni":5002,"mac":"02:00:00:00:00:03","port_security":false}}}}"#
            ),
            r#"{"neighbor":{"vni":5002,"ip":"10.0.2.3","mac":"02:00:00:00:00:03"}}"#.into(),
        ]
    );
}

#[test]
fn a_change_touches_only_the_nves_that_it_concerns() {
    let (mut state, mutations) = small();
    let mut compiler = Compiler::new(&State::default());
    compiler.follow(&state, &mutations);
    let other = Mutation::PutVm(vm(1, 1, VmStatus::Running, &[1], 2));
    state.apply(&other);
    assert_eq!(
        compiler.follow(&state, &[other]),
        [id(3, 1)].into(),
        "port 3 went"
    );
    let off = Mutation::PutVm(vm(2, 2, VmStatus::Stop, &[2], 2));
    state.apply(&off);
    assert_eq!(compiler.follow(&state, &[off]), [id(3, 1), id(3, 2)].into());
    assert_eq!(compiler.tables(id(3, 2)).unwrap().records().count(), 0);
}

#[test]
fn a_tag_has_one_port_and_the_bound_one_wins() {
    let (mut state, _) = small();
    // Port 4 has port 1's tag; its VM says that it is on host 1 too.
    state.apply(&Mutation::PutPort(port(4, 1, 2, true)));
    state.apply(&Mutation::PutVm(vm(3, 1, VmStatus::Running, &[4], 5)));
    let compiler = Compiler::new(&state);
    assert!(vap_of(&state, compiler.claims(), id(2, 1)).is_some());
    assert!(vap_of(&state, compiler.claims(), id(2, 4)).is_none());
}
