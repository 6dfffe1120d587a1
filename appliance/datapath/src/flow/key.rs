//! Keys of flows.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::inspect::Tuple;
use nve_protocol::{Mac, Vni};

use crate::packet::protocol;

/// Words of a key.
const WORDS: usize = 7;

/// What makes hashes unforeseeable: a word for each of a key, and one more.
pub(super) type Secrets = [u64; WORDS + 1];

/// Secrets from a seed, by SplitMix64.
pub(super) fn secrets(seed: u64) -> Secrets {
    let mut state = seed;
    [(); WORDS + 1].map(|()| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    })
}

/// What makes packets one direction of one flow: where they come from, their MAC
/// and IP addresses, protocol and ports (of ICMP, type, code and identifier).
///
/// Bytes are as they are in the frame. The words: two for the link (from a VAP, both MAC
/// addresses and the tag; out of a tunnel, the receiver's address, then VNI and VTEP);
/// ports, protocol and kind (never 0); addresses, one word of IPv4 and four of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey([u64; WORDS]);

/// The word with the ports.
const SERVICE: usize = 2;

/// Kind of key, in the service word, above ports and protocol.
const FROM_TUNNEL: u64 = 1 << 40;
const IPV6: u64 = 1 << 41;
const PEER_SLOT: u64 = 1 << 42;

/// A VTEP as keys have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// By its address.
    Address(Ipv4Addr),
    /// By its slot: IPv6 addresses are too long.
    Slot(u16),
}

/// What a key has of an IP packet, as in the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    pub(crate) protocol: u8,
    /// Ports, or what stands for them; the order of bytes is the frame's.
    pub(crate) ports: u32,
    pub(crate) addresses: Addresses,
}

/// Source and destination.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Addresses {
    V4(u64),
    V6([u64; 4]),
}

impl FlowKey {
    /// Of no packet.
    pub(crate) const NONE: FlowKey = FlowKey([0; WORDS]);

    /// Of a frame that came from a VAP and begins with these bytes, tag included.
    #[inline(always)]
    pub(crate) fn of_vap(link: &[u8; 16], service: Service) -> FlowKey {
        let (words, _) = link.as_chunks();
        let [front, back] = [0, 1].map(|at| words.get(at).copied().map_or(0, u64::from_ne_bytes));
        FlowKey::new([front, back & !PRIORITY], 0, service)
    }

    /// Of a frame that came out of a tunnel, between these MAC addresses. The
    /// source decides nothing there.
    #[inline(always)]
    pub(crate) fn of_tunnel(vni: Vni, peer: Peer, link: &[u8; 12], service: Service) -> FlowKey {
        let destination = link.first_chunk().copied().map_or(0, u64::from_ne_bytes);
        let (peer, kind) = match peer {
            Peer::Address(address) => (u64::from(address.to_bits()), 0),
            Peer::Slot(slot) => (u64::from(slot), PEER_SLOT),
        };
        let link = [destination & RECEIVER, peer << 32 | u64::from(vni.get())];
        FlowKey::new(link, FROM_TUNNEL | kind, service)
    }

    #[inline(always)]
    fn new([front, back]: [u64; 2], kind: u64, service: Service) -> FlowKey {
        let word = u64::from(service.ports) | u64::from(service.protocol) << 32 | kind;
        FlowKey(match service.addresses {
            Addresses::V4(both) => [front, back, word, both, 0, 0, 0],
            Addresses::V6([a, b, c, d]) => [front, back, word | IPV6, a, b, c, d],
        })
    }

    /// Whether it is of no packet.
    pub(super) fn is_none(&self) -> bool {
        self.0[SERVICE] == 0
    }

