//! The flow cache: exact-match entries that hold the whole verdict for one
//! direction of one flow.
//!
//! An entry is good for one epoch: every change of the tables begins another,
//! and the first packet of a flow after it decides anew. The cache never grows;
//! a new entry takes the place of a stale or of the longest unused one of its
//! set. The hash is seeded, so that VMs cannot aim at a set.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::inspect::Tuple;
use nve_protocol::{Vlan, Vni};

use crate::Nanos;
use crate::connections::Handle;
use crate::forward::Rewrite;
use crate::packet::{Headers, Ip, L4, protocol};
use crate::tables::{MeterIndex, VtepIndex};

/// Entries of a set.
const WAYS: usize = 4;

/// Words of a key.
const WORDS: usize = 7;

/// What makes packets one direction of one flow: where they come from, their MAC
/// and IP addresses, protocol and ports. Whole TCP, UDP, SCTP, DCCP and ICMP echo
/// packets have one; all others are decided each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey([u64; WORDS]);

/// Side in the key, above the protocol.
const FROM_TUNNEL: u64 = 1 << 8;
const IPV6: u64 = 1 << 9;

impl FlowKey {
    /// Of a frame that came from a VAP.
    pub(crate) fn of_vap(vlan: Vlan, headers: &Headers) -> Option<FlowKey> {
        let ip = headers.ip.as_ref()?;
        FlowKey::new(mac(headers.source), u64::from(vlan.get()), headers, ip, 0)
    }

    /// Of a frame that came out of a tunnel. Its source MAC address decides
    /// nothing there.
    pub(crate) fn of_tunnel(vni: Vni, vtep: VtepIndex, headers: &Headers) -> Option<FlowKey> {
        let ip = headers.ip.as_ref()?;
        let network = u64::from(vni.get());
        FlowKey::new(network, vtep.get() as u64, headers, ip, FROM_TUNNEL)
    }

    fn new(sender: u64, port: u64, headers: &Headers, ip: &Ip, side: u64) -> Option<FlowKey> {
        if ip.fragment.is_some() {
            return None;
        }
        let ports = match ip.l4 {
            L4::Tcp {
                source,
                destination,
                ..
            }
            | L4::Ports {
                source,
                destination,
            } => u64::from(source) << 16 | u64::from(destination),
            L4::Icmp { kind, code, id } if crate::packet::is_echo(ip.protocol, kind) => {
                u64::from(kind) << 24 | u64::from(code) << 16 | u64::from(id)
            }
            L4::Icmp { .. } | L4::None => return None,
        };
        let (family, addresses) = words(ip);
        let [a, b, c, d] = addresses;
        Some(FlowKey([
            sender << 16 | u64::from(ip.protocol) | family | side,
            mac(headers.destination) << 16 | port,
            ports,
            a,
            b,
            c,
            d,
        ]))
    }

    /// Where its packets come from.
    pub(crate) fn origin(&self) -> Origin {
        let [sender, receiver, ..] = self.0;
        let port = receiver as u16;
        let vni = Vni::new((sender >> 16) as u32);
        match vni {
            Some(vni) if sender & FROM_TUNNEL != 0 => Origin::Tunnel(vni, port.into()),
            _ => Origin::Vap(port),
        }
    }

    /// Addresses, protocol and ports; of ICMP, type and code.
    pub(crate) fn tuple(&self) -> Tuple {
        let [sender, _, ports, a, b, c, d] = self.0;
        let (source, destination): (IpAddr, IpAddr) = match sender & IPV6 {
            0 => (
                Ipv4Addr::from_bits((a >> 32) as u32).into(),
                Ipv4Addr::from_bits(a as u32).into(),
            ),
            _ => (ipv6(a, b), ipv6(c, d)),
        };
        let (source_port, destination_port) = match self.echo() {
            Some(_) => ((ports >> 24) as u16, u16::from((ports >> 16) as u8)),
            None => ((ports >> 16) as u16, ports as u16),
        };
        Tuple {
            source,
            destination,
            protocol: sender as u8,
            source_port,
            destination_port,
        }
    }

    /// Identifier of ICMP echoes.
    pub(crate) fn echo(&self) -> Option<u16> {
        let [sender, _, ports, ..] = self.0;
        let icmp = matches!(sender as u8, protocol::ICMP | protocol::ICMPV6);
        icmp.then_some(ports as u16)
    }

    /// Folded products of pairs of words (as in wyhash), with a secret in each.
    fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d, e, f, g] = self.0;
        let fold = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y);
            (product as u64) ^ ((product >> 64) as u64)
        };
        let one = fold(a ^ seed, b ^ 0x9e37_79b9_7f4a_7c15);
        let two = fold(c ^ seed.rotate_left(17), d ^ 0xc2b2_ae3d_27d4_eb4f);
        let three = fold(e ^ seed.rotate_left(34), f ^ 0x1656_67b1_9e37_79f9);
        fold(
            one ^ two.rotate_left(21) ^ three.rotate_left(42),
            g ^ seed.rotate_left(51) ^ 0x27d4_eb2f_1656_67c5,
        )
    }
}

/// Where the packets of a flow come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The VAP with that tag.
    Vap(u16),
    /// A network's tunnel, by the VTEP's slot.
    Tunnel(Vni, usize),
}

fn ipv6(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
}

