//! Router advertisements (RFC 4861, section 6.2), with what Neutron has radvd
//! advertise.
//!
//! A router is its MAC address: its interfaces on a network are one for each of its
//! subnets, and advertised together. A network with several routers has an
//! advertisement of each; one who solicits hears all of them.

use core::net::{IpAddr, Ipv6Addr};

use nve_protocol::{DropReason, Gateway, Ipv6Mode, Mac, Subnet, Vlan, Vni};

use super::{ALL_NODES, Answer, Reply, Request};
use crate::Nanos;
use crate::packet::{Ip, protocol};
use crate::reply::Envelope;
use crate::tables::{Services, Tables};
use crate::wire::nd::{self, Message};
use crate::wire::ra::{self, Header, Prefix};

/// How often each VAP hears each of its network's routers unasked: the longest of
/// the intervals that Neutron configures, a third of the router's lifetime.
const INTERVAL: Nanos = Nanos(100_000_000_000);

/// Seconds for which the router is a default router, as radvd has it with Neutron's
/// intervals.
const ROUTER_LIFETIME: u16 = 300;
/// Seconds that radvd gives a prefix.
const VALID_LIFETIME: u32 = 86_400;
const PREFERRED_LIFETIME: u32 = 14_400;
/// Hop limit of packets, as radvd advertises it.
const HOP_LIMIT: u8 = 64;
/// Most DNS servers of one advertisement.
const MOST_SERVERS: usize = 8;
/// Least MTU of IPv6; a smaller one is not told.
const LEAST_MTU: u16 = 1280;
/// Length of the prefixes that hosts make addresses in.
const AUTONOMOUS_LENGTH: u8 = 64;

/// Answers a router solicitation for the router that is number `nth` in the network;
/// where there is none, it goes its way.
pub(super) fn answer(
    request: &Request<'_>,
    ip: &Ip,
    nth: usize,
    reply: &mut Reply,
) -> Result<Answer, DropReason> {
    let message = Message::parse(ip, request.frame).ok_or(DropReason::NeighborDiscovery)?;
    let Message::RouterSolicitation { .. } = message else {
        return Ok(Answer::Pass);
    };
    let (tables, vni) = (request.tables, request.vap.vni);
    let Some(router) = routers(tables, vni).take(MOST_ANSWERS).nth(nth) else {
        return Ok(Answer::Pass);
    };
    let receiver = match ip.source {
        IpAddr::V6(source) if !source.is_unspecified() => (request.headers.source, source),
        _ => everyone(),
    };
    write(tables, vni, router, receiver, reply)?;
    Ok(Answer::Reply)
}

/// Most routers that answer one solicitation; of more a VM hears unasked.
const MOST_ANSWERS: usize = 8;

/// Most gateways of a network that are looked at for those that advertise, so that a
/// solicitation costs little however many there are.
const MOST_GATEWAYS: usize = 64;

/// The routers that advertise in a network, by their MAC addresses.
fn routers(tables: &Tables, vni: Vni) -> impl Iterator<Item = Mac> + '_ {
    let advertises = move |gateway: &Gateway| advertised(tables, vni, gateway.mac).next().is_some();
    let gateways = tables.gateways(vni);
    let first = |at: usize, mac: Mac| {
        let before = gateways.get(..at).unwrap_or_default();
        before.iter().all(|gateway| gateway.mac != mac)
    };
    gateways
        .iter()
        .take(MOST_GATEWAYS)
        .enumerate()
        .filter(move |(at, gateway)| first(*at, gateway.mac) && advertises(gateway))
        .map(|(_, gateway)| gateway.mac)
}

/// Whose turn it is to hear its routers unasked: one VAP whose VM is there after the
/// other, evenly over an interval of 100 seconds, however many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rounds {
    /// The VAP whose turn was last.
    last: u16,
    /// How many routers the next one has heard of in this turn.
    heard: usize,
    due: Nanos,
}

impl Rounds {
    /// When to call [`next`](Self::next) again.
    pub fn due(&self) -> Nanos {
        self.due
    }

