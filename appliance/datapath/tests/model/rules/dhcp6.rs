//! The server of DHCPv6 (RFC 8415).

use std::net::{IpAddr, Ipv6Addr};

use nve_protocol::*;

use super::Model;
use super::answers::Served;
use super::dhcp4::SERVER_MAC;
use super::spoofing::link_local;
use crate::client::option6;
use crate::packet::{Dhcp6, Frame, Ip, octets, served};

const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Seconds.
const LEASE: u32 = 86_400;
/// Options that no port has of its own.
const RESERVED: [u16; 14] = [1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 19, 20, 25];
/// Bytes of a message in a packet that passes every link.
const ROOM: usize = 1280 - 40 - 8;

/// Types of messages (section 7.3).
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;

/// The server's identifier.
fn own_identifier() -> Vec<u8> {
    [&[0, 3, 0, 1][..], &SERVER_MAC.0].concat()
}

fn status(code: u16) -> Vec<u8> {
    option6(13, &code.to_be_bytes())
}

fn is_served(subnet: &Subnet) -> bool {
    let mode = subnet.address_mode;
    subnet.dhcp
        && matches!(
            mode,
            Some(Ipv6Mode::Dhcpv6Stateful | Ipv6Mode::Dhcpv6Stateless)
        )
}

/// Section 16: which identifiers there must be.
fn is_valid(message: &Dhcp6) -> bool {
    let (client, server) = (message.client.is_some(), message.server.is_some());
    message.damage.is_none()
        && match message.kind {
            SOLICIT | CONFIRM | REBIND => client && !server,
            3 | RENEW | RELEASE | DECLINE => client && server,
            INFORMATION => message.associations.is_empty(),
            _ => false,
        }
}

impl Model {
    pub(super) fn answer_dhcp6(
        &self,
        vap: &Vap,
        frame: &Frame,
        ip: &Ip,
        message: &Dhcp6,
    ) -> Result<Served, DropReason> {
        let serves = self.subnets(vap.vni).any(is_served);
        if !serves || ip.destination != IpAddr::V6(SERVERS) {
            return Ok(Served::Pass);
        }
        let own = frame.source == vap.mac
            || self
                .addresses(vap.vlan)
                .any(|address| address.mac == frame.source);
        if !vap.port_security && !own {
            return Ok(Served::Pass);
        }
        if !is_valid(message) || ip.fragment.is_some() || ip.source.is_unspecified() {
            return Err(DropReason::Dhcp);
        }
        if message
            .server
            .as_ref()
            .is_some_and(|server| *server != own_identifier())
        {
            return Ok(Served::Ignored);
        }
        let asks = match message.kind {
            SOLICIT => !message.associations.is_empty(),
            CONFIRM => message.associations.iter().any(|(_, own)| !own.is_empty()),
            _ => true,
        };
        if !asks {
            return Ok(Served::Ignored);
        }
        let bytes = self.message6(vap, frame.source, message);
        let packet = served(link_local(SERVER_MAC), ip.source, (547, 546), &bytes);
        let front = [&frame.source.0[..], &SERVER_MAC.0, &[0x86, 0xdd]].concat();
        Ok(Served::Reply([front, packet].concat()))
    }

    /// The VAP's fixed addresses in subnets that are served.
    fn addresses6(&self, vap: &Vap, mac: Mac) -> Vec<(Ipv6Addr, &Subnet)> {
        let own =
            |address: &&Address| address.fixed && address.mac == mac && address.prefix.is_host();
        let with_subnet = |address: &Address| {
            let IpAddr::V6(ip) = address.prefix.address() else {
                return None;
            };
            let subnet = self.subnet_of(vap.vni, ip.into())?;
            is_served(subnet).then_some((ip, subnet))
        };
        let all = self.addresses(vap.vlan).filter(own);
        all.filter_map(with_subnet).collect()
    }

