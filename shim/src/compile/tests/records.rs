//! What comes out for whom.

use nve_protocol::{Key, Record};

use super::super::*;
use super::fixtures::*;
use crate::events::types::VmStatus;
use crate::intent::State;
use crate::model::*;

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

/// What an NVE has, as it is written.
fn written(compiler: &Compiler, nve: u8) -> Vec<String> {
    let tables = compiler.tables(id(3, nve)).unwrap();
    tables
        .records()
        .map(|record| serde_json::to_string(record).unwrap())
        .collect()
}

/// Records of one kind on an NVE, as they are written.
fn kind(compiler: &Compiler, nve: u8, name: &str) -> Vec<String> {
    let start = format!("{{\"{name}\":");
    let mut records = written(compiler, nve);
    records.retain(|record| record.starts_with(&start));
    records
        .into_iter()
        .map(|record| record[start.len()..record.len() - 1].to_owned())
        .collect()
}

#[test]
fn an_nve_gets_what_its_ports_need_and_nothing_else() {
    let (state, _) = small();
    let p1 = id(2, 1);
    let p3 = id(2, 3);
    assert_eq!(
        written(&Compiler::new(&state), 1),
        [
            &format!(
                r#"{{"vap":{{"vlan":100,"port":"{p3}","vni":5002,"mac":"02:00:00:00:00:03","port_security":false,"presence":"active"}}}}"#
            ),
            r#"{"address":{"vlan":100,"mac":"02:00:00:00:00:03","prefix":"10.0.2.3/32","fixed":true}}"#,
            r#"{"dhcp_option":{"vlan":100,"family":"ipv4","code":12,"part":0,"value":"686f73742d31302d302d322d33"}}"#,
            &format!(
                r#"{{"vap":{{"vlan":101,"port":"{p1}","vni":5001,"mac":"02:00:00:00:00:01","port_security":false,"presence":"active"}}}}"#
            ),
            r#"{"address":{"vlan":101,"mac":"02:00:00:00:00:01","prefix":"10.0.1.1/32","fixed":true}}"#,
            r#"{"dhcp_option":{"vlan":101,"family":"ipv4","code":12,"part":0,"value":"686f73742d31302d302d312d31"}}"#,
            r#"{"fdb":{"vni":5001,"mac":"02:00:00:00:00:02","vtep":"192.0.2.2"}}"#,
            r#"{"fdb":{"vni":5001,"mac":"02:00:00:00:09:01","vtep":"198.51.100.1"}}"#,
            r#"{"neighbor":{"vni":5001,"ip":"10.0.1.1","mac":"02:00:00:00:00:01"}}"#,
            r#"{"neighbor":{"vni":5001,"ip":"10.0.1.2","mac":"02:00:00:00:00:02"}}"#,
            r#"{"neighbor":{"vni":5001,"ip":"10.0.1.201","mac":"02:00:00:00:09:01"}}"#,
            r#"{"network":{"vni":5001,"mtu":1450}}"#,
            r#"{"neighbor":{"vni":5002,"ip":"10.0.2.3","mac":"02:00:00:00:00:03"}}"#,
            r#"{"network":{"vni":5002,"mtu":1450}}"#,
            r#"{"flood":{"vni":5001,"vtep":"192.0.2.2"}}"#,
            r#"{"flood":{"vni":5001,"vtep":"198.51.100.1"}}"#,
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
fn a_tag_that_two_ports_have_is_nobodys() {
    let (mut state, _) = small();
    // Port 4 has port 1's tag; its VM says that it is on host 1 too.
    state.apply(&Mutation::PutPort(port(4, 1, 2, true)));
    state.apply(&Mutation::PutVm(vm(3, 1, VmStatus::Running, &[4], 5)));
    let mut compiler = Compiler::new(&state);
    let place = |compiler: &Compiler, port| compiler.compiled().place(id(2, port));
    assert!(place(&compiler, 1).is_none());
    assert!(place(&compiler, 4).is_none());
    let gone = Mutation::DeleteVm(id(5, 3));
    state.apply(&gone);
    compiler.follow(&state, &[gone]);
    assert!(place(&compiler, 1).is_some());
    // A port that is no more has its VM there all the same.
    let ghost = Mutation::PutVm(vm(3, 1, VmStatus::Running, &[4], 6));
    let batch = [Mutation::DeletePort(id(2, 4)), ghost];
    batch.iter().for_each(|mutation| state.apply(mutation));
    compiler.follow(&state, &batch);
    assert!(place(&compiler, 1).is_none());
}

/// As [`small`], with network 3 that nobody is in, and a router in networks 1 and 3
/// of which port 2 is put: on host 2 there is then nothing in network 1.
fn routed() -> State {
    let (mut state, _) = small();
    let more = [
        Mutation::PutNetwork(network(3, true)),
        Mutation::PutSubnet(subnet(1)),
        Mutation::PutSubnet(subnet(3)),
        Mutation::PutPort(port(2, 3, 2, true)),
        Mutation::PutRouter(Router {
            routes: vec![route("10.77.0.0/16", "10.0.1.1")],
            ..router(1, true)
        }),
        Mutation::PutPort(interface(7, 1, 1)),
        Mutation::PutPort(interface(8, 3, 1)),
    ];
    more.iter().for_each(|mutation| state.apply(mutation));
    state
}

#[test]
fn an_nve_gets_all_networks_that_routers_connect_to_its_own() {
    let compiler = Compiler::new(&routed());
    let router = id(10, 1);
    let gateways = [(5001, 1, 7), (5003, 3, 8)].map(|(vni, on, n)| {
        format!(
            r#"{{"vni":{vni},"ip":"10.0.{on}.{n}","prefix":"10.0.{on}.0/24","mac":"02:00:00:00:00:0{n}","router":"{router}"}}"#
        )
    });
    for nve in [1, 2] {
        assert_eq!(kind(&compiler, nve, "gateway"), gateways);
        assert_eq!(
            kind(&compiler, nve, "route"),
            [format!(
                r#"{{"router":"{router}","destination":"10.77.0.0/16","next_hop":"10.0.1.1"}}"#
            )]
        );
        let neighbors = kind(&compiler, nve, "neighbor").join(" ");
        assert!(neighbors.contains("10.0.1.1") && neighbors.contains("10.0.3.2"));
    }
    let fdb = kind(&compiler, 2, "fdb").join(" ");
    assert!(fdb.contains(r#""vni":5001,"mac":"02:00:00:00:00:01","vtep":"192.0.2.1""#));
    assert!(!fdb.contains("192.0.2.2"), "nothing of itself");
}

#[test]
fn who_routes_into_a_network_is_a_peer_there_and_takes_no_part() {
    let compiler = Compiler::new(&routed());
    let written = |vni, vtep| format!(r#"{{"vni":{vni},"vtep":"{vtep}"}}"#);
    assert_eq!(
        kind(&compiler, 1, "peer"),
        [written(5001, "192.0.2.2")],
        "NVE 2 has no VAP in network 1"
    );
    assert_eq!(kind(&compiler, 2, "peer"), [written(5003, "192.0.2.1")]);
    assert_eq!(kind(&compiler, 1, "flood"), [written(5001, "198.51.100.1")]);
    assert_eq!(kind(&compiler, 2, "flood"), [""; 0]);
    let subnets = |nve| kind(&compiler, nve, "subnet").len();
    assert_eq!((subnets(1), subnets(2)), (1, 1), "that of its own network");
}

#[test]
fn a_router_that_is_down_connects_nothing() {
    let mut state = routed();
    let mut compiler = Compiler::new(&state);
    let down = Mutation::PutRouter(router(1, false));
    state.apply(&down);
    compiler.follow(&state, &[down]);
    for nve in [1, 2] {
        for name in ["gateway", "route", "peer"] {
            assert_eq!(kind(&compiler, nve, name), [""; 0]);
        }
    }
    assert!(!kind(&compiler, 2, "fdb").join(" ").contains("5001"));
}

/// As [`small`], with port 1 in group 1 and port 2 in group 2, and group 1 open to
/// group 2 and address group 1.
fn guarded() -> State {
    let (mut state, _) = small();
    let secured = |number, bound, group| {
        let port = port(number, 1, bound, true);
        Port {
            port_security_enabled: true,
            security_groups: vec![id(11, group)],
            allowed_address_pairs: vec![
                pair("10.0.1.2/32", port.mac_address),
                pair("10.7.0.0/16", nve_protocol::Mac([2, 7, 0, 0, 0, number])),
            ],
            ..port
        }
    };
    let more = [
        Mutation::PutSecurityGroup(group(1, true)),
        Mutation::PutSecurityGroup(group(2, false)),
        Mutation::PutAddressGroup(address_group(1, &["10.8.0.0/16", "2001:db8::/32"])),
        Mutation::PutSecurityGroupRule(SecurityGroupRule {
            remote_group_id: Some(id(11, 2)),
            ..rule(1, 1)
        }),
        Mutation::PutSecurityGroupRule(SecurityGroupRule {
            remote_address_group_id: Some(id(13, 1)),
            ..rule(2, 1)
        }),
        Mutation::PutPort(secured(1, 1, 1)),
        Mutation::PutPort(secured(2, 2, 2)),
    ];
    more.iter().for_each(|mutation| state.apply(mutation));
    state
}

#[test]
fn an_nve_gets_the_groups_of_its_vaps_and_whom_their_rules_name() {
    let compiler = Compiler::new(&guarded());
    let (one, two, listed) = (id(11, 1), id(11, 2), id(13, 1));
    assert_eq!(
        kind(&compiler, 1, "group"),
        [format!(r#"{{"group":"{one}","stateful":true}}"#)]
    );
    assert_eq!(
        kind(&compiler, 1, "binding"),
        [format!(r#"{{"vlan":101,"group":"{one}"}}"#)]
    );
    let rules = kind(&compiler, 1, "rule").join(" ");
    assert!(rules.contains(&format!(r#""remote":{{"group":"{two}"}}"#)));
    let member = |group, prefix| format!(r#"{{"group":"{group}","prefix":"{prefix}"}}"#);
    assert_eq!(
        kind(&compiler, 1, "member"),
        [
            member(two, "10.0.1.2/32"),
            member(two, "10.7.0.0/16"),
            member(listed, "10.8.0.0/16"),
            member(listed, "2001:db8::/32"),
        ]
    );
    assert_eq!(kind(&compiler, 2, "rule"), [""; 0]);
    assert_eq!(kind(&compiler, 2, "member"), [""; 0], "nobody names one");
}

#[test]
fn a_pair_that_is_a_fixed_ip_stays_fixed() {
    let compiler = Compiler::new(&guarded());
    let address = |mac: &str, prefix: &str, fixed: bool| {
        format!(r#"{{"vlan":102,"mac":"{mac}","prefix":"{prefix}","fixed":{fixed}}}"#)
    };
    assert_eq!(
        kind(&compiler, 2, "address"),
        [
            address("02:00:00:00:00:02", "10.0.1.2/32", true),
            address("02:07:00:00:00:02", "10.7.0.0/16", false),
        ]
    );
}

#[test]
fn groups_are_not_for_ports_without_port_security() {
    let mut state = guarded();
    let mut compiler = Compiler::new(&state);
    let open = Mutation::PutPort(port(1, 1, 1, true));
    state.apply(&open);
    compiler.follow(&state, &[open]);
    for name in ["binding", "group", "rule", "member"] {
        assert_eq!(kind(&compiler, 1, name), [""; 0]);
    }
}

#[test]
fn a_rule_says_what_it_lets_through() {
    let icmp = IpProtocol {
        number: 58,
        text: "icmp".into(),
    };
    let tcp = IpProtocol {
        number: 6,
        text: "tcp".into(),
    };
    let base = rule(1, 1);
    let of = |protocol: Option<&IpProtocol>, min, max| SecurityGroupRule {
        protocol: protocol.cloned(),
        port_range_min: min,
        port_range_max: max,
        ..base.clone()
    };
    let cases = [
        (of(None, None, None), 0, 65535),
        (of(Some(&tcp), Some(80), Some(90)), 80, 90),
        (of(Some(&tcp), None, None), 0, 65535),
        (of(Some(&icmp), None, None), 0, 65535),
        (of(Some(&icmp), Some(8), None), 2048, 2303),
        (of(Some(&icmp), Some(3), Some(4)), 772, 772),
        (of(Some(&icmp), Some(255), Some(255)), 65535, 65535),
    ];
    for (rule, low, high) in cases {
        let mut state = guarded();
        state.apply(&Mutation::PutSecurityGroupRule(rule.clone()));
        let compiler = Compiler::new(&state);
        let tables = compiler.tables(id(3, 1)).unwrap();
        let of_rule = |record: &&Record| matches!(record.key(), Key::Rule { id } if id.0 == *rule.common.id.as_bytes());
        let Some(Record::Rule(got)) = tables.records().find(of_rule) else {
            panic!("{rule:?} has no record");
        };
        let number = rule.protocol.as_ref().map(|protocol| protocol.number);
        assert_eq!((got.protocol, got.low, got.high), (number, low, high));
    }
}

#[test]
fn a_policy_is_the_ports_or_else_the_networks() {
    let (mut state, _) = small();
    let own = Port {
        qos_policy_id: Some(id(14, 1)),
        ..port(1, 1, 1, true)
    };
    let net = Network {
        qos_policy_id: Some(id(14, 2)),
        ..network(1, true)
    };
    let more = [
        Mutation::PutQosPolicy(policy(1, 1000)),
        Mutation::PutQosPolicy(policy(2, 2000)),
        Mutation::PutPort(own),
        Mutation::PutNetwork(net),
    ];
    more.iter().for_each(|mutation| state.apply(mutation));
    let mut compiler = Compiler::new(&state);
    assert!(kind(&compiler, 1, "qos")[0].contains(r#""vlan":101,"egress":{"kbps":1000"#));
    assert!(kind(&compiler, 2, "qos")[0].contains(r#""vlan":102,"egress":{"kbps":2000"#));
    let other = Mutation::PutQosPolicy(policy(2, 3000));
    state.apply(&other);
    assert_eq!(compiler.follow(&state, &[other]), [id(3, 2)].into());
    assert!(kind(&compiler, 2, "qos")[0].contains("3000"));
}