fn mac(mac: nve_protocol::Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn words(ip: &Ip) -> (u64, [u64; 4]) {
    match (ip.source, ip.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (
            0,
            [
                u64::from(from.to_bits()) << 32 | u64::from(to.to_bits()),
                0,
                0,
                0,
            ],
        ),
        (from, to) => {
            let halves = |ip: IpAddr| {
                let bits = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
                    IpAddr::V6(ip) => ip.to_bits(),
                };
                ((bits >> 64) as u64, bits as u64)
            };
            let ((a, b), (c, d)) = (halves(from), halves(to));
            (IPV6, [a, b, c, d])
        }
    }
}

/// Where the packets of a flow leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Vap(Vlan),
    Tunnel(VtepIndex),
}

/// The verdict: what is done to each packet of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// The network it is delivered in.
    pub(crate) vni: Vni,
    pub(crate) exit: Exit,
    /// New addresses, and the largest IP packet, if it is routed.
    pub(crate) rewrite: Option<(Rewrite, u16)>,
    /// The sender's connection and the receiver's.
    pub(crate) connections: [Option<Handle>; 2],
    /// What meters what the sender sends.
    pub(crate) egress: Option<MeterIndex>,
    /// What meters what the receiver gets.
    pub(crate) ingress: Option<MeterIndex>,
    /// How packets are marked.
    pub(crate) dscp: Option<u8>,
}

impl Path {
    /// Whether it is the verdict for a frame with these headers too: a packet whose
    /// hop limit is used up, or whose header is damaged, is not routed like the rest
    /// of its flow.
    pub(crate) fn takes(&self, headers: &Headers, frame: &[u8]) -> bool {
        let routable = |ip: &Ip| ip.hop_limit > 1 && ip.is_intact(frame);
        self.rewrite.is_none() || headers.ip.as_ref().is_some_and(routable)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: FlowKey,
    epoch: u32,
    /// When it was last used, in units of 2^20 ns, wrapping.
    used: u32,
    path: Path,
}

/// A good entry, to be looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cached<'c> {
    pub(crate) key: &'c FlowKey,
    pub(crate) path: &'c Path,
    /// Milliseconds since the last packet, in steps of about one.
    pub(crate) idle_ms: u32,
}

impl Cached<'_> {
    /// Whether packets come from that VAP, or go to it.
    pub(crate) fn concerns(&self, vlan: Vlan) -> bool {
        self.key.origin() == Origin::Vap(vlan.get()) || self.path.exit == Exit::Vap(vlan)
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct FlowCache {
    sets: Vec<[Option<Entry>; WAYS]>,
    mask: usize,
    seed: u64,
}

impl FlowCache {
    /// A cache of at most `entries`, rounded down to a power of two; fewer if
    /// memory is short, and of none at all it is simply without use.
    pub(crate) fn new(entries: u32, seed: u64) -> FlowCache {
        let wanted = entries as usize / WAYS;
        let mut count = match wanted {
            0 => 0,
            some => 1 << some.ilog2(),
        };
        let mut sets = Vec::new();
        while count > 0 && sets.try_reserve_exact(count).is_err() {
            count /= 2;
        }
        sets.resize(count, [None; WAYS]);
        FlowCache {
            mask: count.wrapping_sub(1),
            sets,
            seed,
        }
    }

    /// How many sets of entries there are.
    pub(crate) fn sets(&self) -> u32 {
        u32::try_from(self.sets.len()).unwrap_or(u32::MAX)
    }

    /// The entries of one set that are good in this epoch.
    pub(crate) fn in_set(
        &self,
        set: u32,
        epoch: u32,
        now: Nanos,
    ) -> impl Iterator<Item = Cached<'_>> {
        let entries = self.sets.get(set as usize).into_iter().flatten().flatten();
        let good = entries.filter(move |entry| entry.epoch == epoch);
        good.map(move |entry| Cached {
            key: &entry.key,
            path: &entry.path,
            idle_ms: (u64::from(tick(now).wrapping_sub(entry.used)) << 20)
                .div_euclid(1_000_000)
                .min(u32::MAX.into()) as u32,
        })
    }

    fn set(&mut self, key: &FlowKey) -> Option<&mut [Option<Entry>; WAYS]> {
        let at = key.hash(self.seed) as usize & self.mask;
        self.sets.get_mut(at)
    }

    /// The verdict of this epoch, if there is one.
    pub(crate) fn find(&mut self, key: &FlowKey, epoch: u32, now: Nanos) -> Option<Path> {
        let entry = self
            .set(key)?
            .iter_mut()
            .flatten()
            .find(|entry| entry.key == *key)?;
        if entry.epoch != epoch {
            return None;
        }
        entry.used = tick(now);
        Some(entry.path)
    }

    /// Remembers a verdict.
    pub(crate) fn insert(&mut self, key: FlowKey, path: Path, epoch: u32, now: Nanos) {
        let now = tick(now);
        let Some(set) = self.set(&key) else { return };
        // The flow's own entry, or else the one of least use.
        let worth = |entry: &Option<Entry>| match entry {
            Some(entry) if entry.key == key => (0, 0),
            None => (1, 0),
            Some(entry) if entry.epoch != epoch => (2, 0),
            Some(entry) => (3, u32::MAX - now.wrapping_sub(entry.used)),
        };
        if let Some(place) = set.iter_mut().min_by_key(|entry| worth(entry)) {
            *place = Some(Entry {
                key,
                epoch,
                used: now,
                path,
            });
        }
    }
}

fn tick(now: Nanos) -> u32 {
    (now.0 >> 20) as u32
}
