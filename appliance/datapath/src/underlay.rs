//! The way to other VTEPs: next hops, their MAC addresses, outer headers.
//!
//! A VTEP within the uplink's prefix is its own next hop, every other one is
//! behind the gateway. All are of the uplink's address family. Next hops are
//! resolved (by ARP or neighbor discovery) before traffic needs them and probed
//! while they are in use; an answer that stays out does not take a known address
//! away, since losing ARP must not be losing traffic.
//!
//! Anyone on the underlay can say that it has a next hop's address. So an address
//! is only learned from the answer to an own probe. The first probe goes to the
//! known address alone, and is answered from there or not at all; only when it is
//! not, everyone is asked. What else claims a next hop's address makes it be probed
//! at once: a gateway that has failed over is followed within [`VERIFY`], one that
//! is still there keeps its tunnels.
//!
//! Where several processors share the NVE, the first one asks, and tells the others what
//! it has learned ([`NextHop`]).
//!
//! Invariant: `tunnels` is indexed by [`VtepIndex`], and holds outer headers
//! exactly for the VTEPs whose next hop is resolved.

use core::net::{IpAddr, Ipv6Addr};

use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::{DropReason, Mac, Prefix};

use crate::tables::{Tables, VtepIndex};
use crate::wire::nd;
use crate::wire::vxlan::Outer;
use crate::{Nanos, Role, Sink};

mod resolution;

pub(crate) use resolution::Claim;

const SECOND: u64 = 1_000_000_000;
/// Between two probes of a next hop that does not answer.
const RETRY: u64 = SECOND / 2;
/// From asking the known address to asking everyone.
const VERIFY: u64 = SECOND / 10;
/// Between two probes of a next hop that answers, or has long not answered.
const REFRESH: u64 = 30 * SECOND;
/// How long an answer to a probe may take.
const ANSWER: u64 = SECOND;
/// Between two probes of a next hop because of what others claim.
const CLAIMS: u64 = SECOND;
/// Probes of a known next hop at short intervals.
const PROBES: u8 = 4;
/// Between two ticks that have nothing to wait for.
const IDLE: u64 = 10 * SECOND;
/// Most probes of one tick, so that many new VTEPs do not make a storm.
const PROBES_PER_TICK: usize = 64;
/// How many times, a second apart, the own address is announced after boot.
const ANNOUNCEMENTS: u8 = 3;

/// The uplink's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uplink {
    /// MAC address of the NIC.
    pub mac: Mac,
    /// The VTEP address.
    pub address: IpAddr,
    /// Length of its prefix in bits, at most the address's.
    pub prefix: u8,
    /// Way to VTEPs outside of the prefix, of the address's family.
    pub gateway: Option<IpAddr>,
    /// Bytes of an IP packet that fit.
    pub mtu: u16,
}

impl Uplink {
    /// The station that frames for `vtep` are sent to; `None` without a gateway, and
    /// for VTEPs of the other family.
    pub fn next_hop(&self, vtep: IpAddr) -> Option<IpAddr> {
        if vtep.is_ipv4() != self.address.is_ipv4() {
            return None;
        }
        match Prefix::around(self.address, self.prefix) {
            Some(prefix) if prefix.contains(vtep) => Some(vtep),
            _ => self.gateway,
        }
    }

    /// Whether an IPv6 packet for `destination` is for this host: its address, its
    /// link-local address, and the groups that every host is in (RFC 4291, section
    /// 2.8).
    pub(crate) fn is_addressed(&self, destination: Ipv6Addr) -> bool {
        let IpAddr::V6(own) = self.address else {
            return false;
        };
        let link_local = nd::link_local(self.mac);
        destination == own
            || destination == link_local
            || destination == nd::ALL_NODES
            || destination == nd::solicited_node(own)
            || destination == nd::solicited_node(link_local)
    }
}

/// What was learned of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
}

/// A next hop.
#[derive(Debug, Clone, Copy)]
struct Hop {
    mac: Option<Mac>,
    /// When to probe next.
    due: u64,
    /// Probes since the last answer.
    probes: u8,
    /// When the last of them was sent.
    asked: u64,
    /// Before when claims are of no interest.
    heedless: u64,
    used: bool,
}

impl Hop {
    /// What a probe at `now` goes to; `None` for everyone.
    fn probe(&mut self, now: u64) -> Option<Mac> {
        let to = self.mac.filter(|_| self.probes == 0);
        let wait = match self.probes {
            _ if self.mac.is_none() => RETRY,
            0 => VERIFY,
            1..PROBES => RETRY,
            _ => REFRESH,
        };
        self.probes = self.probes.saturating_add(1);
        self.asked = now;
        self.due = now.saturating_add(wait);
        to
    }

    /// Takes note of a claim; whether the address changed.
    fn hear(&mut self, claim: &Claim, now: u64) -> bool {
        let awaited = self.probes > 0 && now.saturating_sub(self.asked) <= ANSWER;
        let confirmed = self.mac.is_some() && claim.mac.is_none_or(|mac| Some(mac) == self.mac);
        let asked_everyone = self.mac.is_none() || self.probes > 1;
        if claim.answer
            && awaited
            && (confirmed || asked_everyone)
            && let Some(mac) = claim.mac.or(self.mac)
        {
            self.probes = 0;
            self.due = now.saturating_add(REFRESH);
            return self.mac.replace(mac) != Some(mac);
        }
        if !confirmed && self.heedless <= now && !(awaited && self.probes < PROBES) {
            self.heedless = now.saturating_add(CLAIMS);
            self.probes = 0;
            self.due = now;
        }
        false
    }
}

