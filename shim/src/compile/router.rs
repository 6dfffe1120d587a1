//! What routers and their interfaces give.

use nve_protocol::{Gateway, Record, Route, RouterId};
use uuid::Uuid;

use super::Scope;
use super::source::{Fact, Gift, View, prefix};
use crate::intent::State;
use crate::model::Port;

/// What a port gives as an interface of a router that forwards: gateways in its
/// network, and the way from there to the router.
pub(super) fn interface(state: &State, port: &Port, gift: &mut Gift) {
    let router = port.router().and_then(|id| state.router(id));
    let network = state.network(port.network_id);
    let (Some(router), Some(network)) = (router, network) else {
        return;
    };
    if !(router.admin_state_up && port.admin_state_up && network.admin_state_up) {
        return;
    }
    let (id, on) = (router.common.id, port.network_id);
    gift.facts
        .extend([Fact::Routed(on, id), Fact::Serves(id, on)]);
    for fixed in &port.fixed_ips {
        let subnet = state.subnet(fixed.subnet_id);
        if let Some(prefix) = subnet.and_then(|subnet| prefix(subnet.cidr)) {
            let gateway = Gateway {
                vni: network.vni,
                ip: fixed.ip_address,
                prefix,
                mac: port.mac_address,
                router: RouterId(id.into_bytes()),
            };
            gift.add(Scope::Network(on), Record::Gateway(gateway));
        }
    }
}

/// What the router with that id gives.
pub(super) fn router(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    let router = view.state.router(id);
    let Some(router) = router.filter(|router| router.admin_state_up) else {
        return gift;
    };
    for route in &router.routes {
        if let Some(destination) = prefix(route.destination) {
            let route = Route {
                router: RouterId(id.into_bytes()),
                destination,
                next_hop: route.nexthop,
            };
            gift.add(Scope::Router(id), Record::Route(route));
        }
    }
    gift
}
