//! DHCPv6 (RFC 8415): the port's fixed IPs, or configuration without addresses.
//!
//! Like DHCPv4 it has no memory. One server answers on every NVE under one
//! identifier, so a client finds its server again wherever the VM goes. All of a
//! port's addresses go to the first association of a client; others get none.

use core::net::{IpAddr, Ipv6Addr};

use nve_protocol::{Address, DhcpOption, DropReason, Family, Ipv6Mode, Subnet};

use super::{Answer, Reply, Request, SERVER_MAC};
use crate::packet::{Ip, protocol};
use crate::reply::Envelope;
use crate::tables::Services;
use crate::wire::dhcpv6::{self, Association, Kind, Request as Message, Status, option};
use crate::wire::{ethernet, nd};

/// Seconds of a lease, as in Neutron.
const LEASE: u32 = 86_400;
/// When to renew and to rebind (section 21.4: 0.5 and 0.8 of the lifetime).
const RENEW: u32 = LEASE / 2;
const REBIND: u32 = LEASE / 5 * 4;
const HOP_LIMIT: u8 = 64;
/// Makes clients take the advertisement without waiting for others (section 18.2.1).
const PREFERENCE: u8 = 255;
/// Where a reply must end, so that it passes every IPv6 link.
const MOST: usize = 1280 + ethernet::HEADER;
/// Most DNS servers of a reply.
const MOST_SERVERS: usize = 16;
/// Options of the protocol itself, which no port has of its own.
const PROTOCOL: [u16; 14] = [1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 19, 20, 25];

/// Answers a client in a network where some IPv6 subnet has DHCP; in others its
/// messages go their way, as do those of stations behind a VM that may speak for
/// them.
pub(super) fn answer(
    request: &Request<'_>,
    ip: &Ip,
    reply: &mut Reply,
) -> Result<Answer, DropReason> {
    let services = request.tables.services(request.vap.vni);
    let served = services.filter(|services| services.subnets().iter().any(is_served));
    let Some(services) = served.filter(|_| ip.destination == IpAddr::V6(dhcpv6::SERVERS)) else {
        return Ok(Answer::Pass);
    };
    if !request.vap.port_security && is_foreign(request) {
        return Ok(Answer::Pass);
    }
    let whole = ip.fragment.is_none() && !ip.source.is_unspecified();
    let message = Message::parse(request.datagram(ip)).filter(|_| whole);
    let server = Server {
        request,
        services,
        message: message.ok_or(DropReason::Dhcp)?,
    };
    let Some(kind) = server.decide() else {
        return Ok(Answer::Consumed);
    };
    server.write(kind, ip.source, reply)?;
    Ok(Answer::Reply)
}

/// Whether DHCPv6 answers in a subnet.
fn is_served(subnet: &Subnet) -> bool {
    let modes = [Ipv6Mode::Dhcpv6Stateful, Ipv6Mode::Dhcpv6Stateless];
    subnet.dhcp
        && subnet
            .address_mode
            .is_some_and(|mode| modes.contains(&mode))
}

/// Whether the frame comes from a station behind the VM.
fn is_foreign(request: &Request<'_>) -> bool {
    let mac = request.headers.source;
    let mut own = request.tables.addresses(request.vap.vlan).iter();
    mac != request.vap.mac && own.all(|address| address.mac != mac)
}

struct Server<'a> {
    request: &'a Request<'a>,
    services: &'a Services,
    message: Message<'a>,
}

impl<'a> Server<'a> {
    /// The VAP's fixed IPs with their subnets, where DHCPv6 answers.
    fn addresses(&self) -> impl Iterator<Item = (Ipv6Addr, &'a Subnet)> {
        let services = self.services;
        let mac = self.request.headers.source;
        let addresses = self.request.tables.addresses(self.request.vap.vlan).iter();
        let own = move |address: &&Address| {
            address.fixed && address.mac == mac && address.prefix.is_host()
        };
        addresses.filter(own).filter_map(move |address| {
            let IpAddr::V6(ip) = address.prefix.address() else {
                return None;
            };
            let subnet = services.subnet_of(ip.into())?;
            is_served(subnet).then_some((ip, subnet))
        })
    }

    /// What the VAP can lease.
    fn leases(&self) -> impl Iterator<Item = Ipv6Addr> {
        let stateful = Some(Ipv6Mode::Dhcpv6Stateful);
        self.addresses()
            .filter(move |(_, subnet)| subnet.address_mode == stateful)
            .map(|(ip, _)| ip)
    }

    /// What to answer with; `None` for nothing.
    fn decide(&self) -> Option<Kind> {
        let message = &self.message;
        let own = dhcpv6::server_identifier(SERVER_MAC);
        if message.server.is_some_and(|server| server != own) {
            return None;
        }
        let mut asked = message.associations();
        match message.kind {
            Kind::Solicit => {
                asked.next()?;
                Some(match message.rapid {
                    true => Kind::Reply,
                    false => Kind::Advertise,
                })
            }
            // Nothing to confirm is not answered (section 18.3.3).
            Kind::Confirm => asked
                .any(|association| association.addresses().next().is_some())
                .then_some(Kind::Reply),
            _ => Some(Kind::Reply),
        }
    }

