//! The reference model: what an NVE does, written as plainly as possible.
//!
//! Tables are a list of records that is read from front to back for each
//! question. Nothing is kept between packets but what the rules themselves
//! remember: connections, first fragments, what is left of rate limits, and who
//! the underlay's stations are.

mod advertising;
mod answers;
mod connections;
mod dhcp4;
mod dhcp6;
mod groups;
mod life;
mod meters;
mod routing;
mod spoofing;
mod switching;
mod underlay;

pub use switching::Tag;
pub use underlay::{Arrival, HOPS, Outer};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use nve_datapath::TableError;
use nve_protocol::*;

use crate::packet::{Defect, Frame, Ip, Transport};
use connections::{Connection, First};
use meters::Meter;

/// Largest IP packet on the trunk and on the uplink.
pub const TRUNK_MTU: usize = 1500;
pub const UPLINK_MTU: usize = 1550;
/// Outer IPv4, UDP and VXLAN headers (RFC 7348, section 5).
const OVERHEAD: usize = 20 + 8 + 8;
/// Most IPv6 extension headers that the datapath follows.
const MAX_EXTENSIONS: usize = 8;

/// A frame that leaves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    Trunk {
        bytes: Vec<u8>,
    },
    Tunnel {
        next_hop: Mac,
        vtep: IpAddr,
        hops: u8,
        dscp: u8,
        vni: u32,
        inner: Vec<u8>,
    },
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sent::Trunk { bytes } => write!(f, "Trunk({})", hex(bytes)),
            Sent::Tunnel {
                next_hop,
                vtep,
                hops,
                dscp,
                vni,
                inner,
            } => {
                let inner = hex(inner);
                write!(f, "Tunnel({next_hop} {vtep} {hops} {dscp} {vni} {inner})")
            }
        }
    }
}

/// Bytes for a report: as much as headers need, and how many there are.
pub fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes
        .iter()
        .take(90)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{shown} [{}]", bytes.len())
}

/// All that becomes of one frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the host stack gets it.
    pub host: bool,
    /// In any order.
    pub sent: Vec<Sent>,
    pub drops: BTreeMap<DropReason, u64>,
    pub answers: u64,
}

impl Outcome {
    pub fn dropped(reason: DropReason) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.note(Err(reason));
        outcome
    }

    fn note(&mut self, result: Result<Sent, DropReason>) {
        match result {
            Ok(sent) => self.sent.push(sent),
            Err(reason) => *self.drops.entry(reason).or_default() += 1,
        }
    }
}

/// Who gets a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiver {
    Vap(Vlan),
    Vtep(IpAddr),
}

/// All who get a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Receivers {
    /// The one that has the address.
    Owner(Receiver),
    /// All that may have it.
    Several(Vec<Receiver>),
}

/// The NVE.
#[derive(Debug)]
pub struct Model {
    records: BTreeMap<Key, Record>,
    /// Underlay stations that have told their MAC address.
    next_hops: BTreeMap<Ipv4Addr, Mac>,
    /// Nanoseconds.
    now: u64,
    connections: Vec<Connection>,
    /// Most connections of a VAP.
    limit: usize,
    /// How many names connections were given.
    names: u64,
    fragments: Vec<First>,
    /// What limits a VAP's frames.
    meters: BTreeMap<(Vlan, Direction), Meter>,
    /// What limits ICMP errors (RFC 4443, section 2.4 (f)).
    errors: Meter,
    /// The port behind each tag whose connections are known.
    ports: BTreeMap<Vlan, PortId>,
    /// VAPs on standby whose VM was heard.
    awake: BTreeSet<Vlan>,
}

impl Model {
    /// An NVE without tables that allows each VAP so many connections.
    pub fn new(limit: u32) -> Model {
        Model {
            records: BTreeMap::new(),
            next_hops: BTreeMap::new(),
            now: 0,
            connections: Vec::new(),
            limit: limit as usize,
            names: 0,
            fragments: Vec::new(),
            meters: BTreeMap::new(),
            errors: Meter::new(&Limit {
                pps: 1000,
                burst_packets: 50,
                ..Limit::default()
            }),
            ports: BTreeMap::new(),
            awake: BTreeSet::new(),
        }
    }

