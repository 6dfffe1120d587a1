//! Routers, their interfaces and static routes.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::testing::{Bench, addresses};
use super::super::{IntentError, RouterError, port, router, subnet};
use crate::model::{Network, Port, Subnet};

fn refusal(error: IntentError) -> RouterError {
    match error {
        IntentError::Router(error) => error,
        other => panic!("{other}"),
    }
}

#[track_caller]
fn bad(error: IntentError, words: &str) {
    match refusal(error) {
        RouterError::BadRequest(reason) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other}"),
    }
}

/// A network with a subnet.
fn site(bench: &mut Bench, cidr: &str) -> (Network, Subnet) {
    let net = bench.network(json!({})).unwrap();
    let subnet = bench.subnet(&net, cidr, json!({})).unwrap();
    (net, subnet)
}

fn by_subnet(subnet: &Subnet) -> Value {
    json!({"subnet_id": subnet.common.id})
}

fn by_port(port: &Port) -> Value {
    json!({"port_id": port.common.id})
}

#[test]
fn an_interface_by_subnet_is_a_port_with_the_gateways_address() {
    let mut bench = Bench::default();
    let (net, subnet) = site(&mut bench, "10.0.0.0/24");
    let router = bench.router(json!({"project_id": "p"})).unwrap().common.id;
    let added = bench.attach(router, by_subnet(&subnet)).unwrap();
    assert_eq!(added.subnets, [subnet.common.id]);
    assert_eq!(added.router.common.revision_number, 1);
    let port = bench.state.port(added.port.common.id).unwrap().clone();
    assert_eq!(addresses(&port), ["10.0.0.1"]);
    assert_eq!(port.router(), Some(router));
    assert_eq!(
        (port.segmentation_id, port.port_security_enabled),
        (None, false)
    );
    assert_eq!(port.common.project_id, "p");
    assert_eq!(bench.state.interfaces_of(router).count(), 1);
    assert_eq!(bench.state.routers_on(net.common.id).count(), 1);
    bad(
        bench.attach(router, by_subnet(&subnet)).unwrap_err(),
        "already has a port on subnet",
    );
    let deleted = bench.carry_out(|s, c| port::delete(s, c, port.common.id));
    assert_eq!(
        refusal(deleted.unwrap_err()),
        RouterError::InterfaceDeleted(port.common.id)
    );
    let deleted = bench.carry_out(|s, _| router::delete(s, router));
    assert!(matches!(
        refusal(deleted.unwrap_err()),
        RouterError::InUse { .. }
    ));
    let deleted = bench.carry_out(|s, c| subnet::delete(s, c, subnet.common.id));
    assert_eq!(
        deleted.unwrap_err(),
        IntentError::SubnetInUse(subnet.common.id)
    );
    bench.detach(router, by_subnet(&subnet)).unwrap();
    assert_eq!(bench.state.port(port.common.id), None);
    assert_eq!(
        refusal(bench.detach(router, by_subnet(&subnet)).unwrap_err()),
        RouterError::NoInterfaceOnSubnet {
            router,
            subnet: subnet.common.id
        }
    );
    bench.carry_out(|s, _| router::delete(s, router)).unwrap();
    assert_eq!(bench.state.routers_on(net.common.id).count(), 0);
}

