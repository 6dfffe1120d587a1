//! Copies of a frame for several receivers.

use nve_protocol::{DropReason, Vlan};

use crate::counters::Counters;
use crate::wire::ethernet;
use crate::{Side, Sink, trunk};

/// Drops of copies, counted when the tables are no longer borrowed.
#[derive(Default)]
pub(crate) struct Drops {
    reasons: heapless::LinearMap<DropReason, u64, 8>,
}

impl Drops {
    pub(crate) fn note(&mut self, result: Result<(), DropReason>) {
        let Err(reason) = result else { return };
        match self.reasons.get_mut(&reason) {
            Some(count) => *count += 1,
            // Copies fail for fewer reasons than there are places.
            None => drop(self.reasons.insert(reason, 1)),
        }
    }

    pub(crate) fn count(self, counters: &mut Counters) {
        for (reason, count) in &self.reasons {
            if let Some(counter) = counters.drops.get_mut(reason.index()) {
                *counter += count;
            }
        }
    }
}

/// Copies a tagged frame to another VAP.
pub(crate) fn emit_tagged(
    tagged: &[u8],
    vlan: Vlan,
    sink: &mut impl Sink,
) -> Result<(), DropReason> {
    let (addresses, rest) = tagged
        .split_at_checked(ethernet::ADDRESSES)
        .ok_or(DropReason::Truncated)?;
    let rest = rest.get(ethernet::TAG..).ok_or(DropReason::Truncated)?;
    emit(sink, &[addresses, &trunk::tag_bytes(vlan), rest])
}

/// Copies an untagged frame to a VAP.
pub(crate) fn emit_untagged(
    untagged: &[u8],
    vlan: Vlan,
    sink: &mut impl Sink,
) -> Result<(), DropReason> {
    let (addresses, rest) = untagged
        .split_at_checked(ethernet::ADDRESSES)
        .ok_or(DropReason::Truncated)?;
    emit(sink, &[addresses, &trunk::tag_bytes(vlan), rest])
}

/// Sends the parts as one frame on the trunk.
pub(crate) fn emit(sink: &mut impl Sink, parts: &[&[u8]]) -> Result<(), DropReason> {
    sink.emit(Side::Trunk, parts, None)
        .map_err(|_| DropReason::NoBuffer)
}
