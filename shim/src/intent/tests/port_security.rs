//! Security groups, address pairs, DHCP options and names of ports.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::testing::Bench;
use super::super::{IntentError, SecurityError};

fn refusal(error: IntentError) -> SecurityError {
    match error {
        IntentError::Security(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_port_is_in_its_projects_default_group_unless_it_says_otherwise() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let port = bench.port(&net, json!({"project_id": "p"})).unwrap();
    let default = bench.state.default_group("p").unwrap().common.id;
    assert!(port.port_security_enabled);
    assert_eq!(port.security_groups, [default]);
    let group = bench.group(json!({"project_id": "p"})).unwrap().common.id;
    let port = bench
        .port(&net, json!({"security_groups": [group, group]}))
        .unwrap();
    assert_eq!(port.security_groups, [group]);
    let bare = bench.port(&net, json!({"security_groups": []})).unwrap();
    assert!(bare.port_security_enabled && bare.security_groups.is_empty());
    let trusted = json!({"device_owner": "network:dhcp", "security_groups": [group]});
    let trusted = bench.port(&net, trusted).unwrap();
    assert!(!trusted.port_security_enabled && trusted.security_groups.is_empty());
    let error = bench
        .port(&net, json!({"security_groups": [Uuid::nil()]}))
        .unwrap_err();
    assert_eq!(error, IntentError::not_found("SecurityGroup", Uuid::nil()));
    assert_eq!(bench.state.ports_of_group(group).count(), 1);
}

#[test]
fn a_network_says_what_its_new_ports_have() {
    let mut bench = Bench::default();
    let open = bench
        .network(json!({"port_security_enabled": false}))
        .unwrap();
    assert!(!bench.port(&open, json!({})).unwrap().port_security_enabled);
    assert_eq!(bench.state.security_groups().count(), 0);
    let group = bench.group(json!({})).unwrap().common.id;
    let with = json!({"security_groups": [group]});
    let error = bench.port(&open, with.clone()).unwrap_err();
    assert_eq!(refusal(error), SecurityError::GroupsNeedPortSecurity);
    bench.subnet(&open, "10.0.0.0/24", json!({})).unwrap();
    let port = bench.port(&open, with).unwrap();
    assert!(port.port_security_enabled, "it has an address and groups");
}

#[test]
fn groups_and_pairs_need_port_security() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let pairs = json!([{"ip_address": "10.0.0.9/32"}]);
    let off = |with: Value| {
        let mut with = with;
        with["port_security_enabled"] = json!(false);
        with
    };
    let error = bench
        .port(&net, off(json!({"allowed_address_pairs": pairs})))
        .unwrap_err();
    assert_eq!(refusal(error), SecurityError::PairsNeedPortSecurity);
    let port = bench
        .port(&net, json!({"allowed_address_pairs": pairs}))
        .unwrap();
    let id = port.common.id;
    let groups = port.security_groups;
    assert_eq!(port.allowed_address_pairs[0].mac_address, port.mac_address);
    for (change, expected) in [
        (off(json!({})), SecurityError::PairsNeedPortSecurity),
        (
            off(json!({"allowed_address_pairs": []})),
            SecurityError::PortHasGroups,
        ),
        (
            off(json!({"allowed_address_pairs": [], "security_groups": groups})),
            SecurityError::GroupsNeedPortSecurity,
        ),
    ] {
        assert_eq!(
            refusal(bench.change_port(id, change).unwrap_err()),
            expected
        );
    }
    let none = off(json!({"allowed_address_pairs": [], "security_groups": []}));
    let port = bench.change_port(id, none).unwrap();
    assert!(!port.port_security_enabled);
    let error = bench
        .change_port(id, json!({"security_groups": groups}))
        .unwrap_err();
    assert_eq!(refusal(error), SecurityError::GroupsNeedPortSecurity);
    let on = json!({"port_security_enabled": true, "security_groups": groups});
    assert_eq!(bench.change_port(id, on).unwrap().security_groups, groups);
}

#[test]
fn groups_of_a_port_are_stateful_all_or_none() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let stateful = bench.group(json!({})).unwrap().common.id;
    let stateless = bench.group(json!({"stateful": false})).unwrap().common.id;
    let both = json!({"security_groups": [stateful, stateless]});
    let error = bench.port(&net, both).unwrap_err();
    assert_eq!(refusal(error), SecurityError::MixedStatefulness);
    bench
        .port(&net, json!({"security_groups": [stateless]}))
        .unwrap();
}