/// Resolution state and outer headers.
#[derive(Debug)]
pub(crate) struct Underlay {
    uplink: Uplink,
    hops: HashMap<IpAddr, Hop, crate::tables::Fast>,
    tunnels: Vec<Option<Outer>>,
    announcements: u8,
    announce_due: u64,
    role: Role,
    /// What the others have to be told.
    learned: Vec<NextHop>,
}

impl Underlay {
    pub(crate) fn new(uplink: Uplink) -> Self {
        Underlay {
            uplink,
            hops: HashMap::default(),
            tunnels: Vec::new(),
            announcements: ANNOUNCEMENTS,
            announce_due: 0,
            role: Role::Only,
            learned: Vec::new(),
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn set_role(&mut self, role: Role) {
        self.role = role;
    }

    pub(crate) fn uplink(&self) -> &Uplink {
        &self.uplink
    }

    /// Outer headers towards a VTEP.
    pub(crate) fn tunnel(&self, vtep: VtepIndex) -> Result<&Outer, DropReason> {
        let tunnel = self.tunnels.get(vtep.get()).and_then(Option::as_ref);
        tunnel.ok_or(DropReason::UnderlayUnresolved)
    }

    /// Follows the VTEPs of `tables`: new next hops are to be probed at once,
    /// those that no VTEP needs any more are forgotten.
    pub(crate) fn follow(&mut self, tables: &Tables, now: Nanos) {
        for hop in self.hops.values_mut() {
            hop.used = false;
        }
        for vtep in tables.vteps().flatten() {
            let Some(next) = self.uplink.next_hop(vtep) else {
                continue;
            };
            let fresh = Hop {
                mac: None,
                due: now.0,
                probes: 0,
                asked: 0,
                heedless: 0,
                used: true,
            };
            self.hops.entry(next).or_insert(fresh).used = true;
        }
        self.hops.retain(|_, hop| hop.used);
        let mut tunnels = core::mem::take(&mut self.tunnels);
        tunnels.clear();
        tunnels.extend(tables.vteps().map(|vtep| self.outer_headers(vtep?)));
        self.tunnels = tunnels;
    }

    /// Makes the tunnels by way of one next hop anew.
    fn rebuild(&mut self, next: IpAddr, tables: &Tables) {
        for (at, vtep) in tables.vteps().enumerate() {
            let Some(vtep) = vtep.filter(|vtep| self.uplink.next_hop(*vtep) == Some(next)) else {
                continue;
            };
            let headers = self.outer_headers(vtep);
            if let Some(tunnel) = self.tunnels.get_mut(at) {
                *tunnel = headers;
            }
        }
    }

    fn outer_headers(&self, vtep: IpAddr) -> Option<Outer> {
        let mac = self.hops.get(&self.uplink.next_hop(vtep)?)?.mac?;
        Outer::new(self.uplink.mac, mac, self.uplink.address, vtep)
    }

    /// Hears what a station on the uplink says, if it is of a next hop. What then is
    /// to be asked, the next [`tick`](Self::tick) does.
    pub(crate) fn hear(&mut self, claim: &Claim, tables: &Tables, now: Nanos) {
        if claim.mac.is_some_and(|mac| !mac.is_unicast()) {
            return;
        }
        let hop = self.hops.get_mut(&claim.ip);
        let Some(hop) = hop.filter(|_| self.role != Role::Other) else {
            return;
        };
        let tells = self.role == Role::First;
        // What cannot be told is not learned either: it is asked for again.
        if tells && self.learned.try_reserve(1).is_err() || !hop.hear(claim, now.0) {
            return;
        }
        if let Some(mac) = hop.mac.filter(|_| tells) {
            self.learned.push(NextHop { ip: claim.ip, mac });
        }
        self.rebuild(claim.ip, tables);
    }

    /// What was learned since the last call, oldest first.
    pub(crate) fn take_learned(&mut self) -> Vec<NextHop> {
        core::mem::take(&mut self.learned)
    }

    /// Learns what another processor has.
    pub(crate) fn learn(&mut self, next: NextHop, tables: &Tables) {
        if let Some(hop) = self.hops.get_mut(&next.ip) {
            hop.mac = Some(next.mac);
            self.rebuild(next.ip, tables);
        }
    }

    /// Sends the probes that are due, and returns when to be called next.
    pub(crate) fn tick(&mut self, now: Nanos, sink: &mut impl Sink) -> Nanos {
        let mut next = now.0.saturating_add(IDLE);
        if self.role == Role::Other {
            return Nanos(next);
        }
        if self.announcements > 0 {
            if self.announce_due <= now.0 {
                self.announcements -= 1;
                self.announce_due = now.0.saturating_add(SECOND);
                resolution::announce(&self.uplink, sink);
            }
            next = next.min(self.announce_due);
        }
        let mut probes = 0;
        for (ip, hop) in &mut self.hops {
            if hop.due <= now.0 && probes < PROBES_PER_TICK {
                probes += 1;
                resolution::ask(&self.uplink, *ip, hop.probe(now.0), sink);
            }
            next = next.min(hop.due);
        }
        Nanos(next)
    }
}
