//! Frames that devices send of their own: address resolution and announcements.

use std::net::Ipv4Addr;

use nve_datapath::Side;

use super::network::{PEER, PEER_MAC};

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const LLDP: u16 = 0x88cc;
const VLAN: u16 = 0x8100;
const IGMP: u8 = 2;
const IPV4: u16 = 0x0800;

const ETHERNET: usize = 14;
/// Bytes of an ARP packet between IPv4 stations on Ethernet (RFC 826).
const ARP_LENGTH: usize = 28;

/// What a frame is that is not of the generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Asks for the other VTEP's MAC address; this frame answers.
    Answer(Vec<u8>),
    /// Something that any station may say at any time.
    Ignore,
    /// Nothing that has a place here.
    Stranger,
}

/// Sorts a frame that came out on a side and is not of the generator.
pub fn control(side: Side, frame: &[u8]) -> Control {
    if side == Side::Uplink
        && let Some(answer) = answer(frame)
    {
        return Control::Answer(answer);
    }
    let tagged = ethertype(frame, 12) == Some(VLAN);
    let at = if tagged { 16 } else { 12 };
    let igmp = frame.get(at + 11) == Some(&IGMP);
    match ethertype(frame, at) {
        Some(ARP | IPV6 | LLDP) => Control::Ignore,
        Some(IPV4) if igmp => Control::Ignore,
        _ => Control::Stranger,
    }
}

fn ethertype(frame: &[u8], at: usize) -> Option<u16> {
    let bytes = frame.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

/// The reply to an ARP request for the other VTEP.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET..)?.first_chunk::<ARP_LENGTH>()?;
    let asked = Ipv4Addr::from(*packet.last_chunk::<4>()?);
    let request = packet.starts_with(&[0, 1, 8, 0, 6, 4, 0, 1]);
    if ethertype(frame, 12) != Some(ARP) || !request || asked != PEER {
        return None;
    }
    let asker = packet.get(8..18)?;
    let parts: [&[u8]; 7] = [
        asker.get(..6)?,
        &PEER_MAC.0,
        &ARP.to_be_bytes(),
        &[0, 1, 8, 0, 6, 4, 0, 2],
        &PEER_MAC.0,
        &PEER.octets(),
        asker,
    ];
    let mut reply = parts.concat();
    reply.resize(60, 0);
    Some(reply)
}
