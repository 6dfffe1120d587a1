//! Whatever is asked in whatever order, the state's indexes are those of its objects.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::Bench;
use super::super::{State, group, network, port, qos, router, rule, subnet};
use crate::model::Mutation;

/// A request; numbers choose among what exists.
#[derive(Debug, Clone)]
enum Step {
    Network,
    Subnet(usize, u8),
    Port(usize, Value),
    ChangePort(usize, Value),
    Policy,
    Group,
    Rule(usize, Option<usize>),
    Router,
    Attach(usize, usize),
    Detach(usize, usize),
    DeleteRouter(usize),
    DeleteGroup(usize),
    DeleteRule(usize),
    DeletePolicy(usize),
    DeleteNetwork(usize),
    DeleteSubnet(usize),
    DeletePort(usize),
}

fn port_attributes() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["", "a", "b"]),
        prop::option::of(1u16..4),
        prop::option::of(1u8..4),
        prop::option::of(0usize..8),
        prop::option::of(0usize..8),
    )
        .prop_map(|(host, tag, mac, group, policy)| {
            let mut with = json!({"binding:host_id": host});
            if let Some(tag) = tag {
                with["segmentation_id"] = json!(tag);
            }
            if let Some(mac) = mac {
                with["mac_address"] = json!(format!("02:00:00:00:00:0{mac}"));
            }
            // Which ones these are is seen when the step is taken.
            with["group"] = json!(group);
            with["policy"] = json!(policy);
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
        prop_oneof![Just(Step::Policy), Just(Step::Group), Just(Step::Router)],
        (any(), prop::option::of(any())).prop_map(|(g, remote)| Step::Rule(g, remote)),
        (any(), any()).prop_map(|(r, s)| Step::Attach(r, s)),
        (any(), any()).prop_map(|(r, s)| Step::Attach(r, s)),
        (any(), any()).prop_map(|(r, s)| Step::Detach(r, s)),
        any().prop_map(Step::DeleteRouter),
        any().prop_map(Step::DeleteGroup),
        any().prop_map(Step::DeleteRule),
        any().prop_map(Step::DeletePolicy),
        any().prop_map(Step::DeleteNetwork),
        any().prop_map(Step::DeleteSubnet),
        any().prop_map(Step::DeletePort),
    ]
}

/// The attributes, with a group and a policy of those that there are.
fn resolved(bench: &Bench, mut with: Value) -> Value {
    let groups: Vec<_> = bench.state.security_groups().map(|g| g.common.id).collect();
    let policies: Vec<_> = bench.state.qos_policies().map(|p| p.common.id).collect();
    let nth = |items: &[uuid::Uuid], n: &Value| {
        let n = usize::try_from(n.as_u64()?).ok()?;
        items.get(n % items.len().max(1)).copied()
    };
    if let Some(group) = nth(&groups, &with["group"]) {
        with["security_groups"] = json!([group]);
    }
    if let Some(policy) = nth(&policies, &with["policy"]) {
        with["qos_policy_id"] = json!(policy);
    }
    with
}

