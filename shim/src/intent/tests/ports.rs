use serde_json::json;
use uuid::Uuid;

use super::super::IntentError;
use super::super::testing::{Bench, addresses};
use crate::model::Port;

fn tag(port: &Port) -> u16 {
    port.segmentation_id.unwrap().get()
}

#[test]
fn a_port_gets_a_mac_and_one_address_per_ip_version() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    assert!(bench.port(&net, json!({})).unwrap().fixed_ips.is_empty());
    bench.subnet(&net, "10.0.0.0/24", json!({})).unwrap();
    bench.subnet(&net, "10.0.1.0/24", json!({})).unwrap();
    bench.subnet(&net, "fd00::/64", json!({})).unwrap();
    let port = bench.port(&net, json!({})).unwrap();
    assert!(port.mac_address.to_string().starts_with("fa:16:3e:"));
    assert_eq!(port.fixed_ips.len(), 2);
    assert!(port.fixed_ips[0].ip_address.is_ipv4());
    assert_eq!(addresses(&port)[1], "fd00::2");
    let bare = bench.port(&net, json!({"fixed_ips": []})).unwrap();
    assert!(bare.fixed_ips.is_empty());
}

#[test]
fn addresses_are_allocated_upwards_then_from_gaps_until_none_is_left() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let pools = json!([{"start": "10.0.0.10", "end": "10.0.0.12"}]);
    let with = json!({"allocation_pools": pools});
    bench.subnet(&net, "10.0.0.0/24", with).unwrap();
    let first = bench.port(&net, json!({})).unwrap();
    assert_eq!(addresses(&first), ["10.0.0.10"]);
    assert_eq!(
        addresses(&bench.port(&net, json!({})).unwrap()),
        ["10.0.0.11"]
    );
    bench
        .change_port(first.common.id, json!({"fixed_ips": []}))
        .unwrap();
    assert_eq!(
        addresses(&bench.port(&net, json!({})).unwrap()),
        ["10.0.0.12"]
    );
    assert_eq!(
        addresses(&bench.port(&net, json!({})).unwrap()),
        ["10.0.0.10"]
    );
    let full = bench.port(&net, json!({}));
    assert_eq!(full, Err(IntentError::NoAddressLeft(net.common.id)));
}

#[test]
fn exact_addresses_are_given_once() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let other = bench.network(json!({})).unwrap();
    let subnet = bench.subnet(&net, "10.0.0.0/24", json!({})).unwrap();
    let foreign = bench.subnet(&other, "10.0.0.0/24", json!({})).unwrap();
    let (subnet, foreign) = (subnet.common.id, foreign.common.id);
    let both = json!({"fixed_ips": [{"subnet_id": subnet},
        {"subnet_id": subnet, "ip_address": "10.0.0.2"}]});
    let port = bench.port(&net, both).unwrap();
    assert_eq!(addresses(&port), ["10.0.0.3", "10.0.0.2"]);
    for (ips, expected) in [
        (json!([{"ip_address": "10.0.0.2"}]), "already allocated"),
        (
            json!([{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9"}]),
            "already allocated",
        ),
        (json!([{"ip_address": "10.0.0.255"}]), "any of the subnets"),
        (json!([{"ip_address": "10.9.0.1"}]), "any of the subnets"),
        (
            json!([{"ip_address": "10.9.0.1", "subnet_id": subnet}]),
            "specified subnet",
        ),
        (json!([{"subnet_id": foreign}]), "does not have"),
        (json!([{"subnet_id": Uuid::new_v4()}]), "does not have"),
        (json!([{}]), "requires subnet_id or ip_address"),
        (json!([{}, {}, {}, {}, {}, {}]), "maximum amount"),
    ] {
        let error = bench.port(&net, json!({"fixed_ips": ips})).unwrap_err();
        assert!(error.to_string().contains(expected), "{ips}: {error}");
    }
}

#[test]
fn an_update_keeps_addresses_that_still_fit() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let subnet = bench.subnet(&net, "10.0.0.0/24", json!({})).unwrap();
    let subnet = subnet.common.id;
    let id = bench.port(&net, json!({})).unwrap().common.id;
    let twice = json!({"fixed_ips": [{"subnet_id": subnet}, {"subnet_id": subnet}]});
    let port = bench.change_port(id, twice).unwrap();
    assert_eq!(addresses(&port), ["10.0.0.2", "10.0.0.3"]);
    let same = json!({"fixed_ips": port.fixed_ips});
    assert_eq!(
        bench.change_port(id, same).unwrap().fixed_ips,
        port.fixed_ips
    );
    let once = json!({"fixed_ips": [{"ip_address": "10.0.0.3"}]});
    assert_eq!(
        addresses(&bench.change_port(id, once).unwrap()),
        ["10.0.0.3"]
    );
    assert_eq!(
        addresses(&bench.port(&net, json!({})).unwrap()),
        ["10.0.0.4"]
    );
}

#[test]
fn a_mac_is_unique_on_its_network_and_fixed_once_bound() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let other = bench.network(json!({})).unwrap();
    let mac = json!({"mac_address": "02:00:00:00:00:01"});
    let port = bench.port(&net, mac.clone()).unwrap();
    bench.port(&other, mac.clone()).unwrap();
    let error = bench.port(&net, mac.clone()).unwrap_err();
    assert!(matches!(error, IntentError::MacInUse { .. }), "{error}");
    assert!(
        bench
            .port(&net, json!({"mac_address": "01:00:00:00:00:01"}))
            .is_err()
    );
    let id = port.common.id;
    bench
        .change_port(
            id,
            json!({"mac_address": "02:00:00:00:00:02", "binding:host_id": "a"}),
        )
        .unwrap();
    let error = bench.change_port(id, mac).unwrap_err();
    assert!(matches!(error, IntentError::PortBound { .. }), "{error}");
}

