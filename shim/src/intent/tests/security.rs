//! Security groups, their rules, and address groups.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::testing::Bench;
use super::super::{IntentError, SecurityError, address_group, group, rule};
use crate::model::Direction;

fn refusal(error: IntentError) -> SecurityError {
    match error {
        IntentError::Security(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_group_lets_everything_out_and_a_default_group_its_members_in() {
    let mut bench = Bench::default();
    let web = bench
        .group(json!({"name": "web", "project_id": "p"}))
        .unwrap();
    let ways = |id: Uuid| {
        let mut ways: Vec<_> = bench
            .state
            .rules_of(id)
            .map(|r| (r.direction, r.ethertype, r.remote_group_id))
            .collect();
        ways.sort();
        ways
    };
    assert_eq!(ways(web.common.id).len(), 2);
    assert!(
        ways(web.common.id)
            .iter()
            .all(|w| w.0 == Direction::Egress && w.2.is_none())
    );
    let default = bench.state.default_group("p").unwrap().common.id;
    let all = ways(default);
    assert_eq!(all.len(), 4);
    assert_eq!(
        all.iter()
            .filter(|w| w.0 == Direction::Ingress && w.2 == Some(default))
            .count(),
        2
    );
    bench.group(json!({"project_id": "p"})).unwrap();
    assert_eq!(
        bench.state.security_groups().count(),
        3,
        "one default group per project"
    );
}

#[test]
fn a_default_group_keeps_its_name_and_stays() {
    let mut bench = Bench::default();
    bench.group(json!({})).unwrap();
    let error = bench.group(json!({"name": "Default"})).unwrap_err();
    assert_eq!(refusal(error), SecurityError::DefaultExists);
    let default = bench.state.default_group("").unwrap().common.id;
    let change = |change: Value| serde_json::from_value(change).unwrap();
    let renamed =
        bench.carry_out(|s, c| group::update(s, c, default, change(json!({"name": "x"}))));
    assert_eq!(refusal(renamed.unwrap_err()), SecurityError::DefaultRenamed);
    let kept = json!({"name": "default", "description": "ours"});
    let kept = bench.carry_out(|s, c| group::update(s, c, default, change(kept)));
    assert_eq!(kept.unwrap().common.description, "ours");
    let deleted = bench.carry_out(|s, _| group::delete(s, default));
    assert_eq!(refusal(deleted.unwrap_err()), SecurityError::DefaultRemoved);
}

#[test]
fn a_group_in_use_stays_and_one_that_goes_takes_rules_about_it_along() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let group = bench.group(json!({})).unwrap().common.id;
    let other = bench.group(json!({})).unwrap().common.id;
    bench
        .rule(other, json!({"remote_group_id": group}))
        .unwrap();
    bench
        .rule(group, json!({"remote_group_id": group}))
        .unwrap();
    let port = bench
        .port(&net, json!({"security_groups": [group]}))
        .unwrap();
    let deleted = bench.carry_out(|s, _| group::delete(s, group));
    assert_eq!(
        refusal(deleted.unwrap_err()),
        SecurityError::GroupInUse(group)
    );
    let stateless = serde_json::from_value(json!({"stateful": false})).unwrap();
    let changed = bench.carry_out(|s, c| group::update(s, c, group, stateless));
    assert_eq!(
        refusal(changed.unwrap_err()),
        SecurityError::GroupInUse(group)
    );
    bench
        .change_port(port.common.id, json!({"security_groups": []}))
        .unwrap();
    bench.carry_out(|s, _| group::delete(s, group)).unwrap();
    assert_eq!(bench.state.rules_about(group).count(), 0);
    assert_eq!(bench.state.rules_of(group).count(), 0);
    assert_eq!(bench.state.rules_of(other).count(), 2);
}

#[test]
fn rules_say_what_they_mean() {
    let mut bench = Bench::default();
    let group = bench.group(json!({"project_id": "p"})).unwrap().common.id;
    let mut made = |with| bench.rule(group, with).unwrap();
    let named = |rule: &crate::model::SecurityGroupRule| {
        let protocol = rule.protocol.clone().unwrap();
        (protocol.text, protocol.number)
    };
    let tcp = made(json!({"protocol": "TCP", "port_range_min": 22, "port_range_max": 22}));
    assert_eq!(named(&tcp), ("tcp".to_owned(), 6));
    assert_eq!(tcp.common.project_id, "p");
    let all = made(json!({"protocol": "udp", "port_range_min": 1, "port_range_max": 65535}));
    assert_eq!((all.port_range_min, all.port_range_max), (None, None));
    let six = |protocol: &str| json!({"ethertype": "ipv6", "protocol": protocol});
    assert_eq!(named(&made(six("icmp"))), ("ipv6-icmp".to_owned(), 58));
    assert_eq!(named(&made(six("vrrp"))), ("vrrp".to_owned(), 112));
    assert_eq!(
        named(&made(json!({"protocol": "132"}))),
        ("132".to_owned(), 132)
    );
    let ping = made(json!({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}));
    assert_eq!(
        (ping.port_range_min, ping.port_range_max),
        (Some(8), Some(0))
    );
    let from = made(json!({"remote_ip_prefix": "10.1.2.3/8"}));
    assert_eq!(from.remote_ip_prefix.unwrap().to_string(), "10.0.0.0/8");
    let from = made(json!({"remote_ip_prefix": "10.1.2.3"}));
    assert_eq!(from.remote_ip_prefix.unwrap().to_string(), "10.1.2.3/32");
    assert_eq!(made(json!({"protocol": "any"})).protocol, None);
    assert_eq!(
        bench
            .state
            .security_group(group)
            .unwrap()
            .common
            .revision_number,
        9
    );
}

#[test]
fn rules_that_make_no_sense_are_refused_with_neutrons_words() {
    use SecurityError as E;
    let mut bench = Bench::default();
    let group = bench.group(json!({})).unwrap().common.id;
    let ports = |protocol: &str, min: Value, max: Value| json!({"protocol": protocol, "port_range_min": min, "port_range_max": max});
    let null = Value::Null;
    for (with, expected) in [
        (
            json!({"protocol": "tcpp"}),
            E::InvalidProtocol("tcpp".into()),
        ),
        (json!({"protocol": "256"}), E::InvalidProtocol("256".into())),
        (json!({"protocol": ""}), E::InvalidProtocol("".into())),
        (
            json!({"ethertype": "IPX"}),
            E::InvalidEthertype("IPX".into()),
        ),
        (json!({"port_range_min": 1}), E::ProtocolRequired),
        (ports("tcp", json!(2), json!(1)), E::InvalidRange),
        (ports("tcp", json!(2), null.clone()), E::InvalidRange),
        (ports("udplite", null.clone(), json!(2)), E::InvalidRange),
        (ports("tcp", json!(0), json!(1)), E::InvalidPort(0)),
        (ports("17", json!(1), json!(65536)), E::InvalidPort(65536)),
        (ports("gre", json!(1), json!(1)), E::NoPorts(47)),
        (ports("icmp", null, json!(1)), E::MissingIcmpType(1)),
        (
            ports("icmp", json!(256), json!(0)),
            E::InvalidIcmp {
                field: "type",
                attribute: "port_range_min",
                value: 256,
            },
        ),
        (
            json!({"remote_ip_prefix": "10.0.0"}),
            E::InvalidPrefix("10.0.0".into()),
        ),
        (
            json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": group}),
            E::MultipleRemotes,
        ),
    ] {
        assert_eq!(refusal(bench.rule(group, with).unwrap_err()), expected);
    }
    for with in [json!({"protocol": "icmpv6"}), json!({"protocol": "44"})] {
        let error = refusal(bench.rule(group, with).unwrap_err());
        assert!(matches!(error, E::EthertypeOfProtocol { .. }), "{error}");
    }
    let error = refusal(
        bench
            .rule(group, json!({"remote_ip_prefix": "fd00::/8"}))
            .unwrap_err(),
    );
    assert!(matches!(error, E::EthertypeOfPrefix { .. }), "{error}");
    for name in [
        "remote_group_id",
        "remote_address_group_id",
        "security_group_id",
    ] {
        let error = bench.rule(group, json!({name: Uuid::nil()})).unwrap_err();
        assert!(matches!(error, IntentError::NotFound { .. }), "{error}");
    }
}

#[test]
fn two_rules_of_a_group_differ() {
    let mut bench = Bench::default();
    let group = bench.group(json!({})).unwrap().common.id;
    let first = bench
        .rule(group, json!({"protocol": "tcp"}))
        .unwrap()
        .common
        .id;
    for same in [
        json!({"protocol": "6"}),
        json!({"protocol": "tcp", "remote_ip_prefix": "0.0.0.0/0", "description": "again"}),
    ] {
        let error = refusal(bench.rule(group, same).unwrap_err());
        assert_eq!(error, SecurityError::RuleExists(first));
    }
    bench
        .rule(group, json!({"protocol": "tcp", "direction": "egress"}))
        .unwrap();
    let before = bench
        .state
        .security_group(group)
        .unwrap()
        .common
        .revision_number;
    bench.carry_out(|s, c| rule::delete(s, c, first)).unwrap();
    let after = bench
        .state
        .security_group(group)
        .unwrap()
        .common
        .revision_number;
    assert_eq!(after, before + 1);
    bench.rule(group, json!({"protocol": "6"})).unwrap();
}

#[test]
fn an_address_group_has_each_prefix_once_and_stays_while_rules_name_it() {
    let mut bench = Bench::default();
    let made = bench.address_group(json!(["10.2.0.0/16", "10.1.0.0/16", "10.1.0.0/16"]));
    let group = made.unwrap();
    let texts: Vec<String> = group.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.1.0.0/16", "10.2.0.0/16"]);
    let id = group.common.id;
    let cidrs = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
    let again = bench.carry_out(|s, c| address_group::add(s, c, id, cidrs(&["10.1.0.0/16"])));
    let error = refusal(again.unwrap_err());
    assert!(
        matches!(error, SecurityError::AddressesExist { .. }),
        "{error}"
    );
    let more = bench.carry_out(|s, c| address_group::add(s, c, id, cidrs(&["fd00::/64"])));
    assert_eq!(more.unwrap().addresses.len(), 3);
    let missing = cidrs(&["fd00::/64", "10.9.0.0/16"]);
    let missing = bench.carry_out(|s, c| address_group::remove(s, c, id, missing));
    let error = refusal(missing.unwrap_err());
    assert!(error.to_string().contains("['10.9.0.0/16']"), "{error}");
    let less = bench.carry_out(|s, c| address_group::remove(s, c, id, cidrs(&["fd00::/64"])));
    assert_eq!(less.unwrap().common.revision_number, 2);
    let group = bench.group(json!({})).unwrap().common.id;
    let rule = bench
        .rule(group, json!({"remote_address_group_id": id}))
        .unwrap();
    let deleted = bench.carry_out(|s, _| address_group::delete(s, id));
    assert_eq!(
        refusal(deleted.unwrap_err()),
        SecurityError::AddressGroupInUse(id)
    );
    bench
        .carry_out(|s, c| rule::delete(s, c, rule.common.id))
        .unwrap();
    bench
        .carry_out(|s, _| address_group::delete(s, id))
        .unwrap();
}