/// Carries out the step if it can be; refusals are fine.
fn take(bench: &mut Bench, step: Step) -> Option<()> {
    let nth = |items: Vec<uuid::Uuid>, n: usize| items.get(n % items.len().max(1)).copied();
    let networks: Vec<_> = bench.state.networks().map(|n| n.common.id).collect();
    let subnets: Vec<_> = bench.state.subnets().map(|s| s.common.id).collect();
    let ports: Vec<_> = bench.state.ports().map(|p| p.common.id).collect();
    let routers: Vec<_> = bench.state.routers().map(|r| r.common.id).collect();
    let groups: Vec<_> = bench.state.security_groups().map(|g| g.common.id).collect();
    let rules: Vec<_> = bench.state.rules().map(|r| r.common.id).collect();
    let policies: Vec<_> = bench.state.qos_policies().map(|p| p.common.id).collect();
    match step {
        Step::Network => drop(bench.network(json!({}))),
        Step::Subnet(n, third) => {
            let net = bench.state.network(nth(networks, n)?)?.clone();
            drop(bench.subnet(&net, &format!("10.0.{third}.0/29"), json!({})));
        }
        Step::Port(n, with) => {
            let net = bench.state.network(nth(networks, n)?)?.clone();
            let with = resolved(bench, with);
            drop(bench.port(&net, with));
        }
        Step::ChangePort(n, with) => {
            let with = resolved(bench, with);
            drop(bench.change_port(nth(ports, n)?, with));
        }
        Step::Policy => drop(bench.policy(json!({}))),
        Step::Group => drop(bench.group(json!({}))),
        Step::Rule(n, remote) => {
            let remote = remote.and_then(|n| nth(groups.clone(), n));
            let remote = json!({"remote_group_id": remote});
            drop(bench.rule(nth(groups, n)?, remote));
        }
        Step::Router => drop(bench.router(json!({}))),
        Step::Attach(n, subnet) => {
            let which = json!({"subnet_id": nth(subnets, subnet)?});
            drop(bench.attach(nth(routers, n)?, which));
        }
        Step::Detach(n, subnet) => {
            let which = json!({"subnet_id": nth(subnets, subnet)?});
            drop(bench.detach(nth(routers, n)?, which));
        }
        Step::DeleteRouter(n) => {
            let id = nth(routers, n)?;
            drop(bench.carry_out(|s, _| router::delete(s, id)));
        }
        Step::DeleteGroup(n) => {
            let id = nth(groups, n)?;
            drop(bench.carry_out(|s, _| group::delete(s, id)));
        }
        Step::DeleteRule(n) => {
            let id = nth(rules, n)?;
            drop(bench.carry_out(|s, c| rule::delete(s, c, id)));
        }
        Step::DeletePolicy(n) => {
            let id = nth(policies, n)?;
            drop(bench.carry_out(|s, _| qos::delete(s, id)));
        }
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
            drop(bench.carry_out(|s, c| port::delete(s, c, id)));
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
        .chain(state.quarantines().cloned().map(Mutation::PutQuarantine))
        .chain(state.clusters().cloned().map(Mutation::PutCluster))
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
            for group in &port.security_groups {
                prop_assert!(bench.state.ports_of_group(*group).any(|p| same(&p)));
            }
            if let Some(policy) = port.qos_policy_id {
                prop_assert!(bench.state.ports_of_policy(policy).any(|p| same(&p)));
            }
            if let Some(router) = port.router() {
                prop_assert!(bench.state.interfaces_of(router).any(|p| same(&p)));
                let mut routers = bench.state.routers_on(port.network_id);
                prop_assert!(routers.any(|r| r.common.id == router));
                prop_assert_eq!(port.segmentation_id, None);
            } else if !port.binding_host_id.is_empty() {
                let tag = port.segmentation_id.unwrap();
                let by_tag = bench.state.port_by_tag(&port.binding_host_id, tag);
                prop_assert!(by_tag.as_ref().is_some_and(same));
            }
        }
    }
}

/// Mutations of objects that refer to nothing that exists, as a store may hold them.
fn stray() -> impl Strategy<Value = Mutation> {
    let id = |n: u8| uuid::Uuid::from_u128(u128::from(n));
    let common = move |n: u8, project: u8| {
        json!({"id": id(n), "name": "", "description": "", "project_id": project.to_string(),
            "revision_number": 0, "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z"})
    };
    let rule = move |(n, group, remote, address): (u8, u8, Option<u8>, Option<u8>)| {
        let rule = json!({"common": common(n, 0), "security_group_id": id(group),
            "direction": "ingress", "ethertype": "IPv4", "remote_group_id": remote.map(id),
            "remote_address_group_id": address.map(id)});
        Mutation::PutSecurityGroupRule(serde_json::from_value(rule).unwrap())
    };
    let group = move |(n, project, is_default): (u8, u8, bool)| {
        let group = json!({"common": common(n, project), "stateful": true,
            "is_default": is_default});
        Mutation::PutSecurityGroup(serde_json::from_value(group).unwrap())
    };
    prop_oneof![
        (
            0u8..6,
            0u8..4,
            prop::option::of(0u8..4),
            prop::option::of(0u8..4)
        )
            .prop_map(rule),
        (0u8..6).prop_map(move |n| Mutation::DeleteSecurityGroupRule(id(n))),
        (0u8..4, 0u8..4, any::<bool>()).prop_map(group),
        (0u8..4).prop_map(move |n| Mutation::DeleteSecurityGroup(id(n))),
    ]
}

proptest! {
    /// Projects of default groups differ, since a project has one.
    #[test]
    fn indexes_follow_whatever_is_put(mutations in prop::collection::vec(stray(), 1..40)) {
        let mut state = State::default();
        for mutation in mutations {
            if let Mutation::PutSecurityGroup(group) = &mutation
                && group.is_default
                && state.default_group(&group.common.project_id)
                    .is_some_and(|other| other.common.id != group.common.id)
            {
                continue;
            }
            state.apply(&mutation);
            prop_assert_eq!(&state, &rebuilt(&state));
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
