//! DHCPv4 (RFC 2131): leases of the port's fixed IPs.
//!
//! The server has no memory: which address a port has is Neutron's decision, so
//! each request is answered from the tables, and a lease is as long as Neutron's
//! default. What Neutron's own agent announces is announced here.
//!
//! The server's identifier is the subnet's gateway, whether a router of ours or
//! not: what a client sends there on DHCP's ports never leaves the NVE. In a subnet
//! without gateway it is [`LONE_SERVER`], which no host can have; clients that find
//! no way to it renew by broadcast when they rebind.

use core::net::{IpAddr, Ipv4Addr};

use nve_protocol::{Address, DropReason, Mac, Subnet};

use super::{Answer, Reply, Request, SERVER_MAC};
use crate::packet::{Ip, protocol};
use crate::reply::Envelope;
use crate::tables::Services;
use crate::wire::dhcpv4::{self, Kind, Request as Message};

mod options;

/// Server identifier where a subnet has no gateway: of the link-local addresses
/// that no host chooses (RFC 3927, section 2.1), one that nothing else uses.
pub const LONE_SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 67);

const HOP_LIMIT: u8 = 64;
/// Bytes of the largest IP packet that every client takes.
const EVERY_CLIENT: u16 = 576;
/// Bytes of the largest IP packet that a reply holds.
const MOST: u16 = 1500;
const IP_AND_UDP: u16 = 28;

/// An address with its subnet: what a VAP can lease.
#[derive(Clone, Copy)]
struct Lease<'t> {
    ip: Ipv4Addr,
    subnet: &'t Subnet,
}

impl Lease<'_> {
    fn server(&self) -> Ipv4Addr {
        match self.subnet.gateway {
            Some(IpAddr::V4(gateway)) => gateway,
            _ => LONE_SERVER,
        }
    }
}

/// What a reply says beside its options.
#[derive(Clone, Copy)]
enum Outcome {
    Offer,
    Ack,
    /// To a client that has its address already.
    Inform,
    Nak,
}

/// Answers a client in a network where some IPv4 subnet has DHCP. In others its
/// messages go their way, as do those to other servers, and those of stations
/// behind a VM that may speak for them.
pub(super) fn answer(
    request: &Request<'_>,
    ip: &Ip,
    reply: &mut Reply,
) -> Result<Answer, DropReason> {
    let Some(services) = request.tables.services(request.vap.vni) else {
        return Ok(Answer::Pass);
    };
    let served = |subnet: &&Subnet| subnet.dhcp && subnet.prefix.address().is_ipv4();
    if !services.subnets().iter().any(|subnet| served(&subnet)) {
        return Ok(Answer::Pass);
    }
    let message = Message::parse(request.datagram(ip)).ok_or(DropReason::Dhcp)?;
    let server = Server {
        request,
        services,
        message,
    };
    if !server.is_meant(ip) {
        return Ok(Answer::Pass);
    }
    if !request.vap.port_security && server.leases().next().is_none() {
        return Ok(Answer::Pass);
    }
    if !message.relay.is_unspecified() || ip.fragment.is_some() {
        return Err(DropReason::Dhcp);
    }
    match server.decide()? {
        Some((outcome, lease)) => {
            server.write(outcome, &lease, reply)?;
            Ok(Answer::Reply)
        }
        None => Ok(Answer::Consumed),
    }
}

struct Server<'a> {
    request: &'a Request<'a>,
    services: &'a Services,
    message: Message<'a>,
}

