//! IPv4 and IPv6 addresses as numbers, so that one code serves both.

use core::hash::Hasher;
use core::net::IpAddr;

use nve_protocol::{Direction, Prefix};

use super::Compiled;
use super::classifier::Classifier;
use crate::tables::FastHasher;

/// An address of one family.
pub(super) trait Address: Copy + Ord {
    /// Bits of an address.
    const WIDTH: u8;
    /// The lowest address.
    const ZERO: Self;

    /// The address, if it is of this family.
    fn of(ip: IpAddr) -> Option<Self>;

    /// The address with zeros past its first `length` bits.
    fn first(self, length: u8) -> Self;

    /// The address with ones past its first `length` bits.
    fn last(self, length: u8) -> Self;

    /// The address after this one, if there is one.
    fn next(self) -> Option<Self>;

    /// Hash of a prefix.
    fn hash(self, length: u8) -> u64;

    /// What a group's rules for this family were compiled to.
    fn classifier(compiled: &Compiled, direction: Direction) -> &Classifier<Self>;

    /// First address and length of a prefix, if it is of this family.
    fn prefix(prefix: &Prefix) -> Option<(Self, u8)> {
        Self::of(prefix.address()).map(|address| (address, prefix.length()))
    }
}

impl Address for u32 {
    const WIDTH: u8 = 32;
    const ZERO: u32 = 0;

    fn of(ip: IpAddr) -> Option<u32> {
        match ip {
            IpAddr::V4(ip) => Some(ip.to_bits()),
            IpAddr::V6(_) => None,
        }
    }

    fn first(self, length: u8) -> u32 {
        self & !self.rest(length)
    }

    fn last(self, length: u8) -> u32 {
        self | self.rest(length)
    }

    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }

    fn hash(self, length: u8) -> u64 {
        let mut hasher = FastHasher::default();
        hasher.write_u64(u64::from(self) << 8 | u64::from(length));
        hasher.finish()
    }

    fn classifier(compiled: &Compiled, direction: Direction) -> &Classifier<u32> {
        match direction {
            Direction::Ingress => &compiled.ingress_v4,
            Direction::Egress => &compiled.egress_v4,
        }
    }
}

impl Address for u128 {
    const WIDTH: u8 = 128;
    const ZERO: u128 = 0;

    fn of(ip: IpAddr) -> Option<u128> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip.to_bits()),
        }
    }

    fn first(self, length: u8) -> u128 {
        self & !self.rest(length)
    }

    fn last(self, length: u8) -> u128 {
        self | self.rest(length)
    }

    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }

    fn hash(self, length: u8) -> u64 {
        let mut hasher = FastHasher::default();
        hasher.write_u64((self >> 64) as u64);
        hasher.write_u64(self as u64);
        hasher.write_u64(u64::from(length));
        hasher.finish()
    }

    fn classifier(compiled: &Compiled, direction: Direction) -> &Classifier<u128> {
        match direction {
            Direction::Ingress => &compiled.ingress_v6,
            Direction::Egress => &compiled.egress_v6,
        }
    }
}

/// The bits past a prefix's length.
trait Rest {
    fn rest(self, length: u8) -> Self;
}

impl Rest for u32 {
    fn rest(self, length: u8) -> u32 {
        u32::MAX.checked_shr(u32::from(length)).unwrap_or(0)
    }
}

impl Rest for u128 {
    fn rest(self, length: u8) -> u128 {
        u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
    }
}
