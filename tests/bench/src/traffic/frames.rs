//! The frames of a scenario: what is sent for a pair of VMs, and what must come
//! out.
//!
//! A payload is `magic (2) | class of length (1) | 0 | flow (4) | time stamp (8) |
//! magic (2) | filling`, numbers little-endian. What goes before the filling just
//! fits a frame of 64 bytes.

use etherparse::PacketBuilder;
use nve_datapath::Side;
use nve_protocol::Mac;

use super::network::{PEER, PEER_MAC, Place, UPLINK_MAC, VTEP, Vm, pair};
use super::scenario::{FCS, Scenario};

/// Marks a payload as the generator's.
pub(super) const MAGIC: [u8; 2] = [0x51, 0xce];
/// Bytes of a payload without filling.
const PAYLOAD: usize = 18;
/// Where the class is in the payload.
pub(super) const CLASS_AT: usize = 2;
/// Where the flow is in the payload, and behind it the time stamp.
pub(super) const FLOW_AT: usize = 4;
const END_AT: usize = 16;

const ETHERNET: usize = 14;
const ADDRESSES: usize = 12;
const TAG: usize = 4;
const IPV4: usize = 20;
const UDP: usize = 8;
const UDP_CHECKSUM: usize = 6;

/// Where the outer IPv4 header of a tunnelled frame is.
pub(super) const OUTER_IP: usize = ETHERNET;
/// Where its outer UDP source port is.
pub(super) const OUTER_PORT: usize = ETHERNET + IPV4;
/// Bytes of outer Ethernet, IPv4, UDP and VXLAN headers.
const OUTER: usize = ETHERNET + IPV4 + UDP + 8;

/// TTL of what a VM or a VTEP sends.
const TTL: u8 = 64;
/// UDP port of VXLAN (RFC 7348, section 9).
const VXLAN_PORT: u16 = 4789;
/// `I` flag of VXLAN: the VNI is valid.
const VNI_VALID: u8 = 0x08;

/// The headers in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Ethernet with a tag, IPv4, UDP: on the trunk.
    Tagged,
    /// The outer headers of VXLAN, Ethernet, IPv4, UDP: on the uplink.
    Tunnelled,
}

impl Shape {
    /// Where the VMs' UDP ports are.
    pub(super) const fn ports(self) -> usize {
        match self {
            Shape::Tagged => ETHERNET + TAG + IPV4,
            Shape::Tunnelled => OUTER + ETHERNET + IPV4,
        }
    }

    /// Where the payload is.
    pub(super) const fn payload(self) -> usize {
        self.ports() + UDP
    }

    /// Bytes of headers and payload without filling.
    pub const fn head(self) -> usize {
        self.payload() + PAYLOAD
    }
}

/// A frame that is sent or must come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// The side of the device under test that it passes.
    pub(super) side: Side,
    /// What its headers are.
    pub(super) shape: Shape,
    /// All of it without FCS; ports, flow and time stamp are zero.
    pub(super) bytes: Vec<u8>,
}

/// A direction of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the first VM of the pair.
    Forth,
    /// From the second one.
    Back,
}

/// The frame that is sent for a pair, and the one that must come out. `class` is
/// that of `length`, the length as VMs see it, with FCS.
pub(super) fn exchange(
    scenario: Scenario,
    number: u32,
    direction: Direction,
    class: u8,
    length: usize,
) -> [Frame; 2] {
    let place = match scenario {
        Scenario::Io => Place::Local,
        Scenario::Nve { place, .. } => place,
    };
    let pair = pair(place, number);
    let (from, to) = match direction {
        Direction::Forth => (pair.first, pair.second),
        Direction::Back => (pair.second, pair.first),
    };
    let payload = payload(class, length);
    let entering = packet(&from, &to, &Leg::entering(place, &from, &to), &payload);
    let leaving = packet(&from, &to, &Leg::leaving(place, &from, &to), &payload);
    if scenario == Scenario::Io {
        return looped(direction, tagged(&entering, from.vlan.unwrap_or_default()));
    }
    let vni = to.network.vni;
    // The other NVE has already routed what it sends.
    let sent = match from.vlan {
        Some(vlan) => tagged(&entering, vlan),
        None => tunnelled(&leaving, vni, PEER_END, MEASURED_END),
    };
    let received = match to.vlan {
        Some(vlan) => tagged(&leaving, vlan),
        None => tunnelled(&leaving, vni, MEASURED_END, PEER_END),
    };
    [sent, received]
}

