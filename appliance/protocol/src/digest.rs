//! Digest of a table state, cheap to keep while records come and go.
//!
//! The digest is the wrapping sum of the records' fingerprints: independent of
//! order, and changed by one addition per record. It finds accidental
//! differences; it is no defence against a peer that may write the tables.

use core::fmt;
use core::net::IpAddr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::policy::{Direction, Family, Ipv6Mode, Limit, OptionValue, Presence, Remote};
use crate::record::Record;
use crate::types::{GroupId, Mac, PortId, Prefix, RouterId, RuleId, Vlan, Vni};

/// Digest of a set of records. The empty set's is zero. Written as 16
/// hexadecimal digits, so that JSON tools do not round it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TableDigest(pub u64);

impl TableDigest {
    /// Adds a record that was not in the set.
    pub fn add(&mut self, record: &Record) {
        self.0 = self.0.wrapping_add(record.fingerprint());
    }

    /// Takes out a record that was in the set.
    pub fn remove(&mut self, record: &Record) {
        self.0 = self.0.wrapping_sub(record.fingerprint());
    }
}

impl<'a> FromIterator<&'a Record> for TableDigest {
    fn from_iter<I: IntoIterator<Item = &'a Record>>(records: I) -> Self {
        let mut digest = TableDigest::default();
        for record in records {
            digest.add(record);
        }
        digest
    }
}

impl fmt::Display for TableDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for TableDigest {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableDigest {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = TableDigest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("16 hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TableDigest, E> {
                match u64::from_str_radix(text, 16) {
                    Ok(sum) if text.len() == 16 => Ok(TableDigest(sum)),
                    _ => Err(E::custom("16 hexadecimal digits")),
                }
            }
        }
        input.deserialize_str(Hex)
    }
}

/// FNV-1a over the fields, with the final mix of MurmurHash3 so that sums of
/// similar records spread over all 64 bits.
pub(crate) struct Hasher(u64);

impl Hasher {
    pub(crate) fn new(table: u8) -> Self {
        Hasher(0xcbf2_9ce4_8422_2325).bytes(&[table])
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn ip(self, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.bytes(&[4]).bytes(&ip.octets()),
            IpAddr::V6(ip) => self.bytes(&[6]).bytes(&ip.octets()),
        }
    }

    pub(crate) fn finish(self) -> u64 {
        let mut hash = self.0;
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    }
}

/// Adds a field to a fingerprint. Fields of variable length say their length.
pub(crate) trait IntoHash {
    fn hash_into(&self, hash: Hasher) -> Hasher;
}

macro_rules! hash_as {
    ($($type:ty: |$value:ident, $hash:ident| $body:expr;)+) => {$(
        impl IntoHash for $type {
            fn hash_into(&self, $hash: Hasher) -> Hasher {
                let $value = self;
                $body
            }
        }
    )+};
}

hash_as! {
    bool: |value, hash| hash.bytes(&[u8::from(*value)]);
    u8: |value, hash| hash.bytes(&[*value]);
    u16: |value, hash| hash.bytes(&value.to_be_bytes());
    Vlan: |value, hash| hash.u32(u32::from(value.get()));
    Vni: |value, hash| hash.u32(value.get());
    Mac: |value, hash| hash.bytes(&value.0);
    PortId: |value, hash| hash.bytes(&value.0);
    RouterId: |value, hash| hash.bytes(&value.0);
    GroupId: |value, hash| hash.bytes(&value.0);
    RuleId: |value, hash| hash.bytes(&value.0);
    IpAddr: |value, hash| hash.ip(*value);
    Prefix: |value, hash| hash.ip(value.address()).bytes(&[value.length()]);
    Direction: |value, hash| hash.bytes(&[match value {
        Direction::Ingress => 1,
        Direction::Egress => 2,
    }]);
    Presence: |value, hash| hash.bytes(&[match value {
        Presence::Active => 1,
        Presence::Standby => 2,
        Presence::Departed => 3,
    }]);
    Family: |value, hash| hash.bytes(&[match value {
        Family::Ipv4 => 4,
        Family::Ipv6 => 6,
    }]);
    Ipv6Mode: |value, hash| hash.bytes(&[match value {
        Ipv6Mode::Slaac => 1,
        Ipv6Mode::Dhcpv6Stateful => 2,
        Ipv6Mode::Dhcpv6Stateless => 3,
    }]);
    Limit: |value, hash| hash
        .u32(value.kbps)
        .u32(value.burst_kbit)
        .u32(value.pps)
        .u32(value.burst_packets);
    OptionValue: |value, hash| hash
        .u32(value.bytes().len() as u32)
        .bytes(value.bytes());
    Remote: |value, hash| match value {
        Remote::Any => hash.bytes(&[0]),
        Remote::Prefix(prefix) => prefix.hash_into(hash.bytes(&[1])),
        Remote::Group(group) => group.hash_into(hash.bytes(&[2])),
    };
}

impl<T: IntoHash> IntoHash for Option<T> {
    fn hash_into(&self, hash: Hasher) -> Hasher {
        match self {
            None => hash.bytes(&[0]),
            Some(value) => value.hash_into(hash.bytes(&[1])),
        }
    }
}
