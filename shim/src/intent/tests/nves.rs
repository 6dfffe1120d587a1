use serde_json::{Value, json};

use super::super::testing::Bench;
use super::super::{IntentError, IpVersion, network, nve, vtep};
use crate::model::{Nve, Vtep};

fn new_nve(bench: &mut Bench, n: u8, with: Value) -> Result<Nve, IntentError> {
    let mut request = json!({
        "name": format!("nve-{n}"), "host_name": format!("host-{n}"),
        "vtep": format!("192.0.2.{n}"), "public_key": format!("{n:02X}").repeat(32),
    });
    request
        .as_object_mut()
        .unwrap()
        .extend(with.as_object().unwrap().clone());
    bench.carry_out(|s, c| nve::create(s, c, serde_json::from_value(request).unwrap()))
}

fn new_vtep(bench: &mut Bench, request: Value) -> Result<Vtep, IntentError> {
    bench.carry_out(|s, c| vtep::create(s, c, serde_json::from_value(request).unwrap()))
}

#[test]
fn no_two_nves_share_what_tells_them_apart() {
    let mut bench = Bench::default();
    let uuid = "9c1e3a52-0000-4000-8000-0000000000ab";
    let first = new_nve(&mut bench, 10, json!({"id": uuid, "host_uuid": uuid})).unwrap();
    assert_eq!(first.public_key, "0a".repeat(32));
    for (field, value) in [
        ("id", json!(uuid)),
        ("name", json!("nve-10")),
        ("host_name", json!("host-10")),
        ("host_uuid", json!(uuid)),
        ("vtep", json!("192.0.2.10")),
        ("public_key", json!("0A".repeat(32))),
    ] {
        let error = new_nve(&mut bench, 11, json!({field: value})).unwrap_err();
        assert!(
            matches!(&error, IntentError::Taken { field: f, .. } if *f == field),
            "{field}: {error}"
        );
    }
    new_nve(&mut bench, 11, json!({})).unwrap();
    let found = bench.state.nve_by_host("host-10").unwrap();
    assert_eq!(found.id, first.id);
}

#[test]
fn impossible_nves_are_refused() {
    let mut bench = Bench::default();
    for (field, value) in [
        ("name", json!("")),
        ("host_name", json!("x".repeat(256))),
        ("vtep", json!("224.0.0.1")),
        ("vtep", json!("0.0.0.0")),
        ("public_key", json!("zz".repeat(32))),
        ("public_key", json!("ab")),
        ("public_key", json!("00".repeat(32))),
    ] {
        let error = new_nve(&mut bench, 11, json!({field: value})).unwrap_err();
        assert!(
            matches!(&error, IntentError::InvalidField { field: f, .. } if *f == field),
            "{field}: {error}"
        );
    }
}

#[test]
fn a_vtep_names_real_networks_and_stations_of_its_own() {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    let port = bench.port(&net, json!({})).unwrap();
    new_nve(&mut bench, 10, json!({})).unwrap();
    let id = net.common.id;
    let station = |mac: &str| json!({"network_id": id, "mac_address": mac});
    let request = json!({"name": "tor", "address": "192.0.2.50", "networks": [id, id],
        "endpoints": [station("02:00:00:00:00:01")]});
    let tor = new_vtep(&mut bench, request).unwrap();
    assert_eq!(tor.networks, [id]);
    for (with, expected) in [
        (json!({"address": "192.0.2.10"}), "address"),
        (json!({"address": "192.0.2.50"}), "address"),
        (json!({"name": "tor"}), "name"),
        (json!({"networks": [tor.id]}), "networks"),
        (
            json!({"endpoints": [station(&port.mac_address.to_string())]}),
            "endpoints.mac_address",
        ),
        (
            json!({"endpoints": [station("02:00:00:00:00:01")]}),
            "endpoints.mac_address",
        ),
        (
            json!({"endpoints": [station("ff:ff:ff:ff:ff:ff")]}),
            "endpoints.mac_address",
        ),
    ] {
        let mut request = json!({"name": "other", "address": "192.0.2.51"});
        request
            .as_object_mut()
            .unwrap()
            .extend(with.as_object().unwrap().clone());
        let error = new_vtep(&mut bench, request).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{with}: {error}");
    }
}

#[test]
fn a_network_of_a_vtep_stays_until_it_is_taken_out() {
    let mut bench = Bench::default();
    let id = bench.network(json!({})).unwrap().common.id;
    let request = json!({"name": "tor", "address": "192.0.2.50", "networks": [id]});
    let tor = new_vtep(&mut bench, request).unwrap();
    let error = bench.carry_out(|s, _| network::delete(s, id)).unwrap_err();
    assert!(
        matches!(error, IntentError::NetworkOfVtep { .. }),
        "{error}"
    );
    let change = serde_json::from_value(json!({"networks": []})).unwrap();
    bench
        .carry_out(|s, c| vtep::update(s, c, tor.id, change))
        .unwrap();
    bench.carry_out(|s, _| network::delete(s, id)).unwrap();
}

#[test]
fn ipv6_vteps_need_networks_that_leave_room_for_them() {
    let mut bench = Bench::default();
    let ip6 = json!({"vtep": "2001:db8::11"});
    let tor = json!({"name": "tor", "address": "2001:db8::50"});
    for error in [
        new_nve(&mut bench, 11, ip6.clone()).unwrap_err(),
        new_vtep(&mut bench, tor.clone()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("overlay_ip_version"), "{error}");
    }
    assert_eq!(bench.network(json!({})).unwrap().mtu, 1450);
    bench.settings.overlay = IpVersion::V6;
    new_nve(&mut bench, 11, ip6).unwrap();
    new_nve(&mut bench, 12, json!({})).unwrap();
    new_vtep(&mut bench, tor).unwrap();
    assert_eq!(bench.network(json!({})).unwrap().mtu, 1430);
    let error = bench.network(json!({"mtu": 1431})).unwrap_err();
    assert!(
        matches!(error, IntentError::MtuTooBig { max: 1430 }),
        "{error}"
    );
}
