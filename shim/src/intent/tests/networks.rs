use serde_json::json;

use super::super::testing::Bench;
use super::super::{IntentError, network};
use crate::model::Network;

fn vni(network: &Network) -> u32 {
    network.vni.get()
}

#[test]
fn vnis_are_allocated_upwards_and_gaps_last() {
    let mut bench = Bench::default();
    bench.settings.vni_range = 100..=102;
    let first = bench.network(json!({})).unwrap();
    assert_eq!(vni(&first), 100);
    assert_eq!(vni(&bench.network(json!({})).unwrap()), 101);
    bench
        .carry_out(|s, _| network::delete(s, first.common.id))
        .unwrap();
    assert_eq!(vni(&bench.network(json!({})).unwrap()), 102);
    assert_eq!(vni(&bench.network(json!({})).unwrap()), 100);
    assert_eq!(bench.network(json!({})), Err(IntentError::NoVniLeft));
}

#[test]
fn a_given_vni_may_be_outside_the_range_but_not_in_use() {
    let mut bench = Bench::default();
    let given = json!({"provider:segmentation_id": 7});
    assert_eq!(vni(&bench.network(given.clone()).unwrap()), 7);
    let error = bench.network(given).unwrap_err();
    assert!(matches!(error, IntentError::VniInUse(_)), "{error}");
}

#[test]
fn the_mtu_is_what_the_underlay_leaves_at_most() {
    let mut bench = Bench::default();
    assert_eq!(bench.network(json!({})).unwrap().mtu, 1450);
    assert_eq!(bench.network(json!({"mtu": 1400})).unwrap().mtu, 1400);
    let error = bench.network(json!({"mtu": 1451})).unwrap_err();
    assert_eq!(error, IntentError::MtuTooBig { max: 1450 });
    assert!(bench.network(json!({"mtu": 67})).is_err());
}

#[test]
fn a_network_with_ports_stays_and_one_with_subnets_takes_them_along() {
    let mut bench = Bench::default();
    let net = bench
        .network(json!({"port_security_enabled": false}))
        .unwrap();
    bench.subnet(&net, "10.0.0.0/24", json!({})).unwrap();
    let port = bench.port(&net, json!({})).unwrap();
    let id = net.common.id;
    let error = bench.carry_out(|s, _| network::delete(s, id)).unwrap_err();
    assert!(
        matches!(&error, IntentError::NetworkInUse { ports, .. }
            if *ports == port.common.id.to_string()),
        "{error}"
    );
    bench
        .carry_out(|s, c| super::super::port::delete(s, c, port.common.id))
        .unwrap();
    bench.carry_out(|s, _| network::delete(s, id)).unwrap();
    assert_eq!(bench.state, Default::default());
}

#[test]
fn an_update_counts_and_changes_only_what_it_names() {
    let mut bench = Bench::default();
    let net = bench
        .network(json!({"name": "a", "description": "d"}))
        .unwrap();
    let change = serde_json::from_value(json!({"name": "b"})).unwrap();
    let changed = bench
        .carry_out(|s, c| network::update(s, c, net.common.id, change))
        .unwrap();
    assert_eq!(changed.common.name, "b");
    assert_eq!(changed.common.description, "d");
    assert_eq!(changed.common.revision_number, 1);
}
