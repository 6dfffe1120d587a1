//! The server of DHCPv4 (RFC 2131), with what Neutron's announces.

use std::net::{IpAddr, Ipv4Addr};

use nve_protocol::*;

use super::Model;
use super::answers::Served;
use crate::packet::{Dhcp4, Ip, served};

/// Where no router's MAC address fits.
pub(super) const SERVER_MAC: Mac = Mac([0x0e, b's', b'l', b'u', b'i', b'c']);
/// The server of a subnet without a gateway.
const LONE_SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 67);
/// Seconds.
const LEASE: u32 = 86_400;
/// Options that no port has of its own.
const RESERVED: [u16; 9] = [0, 50, 52, 53, 54, 55, 61, 82, 255];
/// Lease time, T1, T2.
const TIMES: [u16; 3] = [51, 58, 59];
/// Bytes of a message in front of its options, and of the least message.
const FIXED: usize = 240;
const LEAST: usize = 300;

/// An address that a VAP can have, and its subnet.
#[derive(Clone, Copy)]
struct Lease<'a> {
    ip: Ipv4Addr,
    subnet: &'a Subnet,
}

impl Lease<'_> {
    fn server(&self) -> Ipv4Addr {
        match self.subnet.gateway {
            Some(IpAddr::V4(gateway)) => gateway,
            _ => LONE_SERVER,
        }
    }
}

/// Kinds of replies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Offer,
    Ack,
    Inform,
    Nak,
}

/// A message in the making, which options are added to as long as they fit.
struct Message {
    bytes: Vec<u8>,
    room: usize,
}

impl Message {
    fn option(&mut self, code: u16, value: &[u8]) {
        let chunks = value.chunks(255);
        let option: Vec<u8> = chunks
            .flat_map(|chunk| [&[code as u8, chunk.len() as u8], chunk].concat())
            .collect();
        // One byte is for the end.
        if self.bytes.len() + option.len() < self.room {
            self.bytes.extend(option);
        }
    }
}

impl Model {
    pub(super) fn answer_dhcp4(
        &self,
        vap: &Vap,
        ip: &Ip,
        message: &Dhcp4,
    ) -> Result<Served, DropReason> {
        let mut subnets = self.subnets(vap.vni);
        if !subnets.any(|subnet| subnet.dhcp && subnet.prefix.address().is_ipv4()) {
            return Ok(Served::Pass);
        }
        // Of types, 5 and 6 are a server's, as is 2.
        if message.damage.is_some() || !matches!(message.kind, 1 | 3 | 4 | 7 | 8) {
            return Err(DropReason::Dhcp);
        }
        let leases = self.leases4(vap, message.mac);
        let everyone = IpAddr::V4(Ipv4Addr::BROADCAST);
        let to_server = leases.iter().any(|lease| lease.server() == ip.destination);
        if !to_server && ip.destination != everyone {
            return Ok(Served::Pass);
        }
        if !vap.port_security && leases.is_empty() {
            return Ok(Served::Pass);
        }
        if !message.relay.is_unspecified() || ip.fragment.is_some() {
            return Err(DropReason::Dhcp);
        }
        let first = *leases.first().ok_or(DropReason::Dhcp)?;
        let wanted = match message.requested {
            Some(requested) if message.client.is_unspecified() => requested,
            _ => message.client,
        };
        let lease = leases.iter().copied().find(|lease| lease.ip == wanted);
        let is_chosen = message
            .server
            .is_none_or(|server| leases.iter().any(|lease| lease.server() == server));
        let (reply, lease) = match (message.kind, lease) {
            (1, lease) => (Reply::Offer, lease.unwrap_or(first)),
            (3, _) if !is_chosen => return Ok(Served::Ignored),
            (3, _) if wanted.is_unspecified() => return Err(DropReason::Dhcp),
            (3, Some(lease)) => (Reply::Ack, lease),
            (3, None) => (Reply::Nak, first),
            (8, lease) => (Reply::Inform, lease.ok_or(DropReason::Dhcp)?),
            _ => return Ok(Served::Ignored),
        };
        Ok(Served::Reply(self.reply4(vap, message, reply, lease)))
    }

