use serde_json::json;

use super::super::testing::Bench;
use super::super::{IntentError, subnet};
use crate::model::Subnet;

fn pools(subnet: &Subnet) -> Vec<(String, String)> {
    subnet
        .allocation_pools
        .iter()
        .map(|p| (p.start.to_string(), p.end.to_string()))
        .collect()
}

fn pair(start: &str, end: &str) -> (String, String) {
    (start.into(), end.into())
}

#[test]
fn gateway_and_pools_default_as_neutrons() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    for (cidr, with, gateway, expected) in [
        (
            "10.0.0.0/24",
            json!({}),
            Some("10.0.0.1"),
            vec![pair("10.0.0.2", "10.0.0.254")],
        ),
        (
            "10.0.1.0/24",
            json!({"gateway_ip": "10.0.1.100"}),
            Some("10.0.1.100"),
            vec![
                pair("10.0.1.1", "10.0.1.99"),
                pair("10.0.1.101", "10.0.1.254"),
            ],
        ),
        (
            "10.0.2.0/24",
            json!({"gateway_ip": null}),
            None,
            vec![pair("10.0.2.1", "10.0.2.254")],
        ),
        (
            "10.0.3.0/31",
            json!({"gateway_ip": null}),
            None,
            vec![pair("10.0.3.0", "10.0.3.1")],
        ),
        (
            "10.0.3.4/32",
            json!({}),
            None,
            vec![pair("10.0.3.4", "10.0.3.4")],
        ),
        (
            "fd00::/64",
            json!({}),
            Some("fd00::1"),
            vec![pair("fd00::2", "fd00::ffff:ffff:ffff:ffff")],
        ),
        (
            "fd00:1::/64",
            json!({"gateway_ip": "fe80::1"}),
            Some("fe80::1"),
            vec![pair("fd00:1::1", "fd00:1::ffff:ffff:ffff:ffff")],
        ),
    ] {
        let subnet = bench.subnet(&net, cidr, with).unwrap();
        let found = subnet.gateway_ip.map(|g| g.to_string());
        assert_eq!(found.as_deref(), gateway, "{cidr}");
        assert_eq!(pools(&subnet), expected, "{cidr}");
    }
}

#[test]
fn impossible_subnets_are_refused() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let pool = |start: &str, end: &str| json!({"start": start, "end": end});
    for (cidr, with, expected) in [
        ("10.0.0.5/24", json!({}), "recommended"),
        ("10.0.0.0/24", json!({"ip_version": 6}), "ip_version"),
        ("0.0.0.0/0", json!({}), "prefix length"),
        ("224.0.0.0/24", json!({}), "unicast"),
        (
            "10.0.0.0/24",
            json!({"gateway_ip": "10.0.0.255"}),
            "Gateway",
        ),
        ("10.0.0.0/24", json!({"gateway_ip": "10.1.0.1"}), "Gateway"),
        ("10.0.0.0/24", json!({"gateway_ip": "fe80::1"}), "Gateway"),
        (
            "10.0.0.0/24",
            json!({"allocation_pools": [pool("10.0.0.9", "10.0.0.2")]}),
            "not valid",
        ),
        (
            "10.0.0.0/24",
            json!({"allocation_pools": [pool("10.0.0.9", "10.0.1.2")]}),
            "spans beyond",
        ),
        (
            "10.0.0.0/24",
            json!({"allocation_pools": [pool("10.0.0.9", "fd00::1")]}),
            "not valid",
        ),
        (
            "10.0.0.0/24",
            json!({"allocation_pools": [pool("10.0.0.1", "10.0.0.9")]}),
            "conflicts with allocation pool",
        ),
        (
            "10.0.0.0/24",
            json!({"allocation_pools":
                [pool("10.0.0.10", "10.0.0.20"), pool("10.0.0.5", "10.0.0.10")]}),
            "overlapping allocation pools",
        ),
        (
            "10.0.0.0/24",
            json!({"host_routes": [{"destination": "fd00::/64", "nexthop": "fd00::1"}]}),
            "IP version",
        ),
        (
            "10.0.0.0/24",
            json!({"dns_nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4",
                "1.1.1.5", "1.1.1.6"]}),
            "at most",
        ),
    ] {
        let error = bench.subnet(&net, cidr, with.clone()).unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{cidr} {with}: {error}"
        );
    }
}

#[test]
fn subnets_of_one_network_do_not_overlap() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let other = bench.network(json!({})).unwrap();
    bench.subnet(&net, "10.0.0.0/24", json!({})).unwrap();
    for cidr in ["10.0.0.0/24", "10.0.0.0/16", "10.0.0.128/25"] {
        let error = bench.subnet(&net, cidr, json!({})).unwrap_err();
        assert!(
            matches!(error, IntentError::SubnetOverlap { .. }),
            "{error}"
        );
    }
    bench.subnet(&other, "10.0.0.0/24", json!({})).unwrap();
}

#[test]
fn a_subnet_in_use_stays() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let id = bench
        .subnet(&net, "10.0.0.0/24", json!({}))
        .unwrap()
        .common
        .id;
    let port = bench.port(&net, json!({})).unwrap();
    let refused = bench.carry_out(|s, c| subnet::delete(s, c, id));
    assert_eq!(refused, Err(IntentError::SubnetInUse(id)));
    bench
        .change_port(port.common.id, json!({"fixed_ips": []}))
        .unwrap();
    bench.carry_out(|s, c| subnet::delete(s, c, id)).unwrap();
}

#[test]
fn a_gateway_moves_only_to_an_address_that_is_nobodys() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let pools = json!([{"start": "10.0.0.10", "end": "10.0.0.20"}]);
    let id = bench
        .subnet(&net, "10.0.0.0/24", json!({"allocation_pools": pools}))
        .unwrap()
        .common
        .id;
    let fixed = json!({"fixed_ips": [{"ip_address": "10.0.0.2"}]});
    bench.port(&net, fixed).unwrap();
    let error = bench
        .change_subnet(id, json!({"gateway_ip": "10.0.0.2"}))
        .unwrap_err();
    assert!(matches!(error, IntentError::GatewayInUse { .. }), "{error}");
    let error = bench
        .change_subnet(id, json!({"gateway_ip": "10.0.0.15"}))
        .unwrap_err();
    assert!(
        matches!(error, IntentError::GatewayInPool { .. }),
        "{error}"
    );
    let changed = bench
        .change_subnet(id, json!({"gateway_ip": "10.0.0.3"}))
        .unwrap();
    assert_eq!(changed.gateway_ip, "10.0.0.3".parse().ok());
    let changed = bench
        .change_subnet(id, json!({"gateway_ip": null}))
        .unwrap();
    assert_eq!(changed.gateway_ip, None);
}
