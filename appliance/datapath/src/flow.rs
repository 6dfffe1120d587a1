//! The flow cache: exact-match entries that hold the whole verdict for one
//! direction of one flow.
//!
//! An entry is good for the epoch that it has: every change of the tables begins
//! another, and the first packet of a flow after it asks whether the entry is good for
//! that too, or decides anew. The cache never grows; a new entry takes the place of the
//! longest unused one of its set. The hash is seeded, so that VMs cannot aim at a set.
//!
//! An entry is two cache lines, key and verdict, and most are at their home in the
//! set, where they are looked for first: those two are all that a packet needs of it.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::inspect::Tuple;
use nve_protocol::{Mac, Vlan, Vni};

use crate::Nanos;
use crate::connections::{Fresh, Handle};
use crate::forward::Rewrite;
use crate::packet::protocol;
use crate::tables::{Changes, MeterIndex, NEVER, VtepIndex};

/// Entries of a set; a power of two.
const WAYS: usize = 4;

/// Words of a key.
const WORDS: usize = 7;

/// Bytes of memory that one flow takes.
pub const BYTES_PER_FLOW: usize = size_of::<Entry>();

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
    #[inline]
    pub(crate) fn of_vap(link: &[u8; 16], service: Service) -> FlowKey {
        let (words, _) = link.as_chunks();
        let [front, back] = [0, 1].map(|at| words.get(at).copied().map_or(0, u64::from_ne_bytes));
        FlowKey::new([front, back & !PRIORITY], 0, service)
    }

    /// Of a frame that came out of a tunnel, between these MAC addresses. The
    /// source decides nothing there.
    #[inline]
    pub(crate) fn of_tunnel(vni: Vni, peer: Peer, link: &[u8; 12], service: Service) -> FlowKey {
        let destination = link.first_chunk().copied().map_or(0, u64::from_ne_bytes);
        let (peer, kind) = match peer {
            Peer::Address(address) => (u64::from(address.to_bits()), 0),
            Peer::Slot(slot) => (u64::from(slot), PEER_SLOT),
        };
        let link = [destination & RECEIVER, peer << 32 | u64::from(vni.get())];
        FlowKey::new(link, FROM_TUNNEL | kind, service)
    }

    #[inline]
    fn new([front, back]: [u64; 2], kind: u64, service: Service) -> FlowKey {
        let word = u64::from(service.ports) | u64::from(service.protocol) << 32 | kind;
        FlowKey(match service.addresses {
            Addresses::V4(both) => [front, back, word, both, 0, 0, 0],
            Addresses::V6([a, b, c, d]) => [front, back, word | IPV6, a, b, c, d],
        })
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

    /// Folded products of pairs of words (as in wyhash), with a secret in each.
    #[inline]
    fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d, e, f, g] = self.0;
        let fold = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y);
            (product as u64) ^ ((product >> 64) as u64)
        };
        let one = fold(a ^ seed, b ^ 0x9e37_79b9_7f4a_7c15);
        let two = fold(c ^ seed.rotate_left(17), d ^ 0xc2b2_ae3d_27d4_eb4f);
        let mut sum = one ^ two.rotate_left(21);
        if c & IPV6 != 0 {
            let three = fold(e ^ seed.rotate_left(34), f ^ 0x1656_67b1_9e37_79f9);
            sum ^= three.rotate_left(42) ^ g.wrapping_mul(0x1656_67b1_9e37_79f9);
        }
        fold(sum, seed.rotate_left(51) ^ 0x27d4_eb2f_1656_67c5)
    }

    /// Word by word, since a key that was just made is not yet in memory.
    #[inline(always)]
    fn is(&self, other: &FlowKey) -> bool {
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

/// Where the packets of a flow leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Vap(Vlan),
    Tunnel(VtepIndex),
}

/// The verdict: what is done to each packet of the flow. Its layout is such that no
/// field is across a boundary of 16 bytes, by which it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub(crate) struct Path {
    /// The sender's connection and the receiver's.
    pub(crate) connections: [Option<Handle>; 2],
    /// New addresses, and the largest IP packet, if it is routed.
    pub(crate) rewrite: Option<(Rewrite, u16)>,
    /// The network it is delivered in.
    pub(crate) vni: Vni,
    /// Spreads flows over the source ports of outer headers.
    pub(crate) entropy: u32,
    pub(crate) exit: Exit,
    /// What meters what the sender sends.
    pub(crate) egress: Option<MeterIndex>,
    /// What meters what the receiver gets.
    pub(crate) ingress: Option<MeterIndex>,
    /// How packets are marked.
    pub(crate) dscp: Option<u8>,
}

