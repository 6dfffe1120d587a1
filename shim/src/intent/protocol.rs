//! IP protocols by name, as security group rules have them.
//!
//! Names are those of Neutron (`neutron_lib.constants.IP_PROTOCOL_MAP`); numbers are
//! IANA's.

use super::SecurityError;
use crate::model::{Ethertype, IpProtocol};

/// Number of ICMP.
pub const ICMP: u8 = 1;
/// Number of ICMP for IPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;

const NAMES: [(&str, u8); 25] = [
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", ICMP),
    ("icmpv6", ICMPV6),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", ICMPV6),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

/// Protocols that are headers of IPv6 only.
const IPV6_ONLY: [u8; 6] = [41, 43, 44, ICMPV6, 59, 60];

/// All names, for messages.
pub fn names() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

/// The protocol that a user names by name or number, for packets of that ethertype;
/// none for `any`. ICMP's name and number mean ICMPv6 where packets are IPv6's.
pub fn parse(given: &str, ethertype: Ethertype) -> Result<Option<IpProtocol>, SecurityError> {
    let mut text = given.to_ascii_lowercase();
    if text == "any" {
        return Ok(None);
    }
    if ethertype == Ethertype::Ipv6 {
        match text.as_str() {
            "icmp" | "icmpv6" => "ipv6-icmp".clone_into(&mut text),
            "1" => "58".clone_into(&mut text),
            _ => {}
        }
    }
    let by_name = NAMES.iter().find(|(name, _)| *name == text);
    let number = match by_name {
        Some((_, number)) => *number,
        None => text
            .parse()
            .map_err(|_| SecurityError::InvalidProtocol(given.chars().take(40).collect()))?,
    };
    if ethertype == Ethertype::Ipv4 && IPV6_ONLY.contains(&number) {
        return Err(SecurityError::EthertypeOfProtocol {
            ethertype,
            protocol: text,
        });
    }
    Ok(Some(IpProtocol { number, text }))
}

/// Whether the protocol has ports where TCP has them.
pub const fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}
