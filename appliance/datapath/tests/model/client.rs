//! What clients of DHCP send, as descriptions, and their bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use nve_protocol::Mac;

/// A message of DHCPv4 (RFC 2131, section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp4 {
    /// Message type (RFC 2132, section 9.6).
    pub kind: u8,
    pub id: u32,
    /// Whether the reply should go to everyone.
    pub broadcast: bool,
    /// `ciaddr`.
    pub client: Ipv4Addr,
    /// `giaddr`.
    pub relay: Ipv4Addr,
    /// `chaddr`.
    pub mac: Mac,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 55.
    pub parameters: Option<Vec<u8>>,
    /// Option 57.
    pub most: Option<u16>,
    /// Option 61.
    pub identifier: Option<Vec<u8>>,
    pub damage: Option<Damage>,
}

/// A message of DHCPv6 (RFC 8415, section 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp6 {
    /// Message type (section 7.3).
    pub kind: u8,
    pub id: [u8; 3],
    /// Option 1.
    pub client: Option<Vec<u8>>,
    /// Option 2.
    pub server: Option<Vec<u8>>,
    /// Option 3: identifiers, and the addresses of each.
    pub associations: Vec<([u8; 4], Vec<Ipv6Addr>)>,
    /// Option 6.
    pub parameters: Option<Vec<u16>>,
    /// Option 14.
    pub rapid: bool,
    pub damage: Option<Damage>,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// No magic cookie (version 4), or a message that servers send.
    Foreign,
    /// The last option is longer than what is there.
    Cut,
}

impl Dhcp4 {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [
            &[1, 1, 6, 0][..],
            &self.id.to_be_bytes(),
            &[0, 0, if self.broadcast { 0x80 } else { 0 }, 0],
            &self.client.octets(),
            &[0; 8],
            &self.relay.octets(),
            &self.mac.0,
            &[0; 202],
            &[99, 130, 83, 99],
        ]
        .concat();
        if self.damage == Some(Damage::Foreign) {
            bytes[236] = 98;
        }
        let mut option = |code: u8, value: &[u8]| {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        };
        option(53, &[self.kind]);
        if let Some(ip) = self.requested {
            option(50, &ip.octets());
        }
        if let Some(ip) = self.server {
            option(54, &ip.octets());
        }
        if let Some(codes) = &self.parameters {
            option(55, codes);
        }
        if let Some(most) = self.most {
            option(57, &most.to_be_bytes());
        }
        if let Some(identifier) = &self.identifier {
            option(61, identifier);
        }
        bytes.extend(match self.damage {
            Some(Damage::Cut) => &[60, 9, 1][..],
            _ => &[255],
        });
        bytes
    }
}

impl Dhcp6 {
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self.damage {
            Some(Damage::Foreign) => 7,
            _ => self.kind,
        };
        let mut bytes = [&[kind][..], &self.id].concat();
        let mut option = |code: u16, value: &[u8]| bytes.extend(option6(code, value));
        if let Some(client) = &self.client {
            option(1, client);
        }
        if let Some(server) = &self.server {
            option(2, server);
        }
        for (id, addresses) in &self.associations {
            let own = addresses.iter().map(|ip| {
                let lifetimes = [0; 8];
                option6(5, &[&ip.octets()[..], &lifetimes].concat())
            });
            let own: Vec<u8> = own.flatten().collect();
            option(3, &[&id[..], &[0; 8], &own].concat());
        }
        if let Some(codes) = &self.parameters {
            let codes: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
            option(6, &codes);
        }
        if self.rapid {
            option(14, &[]);
        }
        if self.damage == Some(Damage::Cut) {
            bytes.extend([0, 16, 0, 9, 1]);
        }
        bytes
    }
}

/// An option of DHCPv6.
pub fn option6(code: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16;
    [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
}