// The verdict fits a cache line.
const _: () = assert!(size_of::<Path>() + size_of::<Fresh>() <= 64);

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Entry {
    key: FlowKey,
    /// The last one in which it was found to be good.
    epoch: u32,
    /// When it was last used, in units of 2^20 ns, wrapping.
    used: u32,
    known: Known,
}

// Two cache lines.
const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    /// What no packet has as its key.
    const FREE: Entry = Entry {
        key: FlowKey::NONE,
        epoch: NEVER,
        used: 0,
        known: Known {
            path: Path {
                vni: Vni::new(0).expect("0 has 24 bits"),
                exit: Exit::Vap(Vlan::new(1).expect("1 is a tag")),
                rewrite: None,
                connections: [None; 2],
                egress: None,
                ingress: None,
                dscp: None,
                entropy: 0,
            },
            fresh: Fresh::NEVER,
        },
    };

    fn is_free(&self) -> bool {
        self.key.0[SERVICE] == 0
    }
}

/// An entry, to be looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cached<'c> {
    pub(crate) key: &'c FlowKey,
    pub(crate) path: &'c Path,
    /// The last one in which it was found to be good.
    pub(crate) epoch: u32,
    /// Milliseconds since the last packet, in steps of about one.
    pub(crate) idle_ms: u32,
}

impl Cached<'_> {
    /// Whether packets come from that VAP, or go to it.
    pub(crate) fn concerns(&self, vlan: Vlan) -> bool {
        self.key.origin() == Some(Origin::Vap(vlan.get())) || self.path.exit == Exit::Vap(vlan)
    }
}

/// What the cache knows of a packet's flow.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Known {
    pub(crate) path: Path,
    /// Up to when the flow's connections have been followed.
    pub(crate) fresh: Fresh,
}

/// Where an entry is, until the next one is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// Where a key's entry is if it could choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home(u32);

impl Home {
    pub(crate) const NONE: Home = Home(0);
}

/// The cache.
#[derive(Debug)]
pub(crate) struct FlowCache {
    /// Whole sets; those of a set follow each other.
    entries: Vec<Entry>,
    seed: u64,
    /// The entry whose epoch is looked at next.
    swept: usize,
}

impl FlowCache {
    /// A cache of at most `entries`, in whole sets; fewer if memory is short, and of none
    /// at all it is simply without use.
    pub(crate) fn new(entries: u32, seed: u64) -> FlowCache {
        let wanted = entries as usize / WAYS;
        // Slots have 32 bits.
        let mut count = wanted.min(1 << 28);
        let mut entries = Vec::new();
        while count > 0 && entries.try_reserve_exact(count * WAYS).is_err() {
            count /= 2;
        }
        entries.resize(count * WAYS, Entry::FREE);
        FlowCache {
            entries,
            seed,
            swept: 0,
        }
    }

    /// How many sets of entries there are.
    pub(crate) fn sets(&self) -> u32 {
        u32::try_from(self.entries.len() / WAYS).unwrap_or(u32::MAX)
    }

