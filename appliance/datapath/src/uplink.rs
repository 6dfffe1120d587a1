//! Frames from the uplink: out of a tunnel, or for the NVE itself.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::{DropReason, Mac, Vni};

use crate::checksum::{self, Sum};
use crate::flow::Peer;
use crate::forward::Receivers;
use crate::frame::Frame;
use crate::glance::{self, Glance, Pattern, part};
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
    /// ends `end` bytes from the front. `hops` is what is left of the outer hop limit.
    Tunnelled {
        vni: Vni,
        source: IpAddr,
        hops: u8,
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
    tunnelled(
        (ip.source.into(), ip.ttl),
        ip.header_length,
        datagram,
        length,
    )
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
    let outer = (ip.source.into(), ip.hop_limit);
    tunnelled(outer, ipv6::HEADER, datagram, length)
}

/// Reads the VXLAN header in the first `length` bytes of `datagram`, which follows
/// `ip_header` bytes of IP with that source and hop limit.
fn tunnelled(
    (source, hops): (IpAddr, u8),
    ip_header: usize,
    datagram: &[u8],
    length: usize,
) -> Result<Arrival, DropReason> {
    let vni = vxlan::parse(datagram.get(udp::HEADER..length).unwrap_or_default())?;
    let at = ethernet::HEADER + ip_header;
    Ok(Arrival::Tunnelled {
        vni,
        source,
        hops,
        inner: at + udp::HEADER + vxlan::HEADER,
        end: at + length,
    })
}

/// The VTEP that a tunnelled frame came from, if its network has VAPs here, or had,
/// and takes frames from it.
pub(crate) fn sender(tables: &Tables, vni: Vni, source: IpAddr) -> Result<VtepIndex, DropReason> {
    let network = tables.network(vni).filter(|network| network.is_here());
    let network = network.ok_or(DropReason::UnknownVni)?;
    let vtep = tables.vtep_index(source).ok_or(DropReason::UnknownVtep)?;
    if !network.accepts(vtep) {
        return Err(DropReason::UnknownVtep);
    }
    Ok(vtep)
}

/// A VTEP as keys of flows have it; `None` for one that is gone.
pub(crate) fn peer(tables: &Tables, vtep: VtepIndex) -> Option<Peer> {
    Some(match tables.vtep(vtep)? {
        IpAddr::V4(address) => Peer::Address(address),
        IpAddr::V6(_) => Peer::Slot(u16::try_from(vtep.get()).ok()?),
    })
}

/// What the fast path reads of a tunnelled frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tunnelled {
    /// Of the inner frame.
    pub(crate) glance: Glance,
    /// Bytes in front of the inner frame.
    pub(crate) inner: usize,
    /// Where that ends.
    pub(crate) end: usize,
}

impl Tunnelled {
    /// Where the inner frame begins and ends.
    #[inline(always)]
    pub(crate) fn range(&self) -> Option<(u16, u16)> {
        // An outer packet has at most 65,535 bytes, and so has what is in it.
        Some((self.inner as u16, u16::try_from(self.end).ok()?))
    }
}

/// The same as [`glance`] for what most tunnelled frames are: TCP or UDP over IPv4, in
/// VXLAN over IPv4 without options and UDP checksum. `None` says nothing.
#[inline(always)]
pub(crate) fn plain(uplink: &Uplink, frame: &[u8]) -> Option<Tunnelled> {
    const IP: usize = ethernet::HEADER;
    const UDP: usize = IP + ipv4::HEADER;
    const VXLAN: usize = UDP + udp::HEADER;
    const INNER: usize = vxlan::OUTER_V4;
    const LINK: Pattern<4> = Pattern::new([0x08, 0x00, 0x45, 0], [0xff, 0xff, 0xff, 0]);
    const WHOLE: Pattern<4> = Pattern::new([0, 0, 0, protocol::UDP], [0x3f, 0xff, 0, 0xff]);
    const PORT: [u8; 2] = vxlan::PORT.to_be_bytes();
    const DATAGRAM: Pattern<8> = Pattern::new(
        [0, 0, PORT[0], PORT[1], 0, 0, 0, 0],
        [0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff],
    );

    let IpAddr::V4(own) = uplink.address else {
        return None;
    };
    let front = frame.first_chunk::<{ INNER + glance::FRONT }>()?;
    let is_ours = part::<_, 6>(front, 0) == uplink.mac.0
        && LINK.fits(part(front, ethernet::ADDRESSES))
        && WHOLE.fits(part(front, IP + 6))
        && part(front, IP + 16) == own.octets()
        && DATAGRAM.fits(part(front, UDP));
    let total = usize::from(u16::from_be_bytes(part(front, IP + 2)));
    let length = usize::from(u16::from_be_bytes(part(front, UDP + 4)));
    let header: [u8; ipv4::HEADER] = part(front, IP);
    if !is_ours
        || ipv4::HEADER + length > total
        || IP + total > frame.len()
        || !checksum::is_intact(&header)
    {
        return None;
    }
    let vni = vxlan::parse(&part::<_, { vxlan::HEADER }>(front, VXLAN)).ok()?;
    let peer = Peer::Address(part(front, IP + 12).into());
    let end = UDP + length;
    let glance = glance::plain_of_tunnel(vni, peer, frame.get(INNER..end)?)?;
    let inner = INNER;
    Some(Tunnelled { glance, inner, end })
}

