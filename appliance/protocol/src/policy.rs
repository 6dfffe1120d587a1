//! Values of the records that say what is allowed and how fast.

use core::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::{GroupId, Prefix};

/// Which way, as the VM sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the VM.
    Ingress,
    /// From the VM.
    Egress,
}

/// Version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// How IPv6 addresses are had (Neutron's `ipv6_ra_mode` and `ipv6_address_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6Mode {
    /// From the advertised prefix (RFC 4862).
    Slaac,
    /// By DHCPv6 (RFC 8415).
    Dhcpv6Stateful,
    /// From the advertised prefix; other configuration by DHCPv6.
    Dhcpv6Stateless,
}

/// Who is at the other end of what a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anyone.
    Any,
    /// Addresses of a prefix.
    Prefix(Prefix),
    /// Members of a security group or of an address group.
    Group(GroupId),
}

/// How much may pass; each number is 0 for no limit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Limit {
    /// Kilobits (1000 bits) per second, Ethernet frames without FCS and tag.
    pub kbps: u32,
    /// Kilobits that may pass at once; 0 for a sensible number.
    pub burst_kbit: u32,
    /// Packets per second.
    pub pps: u32,
    /// Packets that may pass at once; 0 for a sensible number.
    pub burst_packets: u32,
}

/// Bytes of a DHCP option, or of a piece of one; written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionValue {
    length: u8,
    /// Zero from `length` on.
    bytes: [u8; OptionValue::MAX],
}

impl OptionValue {
    /// Most bytes of one piece.
    pub const MAX: usize = 64;

    /// A piece with these bytes; `None` if there are more than [`Self::MAX`].
    pub fn new(value: &[u8]) -> Option<OptionValue> {
        let mut bytes = [0; OptionValue::MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(OptionValue {
            length: u8::try_from(value.len()).ok()?,
            bytes,
        })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for OptionValue {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = OptionValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("at most 64 bytes in hexadecimal")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OptionValue, E> {
                parse_hex(text.as_bytes())
                    .ok_or_else(|| E::custom("at most 64 bytes in hexadecimal"))
            }
        }
        input.deserialize_str(Hex)
    }
}

fn parse_hex(text: &[u8]) -> Option<OptionValue> {
    let mut pairs = text.chunks_exact(2);
    let mut bytes = [0; OptionValue::MAX];
    let length = text.len() / 2;
    for (byte, pair) in bytes.get_mut(..length)?.iter_mut().zip(&mut pairs) {
        *byte = crate::types::hex_octet(pair)?;
    }
    match pairs.remainder() {
        [] => OptionValue::new(bytes.get(..length)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_values_round_trip_and_are_bounded() {
        let value = OptionValue::new(&[0, 1, 0xfe]).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), "\"0001fe\"");
        assert_eq!(
            serde_json::from_str::<OptionValue>("\"0001fe\"").unwrap(),
            value
        );
        let empty: OptionValue = serde_json::from_str("\"\"").unwrap();
        assert!(empty.bytes().is_empty());
        assert_eq!(OptionValue::new(&[0; 65]), None);
        for bad in ["\"0\"", "\"0g\"", "\"000\"", "7"] {
            assert!(serde_json::from_str::<OptionValue>(bad).is_err(), "{bad}");
        }
    }
}