/// A frame that comes out on the other side as it went in.
fn looped(direction: Direction, frame: Frame) -> [Frame; 2] {
    let on = |side| Frame {
        side,
        ..frame.clone()
    };
    match direction {
        Direction::Forth => [on(Side::Trunk), on(Side::Uplink)],
        Direction::Back => [on(Side::Uplink), on(Side::Trunk)],
    }
}

/// The payload of a frame of this length, flow and time stamp zero.
fn payload(class: u8, length: usize) -> Vec<u8> {
    let size = length.saturating_sub(FCS + ETHERNET + IPV4 + UDP);
    let mut payload = vec![0; PAYLOAD];
    for (place, byte) in payload.iter_mut().zip([MAGIC[0], MAGIC[1], class]) {
        *place = byte;
    }
    payload.truncate(END_AT);
    payload.extend(MAGIC);
    // Frames that are cut or shifted do not look the same.
    payload.extend((PAYLOAD..size).map(|at| at as u8));
    payload
}

/// What routers change on a packet's way.
#[derive(Debug, Clone, Copy)]
struct Leg {
    source: Mac,
    destination: Mac,
    ttl: u8,
}

impl Leg {
    /// As the sender sends it.
    fn entering(place: Place, from: &Vm, to: &Vm) -> Leg {
        Leg {
            source: from.mac,
            destination: match place.is_routed() {
                true => from.network.gateway_mac,
                false => to.mac,
            },
            ttl: TTL,
        }
    }

    /// As the receiver gets it.
    fn leaving(place: Place, from: &Vm, to: &Vm) -> Leg {
        let (source, ttl) = match place.is_routed() {
            true => (to.network.gateway_mac, TTL - 1),
            false => (from.mac, TTL),
        };
        Leg {
            source,
            destination: to.mac,
            ttl,
        }
    }
}

/// An untagged UDP packet with no UDP checksum, since flow and time stamp are yet
/// to come.
fn packet(from: &Vm, to: &Vm, leg: &Leg, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(leg.source.0, leg.destination.0)
        .ipv4(from.ip.octets(), to.ip.octets(), leg.ttl)
        .udp(0, 0);
    let mut bytes = written(builder, payload);
    clear_checksum(&mut bytes);
    bytes
}

fn tagged(frame: &[u8], vlan: u16) -> Frame {
    let (addresses, rest) = frame.split_at(ADDRESSES);
    let tag = [[0x81, 0x00], vlan.to_be_bytes()].concat();
    Frame {
        side: Side::Trunk,
        shape: Shape::Tagged,
        bytes: [addresses, &tag, rest].concat(),
    }
}

/// An end of the tunnel: the VTEP's addresses.
type End = (Mac, std::net::Ipv4Addr);

const MEASURED_END: End = (UPLINK_MAC, VTEP);
const PEER_END: End = (PEER_MAC, PEER);

/// The frame in a tunnel; the outer UDP source port is zero.
fn tunnelled(frame: &[u8], vni: u32, from: End, to: End) -> Frame {
    let word = (vni << 8).to_be_bytes();
    let payload = [&[VNI_VALID, 0, 0, 0], &word[..], frame].concat();
    let builder = PacketBuilder::ethernet2(from.0.0, to.0.0)
        .ipv4(from.1.octets(), to.1.octets(), TTL)
        .udp(0, VXLAN_PORT);
    let mut bytes = written(builder, &payload);
    clear_checksum(&mut bytes);
    Frame {
        side: Side::Uplink,
        shape: Shape::Tunnelled,
        bytes,
    }
}

fn written(
    builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    let written = builder.write(&mut bytes, payload);
    written.expect("a vector takes everything, and payloads are short");
    bytes
}

/// Takes out the UDP checksum of an untagged frame.
fn clear_checksum(frame: &mut [u8]) {
    let at = ETHERNET + IPV4 + UDP_CHECKSUM;
    if let Some(checksum) = frame.get_mut(at..at + 2) {
        checksum.fill(0);
    }
}
