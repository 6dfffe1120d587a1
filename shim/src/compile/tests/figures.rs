//! What changes cost in a large network; `--ignored` with `--nocapture` prints it.

use std::time::{Duration, Instant};

use nve_protocol::{Mac, Vlan};
use uuid::Uuid;

use super::super::*;
use super::fixtures::*;
use crate::intent::State;
use crate::model::*;

const PORTS: u16 = 20_000;
const GROUPED: u16 = 10_000;
const NVES: u16 = 20;

fn large_id(kind: u8, number: u16) -> Uuid {
    Uuid::from_u128((u128::from(kind) << 96) + u128::from(number))
}

fn large_port(number: u16) -> Port {
    let [high, low] = number.to_be_bytes();
    Port {
        common: common(large_id(2, number)),
        mac_address: Mac([2, 0, 0, 1, high, low]),
        fixed_ips: vec![FixedIp {
            subnet_id: id(9, 1),
            ip_address: [10, 1, high, low].into(),
        }],
        segmentation_id: Vlan::new(number / NVES + 1),
        port_security_enabled: true,
        security_groups: (number < GROUPED).then(|| id(11, 1)).into_iter().collect(),
        ..port(1, 1, 1, true)
    }
}

fn large_vm(number: u16) -> Mutation {
    let at = u8::try_from(number % NVES).unwrap();
    let mut placed = vm(1, at, crate::events::types::VmStatus::Running, &[1], 1);
    placed.vm.vm_uuid = large_id(5, number);
    let tag = number / NVES + 1;
    let vnic = &mut placed.vm.vnic_list[0];
    vnic.pg_name = format!("{}_{tag}", large_id(2, number));
    vnic.port_segmentation_id = tag;
    Mutation::PutVm(placed)
}

fn time(what: &str, state: &mut State, compiler: &mut Compiler, changes: Vec<Mutation>) {
    let count = u32::try_from(changes.len()).unwrap();
    let (mut compiling, mut comparing, mut ops) = (Duration::ZERO, Duration::ZERO, 0);
    for change in changes {
        state.apply(&change);
        let before = compiler.compiled().clone();
        let start = Instant::now();
        let changed = compiler.follow(state, &[change]);
        compiling += start.elapsed();
        let start = Instant::now();
        for nve in changed {
            let (old, new) = (before.tables(nve), compiler.tables(nve));
            ops += new.unwrap().changes_from(old.unwrap()).len();
        }
        comparing += start.elapsed();
    }
    let (compiling, comparing) = (compiling / count, comparing / count);
    println!("{what}: compile {compiling:?}, differences {comparing:?}, {ops} operations");
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    let nves = (0..NVES).map(|n| Mutation::PutNve(nve(u8::try_from(n).unwrap())));
    let mut all: Vec<Mutation> = nves.collect();
    all.push(Mutation::PutNetwork(network(1, true)));
    all.push(Mutation::PutSecurityGroup(group(1, true)));
    let opens = SecurityGroupRule {
        remote_group_id: Some(id(11, 1)),
        ..rule(1, 1)
    };
    all.push(Mutation::PutSecurityGroupRule(opens));
    all.extend((0..PORTS).map(|n| Mutation::PutPort(large_port(n))));
    all.extend((0..PORTS).map(large_vm));
    let mut state = State::replay(&all);
    let start = Instant::now();
    let mut compiler = Compiler::new(&state);
    println!("{PORTS} ports on {NVES} NVEs: {:?}", start.elapsed());
    let moved = (0..100).map(|n| {
        let mut port = large_port(n * 7);
        port.fixed_ips[0].ip_address = [10, 2, 0, u8::try_from(n).unwrap()].into();
        Mutation::PutPort(port)
    });
    time(
        "a member's address",
        &mut state,
        &mut compiler,
        moved.collect(),
    );
    let gone = (0..100).map(|n| Mutation::DeletePort(large_id(2, n * 7 + 1)));
    time("a port less", &mut state, &mut compiler, gone.collect());
    let rules = (10..110).map(|n| Mutation::PutSecurityGroupRule(rule(n, 1)));
    time("a rule more", &mut state, &mut compiler, rules.collect());
}
