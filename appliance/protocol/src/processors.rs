//! What each processor of an appliance does.

use core::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most processors of an appliance.
pub const MAX_PROCESSORS: usize = 8;

/// One processor since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessorStats {
    /// Frames that its queues of both NICs received.
    pub rx_packets: u64,
    /// Frames that it sent.
    pub tx_packets: u64,
    /// Of those received, frames that were another processor's.
    pub handed: u64,
    /// Microseconds that its loop was busy.
    pub busy_us: u64,
}

/// All processors of an appliance, the first one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processors {
    count: usize,
    list: [ProcessorStats; MAX_PROCESSORS],
}

impl Processors {
    /// Adds the next one. `None`, and no change, beyond [`MAX_PROCESSORS`].
    pub fn push(&mut self, stats: ProcessorStats) -> Option<()> {
        *self.list.get_mut(self.count)? = stats;
        self.count += 1;
        Some(())
    }

    /// All of them; empty if the appliance does not tell.
    pub fn as_slice(&self) -> &[ProcessorStats] {
        self.list.get(..self.count).unwrap_or_default()
    }
}

impl Serialize for Processors {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(out)
    }
}

impl<'de> Deserialize<'de> for Processors {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Processors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_PROCESSORS} processors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Processors, A::Error> {
                let mut processors = Processors::default();
                while let Some(stats) = list.next_element()? {
                    processors
                        .push(stats)
                        .ok_or_else(|| A::Error::invalid_length(MAX_PROCESSORS + 1, &self))?;
                }
                Ok(processors)
            }
        }
        input.deserialize_seq(List)
    }
}
