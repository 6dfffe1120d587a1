//! What a session is made with.

use core::num::NonZeroU8;

use heapless::String;
use nve_protocol::{NveId, TableSizes};

use crate::key::{KEY_LEN, PrivateKey};

/// What a session is made with.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// This NVE.
    pub nve: NveId,
    /// Version of the image, for people.
    pub version: String<32>,
    /// This NVE's static key.
    pub private_key: PrivateKey,
    /// The shim's static key.
    pub shim_public_key: [u8; KEY_LEN],
    /// What fits into the tables.
    pub capacity: TableSizes,
    /// Microseconds from the start of the image to the poll loop.
    pub boot_us: u64,
    /// How many shim addresses the caller has.
    pub shim_count: NonZeroU8,
}

/// The caller's source of random numbers has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEntropy;

/// A cryptographically secure source of random numbers.
pub trait Entropy {
    /// Fills all of `out`.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy>;
}
