//! Where a VM's frame goes, by the tables alone: switched within its network,
//! or routed into another and switched there.
//!
//! Routing is done on the NVE where the frame enters; the NVE of the receiver
//! sees a frame of the receiver's own network.

use core::net::IpAddr;

use nve_protocol::{DropReason, Gateway, Mac, Vap, Vlan, Vni};

use crate::packet::{Headers, Ip};
use crate::tables::{Hop, Tables, VtepIndex};
use crate::wire::nd;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The network it is delivered in.
    pub vni: Vni,
    /// Who gets it.
    pub receivers: Receivers,
    /// How it was routed there, if it was.
    pub routed: Option<Routed>,
}

/// Who gets a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receivers {
    /// A VAP of this NVE.
    Vap(Vlan),
    /// A station behind a VTEP.
    Vtep(VtepIndex),
    /// Every other member of the network.
    All,
    /// Whoever may have an address that no table knows: the remote members, and
    /// the VAPs here that may use addresses of their own choice.
    Unknown,
}

/// A router's work on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// New addresses.
    pub rewrite: Rewrite,
    /// The way that it takes.
    pub hop: Hop,
    /// Bytes of the largest IP packet in the network that it goes to.
    pub mtu: u16,
}

/// New MAC addresses of a routed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// The router's.
    pub source: Mac,
    /// The next hop's.
    pub destination: Mac,
}

/// Why a router does not forward a packet; the sender may be told by ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not a router's business: dropped without a word.
    Silent(DropReason),
    /// Hop limit used up.
    HopLimit,
    /// No route.
    NoRoute,
    /// The next hop is no known station.
    NoNeighbor,
    /// Addressed to the router itself.
    Gateway,
}

impl Refusal {
    /// What the drop is counted as.
    pub const fn reason(self) -> DropReason {
        match self {
            Refusal::Silent(reason) => reason,
            Refusal::HopLimit => DropReason::HopLimit,
            Refusal::NoRoute => DropReason::NoRoute,
            Refusal::NoNeighbor => DropReason::NoNeighbor,
            Refusal::Gateway => DropReason::Gateway,
        }
    }
}

/// Decides for a frame that `vap` sent, with these headers.
pub fn decide(
    tables: &Tables,
    vap: &Vap,
    headers: &Headers,
    frame: &[u8],
) -> Result<Forward, Refusal> {
    match gateway_of(tables, vap.vni, headers.destination) {
        Some(gateway) => route(tables, gateway, headers, frame),
        None => Ok(switch(tables, vap.vni, headers.destination)),
    }
}

/// The router's interface on a network with this MAC address.
pub fn gateway_of(tables: &Tables, vni: Vni, mac: Mac) -> Option<&Gateway> {
    tables
        .gateways(vni)
        .iter()
        .find(|gateway| gateway.mac == mac)
}

fn switch(tables: &Tables, vni: Vni, destination: Mac) -> Forward {
    let receivers = match destination {
        group if group.is_multicast() => Receivers::All,
        station => locate(tables, vni, station),
    };
    Forward {
        vni,
        receivers,
        routed: None,
    }
}

fn locate(tables: &Tables, vni: Vni, station: Mac) -> Receivers {
    if let Some(vlan) = tables.local(vni, station) {
        return Receivers::Vap(vlan);
    }
    match tables.remote(vni, station) {
        Some(vtep) => Receivers::Vtep(vtep),
        None => Receivers::Unknown,
    }
}

fn route(
    tables: &Tables,
    gateway: &Gateway,
    headers: &Headers,
    frame: &[u8],
) -> Result<Forward, Refusal> {
    let ip = headers
        .ip
        .as_ref()
        .ok_or(Refusal::Silent(DropReason::Gateway))?;
    // What a router would make of it could not be told from damage (RFC 1812,
    // section 5.2.2).
    if !ip.is_intact(frame) {
        return Err(Refusal::Silent(DropReason::MalformedIp));
    }
    if tables.is_router_address(gateway.router, ip.destination)
        || nd::link_local(gateway.mac) == ip.destination
    {
        return Err(Refusal::Gateway);
    }
    if is_martian_source(ip.source) || is_martian_destination(ip.destination) {
        return Err(Refusal::Silent(DropReason::Martian));
    }
    if ip.hop_limit <= 1 {
        return Err(Refusal::HopLimit);
    }
    let hop = tables
        .hop(gateway.router, ip.destination)
        .ok_or(Refusal::NoRoute)?;
    let vni = hop.gateway.vni;
    let destination = next_station(tables, &hop).ok_or(Refusal::NoNeighbor)?;
    Ok(Forward {
        vni,
        receivers: locate(tables, vni, destination),
        routed: Some(Routed {
            rewrite: Rewrite {
                source: hop.gateway.mac,
                destination,
            },
            mtu: tables.mtu(vni),
            hop,
        }),
    })
}

fn next_station(tables: &Tables, hop: &Hop) -> Option<Mac> {
    tables.neighbor(hop.gateway.vni, hop.next_hop)
}

/// Sources that no packet may be routed from (RFC 1812, section 5.3.7; RFC 4291,
/// sections 2.5.6 and 2.7).
fn is_martian_source(ip: IpAddr) -> bool {
    is_martian(ip) || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn is_martian_destination(ip: IpAddr) -> bool {
    is_martian(ip)
        || match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}

fn is_martian(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0);
    broadcast || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback()
}

/// Whether a routed packet is larger than the network that it goes to takes.
pub fn is_too_big(ip: &Ip, mtu: u16) -> bool {
    ip.end - ip.header > usize::from(mtu)
}
