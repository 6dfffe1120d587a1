//! Router advertisements (RFC 4861, section 6.2), to those who solicit them.

use std::net::{IpAddr, Ipv6Addr};

use nve_protocol::*;

use super::Model;
use super::answers::ALL_NODES;
use super::spoofing::{is_valid_discovery, link_local};
use crate::packet::{Frame, Ip, octets, router_advertisement};

/// Seconds.
const LIFETIME: u16 = 300;
const VALID: u32 = 86_400;
const PREFERRED: u32 = 14_400;
/// Bytes up to which prefixes are added.
const ROOM: usize = 1280;

impl Model {
    /// What each router of the VAP's network says; nothing if none advertises.
    pub(super) fn answer_solicitation(
        &self,
        vap: &Vap,
        frame: &Frame,
        ip: &Ip,
    ) -> Result<Vec<Vec<u8>>, DropReason> {
        if !is_valid_discovery(ip) {
            return Err(DropReason::NeighborDiscovery);
        }
        let (to_mac, to) = match ip.source {
            IpAddr::V6(source) if !source.is_unspecified() => (frame.source, source),
            _ => (Mac([0x33, 0x33, 0, 0, 0, 1]), ALL_NODES),
        };
        let mut routers: Vec<Mac> = Vec::new();
        for gateway in self.gateways().filter(|gateway| gateway.vni == vap.vni) {
            if !routers.contains(&gateway.mac) {
                routers.push(gateway.mac);
            }
        }
        let replies = routers.into_iter().filter_map(|router| {
            let packet = self.advertisement(vap.vni, router, to)?;
            Some([&to_mac.0[..], &router.0, &[0x86, 0xdd], &packet].concat())
        });
        Ok(replies.collect())
    }

    /// What a router says of its interfaces, which have one MAC address.
    fn advertisement(&self, vni: Vni, router: Mac, to: Ipv6Addr) -> Option<Vec<u8>> {
        let is_own = |subnet: &&Subnet| {
            subnet.prefix.address().is_ipv6()
                && subnet.ra_mode.is_some()
                && self.gateways().any(|gateway| {
                    (gateway.vni, gateway.mac, gateway.prefix) == (vni, router, subnet.prefix)
                })
        };
        let subnets: Vec<&Subnet> = self.subnets(vni).filter(is_own).collect();
        if subnets.is_empty() {
            return None;
        }
        let has = |mode| subnets.iter().any(|subnet| subnet.ra_mode == Some(mode));
        let managed = if has(Ipv6Mode::Dhcpv6Stateful) {
            0x80
        } else {
            0
        };
        let other = if has(Ipv6Mode::Dhcpv6Stateless) {
            0x40
        } else {
            0
        };
        let [high, low] = LIFETIME.to_be_bytes();
        let mut body = [&[0; 8][..], &[1, 1], &router.0].concat();
        if let Some(mtu) = self.known_mtu(vni).filter(|mtu| *mtu >= 1280) {
            body.extend([5, 1, 0, 0, 0, 0]);
            body.extend(mtu.to_be_bytes());
        }
        body.extend(self.dns_option(&subnets));
        for subnet in subnets {
            // With Ethernet and IPv6 headers, and the message's first eight bytes.
            if 14 + 40 + 8 + body.len() + 32 <= ROOM {
                body.extend(prefix_option(subnet));
            }
        }
        let IpAddr::V6(from) = link_local(router) else {
            unreachable!("of version 6")
        };
        let rest = [64, managed | other, high, low];
        Some(router_advertisement(from, to, rest, &body))
    }

    fn dns_option(&self, subnets: &[&Subnet]) -> Vec<u8> {
        let mut servers: Vec<IpAddr> = Vec::new();
        for server in subnets.iter().flat_map(|subnet| self.servers(subnet, true)) {
            if !servers.contains(&server) && servers.len() < 8 {
                servers.push(server);
            }
        }
        if servers.is_empty() {
            return Vec::new();
        }
        let addresses: Vec<u8> = servers.iter().copied().flat_map(octets).collect();
        let units = 1 + 2 * servers.len() as u8;
        let lifetime = u32::from(LIFETIME).to_be_bytes();
        [&[25, units, 0, 0][..], &lifetime, &addresses].concat()
    }
}

fn prefix_option(subnet: &Subnet) -> Vec<u8> {
    let length = subnet.prefix.length();
    let autonomous = subnet.ra_mode != Some(Ipv6Mode::Dhcpv6Stateful) && length == 64;
    let flags = if autonomous { 0xc0 } else { 0x80 };
    [
        &[3, 4, length, flags][..],
        &VALID.to_be_bytes(),
        &PREFERRED.to_be_bytes(),
        &[0; 4],
        &octets(subnet.prefix.address()),
    ]
    .concat()
}
