//! Which processor a frame is for, where several share an NVE.
//!
//! Each has connections and flows of its own, and nothing of them is locked: what two
//! IP addresses say to each other is all for one processor, in both directions and
//! whichever NIC and queue it comes in on. So are fragments, and ICMP errors, which are
//! for the one of the packet that they quote. What is of no connection may be processed
//! anywhere, and what is for the NVE itself is for the first.
//!
//! A frame is only read here: whoever processes it verifies it. The hash is seeded, so
//! that VMs cannot aim at a processor.

use core::net::IpAddr;

use nve_protocol::inspect::Probe;

use crate::Side;
use crate::packet::{Headers, Ip, protocol};
use crate::wire::{array, ethernet, ipv4, ipv6, u16_at, udp, vxlan};

/// Whom a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Whoever has it.
    Anywhere,
    /// The first processor, which speaks for the NVE.
    First,
    /// The one with this number, from 0.
    Owner(usize),
}

/// Spreads pairs of addresses over processors.
#[derive(Debug, Clone, Copy)]
pub struct Steering {
    processors: u64,
    seed: u64,
}

impl Steering {
    /// Over so many processors.
    pub fn new(processors: usize, seed: u64) -> Steering {
        Steering {
            processors: processors as u64,
            seed,
        }
    }

    /// Whom a frame is for that came in on `side`.
    pub fn place(&self, side: Side, frame: &[u8]) -> Place {
        match side {
            Side::Trunk => self.of_frame(frame),
            Side::Uplink => match inner(frame) {
                Some(inner) => self.of_frame(inner),
                None => Place::First,
            },
        }
    }

    /// Whom the frame is for that is asked about.
    pub fn place_of(&self, probe: &Probe) -> Place {
        self.of_frame(probe.head.bytes())
    }

    /// Whom packets are for that two addresses send to each other.
    pub fn between(&self, one: IpAddr, other: IpAddr) -> Place {
        Place::Owner(self.owner(pair_of(one, other)))
    }

    /// Of a VM's frame, tagged or not.
    fn of_frame(&self, frame: &[u8]) -> Place {
        match pair(frame) {
            Some(pair) => Place::Owner(self.owner(pair)),
            None => Place::Anywhere,
        }
    }

    fn owner(&self, [sum, mix]: [u64; 2]) -> usize {
        let product = u128::from(sum ^ self.seed) * u128::from(mix ^ 0x9e37_79b9_7f4a_7c15);
        let folded = (product as u64) ^ ((product >> 64) as u64);
        // A fraction of the number of processors, so less than that.
        ((u128::from(folded) * u128::from(self.processors)) >> 64) as usize
    }
}

/// The inner frame of a tunnelled one.
fn inner(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(ethernet::HEADER..)?;
    let ethertype: [u8; 2] = array(frame, ethernet::ADDRESSES)?;
    let (number, header, end) = match u16::from_be_bytes(ethertype) {
        ethernet::IPV4 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            (packet.get(9)?, header, usize::from(u16_at(packet, 2)?))
        }
        ethernet::IPV6 => {
            let end = ipv6::HEADER + usize::from(u16_at(packet, 4)?);
            (packet.get(6)?, ipv6::HEADER, end)
        }
        _ => return None,
    };
    let datagram = packet.get(header.max(ipv4::HEADER)..end)?;
    let tunnelled = *number == protocol::UDP && udp::destination(datagram) == Some(vxlan::PORT);
    match tunnelled {
        true => datagram.get(udp::HEADER + vxlan::HEADER..),
        false => None,
    }
}

/// What two addresses have in common, whichever comes first; `None` for what is not IP.
fn pair(frame: &[u8]) -> Option<[u64; 2]> {
    let (ethertype, at) = match ethernet::parse_tag(frame)? {
        Ok((_, ethertype)) => (ethertype, ethernet::HEADER + ethernet::TAG),
        Err(ethertype) => (ethertype, ethernet::HEADER),
    };
    let (is_plain, own) = match ethertype {
        ethernet::IPV4 => of_ipv4(frame, at)?,
        ethernet::IPV6 => of_ipv6(frame, at)?,
        _ => return None,
    };
    match is_plain {
        true => Some(own),
        // Of a probe there may be less than its headers say.
        false => slow(frame).or(Some(own)),
    }
}

/// Its own pair, and whether it surely is no ICMP error.
fn of_ipv4(frame: &[u8], at: usize) -> Option<(bool, [u64; 2])> {
    let header: [u8; ipv4::HEADER] = array(frame, at)?;
    let [.., a, b, c, d, e, f, g, h] = header;
    let (source, destination) = ([a, b, c, d], [e, f, g, h]);
    let [source, destination] = [source, destination].map(|it| u64::from(u32::from_ne_bytes(it)));
    let pair = [source + destination, source ^ destination];
    Some((header[9] != protocol::ICMP, pair))
}

/// The same.
fn of_ipv6(frame: &[u8], at: usize) -> Option<(bool, [u64; 2])> {
    let [next]: [u8; 1] = array(frame, at + 6)?;
    let addresses: [u8; 32] = array(frame, at + 8)?;
    let (words, _) = addresses.as_chunks::<8>();
    let word = |at: usize| words.get(at).copied().map_or(0, u64::from_ne_bytes);
    let pair = mixed(u128_of(word(0), word(1)), u128_of(word(2), word(3)));
    Some((matches!(next, protocol::TCP | protocol::UDP), pair))
}

/// Of any packet, and of the one that an ICMP error quotes.
#[cold]
fn slow(frame: &[u8]) -> Option<[u64; 2]> {
    let ip = Headers::parse(frame).ok()?.ip?;
    let Ip {
        source,
        destination,
        ..
    } = ip.quoted(frame).unwrap_or(ip);
    Some(pair_of(source, destination))
}

fn pair_of(source: IpAddr, destination: IpAddr) -> [u64; 2] {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [a, b] = [source, destination].map(|it| u64::from(u32::from_ne_bytes(it.octets())));
            [a + b, a ^ b]
        }
        (source, destination) => {
            let [a, b] = [source, destination].map(|it| match it {
                IpAddr::V6(it) => u128::from_ne_bytes(it.octets()),
                IpAddr::V4(it) => it.to_bits().into(),
            });
            mixed(a, b)
        }
    }
}

fn u128_of(first: u64, second: u64) -> u128 {
    let mut bytes = [0; 16];
    let (front, back) = bytes.split_at_mut(8);
    front.copy_from_slice(&first.to_ne_bytes());
    back.copy_from_slice(&second.to_ne_bytes());
    u128::from_ne_bytes(bytes)
}

/// Of two IPv6 addresses.
fn mixed(a: u128, b: u128) -> [u64; 2] {
    let (sum, mix) = (a.wrapping_add(b), a ^ b);
    let fold = |it: u128| (it as u64) ^ ((it >> 64) as u64).rotate_left(29);
    [fold(sum), fold(mix)]
}

#[cfg(test)]
mod tests;