    fn leases4(&self, vap: &Vap, mac: Mac) -> Vec<Lease<'_>> {
        let own =
            |address: &&Address| address.fixed && address.mac == mac && address.prefix.is_host();
        let lease = |address: &Address| {
            let IpAddr::V4(ip) = address.prefix.address() else {
                return None;
            };
            let subnet = self.subnet_of(vap.vni, ip.into())?;
            subnet.dhcp.then_some(Lease { ip, subnet })
        };
        self.addresses(vap.vlan)
            .filter(own)
            .filter_map(lease)
            .collect()
    }

    /// The frame.
    fn reply4(&self, vap: &Vap, asked: &Dhcp4, reply: Reply, lease: Lease<'_>) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let client = match reply {
            Reply::Ack | Reply::Inform => asked.client,
            Reply::Offer | Reply::Nak => none,
        };
        let yours = match reply {
            Reply::Offer | Reply::Ack => lease.ip,
            Reply::Inform | Reply::Nak => none,
        };
        let bytes = self.message4(vap, asked, reply, lease, (client, yours));
        // RFC 2131, section 4.1; to whom something is offered, it has no address yet.
        let to_everyone = reply == Reply::Nak || (asked.broadcast && client.is_unspecified());
        let (to, to_mac) = match client {
            _ if to_everyone => (Ipv4Addr::BROADCAST, Mac::BROADCAST),
            unspecified if unspecified.is_unspecified() => (lease.ip, asked.mac),
            client => (client, asked.mac),
        };
        let server = lease.server();
        let gateway = self
            .gateways()
            .find(|gateway| (gateway.vni, gateway.ip) == (vap.vni, server.into()));
        let from_mac = gateway.map_or(SERVER_MAC, |gateway| gateway.mac);
        let packet = served(server.into(), to.into(), (67, 68), &bytes);
        [&to_mac.0[..], &from_mac.0, &[0x08, 0x00], &packet].concat()
    }

    fn message4(
        &self,
        vap: &Vap,
        asked: &Dhcp4,
        reply: Reply,
        lease: Lease<'_>,
        (client, yours): (Ipv4Addr, Ipv4Addr),
    ) -> Vec<u8> {
        let own = self.options(vap.vlan, Family::Ipv4);
        let mtu = self.known_mtu(vap.vni).unwrap_or(1500).min(1500);
        let most = asked.most.unwrap_or(0).min(mtu).max(576);
        let mut message = Message {
            bytes: header(asked, client, yours),
            room: usize::from(most) - 28,
        };
        let kind = match reply {
            Reply::Offer => 2,
            Reply::Ack | Reply::Inform => 5,
            Reply::Nak => 6,
        };
        message.option(53, &[kind]);
        message.option(54, &lease.server().octets());
        if let Some(identifier) = &asked.identifier {
            message.option(61, identifier);
        }
        if reply != Reply::Nak {
            if reply != Reply::Inform {
                times(&own, &mut message);
            }
            self.announce(vap, asked, lease, &own, &mut message);
        }
        message.bytes.push(255);
        let mut bytes = message.bytes;
        if reply != Reply::Nak {
            boot(&own, &mut bytes);
        }
        bytes.resize(bytes.len().max(LEAST), 0);
        bytes
    }

    /// What the network, the subnet and the port announce, the port's own first.
    fn announce(
        &self,
        vap: &Vap,
        asked: &Dhcp4,
        lease: Lease<'_>,
        own: &[(u16, Vec<u8>, Vec<u8>)],
        message: &mut Message,
    ) {
        let is_wanted = |code: u16| match &asked.parameters {
            Some(codes) => codes.iter().any(|wanted| u16::from(*wanted) == code),
            None => code != 249,
        };
        let prefix = lease.subnet.prefix;
        let length = u32::from(prefix.length());
        let mask = (0..length).fold(0u32, |mask, bit| mask | 0x8000_0000 >> bit);
        let first = match prefix.address() {
            IpAddr::V4(first) => first.to_bits(),
            IpAddr::V6(_) => unreachable!("of version 4"),
        };
        let gateway = match lease.subnet.gateway {
            Some(IpAddr::V4(gateway)) => gateway.octets().to_vec(),
            _ => Vec::new(),
        };
        let servers = self.servers(lease.subnet, false).into_iter().take(16);
        let broadcast = match length {
            0..=30 => (first | !mask).to_be_bytes().to_vec(),
            _ => Vec::new(),
        };
        let name = lease.ip.to_string().replace('.', "-");
        let mtu = self.known_mtu(vap.vni).map(u16::to_be_bytes);
        let routes = self.routes(lease);
        for (code, always, value) in [
            (1, true, mask.to_be_bytes().to_vec()),
            (26, true, mtu.map(Vec::from).unwrap_or_default()),
            (3, false, gateway),
            (6, false, servers.flat_map(crate::packet::octets).collect()),
            (12, false, format!("host-{name}").into_bytes()),
            (28, false, broadcast),
            (121, false, routes.clone()),
            (249, false, routes),
        ] {
            if (always || is_wanted(code)) && own.iter().all(|(other, ..)| *other != code) {
                message.option(code, &value);
            }
        }
        for wanted in [true, false] {
            for (code, value, _) in own {
                let usable = *code < 256 && !RESERVED.contains(code) && !TIMES.contains(code);
                if usable && is_wanted(*code) == wanted {
                    message.option(*code, value);
                }
            }
        }
    }

    /// RFC 3442: the subnet's routes, the network's other subnets, the default route.
    fn routes(&self, lease: Lease<'_>) -> Vec<u8> {
        let own = lease.subnet;
        let mut routes: Vec<(Prefix, Ipv4Addr)> = Vec::new();
        for record in self.records() {
            if let Record::HostRoute(route) = record
                && (route.vni, route.subnet) == (own.vni, own.prefix)
                && let IpAddr::V4(next_hop) = route.next_hop
            {
                routes.push((route.destination, next_hop));
            }
        }
        let others = self
            .subnets(own.vni)
            .filter(|subnet| subnet.prefix != own.prefix);
        routes.extend(others.map(|subnet| (subnet.prefix, Ipv4Addr::UNSPECIFIED)));
        routes.retain(|(destination, _)| destination.address().is_ipv4());
        let default = Prefix::around(Ipv4Addr::UNSPECIFIED.into(), 0).unwrap();
        if let Some(IpAddr::V4(gateway)) = own.gateway
            && !routes.is_empty()
            && self.records().all(|record| {
                !matches!(record, Record::HostRoute(route)
                    if (route.vni, route.subnet, route.destination)
                        == (own.vni, own.prefix, default))
            })
        {
            routes.push((default, gateway));
        }
        let bytes = routes.into_iter().flat_map(|(destination, next_hop)| {
            let length = destination.length();
            let significant = usize::from(length).div_ceil(8);
            let network = crate::packet::octets(destination.address());
            [&[length][..], &network[..significant], &next_hop.octets()].concat()
        });
        bytes.collect()
    }
}