    /// The entries of one set, good or not.
    pub(crate) fn in_set(&self, set: u32, now: Nanos) -> impl Iterator<Item = Cached<'_>> {
        let first = (set as usize).saturating_mul(WAYS);
        let entries = self.entries.get(first..first.saturating_add(WAYS));
        let used = entries.unwrap_or_default().iter();
        let used = used.filter(move |entry| !entry.is_free());
        used.map(move |entry| Cached {
            key: &entry.key,
            path: &entry.known.path,
            epoch: entry.epoch,
            idle_ms: (u64::from(tick(now).wrapping_sub(entry.used)) << 20)
                .div_euclid(1_000_000)
                .min(u32::MAX.into()) as u32,
        })
    }

    /// Where a key's entry is if it could choose.
    #[inline(always)]
    pub(crate) fn home(&self, key: &FlowKey) -> Home {
        // The hash as a fraction of 1, times the number of entries: no more than 32 bits
        // can tell apart.
        let fraction = key.hash(self.seed) >> 32;
        Home((fraction.wrapping_mul(self.entries.len() as u64) >> 32) as u32)
    }

    /// Has the memory fetched in which a key is looked for first.
    #[inline(always)]
    pub(crate) fn prefetch(&self, home: Home) {
        if let Some(entry) = self.entries.get(home.0 as usize) {
            nve_hint::prefetch(&entry.key);
            nve_hint::prefetch(&entry.known);
        }
    }

    /// What is known of the flow that is at home there, and whether that is most likely
    /// the key's: its addresses and ports are.
    #[inline(always)]
    pub(crate) fn likely(&self, home: Home, key: &FlowKey) -> Option<(bool, &Known)> {
        let entry = self.entries.get(home.0 as usize)?;
        let [.., a, b, _, _, _] = entry.key.0;
        let [.., c, d, _, _, _] = key.0;
        Some(((a ^ c) | (b ^ d) == 0, &entry.known))
    }

    /// Has the memory fetched of the keys of a set, but for the one at home.
    pub(crate) fn prefetch_set(&self, home: Home) {
        for at in FlowCache::places(home).skip(1) {
            if let Some(entry) = self.entries.get(at) {
                nve_hint::prefetch(&entry.key);
            }
        }
    }

    /// The places of a set, in the order in which they are looked at.
    #[inline]
    fn places(home: Home) -> impl Iterator<Item = usize> {
        (0..WAYS).map(move |step| home.0 as usize ^ step)
    }

    /// Where the entry of this epoch is, if there is one, which then counts as used.
    #[inline(always)]
    pub(crate) fn find(
        &mut self,
        home: Home,
        key: &FlowKey,
        epoch: u32,
        now: Nanos,
    ) -> Option<Slot> {
        let mut at = home.0 as usize;
        if !self.entries.get(at)?.key.is(key) {
            at = self.find_elsewhere(home, key)?;
        }
        let entry = self.entries.get_mut(at)?;
        if entry.epoch != epoch {
            return None;
        }
        entry.used = tick(now);
        Some(Slot(at as u32))
    }

    #[inline(never)]
    fn find_elsewhere(&self, home: Home, key: &FlowKey) -> Option<usize> {
        FlowCache::places(home).find(|at| {
            let entry = self.entries.get(*at);
            entry.is_some_and(|entry| entry.key.is(key))
        })
    }

    /// Where a flow's entry of another epoch is, its verdict, and that epoch.
    pub(crate) fn find_old(&self, home: Home, key: &FlowKey) -> Option<(Slot, &Path, u32)> {
        let at = self.find_elsewhere(home, key)?;
        let entry = self.entries.get(at)?;
        Some((Slot(at as u32), &entry.known.path, entry.epoch))
    }

    /// Notes that an entry is good in this epoch, and that it is used.
    pub(crate) fn renew(&mut self, at: Slot, epoch: u32, now: Nanos) {
        if let Some(entry) = self.entries.get_mut(at.0 as usize) {
            entry.epoch = epoch;
            entry.used = tick(now);
        }
    }

    /// Makes the next entry in turn stale if its epoch is old. Called in each epoch, it
    /// has looked at each entry before the number of its epoch comes again.
    pub(crate) fn sweep(&mut self, changes: &Changes) {
        if let Some(entry) = self.entries.get_mut(self.swept)
            && changes.is_old(entry.epoch)
        {
            entry.epoch = NEVER;
        }
        self.swept = match self.swept + 1 {
            next if next < self.entries.len() => next,
            _ => 0,
        };
    }

    /// The verdict in an entry that was found.
    #[inline(always)]
    pub(crate) fn get(&self, at: Slot) -> Option<&Known> {
        self.entries.get(at.0 as usize).map(|entry| &entry.known)
    }

    /// Notes up to when a flow's connections have been followed.
    pub(crate) fn refresh(&mut self, at: Slot, fresh: Fresh) {
        if let Some(entry) = self.entries.get_mut(at.0 as usize) {
            entry.known.fresh = fresh;
        }
    }

    /// Remembers a verdict.
    pub(crate) fn insert(&mut self, key: FlowKey, path: Path, epoch: u32, now: Nanos) {
        let now = tick(now);
        // The flow's own entry, or else the one of least use, near home.
        let worth = |entry: &Entry| match entry {
            entry if entry.key == key => (0, 0),
            entry if entry.is_free() => (1, 0),
            entry => (2, u32::MAX - now.wrapping_sub(entry.used)),
        };
        let place = |at: &usize| self.entries.get(*at).map(worth);
        let at = FlowCache::places(self.home(&key)).min_by_key(place);
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            *entry = Entry {
                key,
                epoch,
                used: now,
                known: Known {
                    path,
                    fresh: Fresh::NEVER,
                },
            };
        }
    }
}

fn tick(now: Nanos) -> u32 {
    (now.0 >> 20) as u32
}
