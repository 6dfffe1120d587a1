//! VMs that come and go.
//!
//! A VM that moves here is heard on its VAP before anyone says that it has come; what is
//! for one that has moved away comes here until the last NVE knows where it is.

use nve_protocol::inspect::Place;
use nve_protocol::{DropReason, Presence, Vap};

use super::Datapath;
use super::admit::enter_tunnel;
use super::from_tunnel::Way;
use crate::frame::Frame;
use crate::inspect::steps;
use crate::tables::VtepIndex;
use crate::witness::Witness;
use crate::{Nanos, Verdict};

impl Datapath {
    /// A VAP's VM has sent a frame, from a source that it may use. What becomes of that
    /// frame is decided already: as a trace of it would say.
    #[inline]
    pub(super) fn hear(&mut self, now: Nanos, vap: &Vap, witness: &impl Witness) {
        if vap.presence == Presence::Standby && !witness.is_tracing() {
            self.wake(now, &steps::place(vap));
        }
    }

    /// The VM of a VAP is there: if that is on standby, it is awake from now on.
    #[cold]
    pub fn wake(&mut self, now: Nanos, place: &Place) {
        if self.tables.is_asleep(place) {
            // Without memory it is not; the VM's next frame gets here again.
            let _ = self.update(now, |tables| tables.wake(place));
        }
    }

    /// Sends a frame for a VM that has gone to the VTEP where it is now. Of the outer hop
    /// limit one is taken, so that NVEs which do not agree where that is do not send a
    /// frame round forever.
    #[cold]
    pub(super) fn redirect(
        &self,
        way: &Way,
        now_at: VtepIndex,
        frame: &mut Frame<'_>,
    ) -> Result<Verdict, DropReason> {
        if now_at == way.vtep {
            return Err(DropReason::SplitHorizon);
        }
        let hops = way.hops.saturating_sub(1);
        if hops == 0 {
            return Err(DropReason::HopLimit);
        }
        let outer = self.outer_headers(&[frame.bytes()], way.vni, now_at, None)?;
        enter_tunnel(frame, &outer.with_hops(hops))
    }
}
