//! Subnets whose stations make their addresses themselves.

use serde_json::{Value, json};

use super::super::testing::{Bench, addresses};
use super::super::{IntentError, subnet};

const MAC: &str = "02:00:00:00:00:01";
/// What [`MAC`] makes of `fd00:1::/64`.
const OWN: &str = "fd00:1::ff:fe00:1";

fn slaac() -> Value {
    json!({"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"})
}

#[test]
fn a_station_makes_its_address_of_its_mac() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    bench.subnet(&net, "10.0.0.0/24", json!({})).unwrap();
    let auto = bench.subnet(&net, "fd00:1::/64", slaac()).unwrap();
    let port = bench.port(&net, json!({"mac_address": MAC})).unwrap();
    assert_eq!(addresses(&port), ["10.0.0.2", OWN]);
    let id = port.common.id;
    let four = json!({"fixed_ips": [{"ip_address": "10.0.0.9"}]});
    let port = bench.change_port(id, four).unwrap();
    assert_eq!(addresses(&port), ["10.0.0.9", OWN]);
    let port = bench
        .change_port(id, json!({"mac_address": "02:00:00:00:00:02"}))
        .unwrap();
    assert_eq!(addresses(&port), ["10.0.0.9", "fd00:1::ff:fe00:2"]);
    let chosen = json!({"fixed_ips": [{"ip_address": "fd00:1::9"}]});
    let error = bench.port(&net, chosen).unwrap_err();
    assert!(
        matches!(error, IntentError::AutomaticAddress { .. }),
        "{error}"
    );
    let named = json!({"mac_address": MAC, "fixed_ips": [{"subnet_id": auto.common.id}]});
    assert_eq!(addresses(&bench.port(&net, named).unwrap()), [OWN]);
    let none = bench.port(&net, json!({"fixed_ips": []})).unwrap();
    assert!(none.fixed_ips.is_empty());
}

#[test]
fn stations_get_addresses_of_a_new_prefix_and_lose_those_of_one_that_goes() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let port = bench
        .port(&net, json!({"mac_address": MAC}))
        .unwrap()
        .common
        .id;
    let subnet = bench.subnet(&net, "fd00:1::/64", slaac()).unwrap();
    assert_eq!(addresses(bench.state.port(port).unwrap()), [OWN]);
    let router = bench.router(json!({})).unwrap().common.id;
    let which = json!({"subnet_id": subnet.common.id});
    bench.attach(router, which.clone()).unwrap();
    let id = subnet.common.id;
    let deleted = bench.carry_out(|s, c| subnet::delete(s, c, id));
    assert_eq!(deleted.unwrap_err(), IntentError::SubnetInUse(id));
    bench.detach(router, which).unwrap();
    bench.carry_out(|s, c| subnet::delete(s, c, id)).unwrap();
    assert!(bench.state.port(port).unwrap().fixed_ips.is_empty());
}

#[test]
fn modes_are_for_ipv6_with_dhcp_and_agree() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    for (cidr, with) in [
        ("10.0.0.0/24", slaac()),
        ("fd00:1::/80", slaac()),
        (
            "fd00:1::/64",
            json!({"ipv6_ra_mode": "slaac", "enable_dhcp": false}),
        ),
        (
            "fd00:1::/64",
            json!({"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"}),
        ),
    ] {
        let error = bench.subnet(&net, cidr, with).unwrap_err();
        assert!(matches!(error, IntentError::InvalidInput(_)), "{error}");
    }
    let stateful = json!({"ipv6_ra_mode": "dhcpv6-stateful",
        "ipv6_address_mode": "dhcpv6-stateful"});
    let subnet = bench.subnet(&net, "fd00:1::/80", stateful).unwrap();
    assert_eq!(
        addresses(&bench.port(&net, json!({})).unwrap()),
        ["fd00:1::2"]
    );
    let off = json!({"enable_dhcp": false});
    assert!(bench.change_subnet(subnet.common.id, off).is_err());
}