    /// Lets time pass up to `now`.
    pub fn pass(&mut self, now: u64) {
        self.now = now;
        self.expire();
    }

    pub fn put(&mut self, record: &Record) -> Result<Option<Record>, TableError> {
        let usable = match record {
            Record::Vap(vap) => vap.mac.is_unicast(),
            Record::Fdb(fdb) => fdb.mac.is_unicast() && is_vtep(fdb.vtep),
            Record::Neighbor(neighbor) => neighbor.mac.is_unicast(),
            Record::Gateway(gateway) => gateway.mac.is_unicast(),
            Record::Flood(flood) => is_vtep(flood.vtep),
            Record::Peer(peer) => is_vtep(peer.vtep),
            Record::Address(address) => address.mac.is_unicast(),
            Record::Qos(qos) => qos.dscp.is_none_or(|dscp| dscp < 64),
            _ => true,
        };
        if !usable {
            return Err(TableError::BadRecord);
        }
        if let Record::Qos(qos) = record {
            self.limit(qos);
        }
        if let Record::Vap(vap) = record {
            let same = self
                .vap(vap.vlan.get())
                .is_some_and(|old| old.port == vap.port);
            if !same || vap.presence != Presence::Standby {
                self.awake.remove(&vap.vlan);
            }
        }
        Ok(self.records.insert(record.key(), *record))
    }

    pub fn delete(&mut self, key: &Key) -> Option<Record> {
        if let Key::Qos { vlan } = *key {
            self.meters.retain(|(of, _), _| *of != vlan);
        }
        if let Key::Vap { vlan } = key {
            self.awake.remove(vlan);
        }
        self.records.remove(key)
    }

    /// To be called after each change as a whole: next hops that no VTEP needs any
    /// more are forgotten, and connections of ports that are no more.
    pub fn changed(&mut self) {
        let needed: Vec<Ipv4Addr> = self.vteps().into_iter().map(underlay::next_hop).collect();
        self.next_hops.retain(|ip, _| needed.contains(ip));
        let ports: BTreeMap<Vlan, PortId> = self.vaps().map(|vap| (vap.vlan, vap.port)).collect();
        for (vlan, port) in core::mem::replace(&mut self.ports, ports.clone()) {
            if ports.get(&vlan) != Some(&port) {
                self.forget(vlan);
            }
        }
    }

    /// Every record, to be put into other tables.
    pub fn all(&self) -> Vec<Record> {
        self.records().copied().collect()
    }

    pub fn digest(&self) -> TableDigest {
        let mut digest = TableDigest::default();
        for record in self.records.values() {
            digest.add(record);
        }
        digest
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    fn vap(&self, vlan: u16) -> Option<&Vap> {
        self.vaps().find(|vap| vap.vlan.get() == vlan)
    }

    fn vaps(&self) -> impl Iterator<Item = &Vap> {
        self.records().filter_map(|record| match record {
            Record::Vap(vap) => Some(vap),
            _ => None,
        })
    }

    /// Whether the VM of a VAP is there.
    fn is_here(&self, vap: &Vap) -> bool {
        match vap.presence {
            Presence::Active => true,
            Presence::Standby => self.awake.contains(&vap.vlan),
            Presence::Departed => false,
        }
    }

    /// The VM of a VAP has sent a frame, from a source that it may use.
    fn hear(&mut self, vap: &Vap) {
        if vap.presence == Presence::Standby {
            self.awake.insert(vap.vlan);
        }
    }

    fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.records().filter_map(|record| match record {
            Record::Gateway(gateway) => Some(gateway),
            _ => None,
        })
    }

    /// The MAC address that goes with an IP address.
    fn neighbor(&self, vni: Vni, ip: IpAddr) -> Option<Mac> {
        self.records().find_map(|record| match record {
            Record::Neighbor(neighbor) => {
                ((neighbor.vni, neighbor.ip) == (vni, ip)).then_some(neighbor.mac)
            }
            _ => None,
        })
    }

