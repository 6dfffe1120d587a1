//! Frames from the uplink: out of a tunnel, or for the NVE itself.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::{DropReason, Mac, Vni};

use crate::checksum::Sum;
use crate::forward::Receivers;
use crate::frame::Frame;
use crate::packet::{Headers, protocol};
use crate::tables::{Tables, VtepIndex};
use crate::underlay::{Claim, Uplink};
use crate::wire::arp::Packet;
use crate::wire::ethernet::{self, Header};
use crate::wire::{ipv4, ipv6, udp, vxlan};

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
    /// Address resolution of the underlay.
    Claim(Claim),
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
    match (header.ethertype, uplink.address) {
        (ethernet::ARP, IpAddr::V4(_)) => Packet::parse(payload)
            .map(|packet| Arrival::Claim(Claim::of_arp(uplink, &packet)))
            .ok_or(DropReason::NotForUs),
        (ethernet::IPV4, IpAddr::V4(own)) => classify_ipv4(own, payload),
        (ethernet::IPV6, IpAddr::V6(own)) => classify_ipv6(uplink, own, frame),
        _ => Err(DropReason::NotForUs),
    }
}

fn classify_ipv4(own: Ipv4Addr, packet: &[u8]) -> Result<Arrival, DropReason> {
    let ip = ipv4::Header::parse(packet)?;
    if ip.destination != own {
        return Err(DropReason::NotForUs);
    }
    if ip.fragment {
        return Err(DropReason::OuterFragment);
    }
    let datagram = packet
        .get(ip.header_length..ip.total_length)
        .unwrap_or_default();
    if ip.protocol != protocol::UDP || udp::destination(datagram) != Some(vxlan::PORT) {
        return Ok(Arrival::Host);
    }
    let length = udp::verify(datagram, |length| {
        Sum::default().with_pseudo_v4(ip.source, ip.destination, protocol::UDP, length)
    })?;
    tunnelled(ip.source.into(), ip.header_length, datagram, length)
}

fn classify_ipv6(uplink: &Uplink, own: Ipv6Addr, frame: &[u8]) -> Result<Arrival, DropReason> {
    let packet = frame.get(ethernet::HEADER..).unwrap_or_default();
    let ip = ipv6::Header::parse(packet)?;
    if ip.destination != own && !uplink.is_addressed(ip.destination) {
        return Err(DropReason::NotForUs);
    }
    let datagram = packet
        .get(ipv6::HEADER..ip.total_length)
        .unwrap_or_default();
    match ip.next_header {
        protocol::FRAGMENT => return Err(DropReason::OuterFragment),
        protocol::ICMPV6 => {
            return Ok(Claim::of_nd(uplink, frame).map_or(Arrival::Host, Arrival::Claim));
        }
        protocol::UDP
            if udp::destination(datagram) == Some(vxlan::PORT) && ip.destination == own => {}
        _ => return Ok(Arrival::Host),
    }
    let length = udp::verify(datagram, |length| {
        Sum::default().with_pseudo_v6(ip.source, ip.destination, protocol::UDP, length.into())
    })?;
    tunnelled(ip.source.into(), ipv6::HEADER, datagram, length)
}

/// Reads the VXLAN header in the first `length` bytes of `datagram`, which follows
/// `ip_header` bytes of IP.
fn tunnelled(
    source: IpAddr,
    ip_header: usize,
    datagram: &[u8],
    length: usize,
) -> Result<Arrival, DropReason> {
    let vni = vxlan::parse(datagram.get(udp::HEADER..length).unwrap_or_default())?;
    let at = ethernet::HEADER + ip_header;
    Ok(Arrival::Tunnelled {
        vni,
        source,
        inner: at + udp::HEADER + vxlan::HEADER,
        end: at + length,
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
