//! Where a VM that moves has VAPs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nve_protocol::{Presence, Record, Vlan};
use uuid::Uuid;

use super::super::*;
use super::fixtures::*;
use crate::events::types::VmStatus;
use crate::intent::State;
use crate::model::*;

/// Network 1 on hosts 1 to 3: port 1 on host 1, with a group and a policy; port 2 on host
/// 2. Host 4 has no NVE.
fn plant() -> State {
    let guarded = Port {
        port_security_enabled: true,
        security_groups: vec![id(11, 1)],
        qos_policy_id: Some(id(14, 1)),
        ..port(1, 1, 1, true)
    };
    State::replay(&[
        Mutation::PutNve(nve(1)),
        Mutation::PutNve(nve(2)),
        Mutation::PutNve(nve(3)),
        Mutation::PutNetwork(network(1, true)),
        Mutation::PutSecurityGroup(group(1, true)),
        Mutation::PutQosPolicy(policy(1, 100)),
        Mutation::PutPort(guarded),
        Mutation::PutPort(port(2, 1, 2, true)),
        Mutation::PutVm(moving(&[], None, None)),
        Mutation::PutVm(vm(2, 2, VmStatus::Running, &[2], 1)),
    ])
}

/// The VM of port 1, on host 1.
fn moving(to: &[u8], awake: Option<u8>, left: Option<u8>) -> PlacedVm {
    let migration = Migration {
        since: time::OffsetDateTime::UNIX_EPOCH,
        to: to.iter().map(|n| host(*n)).collect(),
        awake: awake.map(host),
        awake_since: None,
    };
    let departed = left.map(|n| Departed {
        host: host(n),
        vaps: vec![(id(2, 1), tag(1))],
    });
    PlacedVm {
        migration: (!to.is_empty()).then_some(migration),
        departed,
        ..vm(1, 1, VmStatus::Running, &[1], 1)
    }
}

fn put(state: &mut State, compiler: &mut Compiler, mutation: Mutation) {
    state.apply(&mutation);
    compiler.follow(state, &[mutation]);
}

/// The VAPs of a port, by NVE.
fn vaps(compiler: &Compiler, port: u8) -> Vec<(u8, Vlan, Presence)> {
    let port = id(2, port).into_bytes();
    let of = |nve: u8| {
        let tables = compiler.tables(id(3, nve)).unwrap();
        let vaps = tables.records().filter_map(move |record| match record {
            Record::Vap(vap) if vap.port.0 == port => Some((nve, vap.vlan, vap.presence)),
            _ => None,
        });
        vaps.collect::<Vec<_>>()
    };
    (1..4).flat_map(of).collect()
}

/// What an NVE has of a VAP besides the VAP's own record.
fn belongings(compiler: &Compiler, nve: u8) -> BTreeSet<String> {
    let tables = compiler.tables(id(3, nve)).unwrap();
    let records = tables.records().filter(|record| match record {
        Record::Address(record) => record.vlan == tag(1),
        Record::Binding(record) => record.vlan == tag(1),
        Record::DhcpOption(record) => record.vlan == tag(1),
        Record::Qos(record) => record.vlan == tag(1),
        Record::Group(_) | Record::Network(_) => true,
        _ => false,
    });
    records.map(|record| format!("{record:?}")).collect()
}

/// Where an NVE sends what is for port 1.
fn sent_to(compiler: &Compiler, nve: u8) -> Option<IpAddr> {
    let tables = compiler.tables(id(3, nve)).unwrap();
    tables.records().find_map(|record| match record {
        Record::Fdb(fdb) if fdb.mac == port(1, 1, 1, true).mac_address => Some(fdb.vtep),
        _ => None,
    })
}

const ACTIVE: Presence = Presence::Active;
const STANDBY: Presence = Presence::Standby;
const DEPARTED: Presence = Presence::Departed;

#[test]
fn where_a_vm_may_come_up_its_ports_have_all_that_they_need() {
    let mut state = plant();
    let mut compiler = Compiler::new(&state);
    let before = belongings(&compiler, 1);
    assert!(before.len() >= 6, "{before:?}");
    put(
        &mut state,
        &mut compiler,
        Mutation::PutVm(moving(&[2, 3, 4], None, None)),
    );
    let expected = [
        (1, tag(1), ACTIVE),
        (2, tag(1), STANDBY),
        (3, tag(1), STANDBY),
    ];
    assert_eq!(vaps(&compiler, 1), expected);
    for nve in [2, 3] {
        assert_eq!(belongings(&compiler, nve), before);
        assert_eq!(sent_to(&compiler, nve), Some(nve_vtep(1)), "not to itself");
    }
    let compiled = compiler.compiled();
    assert_eq!(compiled.place(id(2, 1)), Some((id(3, 1), tag(1))));
    let asides = [2, 3].map(|n| (id(3, n), tag(1), STANDBY));
    assert_eq!(compiled.asides(id(2, 1)), asides);
}

