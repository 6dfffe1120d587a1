//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use nve_protocol::Mac;

use super::{array, mac_at, put, u16_at};

/// Bytes of the packet.
pub const PACKET: usize = 28;
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// What an ARP packet wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Asks who has the target address.
    Request,
    /// Answers.
    Reply,
}

/// An ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// Sender's MAC address.
    pub sender_mac: Mac,
    /// Sender's IP address; unspecified in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Target's MAC address; zero in a request.
    pub target_mac: Mac,
    /// Target's IP address.
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// Reads the packet at the front of `bytes`; `None` if it is anything but a
    /// request or reply for IPv4 over Ethernet.
    pub fn parse(bytes: &[u8]) -> Option<Packet> {
        if array::<6>(bytes, 0)? != ETHERNET_IPV4 {
            return None;
        }
        let operation = match u16_at(bytes, 6)? {
            REQUEST => Operation::Request,
            REPLY => Operation::Reply,
            _ => return None,
        };
        Some(Packet {
            operation,
            sender_mac: mac_at(bytes, 8)?,
            sender_ip: Ipv4Addr::from(array::<4>(bytes, 14)?),
            target_mac: mac_at(bytes, 18)?,
            target_ip: Ipv4Addr::from(array::<4>(bytes, 24)?),
        })
    }

    /// The packet's bytes.
    pub fn emit(&self) -> [u8; PACKET] {
        let mut bytes = [0; PACKET];
        put(&mut bytes, 0, &ETHERNET_IPV4);
        let operation = match self.operation {
            Operation::Request => REQUEST,
            Operation::Reply => REPLY,
        };
        put(&mut bytes, 6, &operation.to_be_bytes());
        put(&mut bytes, 8, &self.sender_mac.0);
        put(&mut bytes, 14, &self.sender_ip.octets());
        put(&mut bytes, 18, &self.target_mac.0);
        put(&mut bytes, 24, &self.target_ip.octets());
        bytes
    }

    /// The answer to a request: `mac` has the target address.
    pub fn answer(&self, mac: Mac) -> Packet {
        Packet {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_foreign_shapes() {
        let request = Packet {
            operation: Operation::Request,
            sender_mac: Mac([2, 0, 0, 0, 0, 1]),
            sender_ip: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: Mac([0; 6]),
            target_ip: Ipv4Addr::new(10, 0, 0, 2),
        };
        let bytes = request.emit();
        assert_eq!(Packet::parse(&bytes), Some(request));
        for at in 0..8 {
            let mut other = bytes;
            other[at] ^= 0x10;
            assert_eq!(Packet::parse(&other), None, "byte {at}");
        }
        assert_eq!(Packet::parse(&bytes[..PACKET - 1]), None);
    }
}