/// Looks at a frame with outer headers; `None` if anything is out of the ordinary.
#[inline]
pub(crate) fn glance(uplink: &Uplink, tables: &Tables, frame: &[u8]) -> Option<Tunnelled> {
    let (vni, peer, inner, end) = match uplink.address {
        IpAddr::V4(own) => plain_v4(uplink.mac, own, frame)?,
        IpAddr::V6(_) => match classify(uplink, frame).ok()? {
            Arrival::Tunnelled {
                vni,
                source,
                inner,
                end,
                ..
            } => (vni, peer(tables, tables.vtep_index(source)?)?, inner, end),
            _ => return None,
        },
    };
    let glance = Glance::of_tunnel(vni, peer, frame.get(inner..end)?)?;
    Some(Tunnelled { glance, inner, end })
}

/// Network, VTEP and place of the inner frame behind outer headers over IPv4 without
/// options and UDP checksum, verified as [`classify`] does; `None` for all others.
#[inline]
fn plain_v4(mac: Mac, own: Ipv4Addr, frame: &[u8]) -> Option<(Vni, Peer, usize, usize)> {
    const IP: usize = ethernet::HEADER;
    const UDP: usize = IP + ipv4::HEADER;
    const VXLAN: usize = UDP + udp::HEADER;
    const FRAGMENT: u16 = 0x3fff;

    let outer = frame.first_chunk::<{ vxlan::OUTER_V4 }>()?;
    let half = |at: usize| u16::from_be_bytes([outer[at], outer[at + 1]]);
    let word = |at: usize| u32::from_be_bytes(core::array::from_fn(|i| outer[at + i]));
    let addressed = outer.starts_with(&mac.0)
        && half(IP - 2) == ethernet::IPV4
        && outer[IP] == 0x45
        && half(IP + 6) & FRAGMENT == 0
        && outer[IP + 9] == protocol::UDP
        && word(IP + 16) == own.to_bits()
        && half(UDP + 2) == vxlan::PORT
        && half(UDP + 6) == 0;
    let (total, length) = (usize::from(half(IP + 2)), usize::from(half(UDP + 4)));
    let fits = udp::HEADER + vxlan::HEADER <= length
        && ipv4::HEADER + length <= total
        && IP + total <= frame.len();
    let header = outer.get(IP..)?.first_chunk()?;
    if !addressed || !fits || !checksum::is_intact(header) {
        return None;
    }
    let vni = vxlan::parse(outer.get(VXLAN..)?).ok()?;
    let source = Ipv4Addr::from_bits(word(IP + 12));
    Some((vni, Peer::Address(source), vxlan::OUTER_V4, UDP + length))
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

/// Decides by the tables alone who gets a frame out of a tunnel: a VTEP only if it is
/// where a VM is now that was here before.
pub(crate) fn resolve(tables: &Tables, vni: Vni, destination: Mac) -> Receivers {
    if destination.is_multicast() {
        return Receivers::All;
    }
    if let Some(vlan) = tables.local(vni, destination) {
        return Receivers::Vap(vlan);
    }
    let departed = tables.is_departed(vni, destination);
    let now_at = departed.then(|| tables.remote(vni, destination)).flatten();
    now_at.map_or(Receivers::Unknown, Receivers::Vtep)
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

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::PacketBuilder;
    use nve_protocol::TableSizes;
    use proptest::prelude::*;

    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn uplink() -> Uplink {
        Uplink {
            mac: OWN,
            address: [192, 0, 2, 1].into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
        }
    }

    fn tunnelled_frame() -> Vec<u8> {
        let mut inner = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut inner, &[7; 20])
            .unwrap();
        let vxlan = [&[8, 0, 0, 0, 0, 0x13, 0x89, 0][..], &inner].concat();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 3], OWN.0)
            .ipv4([192, 0, 2, 2], [192, 0, 2, 1], 64)
            .udp(50_000, vxlan::PORT)
            .write(&mut frame, &vxlan)
            .unwrap();
        frame[40..42].fill(0);
        frame
    }

    proptest! {
        #[test]
        fn a_glance_is_stricter_than_classification(
            damage in proptest::collection::vec((0usize..64, any::<u8>()), 0..3),
            cut in 0usize..30,
            padding in 0usize..3,
        ) {
            let mut frame = tunnelled_frame();
            for (at, byte) in &damage {
                frame[*at] = *byte;
            }
            frame.truncate(frame.len() - cut);
            frame.resize(frame.len() + padding, 0);
            let tables = Tables::new(TableSizes::uniform(1));
            let seen = glance(&uplink(), &tables, &frame);
            let first = plain(&uplink(), &frame);
            if damage.is_empty() && cut == 0 {
                prop_assert!(seen.is_some() && first.is_some());
            }
            // What is seen at the first sight is seen at the second, and is the same.
            prop_assert!(first.is_none() || first == seen);
            if let Some(seen) = seen {
                let Ok(Arrival::Tunnelled { vni, source, inner, end, .. }) = classify(&uplink(), &frame)
                else {
                    panic!("not tunnelled");
                };
                prop_assert_eq!((seen.inner, seen.end), (inner, end));
                let IpAddr::V4(source) = source else { panic!("not IPv4") };
                let origin = seen.glance.key.origin();
                let peer = Peer::Address(source);
                prop_assert_eq!(origin, Some(crate::flow::Origin::Tunnel(vni, peer)));
            }
        }
    }
}