fn nve_vtep(number: u8) -> IpAddr {
    nve(number).vtep
}

#[test]
fn where_a_vm_came_up_it_is_active_and_departed_where_it_was() {
    let mut state = plant();
    let mut compiler = Compiler::new(&state);
    put(
        &mut state,
        &mut compiler,
        Mutation::PutVm(moving(&[2, 3], Some(3), Some(1))),
    );
    let expected = [(1, tag(1), DEPARTED), (3, tag(1), ACTIVE)];
    assert_eq!(vaps(&compiler, 1), expected);
    for nve in [1, 2] {
        assert_eq!(sent_to(&compiler, nve), Some(nve_vtep(3)));
    }
    assert_eq!(
        compiler.compiled().place(id(2, 1)),
        Some((id(3, 3), tag(1)))
    );
    // Back to where it has not been forgotten yet: that is where it may come up.
    let back = PlacedVm {
        vm: vm(1, 3, VmStatus::Running, &[1], 2).vm,
        ..moving(&[1], None, Some(1))
    };
    put(&mut state, &mut compiler, Mutation::PutVm(back));
    let expected = [(1, tag(1), STANDBY), (3, tag(1), ACTIVE)];
    assert_eq!(vaps(&compiler, 1), expected);
    // And once it is there.
    put(
        &mut state,
        &mut compiler,
        Mutation::PutVm(moving(&[], None, Some(1))),
    );
    assert_eq!(vaps(&compiler, 1), [(1, tag(1), ACTIVE)]);
}

#[test]
fn nobody_waits_on_a_tag_that_another_port_has() {
    let mut state = plant();
    let mut compiler = Compiler::new(&state);
    put(
        &mut state,
        &mut compiler,
        Mutation::PutVm(moving(&[2, 3], None, None)),
    );
    // Port 4 has port 1's tag.
    let other = |at| Mutation::PutVm(vm(3, at, VmStatus::Running, &[4], 1));
    put(
        &mut state,
        &mut compiler,
        Mutation::PutPort(port(4, 1, 2, true)),
    );
    // Its VM may run before that is told.
    let expected = [(1, tag(1), ACTIVE), (3, tag(1), STANDBY)];
    assert_eq!(vaps(&compiler, 1), expected);
    put(&mut state, &mut compiler, other(2));
    assert_eq!(vaps(&compiler, 1), expected);
    assert_eq!(vaps(&compiler, 4), [(2, tag(1), ACTIVE)]);
    // Two that may come to one tag: which of them comes cannot be told.
    let comes = PlacedVm {
        migration: moving(&[3], None, None).migration,
        ..vm(3, 2, VmStatus::Running, &[4], 1)
    };
    put(&mut state, &mut compiler, Mutation::PutVm(comes));
    assert_eq!(vaps(&compiler, 1), [(1, tag(1), ACTIVE)]);
    assert_eq!(vaps(&compiler, 4), [(2, tag(1), ACTIVE)]);
    put(&mut state, &mut compiler, Mutation::DeleteVm(id(5, 3)));
    assert_eq!(vaps(&compiler, 1), expected);
    put(&mut state, &mut compiler, Mutation::DeletePort(id(2, 4)));
    assert_eq!(vaps(&compiler, 1).len(), 3);
}

#[test]
fn only_the_vm_that_has_the_port_says_where_it_waits() {
    let mut state = plant();
    let mut compiler = Compiler::new(&state);
    put(
        &mut state,
        &mut compiler,
        Mutation::PutVm(moving(&[3], None, None)),
    );
    // Another manager's VM has it too, and is newer.
    put(
        &mut state,
        &mut compiler,
        Mutation::PutVm(vm(3, 2, VmStatus::Running, &[1], 9)),
    );
    assert_eq!(vaps(&compiler, 1), [(2, tag(1), ACTIVE)]);
    put(&mut state, &mut compiler, Mutation::DeleteVm(id(5, 3)));
    assert_eq!(vaps(&compiler, 1).len(), 2);
    let down = Mutation::PutPort(port(1, 1, 1, false));
    put(&mut state, &mut compiler, down);
    assert_eq!(vaps(&compiler, 1), []);
    assert_eq!(compiler.compiled().asides(id(2, 1)), []);
    let gone: Option<(Uuid, Vlan)> = compiler.compiled().place(id(2, 1));
    assert_eq!(gone, None);
}
