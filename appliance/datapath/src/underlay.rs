//! The way to other VTEPs: next hops, their MAC addresses, outer headers.
//!
//! A VTEP within the uplink's prefix is its own next hop, every other one is
//! behind the gateway. Next hops are resolved by ARP before traffic needs them
//! and probed while they are in use; an answer that stays out does not take a
//! known address away, since losing ARP must not be losing traffic.
//!
//! Invariant: `tunnels` is indexed by [`VtepIndex`], and holds outer headers
//! exactly for the VTEPs whose next hop is resolved.

use core::net::{IpAddr, Ipv4Addr};

use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::{DropReason, Mac};

use crate::tables::{Tables, VtepIndex};
use crate::wire::arp::{Operation, Packet};
use crate::wire::ethernet;
use crate::wire::vxlan::OuterV4;
use crate::{Nanos, Side, Sink};

const SECOND: u64 = 1_000_000_000;
/// Between two probes of a next hop without an address.
const RETRY: u64 = SECOND / 2;
/// Between two probes of one with an address.
const REFRESH: u64 = 30 * SECOND;
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
    pub address: Ipv4Addr,
    /// Length of its prefix in bits, at most 32.
    pub prefix: u8,
    /// Way to VTEPs outside of the prefix.
    pub gateway: Option<Ipv4Addr>,
    /// Bytes of an IP packet that fit.
    pub mtu: u16,
}

impl Uplink {
    /// The station that frames for `vtep` are sent to; `None` without a gateway.
    pub fn next_hop(&self, vtep: Ipv4Addr) -> Option<Ipv4Addr> {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0);
        match (vtep.to_bits() ^ self.address.to_bits()) & mask {
            0 => Some(vtep),
            _ => self.gateway,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Hop {
    mac: Option<Mac>,
    /// When to probe next.
    due: u64,
    used: bool,
}

/// Resolution state and outer headers.
#[derive(Debug)]
pub(crate) struct Underlay {
    uplink: Uplink,
    hops: HashMap<Ipv4Addr, Hop, crate::tables::Fast>,
    tunnels: Vec<Option<OuterV4>>,
    announcements: u8,
    announce_due: u64,
}

impl Underlay {
    pub(crate) fn new(uplink: Uplink) -> Self {
        Underlay {
            uplink,
            hops: HashMap::default(),
            tunnels: Vec::new(),
            announcements: ANNOUNCEMENTS,
            announce_due: 0,
        }
    }

    pub(crate) fn uplink(&self) -> &Uplink {
        &self.uplink
    }

    /// Outer headers towards a VTEP.
    pub(crate) fn tunnel(&self, vtep: VtepIndex) -> Result<&OuterV4, DropReason> {
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
            let Some(next) = self.next_hop(vtep) else {
                continue;
            };
            let fresh = Hop {
                mac: None,
                due: now.0,
                used: true,
            };
            self.hops.entry(next).or_insert(fresh).used = true;
        }
        self.hops.retain(|_, hop| hop.used);
        self.rebuild(tables);
    }

    fn next_hop(&self, vtep: IpAddr) -> Option<Ipv4Addr> {
        match vtep {
            IpAddr::V4(vtep) => self.uplink.next_hop(vtep),
            IpAddr::V6(_) => None,
        }
    }

    fn rebuild(&mut self, tables: &Tables) {
        let mut tunnels = core::mem::take(&mut self.tunnels);
        tunnels.clear();
        tunnels.extend(tables.vteps().map(|vtep| self.outer_headers(vtep?)));
        self.tunnels = tunnels;
    }

    fn outer_headers(&self, vtep: IpAddr) -> Option<OuterV4> {
        let IpAddr::V4(destination) = vtep else {
            return None;
        };
        let mac = self.hops.get(&self.next_hop(vtep)?)?.mac?;
        Some(OuterV4::new(
            self.uplink.mac,
            mac,
            self.uplink.address,
            destination,
        ))
    }

    /// Learns from an ARP packet on the uplink, if its sender is a next hop.
    pub(crate) fn observe(&mut self, packet: &Packet, tables: &Tables, now: Nanos) {
        if !packet.sender_mac.is_unicast() {
            return;
        }
        let Some(hop) = self.hops.get_mut(&packet.sender_ip) else {
            return;
        };
        hop.due = now.0.saturating_add(REFRESH);
        if hop.mac.replace(packet.sender_mac) != Some(packet.sender_mac) {
            self.rebuild(tables);
        }
    }

    /// Sends the ARP that is due, and returns when to be called next.
    pub(crate) fn tick(&mut self, now: Nanos, sink: &mut impl Sink) -> Nanos {
        let mut next = now.0.saturating_add(IDLE);
        if self.announcements > 0 {
            if self.announce_due <= now.0 {
                self.announcements -= 1;
                self.announce_due = now.0.saturating_add(SECOND);
                self.send(Mac::BROADCAST, Mac::default(), self.uplink.address, sink);
            }
            next = next.min(self.announce_due);
        }
        let mut probes = Vec::new();
        for (ip, hop) in &mut self.hops {
            if hop.due <= now.0 && probes.len() < PROBES_PER_TICK {
                let wait = if hop.mac.is_some() { REFRESH } else { RETRY };
                hop.due = now.0.saturating_add(wait);
                probes.push((*ip, hop.mac));
            }
            next = next.min(hop.due);
        }
        for (ip, mac) in probes {
            self.send(
                mac.unwrap_or(Mac::BROADCAST),
                mac.unwrap_or_default(),
                ip,
                sink,
            );
        }
        Nanos(next)
    }

    /// Asks for `target` (or announces it, when it is the own address). A lost
    /// request is sent again when it is due, so a full queue needs no care here.
    fn send(&self, to: Mac, target_mac: Mac, target: Ipv4Addr, sink: &mut impl Sink) {
        let mut header = [0; ethernet::HEADER];
        crate::wire::put(&mut header, 0, &to.0);
        crate::wire::put(&mut header, 6, &self.uplink.mac.0);
        crate::wire::put(
            &mut header,
            ethernet::ADDRESSES,
            &ethernet::ARP.to_be_bytes(),
        );
        let packet = Packet {
            operation: Operation::Request,
            sender_mac: self.uplink.mac,
            sender_ip: self.uplink.address,
            target_mac,
            target_ip: target,
        };
        let _ = sink.emit(Side::Uplink, &[&header, &packet.emit()], None);
    }
}