    /// Where its packets come from.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let [_, back, service, ..] = self.0;
        if service & FROM_TUNNEL == 0 {
            let [.., a, b] = back.to_ne_bytes();
            return Some(Origin::Vap(u16::from_be_bytes([a, b])));
        }
        let vni = Vni::new(back as u32)?;
        let peer = match service & PEER_SLOT {
            0 => Peer::Address(Ipv4Addr::from_bits((back >> 32) as u32)),
            _ => Peer::Slot((back >> 32) as u16),
        };
        Some(Origin::Tunnel(vni, peer))
    }

    /// The MAC address that its packets come to.
    pub(crate) fn receiver(&self) -> Mac {
        let [front, ..] = self.0;
        let [a, b, c, d, e, f, ..] = front.to_ne_bytes();
        Mac([a, b, c, d, e, f])
    }

    /// Source and destination.
    pub(crate) fn addresses(&self) -> (IpAddr, IpAddr) {
        let [_, _, service, a, b, c, d] = self.0;
        match service & IPV6 {
            0 => {
                let [a, b, c, d, e, f, g, h] = a.to_ne_bytes();
                ([a, b, c, d].into(), [e, f, g, h].into())
            }
            _ => (ipv6(a, b), ipv6(c, d)),
        }
    }

    /// Addresses, protocol and ports; of ICMP, type and code.
    pub(crate) fn tuple(&self) -> Tuple {
        let (source, destination) = self.addresses();
        let [a, b, c, d] = self.ports();
        let (source_port, destination_port) = match self.echo() {
            Some(_) => (a.into(), b.into()),
            None => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        };
        Tuple {
            source,
            destination,
            protocol: self.protocol(),
            source_port,
            destination_port,
        }
    }

    /// Identifier of ICMP echoes.
    pub(crate) fn echo(&self) -> Option<u16> {
        let [_, _, c, d] = self.ports();
        let icmp = matches!(self.protocol(), protocol::ICMP | protocol::ICMPV6);
        icmp.then_some(u16::from_be_bytes([c, d]))
    }

    fn ports(&self) -> [u8; 4] {
        (self.0[SERVICE] as u32).to_ne_bytes()
    }

    fn protocol(&self) -> u8 {
        (self.0[SERVICE] >> 32) as u8
    }

    /// Folded products of pairs of words (as in wyhash), each with a secret, and of their
    /// sum.
    #[inline(always)]
    pub(super) fn hash(&self, secrets: &Secrets) -> u64 {
        let [a, b, c, d, e, f, g] = self.0;
        let [p, q, r, s, t, u, v, w] = *secrets;
        let fold = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y);
            (product as u64) ^ ((product >> 64) as u64)
        };
        let mut sum = fold(a ^ p, b ^ q) ^ fold(c ^ r, d ^ s);
        if c & IPV6 != 0 {
            sum ^= fold(e ^ t, f ^ u) ^ fold(g ^ v, p);
        }
        // Products of keys that follow each other do so too, at distances that may suit
        // the number of places badly; folded once more they do not.
        fold(sum, w | 1)
    }

    /// Makes it another key. Words that it does not have are left as they are: of a key in
    /// the cache they are 0.
    #[inline(always)]
    pub(crate) fn assign(&mut self, other: &FlowKey) {
        let FlowKey([a, b, c, d, rest @ ..]) = self;
        let [e, f, g, h, others @ ..] = other.0;
        (*a, *b, *c, *d) = (e, f, g, h);
        if g & IPV6 != 0 {
            *rest = others;
        }
    }

    /// Word by word, since a key that was just made is not yet in memory.
    #[inline(always)]
    pub(super) fn is(&self, other: &FlowKey) -> bool {
        let [a, b, c, d, e, f, g] = self.0;
        let [h, i, j, k, l, m, n] = other.0;
        let same_v4 = (a ^ h) | (b ^ i) | (c ^ j) | (d ^ k) == 0;
        same_v4 && (c & IPV6 == 0 || (e ^ l) | (f ^ m) | (g ^ n) == 0)
    }
}

/// The bits of a tag that are no identifier, in the word that ends with it.
const PRIORITY: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0xf0, 0]);

/// The receiver's address in the first word of a frame.
const RECEIVER: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

/// Where the packets of a flow come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The VAP with that tag.
    Vap(u16),
    /// A network's tunnel from a VTEP.
    Tunnel(Vni, Peer),
}

fn ipv6(high: u64, low: u64) -> IpAddr {
    let mut octets = [0; 16];
    let (front, back) = octets.split_at_mut(8);
    front.copy_from_slice(&high.to_ne_bytes());
    back.copy_from_slice(&low.to_ne_bytes());
    Ipv6Addr::from(octets).into()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// How many of as many places as there are keys get none, if keys are spread by hash.
    fn empty_places(keys: &[FlowKey], seed: u64) -> usize {
        let secrets = secrets(seed);
        let mut places = std::vec![false; keys.len()];
        for key in keys {
            let fraction = key.hash(&secrets) >> 32;
            places[((fraction * keys.len() as u64) >> 32) as usize] = true;
        }
        places.iter().filter(|taken| !**taken).count()
    }

    /// Keys that differ in a few bits of one word, as those of one VM's flows do.
    fn similar(word: usize, shift: u32, is_ipv6: bool) -> Vec<FlowKey> {
        let vni = Vni::new(5001).unwrap();
        (0..4096u64)
            .map(|number| {
                let addresses = match is_ipv6 {
                    false => Addresses::V4(0x0a00_0001_0a00_0002),
                    true => Addresses::V6([1, 2, 3, 4]),
                };
                let service = Service {
                    protocol: protocol::UDP,
                    ports: 0x1000_2000,
                    addresses,
                };
                let peer = Peer::Address([192, 0, 2, 1].into());
                let mut key = FlowKey::of_tunnel(vni, peer, &[2; 12], service);
                key.0[word] ^= number << shift;
                key
            })
            .collect()
    }

    #[test]
    fn keys_that_are_alike_are_spread_as_by_chance() {
        // By chance, one place in e is empty: 1,507 of 4,096, give or take a few dozen.
        let spread = |empty: usize| (1_300..=1_700).contains(&empty);
        for (word, shifts) in [
            (0, &[0, 36][..]),
            (1, &[0, 52]),
            (SERVICE, &[0, 8, 20]),
            (3, &[0, 20, 52]),
        ] {
            for shift in shifts {
                for seed in 0..50 {
                    let empty = empty_places(&similar(word, *shift, false), seed);
                    assert!(
                        spread(empty),
                        "word {word} << {shift}, seed {seed}: {empty}"
                    );
                }
            }
        }
        for word in 3..WORDS {
            for seed in 0..50 {
                let empty = empty_places(&similar(word, 52, true), seed);
                assert!(spread(empty), "word {word} of IPv6, seed {seed}: {empty}");
            }
        }
    }

    #[test]
    fn an_assigned_key_is_the_other_one_whatever_was_there() {
        let [four, six] = [false, true].map(|is_ipv6| similar(3, 3, is_ipv6)[77]);
        let mut key = six;
        key.assign(&four);
        assert!(key.is(&four) && four.is(&key) && !key.is(&six));
        assert_eq!(key.tuple(), four.tuple());
        assert_eq!(key.hash(&secrets(3)), four.hash(&secrets(3)));
        key.assign(&six);
        assert_eq!(key, six);
    }
}
