//! Copies of a frame for several receivers.

use nve_protocol::{DropReason, Mac, Vlan, Vni};

use crate::forward::{self, Forward};
use crate::tables::{Tables, VtepIndex};
use crate::wire::ethernet;
use crate::{Side, Sink, trunk};

/// The receivers of a frame that has not exactly one, one after the other. The
/// tables are only borrowed for each step, so that they can count and meter in
/// between.
#[derive(Debug)]
pub(crate) struct Receivers {
    vni: Vni,
    /// For whom, if only those VAPs are meant that may have the address.
    station: Option<Mac>,
    sender: Option<Vlan>,
    vap: usize,
    vtep: usize,
    nobody: bool,
}

impl Receivers {
    /// Of a frame to `destination` that `sender`, or a tunnel, sent.
    pub(crate) fn new(forward: &Forward, destination: Mac, sender: Option<Vlan>) -> Receivers {
        let destination = match &forward.routed {
            Some(routed) => routed.rewrite.destination,
            None => destination,
        };
        Receivers {
            vni: forward.vni,
            station: (forward.receivers != forward::Receivers::All).then_some(destination),
            sender,
            vap: 0,
            vtep: 0,
            nobody: true,
        }
    }

    /// The next VAP of this NVE.
    pub(crate) fn next_vap(&mut self, tables: &Tables) -> Option<Vlan> {
        let vaps = tables.network(self.vni)?.vaps();
        let rest = vaps.get(self.vap..)?;
        let meant = |vlan: &Vlan| {
            Some(*vlan) != self.sender
                && self
                    .station
                    .is_none_or(|station| tables.takes(*vlan, station))
        };
        let found = rest.iter().position(meant)?;
        let vlan = *rest.get(found)?;
        self.vap += found + 1;
        self.nobody = false;
        Some(vlan)
    }

    /// The next VTEP.
    pub(crate) fn next_vtep(&mut self, tables: &Tables) -> Option<VtepIndex> {
        let vtep = *tables.network(self.vni)?.vteps().get(self.vtep)?;
        self.vtep += 1;
        self.nobody = false;
        Some(vtep)
    }

    /// Whether there was none so far.
    pub(crate) fn is_nobody(&self) -> bool {
        self.nobody
    }

    /// What it means that a frame out of a tunnel is for nobody here.
    pub(crate) fn nobody(&self) -> DropReason {
        match self.station {
            Some(_) => DropReason::SplitHorizon,
            None => DropReason::NoReceiver,
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
