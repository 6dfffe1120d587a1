//! Who goes along with a frame through the stages: takes the frames that it makes,
//! and hears what the stages find.
//!
//! Traffic has [`Live`] with it, which hears nothing and costs nothing. A trace has a
//! witness of its own, and then no stage may change what outlasts the frame: each
//! place that would asks [`Witness::is_tracing`].

use nve_protocol::inspect::{Blame, Step};
use nve_protocol::{Vap, Vni};

use crate::packet::Headers;
use crate::security::Opening;
use crate::tables::VtepIndex;
use crate::{Nanos, NoBuffer, PartialChecksum, Side, Sink};

/// See the module.
pub(crate) trait Witness: Sink {
    /// Whether the frame is only a question.
    fn is_tracing(&self) -> bool;

    /// Where a trace keeps the connection that its frame would have opened.
    fn opening(&mut self) -> Option<&mut Option<Opening>>;

    /// Hears what a stage finds, if it finds something to tell.
    fn note<S: Into<Option<Step>>>(&mut self, step: impl FnOnce() -> S);

    /// Hears whose policy is the reason of the drop that follows.
    fn blame(&mut self, blame: impl FnOnce() -> Option<Blame>);

    /// What [`Witness::blame`] heard since the last call.
    fn take_blame(&mut self) -> Option<Blame>;
}

/// Where a frame came from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entrance<'a> {
    Vap(&'a Vap),
    Tunnel(Vni, VtepIndex),
}

/// A frame that came in, as it was then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) now: Nanos,
    pub(crate) from: Entrance<'a>,
    pub(crate) headers: &'a Headers,
}

/// Goes with traffic.
pub(crate) struct Live<'s, S> {
    sink: &'s mut S,
    blame: Option<Blame>,
}

impl<'s, S: Sink> Live<'s, S> {
    pub(crate) fn new(sink: &'s mut S) -> Self {
        Live { sink, blame: None }
    }
}

impl<S: Sink> Sink for Live<'_, S> {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        self.sink.emit(side, parts, partial)
    }
}

impl<S: Sink> Witness for Live<'_, S> {
    #[inline]
    fn is_tracing(&self) -> bool {
        false
    }

    fn opening(&mut self) -> Option<&mut Option<Opening>> {
        None
    }

    #[inline]
    fn note<F: Into<Option<Step>>>(&mut self, _: impl FnOnce() -> F) {}

    #[cold]
    fn blame(&mut self, blame: impl FnOnce() -> Option<Blame>) {
        self.blame = blame();
    }

    fn take_blame(&mut self) -> Option<Blame> {
        self.blame.take()
    }
}
