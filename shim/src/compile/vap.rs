//! What a port gives: its VAP and what belongs to it, if it is on an NVE; its
//! station for everyone else; its addresses for the groups that it is in.

use std::net::IpAddr;

use nve_protocol::{
    Address, Binding, Fdb, Neighbor, PortId, Prefix, Presence, Record, Vap, Vlan, Vni,
};
use uuid::Uuid;

use super::source::{Fact, Gift, View, group_id, prefix};
use super::{Scope, dhcp, qos, router, security};
use crate::model::{Nve, Port};

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

/// What the port with that id gives.
pub(super) fn port(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    let Some(port) = view.state.port(id) else {
        return gift;
    };
    if let Some((nve, vlan)) = attachment(view, id)
        && let Some(network) = view.state.network(port.network_id)
    {
        let scope = Scope::Vap(nve.id, vlan);
        gift.facts.push(Fact::Local(nve.id, port.network_id));
        vap(port, network.vni, vlan, scope, &mut gift);
        station(port, network.vni, nve.vtep, &mut gift);
        if port.port_security_enabled {
            bindings(port, nve.id, vlan, scope, &mut gift);
        }
        if let Some(policy) = view.state.policy_in_force(port)
            && let Some(record) = qos::limits(policy, vlan)
        {
            gift.add(scope, Record::Qos(record));
        }
        for option in dhcp::options(port, network, vlan) {
            gift.add(scope, Record::DhcpOption(option));
        }
    }
    security::membership(port, &mut gift);
    router::interface(view.state, port, &mut gift);
    gift
}

fn vap(port: &Port, vni: Vni, vlan: Vlan, scope: Scope, gift: &mut Gift) {
    let record = Vap {
        vlan,
        port: PortId(port.common.id.into_bytes()),
        vni,
        mac: port.mac_address,
        port_security: port.port_security_enabled,
        presence: Presence::Active,
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