#[test]
fn an_interface_by_port_keeps_the_ports_addresses_and_loses_its_tag() {
    let mut bench = Bench::default();
    bench.settings.tags.quarantine = time::Duration::ZERO;
    let (net, subnet) = site(&mut bench, "10.0.0.0/24");
    let router = bench.router(json!({})).unwrap().common.id;
    let own = json!({"fixed_ips": [{"ip_address": "10.0.0.9"}], "binding:host_id": "a",
        "segmentation_id": 7});
    let port = bench.port(&net, own).unwrap();
    let added = bench.attach(router, by_port(&port)).unwrap();
    assert_eq!(addresses(&added.port), ["10.0.0.9"]);
    assert_eq!(added.port.segmentation_id, None);
    assert!(added.port.security_groups.is_empty());
    bench
        .port(&net, json!({"binding:host_id": "a", "segmentation_id": 7}))
        .unwrap();
    let used = bench.port(&net, json!({"device_id": "vm"})).unwrap();
    let error = refusal(bench.attach(router, by_port(&used)).unwrap_err());
    assert!(matches!(error, RouterError::PortInUse { .. }), "{error}");
    let bare = bench.port(&net, json!({"fixed_ips": []})).unwrap();
    bad(
        bench.attach(router, by_port(&bare)).unwrap_err(),
        "at least one fixed IP",
    );
    let both = json!({"port_id": port.common.id, "subnet_id": subnet.common.id});
    bad(
        bench.attach(router, both.clone()).unwrap_err(),
        "Cannot specify both",
    );
    bad(
        bench.attach(router, json!({})).unwrap_err(),
        "must be specified",
    );
    let other = json!({"port_id": port.common.id, "subnet_id": Uuid::nil()});
    let error = refusal(bench.detach(router, other).unwrap_err());
    assert!(
        matches!(error, RouterError::SubnetMismatch { .. }),
        "{error}"
    );
    assert_eq!(
        refusal(bench.detach(router, by_port(&used)).unwrap_err()),
        RouterError::NoInterface {
            router,
            port: used.common.id
        }
    );
    bench.detach(router, both).unwrap();
    assert_eq!(bench.state.port(port.common.id), None);
}

#[test]
fn only_a_router_makes_and_changes_its_interfaces() {
    let mut bench = Bench::default();
    let (net, subnet) = site(&mut bench, "10.0.0.0/24");
    let router = bench.router(json!({})).unwrap().common.id;
    let owner = json!({"device_owner": "network:router_interface"});
    assert!(bench.port(&net, owner.clone()).is_err());
    let vm = bench.port(&net, json!({})).unwrap().common.id;
    assert!(bench.change_port(vm, owner).is_err());
    let id = bench
        .attach(router, by_subnet(&subnet))
        .unwrap()
        .port
        .common
        .id;
    for change in [
        json!({"device_owner": "compute:nova"}),
        json!({"device_id": ""}),
        json!({"binding:host_id": "a"}),
        json!({"segmentation_id": 5}),
        json!({"fixed_ips": []}),
    ] {
        let error = bench.change_port(id, change).unwrap_err();
        assert!(matches!(error, IntentError::InvalidInput(_)), "{error}");
    }
    let renamed = bench.change_port(id, json!({"name": "gw", "device_id": router.to_string()}));
    assert_eq!(renamed.unwrap().segmentation_id, None);
    let error = bench
        .change_subnet(subnet.common.id, json!({"gateway_ip": "10.0.0.254"}))
        .unwrap_err();
    assert!(matches!(error, IntentError::GatewayInUse { .. }), "{error}");
}

#[test]
fn prefixes_of_a_router_do_not_overlap() {
    let mut bench = Bench::default();
    let (_, one) = site(&mut bench, "10.0.0.0/16");
    let (_, inside) = site(&mut bench, "10.0.7.0/24");
    let (_, beside) = site(&mut bench, "10.1.0.0/16");
    let net = bench.network(json!({})).unwrap();
    let bare = bench
        .subnet(&net, "10.2.0.0/24", json!({"gateway_ip": null}))
        .unwrap();
    let router = bench.router(json!({})).unwrap().common.id;
    bench.attach(router, by_subnet(&one)).unwrap();
    bad(
        bench.attach(router, by_subnet(&inside)).unwrap_err(),
        "overlaps with cidr",
    );
    bad(
        bench.attach(router, by_subnet(&bare)).unwrap_err(),
        "must have a gateway IP",
    );
    bench.attach(router, by_subnet(&beside)).unwrap();
    let other = bench.router(json!({})).unwrap().common.id;
    bench.attach(other, by_subnet(&inside)).unwrap();
    let taken = bench.attach(other, by_subnet(&beside)).unwrap_err();
    assert!(
        matches!(taken, IntentError::AddressAllocated { .. }),
        "{taken}"
    );
}