    fn message6(&self, vap: &Vap, mac: Mac, asked: &Dhcp6) -> Vec<u8> {
        let advertise = asked.kind == SOLICIT && !asked.rapid;
        let kind = if advertise { ADVERTISE } else { REPLY };
        let mut bytes = [&[kind][..], &asked.id].concat();
        if let Some(client) = &asked.client {
            bytes.extend(option6(1, client));
        }
        bytes.extend(option6(2, &own_identifier()));
        match asked.kind {
            // Preference, or rapid commit.
            SOLICIT if advertise => bytes.extend(option6(7, &[255])),
            SOLICIT => bytes.extend(option6(14, &[])),
            _ => {}
        }
        match asked.kind {
            CONFIRM => {
                let mut all = asked.associations.iter().flat_map(|(_, own)| own);
                let on_link = all.all(|ip| self.subnet_of(vap.vni, (*ip).into()).is_some());
                bytes.extend(status(if on_link { 0 } else { 4 }));
            }
            RELEASE | DECLINE => bytes.extend(status(0)),
            INFORMATION => self.configure(vap, mac, asked, &mut bytes),
            _ => {
                self.lease(vap, mac, asked, &mut bytes);
                self.configure(vap, mac, asked, &mut bytes);
            }
        }
        bytes
    }

    /// All addresses go to the first association; others get none.
    fn lease(&self, vap: &Vap, mac: Mac, asked: &Dhcp6, bytes: &mut Vec<u8>) {
        let stateful = Some(Ipv6Mode::Dhcpv6Stateful);
        let all = self.addresses6(vap, mac).into_iter();
        let own: Vec<Ipv6Addr> = all
            .filter(|(_, subnet)| subnet.address_mode == stateful)
            .map(|(ip, _)| ip)
            .collect();
        for (place, (id, addresses)) in asked.associations.iter().enumerate() {
            if bytes.len() + 64 > ROOM {
                break;
            }
            let times = [LEASE / 2, LEASE / 5 * 4].map(u32::to_be_bytes).concat();
            let mut value = [&id[..], &times].concat();
            if place > 0 || own.is_empty() {
                let renews = matches!(asked.kind, RENEW | REBIND);
                value = [&id[..], &[0; 8], &status(if renews { 3 } else { 2 })].concat();
            } else {
                let ended = addresses
                    .iter()
                    .filter(|ip| asked.kind != SOLICIT && !own.contains(ip));
                let given = own.iter().map(|ip| (ip, LEASE));
                for (ip, seconds) in given.chain(ended.map(|ip| (ip, 0))) {
                    let lifetime = seconds.to_be_bytes();
                    let option = option6(5, &[&ip.octets()[..], &lifetime, &lifetime].concat());
                    if bytes.len() + 4 + value.len() + option.len() <= ROOM {
                        value.extend(option);
                    }
                }
            }
            bytes.extend(option6(3, &value));
        }
    }

    /// DNS servers, and the port's own options.
    fn configure(&self, vap: &Vap, mac: Mac, asked: &Dhcp6, bytes: &mut Vec<u8>) {
        let own = self.options(vap.vlan, Family::Ipv6);
        let wants = |code| {
            asked
                .parameters
                .as_ref()
                .is_none_or(|all| all.contains(&code))
        };
        let mut options = Vec::new();
        if wants(23) && own.iter().all(|(code, ..)| *code != 23) {
            let mut subnets: Vec<&Subnet> = Vec::new();
            for (_, subnet) in self.addresses6(vap, mac) {
                if subnets.last() != Some(&subnet) {
                    subnets.push(subnet);
                }
            }
            let servers = subnets.iter().flat_map(|subnet| self.servers(subnet, true));
            options.push((23, servers.take(16).flat_map(octets).collect()));
        }
        let usable = own
            .into_iter()
            .filter(|(code, ..)| !RESERVED.contains(code));
        options.extend(usable.map(|(code, value, _)| (code, value)));
        for (code, value) in options {
            if !value.is_empty() && bytes.len() + 4 + value.len() <= ROOM {
                bytes.extend(option6(code, &value));
            }
        }
    }
}