    fn write(&self, kind: Kind, client: IpAddr, reply: &mut Reply) -> Result<(), DropReason> {
        reply.udp(
            &Envelope {
                source_mac: SERVER_MAC,
                destination_mac: self.request.headers.source,
                source: nd::link_local(SERVER_MAC).into(),
                destination: client,
                protocol: protocol::UDP,
                hop_limit: HOP_LIMIT,
                traffic_class: 0,
            },
            dhcpv6::SERVER_PORT,
            dhcpv6::CLIENT_PORT,
        )?;
        let [a, b, c] = self.message.id;
        reply.push(&[kind as u8, a, b, c])?;
        if let Some(identifier) = self.message.client {
            put(reply, option::CLIENT, identifier)?;
        }
        let own = dhcpv6::server_identifier(SERVER_MAC);
        put(reply, option::SERVER, &own)?;
        match self.message.kind {
            Kind::Solicit if kind == Kind::Advertise => {
                put(reply, option::PREFERENCE, &[PREFERENCE])?;
            }
            Kind::Solicit => put(reply, option::RAPID_COMMIT, &[])?,
            _ => {}
        }
        match self.message.kind {
            Kind::Confirm => reply.push(&dhcpv6::status(self.confirm()))?,
            Kind::Release | Kind::Decline => reply.push(&dhcpv6::status(Status::Success))?,
            Kind::InformationRequest => self.configuration(reply)?,
            _ => {
                self.associations(reply)?;
                self.configuration(reply)?;
            }
        }
        reply.finish()
    }

    /// Whether all addresses of the client are in subnets of the network.
    fn confirm(&self) -> Status {
        let associations = self.message.associations();
        let mut addresses = associations.flat_map(|association| association.addresses());
        match addresses.all(|ip| self.services.subnet_of(ip.into()).is_some()) {
            true => Status::Success,
            false => Status::NotOnLink,
        }
    }

    fn associations(&self, reply: &mut Reply) -> Result<(), DropReason> {
        for (place, association) in self.message.associations().enumerate() {
            // The client repeats what it is not told of; no VM has so many.
            if reply.len() + 64 > MOST {
                break;
            }
            let start = reply.len();
            if place == 0 && self.leases().next().is_some() {
                reply.push(&dhcpv6::association(association.id, RENEW, REBIND))?;
                self.lease(&association, reply)?;
            } else {
                reply.push(&dhcpv6::association(association.id, 0, 0))?;
                reply.push(&dhcpv6::status(match self.message.kind {
                    Kind::Renew | Kind::Rebind => Status::NoBinding,
                    _ => Status::NoAddresses,
                }))?;
            }
            let length = reply.len() - start - dhcpv6::OPTION_HEADER;
            // A reply is shorter than 64 KiB.
            reply.patch(start + 2, &(length as u16).to_be_bytes());
        }
        Ok(())
    }

    /// The VAP's addresses, and the end of those that the client has and that are
    /// not the VAP's (section 18.3.4).
    fn lease(&self, association: &Association<'_>, reply: &mut Reply) -> Result<(), DropReason> {
        let own = self.leases().map(|ip| (ip, LEASE));
        let ended = association.addresses().filter(|ip| {
            let leased = self.leases().any(|own| own == *ip);
            self.message.kind != Kind::Solicit && !leased
        });
        for (ip, lifetime) in own.chain(ended.map(|ip| (ip, 0))) {
            let address = dhcpv6::address(ip, lifetime);
            if reply.len() + address.len() <= MOST {
                reply.push(&address)?;
            }
        }
        Ok(())
    }

    /// DNS servers of the VAP's subnets, and the port's own options, which stand in
    /// for those of the same code. What does not fit is left out.
    fn configuration(&self, reply: &mut Reply) -> Result<(), DropReason> {
        let own = self
            .request
            .tables
            .dhcp_options(self.request.vap.vlan, Family::Ipv6);
        if self.message.wants(option::DNS) && own.iter().all(|own| own.code != option::DNS) {
            let servers = self.servers();
            if !servers.is_empty() {
                put(reply, option::DNS, &servers)?;
            }
        }
        for pieces in own.chunk_by(|a, b| a.code == b.code) {
            join(reply, pieces)?;
        }
        Ok(())
    }

    fn servers(&self) -> heapless::Vec<u8, { 16 * MOST_SERVERS }> {
        let mut servers = heapless::Vec::new();
        let mut last = None;
        for (_, subnet) in self.addresses() {
            if last.replace(subnet.prefix) == Some(subnet.prefix) {
                continue;
            }
            for dns in self.services.dns(subnet.prefix) {
                if let IpAddr::V6(server) = dns.server {
                    // Sixteen are more than any client asks.
                    let _full = servers.extend_from_slice(&server.octets());
                }
            }
        }
        servers
    }
}

/// Appends an option if it fits.
fn put(reply: &mut Reply, code: u16, value: &[u8]) -> Result<(), DropReason> {
    let length = u16::try_from(value.len()).map_err(|_| DropReason::NoBuffer)?;
    if reply.len() + dhcpv6::OPTION_HEADER + value.len() > MOST {
        return Ok(());
    }
    reply.push(&dhcpv6::option_header(code, length))?;
    reply.push(value)
}

/// Appends a port's own option, which comes in pieces, if it fits; an empty one is
/// not sent, and so takes the subnet's away.
fn join(reply: &mut Reply, pieces: &[DhcpOption]) -> Result<(), DropReason> {
    let code = pieces.first().map(|piece| piece.code);
    let length: usize = pieces.iter().map(|piece| piece.value.bytes().len()).sum();
    let Some(code) = code.filter(|code| !PROTOCOL.contains(code) && length > 0) else {
        return Ok(());
    };
    if reply.len() + dhcpv6::OPTION_HEADER + length > MOST {
        return Ok(());
    }
    // It fits a frame, and so 16 bits.
    reply.push(&dhcpv6::option_header(code, length as u16))?;
    pieces
        .iter()
        .try_for_each(|piece| reply.push(piece.value.bytes()))
}