#[test]
fn address_pairs_are_of_stations_and_differ() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let mac = "02:00:00:00:00:01";
    let with = |pairs: Value| json!({"mac_address": mac, "allowed_address_pairs": pairs});
    let own = json!({"ip_address": "10.0.0.9/32"});
    let twice = json!([own, {"ip_address": "10.0.0.9/32", "mac_address": mac}]);
    let error = refusal(bench.port(&net, with(twice)).unwrap_err());
    assert!(
        matches!(error, SecurityError::DuplicatePair { .. }),
        "{error}"
    );
    for bad in [
        json!([{"ip_address": "224.0.0.0/24"}]),
        json!([{"ip_address": "10.0.0.9/32", "mac_address": "01:00:00:00:00:01"}]),
    ] {
        assert!(bench.port(&net, with(bad)).is_err());
    }
    let two = json!([own, {"ip_address": "0.0.0.0/0", "mac_address": "02:00:00:00:00:02"}]);
    let port = bench.port(&net, with(two)).unwrap();
    assert_eq!(port.allowed_address_pairs.len(), 2);
}

#[test]
fn dhcp_options_are_set_changed_and_removed_one_by_one() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let options = json!([
        {"opt_name": "mtu", "opt_value": "1400"},
        {"opt_name": "150", "opt_value": "192.0.2.1"},
        {"opt_name": "dns-server", "opt_value": "fd00::53", "ip_version": 6},
        {"opt_name": "router", "opt_value": ""},
        {"opt_name": "gone", "opt_value": null},
    ]);
    let port = bench
        .port(&net, json!({"extra_dhcp_opts": options}))
        .unwrap();
    let id = port.common.id;
    assert_eq!(port.extra_dhcp_opts.len(), 4);
    let change = json!({"extra_dhcp_opts": [
        {"opt_name": "mtu", "opt_value": "1300"},
        {"opt_name": "router", "opt_value": null},
        {"opt_name": "dns-server", "opt_value": null},
        {"opt_name": "ntp-server", "opt_value": "192.0.2.123"},
    ]});
    let port = bench.change_port(id, change).unwrap();
    let names: Vec<&str> = port
        .extra_dhcp_opts
        .iter()
        .map(|o| o.opt_name.as_str())
        .collect();
    assert_eq!(names, ["mtu", "150", "dns-server", "ntp-server"]);
    assert_eq!(port.extra_dhcp_opts[0].opt_value, "1300");
    for bad in [
        json!({"opt_name": "quantum-option", "opt_value": "x"}),
        json!({"opt_name": "0", "opt_value": "x"}),
        json!({"opt_name": "255", "opt_value": "x"}),
        json!({"opt_name": "mtu", "opt_value": ""}),
        json!({"opt_name": "mtu", "opt_value": "1\n2"}),
        json!({"opt_name": "mtu", "opt_value": "large"}),
        json!({"opt_name": "router", "opt_value": "fd00::1"}),
        json!({"opt_name": "dns-server", "opt_value": "192.0.2.1", "ip_version": 6}),
        json!({"opt_name": "hostname", "opt_value": "x".repeat(256)}),
        json!({"opt_name": "mtu", "opt_value": "1300", "ip_version": 5}),
        json!({"opt_name": "server-ip-address", "opt_value": "fd00::1", "ip_version": 6}),
    ] {
        let error = bench
            .change_port(id, json!({"extra_dhcp_opts": [bad]}))
            .unwrap_err();
        assert!(matches!(error, IntentError::InvalidInput(_)), "{error}");
    }
    // Kept, though nobody is told.
    let untold = json!({"opt_name": "server-ip-address", "opt_value": "192.0.2.1"});
    let change = json!({"extra_dhcp_opts": [untold]});
    let changed = bench.change_port(id, change).unwrap();
    assert_eq!(
        changed.extra_dhcp_opts.len(),
        port.extra_dhcp_opts.len() + 1
    );
}
