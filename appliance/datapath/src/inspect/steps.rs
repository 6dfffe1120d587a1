//! What stages find, in the protocol's words.

use nve_protocol::inspect::{
    Admitted, Blame, Dropped, Packet, Place, Receiver, Responder, Source, Step, Tunnel, Tuple, Via,
};
use nve_protocol::{Direction, DropReason, Gateway, RuleId, Vap, Vlan};

use crate::forward::{Forward, Receivers, Rewrite, Routed};
use crate::packet::{Headers, Ip, L4, protocol};
use crate::spoof;
use crate::tables::{MeterIndex, Tables};
use crate::wire::{dhcpv4, ethernet, vxlan};
use crate::witness::Entrance;
use crate::{Nanos, Side};

/// A drop of a frame that was not read.
pub(crate) fn unread(now: Nanos, reason: DropReason) -> Dropped {
    Dropped {
        number: 0,
        at_ms: now.0 / 1_000_000,
        reason,
        from: None,
        blame: None,
        packet: None,
    }
}

/// The same of a traced frame.
pub(crate) fn dropped(reason: DropReason) -> Step {
    Step::Drop {
        reason,
        blame: None,
    }
}

pub(crate) fn place(vap: &Vap) -> Place {
    Place {
        vlan: vap.vlan,
        port: vap.port,
    }
}

pub(crate) fn via_vap(vap: &Vap) -> Via {
    Via::Vap(place(vap))
}

/// Where a frame came from; `None` for a VTEP that is gone.
pub(crate) fn via(tables: &Tables, from: Entrance<'_>) -> Option<Via> {
    match from {
        Entrance::Vap(vap) => Some(via_vap(vap)),
        Entrance::Tunnel(vni, vtep) => {
            let vtep = tables.vtep(vtep)?;
            Some(Via::Tunnel(Tunnel { vni, vtep }))
        }
    }
}

pub(crate) fn source(source: &spoof::Source<'_>) -> Source {
    match source {
        spoof::Source::Unchecked => Source::Unchecked,
        spoof::Source::Address(address) => Source::Address {
            mac: address.mac,
            prefix: address.prefix,
            fixed: address.fixed,
        },
        spoof::Source::LinkLocal(_) => Source::LinkLocal,
        spoof::Source::Mac(_) => Source::Mac,
        spoof::Source::Unspecified => Source::Unspecified,
    }
}

/// What answers a frame with these headers.
pub(crate) fn responder(headers: &Headers) -> Responder {
    match headers.ip.as_ref() {
        None => Responder::Arp,
        Some(ip) if ip.protocol == protocol::ICMPV6 => Responder::NeighborDiscovery,
        Some(ip) => match ip.l4 {
            L4::Ports { destination, .. } if destination == dhcpv4::SERVER_PORT => {
                Responder::Dhcpv4
            }
            _ => Responder::Dhcpv6,
        },
    }
}

pub(crate) fn router(gateway: &Gateway) -> Step {
    Step::Router {
        router: gateway.router,
        gateway: gateway.ip,
    }
}

pub(crate) fn route(routed: &Routed) -> Step {
    Step::Route {
        prefix: routed.hop.prefix,
        vni: routed.hop.gateway.vni,
        next_hop: routed.hop.next_hop,
        mac: routed.rewrite.destination,
        mtu: routed.mtu,
    }
}

pub(crate) fn rewrite(addresses: &Rewrite) -> Step {
    Step::Rewrite {
        source: addresses.source,
        destination: addresses.destination,
    }
}

/// Who gets a frame with these headers.
pub(crate) fn receiver(tables: &Tables, forward: &Forward, headers: &Headers) -> Step {
    let vni = forward.vni;
    let mac = match &forward.routed {
        Some(routed) => routed.rewrite.destination,
        None => headers.destination,
    };
    let vap = |vlan: Vlan| tables.vap(vlan.get()).map(place);
    let receiver = match forward.receivers {
        Receivers::Vap(vlan) => vap(vlan).map(Receiver::Vap),
        Receivers::Vtep(vtep) => {
            let vtep = tables.vtep(vtep);
            vtep.map(|vtep| Receiver::Fdb { vni, mac, vtep })
        }
        Receivers::All => Some(Receiver::All { vni }),
        Receivers::Unknown => None,
    };
    Step::Receiver(receiver.unwrap_or(Receiver::Unknown { vni, mac }))
}

/// A VAP without port security, or a frame that no group is asked about.
pub(crate) fn unchecked(vap: &Vap, direction: Direction) -> Step {
    Step::Admitted(Admitted {
        vlan: vap.vlan,
        direction,
        checked: vap.port_security,
        rule: None,
        connection: None,
        opens: false,
    })
}

pub(crate) fn meter(tables: &Tables, meter: MeterIndex) -> Option<Step> {
    let (vlan, direction, limit) = tables.metered(meter)?;
    Some(Step::Meter {
        vlan,
        direction,
        limit,
    })
}

pub(crate) fn blame(
    tables: &Tables,
    vlan: Vlan,
    direction: Direction,
    rule: Option<RuleId>,
) -> Option<Blame> {
    let vap = tables.vap(vlan.get())?;
    Some(Blame {
        vlan,
        port: vap.port,
        direction,
        rule,
    })
}

pub(crate) fn packet(headers: &Headers) -> Packet {
    Packet {
        source_mac: headers.source,
        destination_mac: headers.destination,
        ethertype: headers.ethertype,
        ip: headers.ip.as_ref().map(tuple),
    }
}

fn tuple(ip: &Ip) -> Tuple {
    let (source_port, destination_port) = match ip.l4 {
        L4::Tcp {
            source,
            destination,
            ..
        }
        | L4::Ports {
            source,
            destination,
        } => (source, destination),
        L4::Icmp { kind, code, .. } => (kind.into(), code.into()),
        L4::None => (0, 0),
    };
    Tuple {
        source: ip.source,
        destination: ip.destination,
        protocol: ip.protocol,
        source_port,
        destination_port,
    }
}

/// By which a frame leaves, as its first bytes say; `None` if they say nothing.
pub(crate) fn way_out(tables: &Tables, side: Side, head: &[u8]) -> Option<Via> {
    match side {
        Side::Trunk => {
            let (vlan, _) = ethernet::parse_tag(head)?.ok()?;
            tables.vap(vlan).map(via_vap)
        }
        Side::Uplink => {
            let (vtep, vni) = vxlan::destination(head)?;
            Some(Via::Tunnel(Tunnel { vni, vtep }))
        }
    }
}