    /// VTEPs that any record names.
    fn vteps(&self) -> Vec<IpAddr> {
        self.records()
            .filter_map(|record| match record {
                Record::Fdb(fdb) => Some(fdb.vtep),
                Record::Flood(flood) => Some(flood.vtep),
                Record::Peer(peer) => Some(peer.vtep),
                _ => None,
            })
            .collect()
    }

    /// Bytes of the largest IP packet in a network, if they are known.
    fn known_mtu(&self, vni: Vni) -> Option<u16> {
        self.records().find_map(|record| match record {
            Record::Network(network) => (network.vni == vni).then_some(network.mtu),
            _ => None,
        })
    }

    fn mtu(&self, vni: Vni) -> usize {
        usize::from(self.known_mtu(vni).unwrap_or(u16::MAX))
    }

    fn subnets(&self, vni: Vni) -> impl Iterator<Item = &Subnet> {
        self.records().filter_map(move |record| match record {
            Record::Subnet(subnet) => (subnet.vni == vni).then_some(subnet),
            _ => None,
        })
    }

    fn subnet_of(&self, vni: Vni, ip: IpAddr) -> Option<&Subnet> {
        self.subnets(vni).find(|subnet| subnet.prefix.contains(ip))
    }

    /// DNS servers that a subnet announces, of one version.
    fn servers(&self, subnet: &Subnet, six: bool) -> Vec<IpAddr> {
        let own = |dns: &&Dns| {
            (dns.vni, dns.subnet) == (subnet.vni, subnet.prefix) && dns.server.is_ipv6() == six
        };
        let all = self.records().filter_map(|record| match record {
            Record::Dns(dns) => Some(dns),
            _ => None,
        });
        all.filter(own).map(|dns| dns.server).collect()
    }

    /// A VAP's own options of DHCP: code and value, whose pieces are joined, and the
    /// first of them.
    fn options(&self, vlan: Vlan, family: Family) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
        let mut options: Vec<(u16, Vec<u8>, Vec<u8>)> = Vec::new();
        for record in self.records() {
            let Record::DhcpOption(piece) = record else {
                continue;
            };
            if (piece.vlan, piece.family) != (vlan, family) {
                continue;
            }
            let bytes = piece.value.bytes();
            match options.last_mut() {
                Some((code, value, _)) if *code == piece.code => value.extend(bytes),
                _ => options.push((piece.code, bytes.to_vec(), bytes.to_vec())),
            }
        }
        options
    }

    /// Whether a VAP may have `station` beside its own address.
    fn takes(&self, vap: &Vap, station: Mac) -> bool {
        !vap.port_security || self.addresses(vap.vlan).any(|own| own.mac == station)
    }
}

fn is_vtep(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback()
}

/// Refuses what a frame's headers get wrong, whoever sends it.
fn well_formed(frame: &Frame) -> Result<(), DropReason> {
    let Some(ip) = frame.ip() else {
        return Ok(());
    };
    match ip.defect {
        Some(Defect::Version | Defect::HeaderLength) => return Err(DropReason::MalformedIp),
        Some(Defect::TooLong) => return Err(DropReason::Truncated),
        Some(Defect::Cut | Defect::Checksum) | None => {}
    }
    if !ip.is_v4() && ip.options > MAX_EXTENSIONS {
        return Err(DropReason::MalformedIp);
    }
    if ip.is_later_fragment() {
        return Ok(());
    }
    match transport_header(ip) {
        needed if ip.ip_payload().len() < needed => Err(DropReason::MalformedTransport),
        _ => Ok(()),
    }
}

/// Bytes of the transport header that must be there.
fn transport_header(ip: &Ip) -> usize {
    match ip.transport {
        Transport::Tcp { .. } => 20,
        Transport::Ports { protocol: 132, .. } => 12,
        Transport::Ports { .. } => 8,
        Transport::Dhcp4(_) | Transport::Dhcp6(_) => 8,
        Transport::Icmp { .. }
        | Transport::Error { .. }
        | Transport::Neighbor { .. }
        | Transport::Solicitation { .. } => 4,
        Transport::Other(_) => 0,
    }
}