#[test]
fn ipv6_subnets_of_a_network_share_an_interface() {
    let mut bench = Bench::default();
    let (net, four) = site(&mut bench, "10.0.0.0/24");
    let modes = json!({"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let one = bench.subnet(&net, "fd00:1::/64", modes).unwrap();
    let two = bench.subnet(&net, "fd00:2::/64", json!({})).unwrap();
    let foreign = json!({"ipv6_address_mode": "slaac"});
    let foreign = bench.subnet(&net, "fd00:3::/64", foreign).unwrap();
    let router = bench.router(json!({})).unwrap().common.id;
    let four = bench
        .attach(router, by_subnet(&four))
        .unwrap()
        .port
        .common
        .id;
    let six = bench
        .attach(router, by_subnet(&one))
        .unwrap()
        .port
        .common
        .id;
    assert_ne!(four, six);
    let shared = bench.attach(router, by_subnet(&two)).unwrap();
    assert_eq!(shared.port.common.id, six);
    assert_eq!(addresses(&shared.port), ["fd00:1::1", "fd00:2::1"]);
    bad(
        bench.attach(router, by_subnet(&foreign)).unwrap_err(),
        "external router",
    );
    let also = json!({"fixed_ips": [{"ip_address": "10.0.0.7"}]});
    let also = bench.port(&net, also).unwrap();
    bad(
        bench.attach(router, by_port(&also)).unwrap_err(),
        "already has a port on subnet",
    );
    bench.detach(router, by_subnet(&one)).unwrap();
    assert_eq!(addresses(bench.state.port(six).unwrap()), ["fd00:2::1"]);
    bench.detach(router, by_subnet(&two)).unwrap();
    assert_eq!(bench.state.port(six), None);
}

#[test]
fn static_routes_go_to_neighbors() {
    let mut bench = Bench::default();
    let (_, subnet) = site(&mut bench, "10.0.0.0/24");
    let id = bench.router(json!({})).unwrap().common.id;
    let route = |to: &str, by: &str| json!({"destination": to, "nexthop": by});
    let good = route("192.168.0.0/16", "10.0.0.9");
    let set = |bench: &mut Bench, routes: Value| bench.change_router(id, json!({"routes": routes}));
    let error = refusal(set(&mut bench, json!([good])).unwrap_err());
    assert!(error.to_string().contains("not connected"), "{error}");
    bench.attach(id, by_subnet(&subnet)).unwrap();
    for (bad, words) in [
        (route("192.168.0.0/16", "10.0.0.1"), "used by router"),
        (route("192.168.0.0/16", "10.0.1.1"), "not connected"),
        (route("fd00::/64", "10.0.0.9"), "another IP version"),
    ] {
        let error = refusal(set(&mut bench, json!([bad])).unwrap_err());
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(set(&mut bench, json!([good, good])).is_err());
    let many: Vec<Value> = (0..31)
        .map(|n| route(&format!("10.9.{n}.0/24"), "10.0.0.9"))
        .collect();
    let error = refusal(set(&mut bench, json!(many)).unwrap_err());
    assert!(
        matches!(error, RouterError::TooManyRoutes { .. }),
        "{error}"
    );
    set(&mut bench, json!([good])).unwrap();
    let routes = |routes: Value| serde_json::from_value::<Vec<_>>(routes).unwrap();
    let more = routes(json!([good, route("192.168.1.0/24", "10.0.0.8")]));
    let added = bench
        .carry_out(|s, c| router::add_routes(s, c, id, more))
        .unwrap();
    assert_eq!(added.routes.len(), 2);
    let error = refusal(bench.detach(id, by_subnet(&subnet)).unwrap_err());
    assert!(
        matches!(error, RouterError::InterfaceInUseByRoute { .. }),
        "{error}"
    );
    let less = routes(json!([good, route("172.16.0.0/12", "10.0.0.8")]));
    let left = bench
        .carry_out(|s, c| router::remove_routes(s, c, id, &less))
        .unwrap();
    assert_eq!(left.routes.len(), 1);
    set(&mut bench, json!([])).unwrap();
    bench.detach(id, by_subnet(&subnet)).unwrap();
}