impl<'a> Server<'a> {
    /// What the VAP can lease, by prefix.
    fn leases(&self) -> impl Iterator<Item = Lease<'a>> {
        let services = self.services;
        let addresses = self.request.tables.addresses(self.request.vap.vlan).iter();
        let mac = self.message.mac;
        let own = move |address: &&Address| {
            address.fixed && address.mac == mac && address.prefix.is_host()
        };
        addresses.filter(own).filter_map(move |address| {
            let IpAddr::V4(ip) = address.prefix.address() else {
                return None;
            };
            let subnet = services.subnet_of(ip.into())?;
            subnet.dhcp.then_some(Lease { ip, subnet })
        })
    }

    fn lease(&self, ip: Ipv4Addr) -> Option<Lease<'a>> {
        self.leases().find(|lease| lease.ip == ip)
    }

    /// Whether the packet went to everyone or to this server.
    fn is_meant(&self, ip: &Ip) -> bool {
        let IpAddr::V4(to) = ip.destination else {
            return false;
        };
        to.is_broadcast() || self.leases().any(|lease| lease.server() == to)
    }

    /// What to answer; `None` for nothing.
    fn decide(&self) -> Result<Option<(Outcome, Lease<'a>)>, DropReason> {
        let first = self.leases().next().ok_or(DropReason::Dhcp)?;
        let message = &self.message;
        let wanted = match message.requested {
            Some(ip) if message.client.is_unspecified() => ip,
            _ => message.client,
        };
        let lease = self.lease(wanted);
        Ok(match message.kind {
            Kind::Discover => Some((Outcome::Offer, lease.unwrap_or(first))),
            // The client took another server's offer.
            Kind::Request if !self.is_chosen() => None,
            Kind::Request if wanted.is_unspecified() => return Err(DropReason::Dhcp),
            Kind::Request => Some(match lease {
                Some(lease) => (Outcome::Ack, lease),
                None => (Outcome::Nak, first),
            }),
            Kind::Inform => Some((Outcome::Inform, lease.ok_or(DropReason::Dhcp)?)),
            _ => None,
        })
    }

    /// Whether a request names this server, or none.
    fn is_chosen(&self) -> bool {
        let server = self.message.server;
        server.is_none_or(|server| self.leases().any(|lease| lease.server() == server))
    }

    fn write(
        &self,
        outcome: Outcome,
        lease: &Lease<'_>,
        reply: &mut Reply,
    ) -> Result<(), DropReason> {
        let none = Ipv4Addr::UNSPECIFIED;
        let client = self.message.client;
        let (client, yours) = match outcome {
            Outcome::Offer => (none, lease.ip),
            Outcome::Ack => (client, lease.ip),
            Outcome::Inform => (client, none),
            Outcome::Nak => (none, none),
        };
        reply.udp(
            &self.envelope(outcome, lease, client),
            dhcpv4::SERVER_PORT,
            dhcpv4::CLIENT_PORT,
        )?;
        let start = reply.len();
        reply.push(&dhcpv4::reply_header(&self.message, client, yours))?;
        self.options(outcome, lease, start + self.room(), reply)?;
        if !matches!(outcome, Outcome::Nak) {
            self.boot(start, reply);
        }
        let short = (start + dhcpv4::LEAST).saturating_sub(reply.len());
        reply.push([0; dhcpv4::LEAST].get(..short).unwrap_or_default())?;
        reply.finish()
    }

    /// Bytes that a message may have.
    fn room(&self) -> usize {
        let mtu = self.services.mtu().unwrap_or(MOST).min(MOST);
        let wanted = self.message.most.unwrap_or_default();
        usize::from(wanted.min(mtu).max(EVERY_CLIENT) - IP_AND_UDP)
    }

    /// Who gets the reply (RFC 2131, section 4.1).
    fn envelope(&self, outcome: Outcome, lease: &Lease<'_>, client: Ipv4Addr) -> Envelope {
        let server = lease.server();
        let gateway = self
            .request
            .tables
            .gateway(self.request.vap.vni, server.into());
        let everyone = matches!(outcome, Outcome::Nak)
            || (client.is_unspecified() && self.message.wants_broadcast());
        let (destination, destination_mac) = match everyone {
            true => (Ipv4Addr::BROADCAST, Mac::BROADCAST),
            false if client.is_unspecified() => (lease.ip, self.message.mac),
            false => (client, self.message.mac),
        };
        Envelope {
            source_mac: gateway.map_or(SERVER_MAC, |gateway| gateway.mac),
            destination_mac,
            source: server.into(),
            destination: destination.into(),
            protocol: protocol::UDP,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
        }
    }
}
