//! What a port gives: its VAP and what belongs to it, if it is on an NVE; the same on
//! NVEs that its VM may come to, or has left; its station for everyone else; its
//! addresses for the groups that it is in.

use std::net::IpAddr;

use nve_protocol::{
    Address, Binding, Fdb, Neighbor, PortId, Prefix, Presence, Record, Vap, Vlan, Vni,
};
use uuid::Uuid;

use super::source::{Fact, Gift, View, group_id, prefix};
use super::{Scope, dhcp, qos, router, security};
use crate::intent::State;
use crate::model::{Network, Nve, Port};

/// Where a port that may forward is attached: the NVE of its place, if the tag there
/// is its own.
pub(super) fn attachment(view: View<'_>, port: Uuid) -> Option<(&Nve, Vlan)> {
    let View { state, claims } = view;
    let place = claims.place(port)?;
    let nve = state.nve_by_host(&place.host)?;
    active_port(view, port)?;
    let holder = claims.holder(&place.host, place.vlan)?;
    (holder == port).then_some((nve, place.vlan))
}

/// A port that intent lets forward behind a tag; routers' interfaces are in no
/// port group.
fn active_port(view: View<'_>, id: Uuid) -> Option<&Port> {
    let port = view.state.port(id)?;
    let network = view.state.network(port.network_id)?;
    let is_up = port.admin_state_up && network.admin_state_up;
    let is_vm = port.segmentation_id.is_some() && port.router().is_none();
    (is_up && is_vm).then_some(port)
}

/// Where else a port that may forward has VAPs: on NVEs that its VM may come to, and on
/// the one that it has left.
fn asides(view: View<'_>, port: Uuid) -> Vec<(&Nve, Vlan, Presence)> {
    let View { state, claims } = view;
    let vm = claims.place(port).and_then(|place| state.vm(place.vm));
    let vm = vm.filter(|_| active_port(view, port).is_some());
    let asides = vm.into_iter().flat_map(|vm| claims.asides(port, vm));
    // The VM of the port that has the lease there may run before that is told.
    let free = asides.filter(|aside| {
        let lease = state.port_by_tag(&aside.host, aside.vlan);
        lease.is_none_or(|holder| holder.common.id == port)
    });
    let on_nves = free.filter_map(|aside| {
        let nve = state.nve_by_host(&aside.host)?;
        Some((nve, aside.vlan, aside.presence))
    });
    on_nves.collect()
}

/// What the port with that id gives.
pub(super) fn port(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    let Some(port) = view.state.port(id) else {
        return gift;
    };
    if let Some(network) = view.state.network(port.network_id) {
        let place = attachment(view, id);
        if let Some((nve, _)) = place {
            station(port, network.vni, nve.vtep, &mut gift);
        }
        let active = place.map(|(nve, vlan)| (nve, vlan, Presence::Active));
        for (nve, vlan, presence) in active.into_iter().chain(asides(view, id)) {
            let on = On {
                nve: nve.id,
                vlan,
                presence,
            };
            on_nve(view.state, port, network, on, &mut gift);
        }
    }
    security::membership(port, &mut gift);
    router::interface(view.state, port, &mut gift);
    gift
}

/// A place where a port has a VAP.
#[derive(Clone, Copy)]
struct On {
    nve: Uuid,
    vlan: Vlan,
    presence: Presence,
}

/// What a port gives to an NVE where it has a VAP.
fn on_nve(state: &State, port: &Port, network: &Network, on: On, gift: &mut Gift) {
    let On { nve, vlan, .. } = on;
    let scope = Scope::Vap(nve, vlan);
    gift.facts.push(Fact::Local(nve, port.network_id));
    vap(port, network.vni, on, scope, gift);
    if port.port_security_enabled {
        bindings(port, nve, vlan, scope, gift);
    }
    if let Some(policy) = state.policy_in_force(port)
        && let Some(record) = qos::limits(policy, vlan)
    {
        gift.add(scope, Record::Qos(record));
    }
    for option in dhcp::options(port, network, vlan) {
        gift.add(scope, Record::DhcpOption(option));
    }
}

fn vap(port: &Port, vni: Vni, on: On, scope: Scope, gift: &mut Gift) {
    let vlan = on.vlan;
    let record = Vap {
        vlan,
        port: PortId(port.common.id.into_bytes()),
        vni,
        mac: port.mac_address,
        port_security: port.port_security_enabled,
        presence: on.presence,
    };
    gift.add(scope, Record::Vap(record));
    // Fixed IPs first: a pair that repeats one changes nothing.
    let fixed = port
        .fixed_ips
        .iter()
        .map(|fixed| (port.mac_address, Prefix::host(fixed.ip_address), true));
    let pairs = port
        .allowed_address_pairs
        .iter()
        .filter_map(|pair| Some((pair.mac_address, prefix(pair.ip_address)?, false)));
    for (mac, prefix, fixed) in fixed.chain(pairs) {
        let record = Address {
            vlan,
            mac,
            prefix,
            fixed,
        };
        gift.add(scope, Record::Address(record));
    }
}

fn station(port: &Port, vni: Vni, vtep: IpAddr, gift: &mut Gift) {
    let scope = Scope::Network(port.network_id);
    let mac = port.mac_address;
    gift.add(scope, Record::Fdb(Fdb { vni, mac, vtep }));
    for fixed in &port.fixed_ips {
        let ip = fixed.ip_address;
        gift.add(scope, Record::Neighbor(Neighbor { vni, ip, mac }));
    }
}

fn bindings(port: &Port, nve: Uuid, vlan: Vlan, scope: Scope, gift: &mut Gift) {
    for group in &port.security_groups {
        gift.facts.push(Fact::Bound(nve, *group));
        let group = group_id(*group);
        gift.add(scope, Record::Binding(Binding { vlan, group }));
    }
}
