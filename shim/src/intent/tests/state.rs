//! Whatever is asked in whatever order, the state's indexes are those of its objects.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::Bench;
use super::super::{State, network, port, subnet};
use crate::model::Mutation;

/// A request; numbers choose among what exists.
#[derive(Debug, Clone)]
enum Step {
    Network,
    Subnet(usize, u8),
    Port(usize, Value),
    ChangePort(usize, Value),
    DeleteNetwork(usize),
    DeleteSubnet(usize),
    DeletePort(usize),
}

fn port_attributes() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["", "a", "b"]),
        prop::option::of(1u16..4),
        prop::option::of(1u8..4),
    )
        .prop_map(|(host, tag, mac)| {
            let mut with = json!({"binding:host_id": host});
            if let Some(tag) = tag {
                with["segmentation_id"] = json!(tag);
            }
            if let Some(mac) = mac {
                with["mac_address"] = json!(format!("02:00:00:00:00:0{mac}"));
            }
            with
        })
}

fn step() -> impl Strategy<Value = Step> {
    let any = || 0usize..8;
    prop_oneof![
        Just(Step::Network),
        (any(), 0u8..4).prop_map(|(n, third)| Step::Subnet(n, third)),
        (any(), port_attributes()).prop_map(|(n, with)| Step::Port(n, with)),
        (any(), port_attributes()).prop_map(|(n, with)| Step::Port(n, with)),
        (any(), port_attributes()).prop_map(|(n, with)| Step::ChangePort(n, with)),
        any().prop_map(Step::DeleteNetwork),
        any().prop_map(Step::DeleteSubnet),
        any().prop_map(Step::DeletePort),
    ]
}

/// Carries out the step if it can be; refusals are fine.
fn take(bench: &mut Bench, step: Step) -> Option<()> {
    let nth = |items: Vec<uuid::Uuid>, n: usize| items.get(n % items.len().max(1)).copied();
    let networks: Vec<_> = bench.state.networks().map(|n| n.common.id).collect();
    let subnets: Vec<_> = bench.state.subnets().map(|s| s.common.id).collect();
    let ports: Vec<_> = bench.state.ports().map(|p| p.common.id).collect();
    match step {
        Step::Network => drop(bench.network(json!({}))),
        Step::Subnet(n, third) => {
            let net = bench.state.network(nth(networks, n)?)?.clone();
            drop(bench.subnet(&net, &format!("10.0.{third}.0/29"), json!({})));
        }
        Step::Port(n, with) => {
            let net = bench.state.network(nth(networks, n)?)?.clone();
            drop(bench.port(&net, with));
        }
        Step::ChangePort(n, with) => drop(bench.change_port(nth(ports, n)?, with)),
        Step::DeleteNetwork(n) => {
            let id = nth(networks, n)?;
            drop(bench.carry_out(|s, _| network::delete(s, id)));
        }
        Step::DeleteSubnet(n) => {
            let id = nth(subnets, n)?;
            drop(bench.carry_out(|s, c| subnet::delete(s, c, id)));
        }
        Step::DeletePort(n) => {
            let id = nth(ports, n)?;
            drop(bench.carry_out(|s, _| port::delete(s, id)));
        }
    }
    Some(())
}

fn rebuilt(state: &State) -> State {
    let objects: Vec<Mutation> = state
        .networks()
        .cloned()
        .map(Mutation::PutNetwork)
        .chain(state.subnets().cloned().map(Mutation::PutSubnet))
        .chain(state.ports().cloned().map(Mutation::PutPort))
        .chain(state.routers().cloned().map(Mutation::PutRouter))
        .chain(
            state
                .security_groups()
                .cloned()
                .map(Mutation::PutSecurityGroup),
        )
        .chain(state.rules().cloned().map(Mutation::PutSecurityGroupRule))
        .chain(
            state
                .address_groups()
                .cloned()
                .map(Mutation::PutAddressGroup),
        )
        .chain(state.qos_policies().cloned().map(Mutation::PutQosPolicy))
        .collect();
    State::replay(&objects)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn indexes_are_those_of_the_objects(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = Bench::default();
        for step in steps {
            take(&mut bench, step);
            prop_assert_eq!(&bench.state, &rebuilt(&bench.state));
        }
        for port in bench.state.ports() {
            let same = |p: &&crate::model::Port| p.common.id == port.common.id;
            let by_mac = bench.state.port_by_mac(port.network_id, port.mac_address);
            prop_assert!(by_mac.as_ref().is_some_and(same));
            for ip in &port.fixed_ips {
                let by_address = bench.state.port_by_address(ip.subnet_id, ip.ip_address);
                prop_assert!(by_address.as_ref().is_some_and(same));
            }
            if !port.binding_host_id.is_empty() {
                let tag = port.segmentation_id.unwrap();
                let by_tag = bench.state.port_by_tag(&port.binding_host_id, tag);
                prop_assert!(by_tag.as_ref().is_some_and(same));
            }
        }
    }
}

#[test]
fn a_key_may_change_hands_within_one_transaction() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let bound = |tag: u16| json!({"binding:host_id": "a", "segmentation_id": tag});
    let mut one = bench.port(&net, bound(1)).unwrap();
    let mut two = bench.port(&net, bound(2)).unwrap();
    std::mem::swap(&mut one.segmentation_id, &mut two.segmentation_id);
    bench.state.apply(&Mutation::PutPort(one.clone()));
    bench.state.apply(&Mutation::PutPort(two.clone()));
    assert_eq!(bench.state, rebuilt(&bench.state));
    let holder = bench.state.port_by_tag("a", one.segmentation_id.unwrap());
    assert_eq!(holder, Some(&one));
}