    /// Writes an advertisement that is due at `now` into `reply`, and says which VAP
    /// it is for; to be called until there is none.
    pub fn next(&mut self, tables: &Tables, now: Nanos, reply: &mut Reply) -> Option<Vlan> {
        if now < self.due {
            return None;
        }
        let after = self.last.saturating_add(1)..=Vlan::MAX;
        let mut tags = after.chain(1..=self.last);
        let here = |vlan| tables.vap(vlan).filter(|vap| tables.is_here(vap));
        let vap = tags.find_map(here);
        if let Some(vap) = vap
            && let Some(router) = routers(tables, vap.vni).nth(self.heard)
        {
            self.heard += 1;
            if write(tables, vap.vni, router, everyone(), reply).is_ok() {
                return Some(vap.vlan);
            }
        }
        self.last = vap.map_or(0, |vap| vap.vlan.get());
        self.heard = 0;
        let vaps = u64::from(tables.sizes().vaps.max(1));
        self.due = Nanos(now.0.saturating_add(INTERVAL.0 / vaps));
        None
    }
}

fn everyone() -> (Mac, Ipv6Addr) {
    (nd::group_mac(ALL_NODES), ALL_NODES)
}

/// The subnets that a router advertises.
fn advertised(tables: &Tables, vni: Vni, router: Mac) -> impl Iterator<Item = &Subnet> {
    let has_interface = move |subnet: &&Subnet| {
        let mut gateways = tables.gateways(vni).iter();
        gateways.any(|gateway| gateway.mac == router && gateway.prefix == subnet.prefix)
    };
    let subnets = tables.services(vni).map(Services::subnets);
    subnets
        .unwrap_or_default()
        .iter()
        .filter(|subnet| subnet.prefix.address().is_ipv6() && subnet.ra_mode.is_some())
        .filter(has_interface)
}

fn write(
    tables: &Tables,
    vni: Vni,
    router: Mac,
    (destination_mac, destination): (Mac, Ipv6Addr),
    reply: &mut Reply,
) -> Result<(), DropReason> {
    reply.ip(&Envelope {
        source_mac: router,
        destination_mac,
        source: nd::link_local(router).into(),
        destination: destination.into(),
        protocol: protocol::ICMPV6,
        hop_limit: nd::HOP_LIMIT,
        traffic_class: 0,
    })?;
    let subnets = || advertised(tables, vni, router);
    let has = |mode| subnets().any(|subnet| subnet.ra_mode == Some(mode));
    let header = Header {
        hop_limit: HOP_LIMIT,
        managed: has(Ipv6Mode::Dhcpv6Stateful),
        other: has(Ipv6Mode::Dhcpv6Stateless),
        lifetime: ROUTER_LIFETIME,
    };
    reply.push(&header.emit())?;
    reply.push(&nd::source_link(router))?;
    let services = tables.services(vni);
    let mtu = services.and_then(Services::mtu);
    if let Some(mtu) = mtu.filter(|mtu| *mtu >= LEAST_MTU) {
        reply.push(&ra::mtu(mtu))?;
    }
    if let Some(services) = services {
        push_servers(services, subnets(), reply)?;
    }
    for prefix in subnets().filter_map(prefix) {
        // An advertisement is one packet; more prefixes than fit the least MTU are
        // more subnets than any network should have.
        if reply.len() + ra::PREFIX <= usize::from(LEAST_MTU) {
            reply.push(&prefix.emit())?;
        }
    }
    reply.finish()
}

fn prefix(subnet: &Subnet) -> Option<Prefix> {
    let IpAddr::V6(address) = subnet.prefix.address() else {
        return None;
    };
    let length = subnet.prefix.length();
    let made = subnet.ra_mode != Some(Ipv6Mode::Dhcpv6Stateful);
    Some(Prefix {
        address,
        length,
        autonomous: made && length == AUTONOMOUS_LENGTH,
        valid: VALID_LIFETIME,
        preferred: PREFERRED_LIFETIME,
    })
}

fn push_servers<'t>(
    services: &Services,
    subnets: impl Iterator<Item = &'t Subnet>,
    reply: &mut Reply,
) -> Result<(), DropReason> {
    let mut servers = heapless::Vec::<Ipv6Addr, MOST_SERVERS>::new();
    for subnet in subnets {
        for dns in services.dns(subnet.prefix) {
            if let IpAddr::V6(server) = dns.server
                && !servers.contains(&server)
            {
                // Hosts use three (RFC 8106, section 5.3.1); the rest may be left out.
                let _full = servers.push(server);
            }
        }
    }
    if servers.is_empty() {
        return Ok(());
    }
    // Eight at most.
    reply.push(&ra::servers(servers.len() as u8, ROUTER_LIFETIME.into()))?;
    servers
        .iter()
        .try_for_each(|server| reply.push(&server.octets()))
}
