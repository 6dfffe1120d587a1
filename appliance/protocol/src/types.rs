//! Identifiers and addresses as both ends write them.
//!
//! Each type is valid by construction: parsing is the only way in from outside.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError(&'static str);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for ParseError {}

/// Ethernet address, written `02:00:00:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The all-ones address.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether the group bit is set (broadcast included).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether the address can belong to one station: neither group nor zero.
    pub const fn is_unicast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a & 1 == 0 && (a | b | c | d | e | f) != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError("a MAC address is written 02:00:00:00:00:01");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(BAD)?;
            *octet = hex_octet(part.as_bytes()).ok_or(BAD)?;
        }
        match parts.next() {
            None => Ok(Mac(octets)),
            Some(_) => Err(BAD),
        }
    }
}

pub(crate) fn hex_octet(text: &[u8]) -> Option<u8> {
    let [high, low] = text else { return None };
    let high = (*high as char).to_digit(16)?;
    let low = (*low as char).to_digit(16)?;
    u8::try_from(high << 4 | low).ok()
}

/// VLAN tag of a VAP, 1 to 4094 (IEEE 802.1Q reserves 0 and 4095).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Vlan(u16);

impl Vlan {
    /// Highest usable tag, and so the most VAPs that one trunk can carry.
    pub const MAX: u16 = 4094;

    /// The tag, if it is a usable one.
    pub const fn new(id: u16) -> Option<Vlan> {
        match id {
            1..=Self::MAX => Some(Vlan(id)),
            _ => None,
        }
    }

    /// The tag's number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Vlan {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Vlan::new(u16::deserialize(input)?)
            .ok_or_else(|| de::Error::custom("a VLAN tag is 1 to 4094"))
    }
}

/// VXLAN network identifier, 24 bits (RFC 7348, section 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Vni(u32);

impl Vni {
    /// Highest identifier.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The identifier, if it fits 24 bits.
    pub const fn new(id: u32) -> Option<Vni> {
        match id {
            0..=Self::MAX => Some(Vni(id)),
            _ => None,
        }
    }

    /// The identifier's number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Vni {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Vni::new(u32::deserialize(input)?).ok_or_else(|| de::Error::custom("a VNI has 24 bits"))
    }
}

/// A block of IP addresses, written `10.0.0.0/24`. Bits past the length are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The block; `None` if `length` exceeds the address's, or bits past it are set.
    pub fn new(address: IpAddr, length: u8) -> Option<Prefix> {
        let valid = length <= width(address) && mask(address, length) == address;
        valid.then_some(Prefix { address, length })
    }

    /// The block of this one address.
    pub const fn host(address: IpAddr) -> Prefix {
        Prefix {
            address,
            length: width(address),
        }
    }

    /// The block of `length` bits that `address` is in; `None` if `length` exceeds
    /// the address's.
    pub fn around(address: IpAddr, length: u8) -> Option<Prefix> {
        Prefix::new(mask(address, length), length)
    }

    /// First address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits its addresses share.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.address.is_ipv4() == ip.is_ipv4() && mask(ip, self.length) == self.address
    }

    /// Whether it is of one address.
    pub const fn is_host(&self) -> bool {
        self.length == width(self.address)
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with zeros past its first `length` bits.
fn mask(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(length));
            IpAddr::V4((ip.to_bits() & mask.unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(length));
            IpAddr::V6((ip.to_bits() & mask.unwrap_or(0)).into())
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError("a prefix is written 10.0.0.0/24, without host bits");
        let (address, length) = text.split_once('/').ok_or(BAD)?;
        let address = address.parse().map_err(|_| BAD)?;
        let length = length.parse().map_err(|_| BAD)?;
        Prefix::new(address, length).ok_or(BAD)
    }
}

/// Parses the 36-character form of a UUID (RFC 9562, section 4).
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 {
        return None;
    }
    let mut octets = [0; 16];
    let mut at = 0;
    for (i, octet) in octets.iter_mut().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            if text.get(at) != Some(&b'-') {
                return None;
            }
            at += 1;
        }
        *octet = hex_octet(text.get(at..at + 2)?)?;
        at += 2;
    }
    Some(octets)
}

fn write_uuid(octets: &[u8; 16], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, octet) in octets.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.write_str("-")?;
        }
        write!(out, "{octet:02x}")?;
    }
    Ok(())
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                parse_uuid(text)
                    .map($name)
                    .ok_or(ParseError("a UUID has 36 characters, hexadecimal and hyphens"))
            }
        }
    };
}

uuid_type! {
    /// UUID of a Neutron port.
    PortId
}
uuid_type! {
    /// UUID of an NVE, given to it in its boot configuration.
    NveId
}

uuid_type! {
    /// UUID of a Neutron router.
    RouterId
}
uuid_type! {
    /// UUID of a Neutron security group or address group.
    GroupId
}
uuid_type! {
    /// UUID of a Neutron security group rule.
    RuleId
}

struct TextVisitor<T>(core::marker::PhantomData<T>);

impl<T: FromStr<Err = ParseError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an identifier in its text form")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                input.deserialize_str(TextVisitor(core::marker::PhantomData))
            }
        }
    )*};
}

serde_as_text!(Mac, Prefix, PortId, NveId, RouterId, GroupId, RuleId);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn mac_round_trips_and_rejects_other_shapes() {
        let mac: Mac = "02:00:0a:ff:10:01".parse().unwrap();
        assert_eq!(mac, Mac([2, 0, 10, 255, 16, 1]));
        assert_eq!(mac.to_string(), "02:00:0a:ff:10:01");
        for bad in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn station_addresses_are_unicast() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!Mac([0; 6]).is_unicast());
        assert!(!Mac::BROADCAST.is_unicast());
        assert!(Mac::BROADCAST.is_multicast());
    }

    #[test]
    fn prefixes_have_no_host_bits() {
        for text in [
            "10.0.0.0/24",
            "0.0.0.0/0",
            "10.0.0.1/32",
            "::/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), text);
            assert!(prefix.contains(prefix.address()));
        }
        for bad in [
            "10.0.0.1/24",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0",
            "10.0.0.0/",
            "x/8",
            "::1/64",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
        assert!(prefix.contains("10.1.255.255".parse().unwrap()));
        assert!(!prefix.contains("10.2.0.0".parse().unwrap()));
        assert!(!prefix.contains("::".parse().unwrap()));
        assert_eq!(
            Prefix::around("10.1.2.3".parse().unwrap(), 16),
            Some(prefix)
        );
        assert_eq!(Prefix::around("10.1.2.3".parse().unwrap(), 33), None);
        assert!(Prefix::host("::1".parse().unwrap()).is_host());
    }

    #[test]
    fn uuid_round_trips_and_rejects_other_shapes() {
        let text = "9c1e3a52-0000-4000-8000-0000000000ab";
        let id: PortId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        for bad in [
            "",
            "9c1e3a5200004000800000000000000ab",
            "9c1e3a52-0000-4000-8000-0000000000a",
            "9c1e3a52+0000-4000-8000-0000000000ab",
        ] {
            assert!(bad.parse::<PortId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_and_network_ids_have_their_ranges() {
        assert_eq!(Vlan::new(0), None);
        assert_eq!(Vlan::new(4095), None);
        assert_eq!(Vlan::new(4094).map(Vlan::get), Some(4094));
        assert_eq!(Vni::new(1 << 24), None);
        assert_eq!(Vni::new(Vni::MAX).map(Vni::get), Some(16_777_215));
        assert!(serde_json::from_str::<Vlan>("4095").is_err());
        assert!(serde_json::from_str::<Vni>("16777216").is_err());
    }
}