fn header(asked: &Dhcp4, client: Ipv4Addr, yours: Ipv4Addr) -> Vec<u8> {
    let bytes = [
        &[2, 1, 6, 0][..],
        &asked.id.to_be_bytes(),
        &[0, 0, if asked.broadcast { 0x80 } else { 0 }, 0],
        &client.octets(),
        &yours.octets(),
        &[0; 8],
        &asked.mac.0,
        &[0; 202],
        &[99, 130, 83, 99],
    ]
    .concat();
    assert_eq!(bytes.len(), FIXED);
    bytes
}

/// Lease time, T1 and T2 (RFC 2131, section 4.4.5); those that the port has of its
/// own come after the others.
fn times(own: &[(u16, Vec<u8>, Vec<u8>)], message: &mut Message) {
    let of_port = |code| own.iter().find(|(other, ..)| *other == code);
    let lease = of_port(51).and_then(|(_, _, piece)| piece.first_chunk::<4>());
    let lease = u64::from(lease.map_or(LEASE, |bytes| u32::from_be_bytes(*bytes)));
    for (code, seconds) in [(51, lease), (58, lease / 2), (59, lease * 7 / 8)] {
        if of_port(code).is_none() {
            message.option(code, &(seconds as u32).to_be_bytes());
        }
    }
    for (code, value, _) in own.iter().filter(|(code, ..)| TIMES.contains(code)) {
        message.option(*code, value);
    }
}

/// For network boot: next server and boot file, in the header.
fn boot(own: &[(u16, Vec<u8>, Vec<u8>)], bytes: &mut [u8]) {
    let of_port = |code| own.iter().find(|(other, ..)| *other == code);
    let server = of_port(66).and_then(|(_, _, piece)| String::from_utf8(piece.clone()).ok());
    if let Some(Ok(server)) = server.map(|text| text.parse::<Ipv4Addr>()) {
        bytes[20..24].copy_from_slice(&server.octets());
    }
    if let Some((_, file, _)) = of_port(67)
        && file.len() < 128
    {
        bytes[108..108 + file.len()].copy_from_slice(file);
    }
}
