//! Frames from the uplink: out of a tunnel, or for the NVE itself.

use core::net::IpAddr;

use nve_protocol::{DropReason, Mac, Vni};

use crate::forward::Receivers;
use crate::frame::Frame;
use crate::packet::Headers;
use crate::tables::{Tables, VtepIndex};
use crate::underlay::Uplink;
use crate::wire::arp::Packet;
use crate::wire::ethernet::{self, Header};
use crate::wire::{ipv4, vxlan};

/// What a frame from the uplink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A tunnelled frame: `inner` bytes from the front to the inner frame, which
    /// ends `end` bytes from the front.
    Tunnelled {
        vni: Vni,
        source: IpAddr,
        inner: usize,
        end: usize,
    },
    /// ARP of the underlay.
    Arp(Packet),
    /// Anything else that is addressed to the NVE.
    Host,
}

/// Reads and verifies the outer headers.
pub(crate) fn classify(uplink: &Uplink, frame: &[u8]) -> Result<Arrival, DropReason> {
    let header = Header::parse(frame).ok_or(DropReason::Truncated)?;
    if header.destination != uplink.mac && !header.destination.is_multicast() {
        return Err(DropReason::NotForUs);
    }
    let payload = frame.get(ethernet::HEADER..).unwrap_or_default();
    match header.ethertype {
        ethernet::ARP => Packet::parse(payload)
            .map(Arrival::Arp)
            .ok_or(DropReason::NotForUs),
        ethernet::IPV4 => classify_ipv4(uplink, payload),
        _ => Err(DropReason::NotForUs),
    }
}

fn classify_ipv4(uplink: &Uplink, packet: &[u8]) -> Result<Arrival, DropReason> {
    let ip = ipv4::Header::parse(packet)?;
    if ip.destination != uplink.address {
        return Err(DropReason::NotForUs);
    }
    if ip.fragment {
        return Err(DropReason::OuterFragment);
    }
    let datagram = packet
        .get(ip.header_length..ip.total_length)
        .unwrap_or_default();
    if ip.protocol != ipv4::UDP || ipv4::udp_destination(datagram) != Some(vxlan::PORT) {
        return Ok(Arrival::Host);
    }
    let length = ipv4::verify_udp(&ip, datagram)?;
    let vni = vxlan::parse(datagram.get(ipv4::UDP_HEADER..length).unwrap_or_default())?;
    let udp = ethernet::HEADER + ip.header_length;
    Ok(Arrival::Tunnelled {
        vni,
        source: IpAddr::V4(ip.source),
        inner: udp + ipv4::UDP_HEADER + vxlan::HEADER,
        end: udp + length,
    })
}

/// The VTEP that a tunnelled frame came from, if its network has VAPs here and
/// takes frames from it.
pub(crate) fn sender(tables: &Tables, vni: Vni, source: IpAddr) -> Result<VtepIndex, DropReason> {
    let network = tables
        .network(vni)
        .filter(|network| !network.vaps().is_empty());
    let network = network.ok_or(DropReason::UnknownVni)?;
    let vtep = tables.vtep_index(source).ok_or(DropReason::UnknownVtep)?;
    if !network.accepts(vtep) {
        return Err(DropReason::UnknownVtep);
    }
    Ok(vtep)
}

/// Refuses inner frames that no VTEP may send (RFC 7348, section 6.1).
pub(crate) fn check(headers: &Headers) -> Result<(), DropReason> {
    let tagged = headers.network != ethernet::HEADER;
    if tagged || headers.ethertype == ethernet::S_VLAN {
        return Err(DropReason::InnerVlan);
    }
    if ethernet::is_link_local_group(headers.destination) {
        return Err(DropReason::LinkLocalGroup);
    }
    Ok(())
}

/// Decides by the tables alone who gets a frame out of a tunnel: never a VTEP.
pub(crate) fn resolve(tables: &Tables, vni: Vni, destination: Mac) -> Receivers {
    if destination.is_multicast() {
        return Receivers::All;
    }
    let local = tables.local(vni, destination);
    local.map_or(Receivers::Unknown, Receivers::Vap)
}

/// Cuts `frame` down to the inner frame. A checksum that is yet to be completed
/// moves along; [`classify`]'s caller has completed one of the outer headers.
pub(crate) fn decapsulate(
    frame: &mut Frame<'_>,
    inner: usize,
    end: usize,
) -> Result<(), DropReason> {
    frame.truncate(end);
    frame.pull_front(inner).ok_or(DropReason::Truncated)
}
