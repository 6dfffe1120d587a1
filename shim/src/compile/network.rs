//! What networks, subnets, VTEPs and the NVEs' parts in networks give.

use nve_protocol::{Dns, Fdb, Flood, Ipv6Mode, Neighbor, Network, Peer, Record, Subnet};
use uuid::Uuid;

use super::Scope;
use super::source::{Gift, View, prefix};
use crate::model::{self, Vtep};

/// What the network with that id gives.
pub(super) fn network(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    if let Some(network) = view.state.network(id) {
        let (vni, mtu) = (network.vni, network.mtu);
        gift.add(Scope::Network(id), Record::Network(Network { vni, mtu }));
    }
    gift
}

/// What the subnet with that id gives.
pub(super) fn subnet(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    let Some(subnet) = view.state.subnet(id) else {
        return gift;
    };
    let network = view.state.network(subnet.network_id);
    let (Some(network), Some(block)) = (network, prefix(subnet.cidr)) else {
        return gift;
    };
    let (scope, vni) = (Scope::Segment(subnet.network_id), network.vni);
    let record = Subnet {
        vni,
        prefix: block,
        dhcp: subnet.enable_dhcp,
        gateway: subnet.gateway_ip,
        ra_mode: subnet.ipv6_ra_mode.map(mode),
        address_mode: subnet.ipv6_address_mode.map(mode),
    };
    gift.add(scope, Record::Subnet(record));
    for (index, server) in (0..=u8::MAX).zip(&subnet.dns_nameservers) {
        let record = Dns {
            vni,
            subnet: block,
            index,
            server: *server,
        };
        gift.add(scope, Record::Dns(record));
    }
    for route in &subnet.host_routes {
        if let Some(destination) = prefix(route.destination) {
            let record = nve_protocol::HostRoute {
                vni,
                subnet: block,
                destination,
                next_hop: route.nexthop,
            };
            gift.add(scope, Record::HostRoute(record));
        }
    }
    gift
}

const fn mode(mode: model::Ipv6Mode) -> Ipv6Mode {
    match mode {
        model::Ipv6Mode::Slaac => Ipv6Mode::Slaac,
        model::Ipv6Mode::Dhcpv6Stateful => Ipv6Mode::Dhcpv6Stateful,
        model::Ipv6Mode::Dhcpv6Stateless => Ipv6Mode::Dhcpv6Stateless,
    }
}

/// What the VTEP with that id gives: its stations, and itself to the networks
/// that it takes part in.
pub(super) fn vtep(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    let Some(vtep) = view.state.vtep(id) else {
        return gift;
    };
    let address = vtep.address;
    for network in networks_of(vtep).filter_map(|id| view.state.network(id)) {
        let flood = Flood {
            vni: network.vni,
            vtep: address,
        };
        gift.add(Scope::Segment(network.common.id), Record::Flood(flood));
    }
    for endpoint in &vtep.endpoints {
        let Some(network) = view.state.network(endpoint.network_id) else {
            continue;
        };
        let (vni, mac) = (network.vni, endpoint.mac_address);
        let scope = Scope::Network(endpoint.network_id);
        let fdb = Fdb {
            vni,
            mac,
            vtep: address,
        };
        gift.add(scope, Record::Fdb(fdb));
        if let Some(ip) = endpoint.ip_address {
            gift.add(scope, Record::Neighbor(Neighbor { vni, ip, mac }));
        }
    }
    gift
}

/// The networks that a VTEP takes part in; some may come twice.
pub(super) fn networks_of(vtep: &Vtep) -> impl Iterator<Item = Uuid> {
    let endpoints = vtep.endpoints.iter().map(|endpoint| endpoint.network_id);
    vtep.networks.iter().copied().chain(endpoints)
}

/// What an NVE gives to a network that it reaches: it takes part in replication
/// if it has VAPs there (`local`), or else only sends what it routes.
pub(super) fn presence(view: View<'_>, network: Uuid, nve: Uuid, local: bool) -> Gift {
    let mut gift = Gift::default();
    let found = (view.state.network(network), view.state.nve(nve));
    if let (Some(network), Some(nve)) = found {
        let (vni, vtep) = (network.vni, nve.vtep);
        let record = match local {
            true => Record::Flood(Flood { vni, vtep }),
            false => Record::Peer(Peer { vni, vtep }),
        };
        gift.add(Scope::Segment(network.common.id), record);
    }
    gift
}