#[test]
fn tags_differ_everywhere_while_there_are_enough() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let on = |host: &str| json!({"binding:host_id": host});
    assert_eq!(tag(&bench.port(&net, on("a")).unwrap()), 1);
    assert_eq!(tag(&bench.port(&net, on("b")).unwrap()), 2);
    assert_eq!(tag(&bench.port(&net, on("")).unwrap()), 3);
    let given = json!({"binding:host_id": "b", "segmentation_id": 4});
    assert_eq!(tag(&bench.port(&net, given).unwrap()), 4);
}

#[test]
fn a_host_has_4094_tags_and_an_unbound_port_then_shares() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let on = |host: &str| json!({"binding:host_id": host});
    let mut last = None;
    for _ in 0..4094 {
        last = Some(bench.port(&net, on("a")).unwrap());
    }
    let error = bench.port(&net, on("a")).unwrap_err();
    let told = |ports: usize, quarantined: usize| IntentError::NoTagLeft {
        host: "a".into(),
        cluster: "default".into(),
        ports,
        vnics: 0,
        quarantined,
        reserved: 0,
    };
    assert_eq!(error, told(4094, 0));
    assert_eq!(tag(&bench.port(&net, on("b")).unwrap()), 1);
    assert_eq!(tag(&bench.port(&net, on("")).unwrap()), 2);
    let last = last.unwrap();
    bench
        .carry_out(|s, c| super::super::port::delete(s, c, last.common.id))
        .unwrap();
    assert_eq!(bench.port(&net, on("a")).unwrap_err(), told(4093, 1));
    bench.now += time::Duration::minutes(5);
    assert_eq!(tag(&bench.port(&net, on("a")).unwrap()), 4094);
}

#[test]
fn a_tag_is_one_ports_on_its_host() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let with = |host: &str, tag: u16| json!({"binding:host_id": host, "segmentation_id": tag});
    bench.port(&net, with("a", 101)).unwrap();
    let error = bench.port(&net, with("a", 101)).unwrap_err();
    assert!(matches!(error, IntentError::TagInUse { .. }), "{error}");
    let unbound = bench.port(&net, with("", 101)).unwrap();
    let id = unbound.common.id;
    let error = bench
        .change_port(id, json!({"binding:host_id": "a"}))
        .unwrap_err();
    assert!(matches!(error, IntentError::TagInUse { .. }), "{error}");
    let moved = bench.change_port(id, with("a", 102)).unwrap();
    assert_eq!((tag(&moved), moved.binding_host_id.as_str()), (102, "a"));
    assert_eq!(
        tag(&bench.change_port(id, json!({"name": "x"})).unwrap()),
        102
    );
}
