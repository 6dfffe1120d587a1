//! What the session needs of the NVE.

use alloc::vec::Vec;

use nve_datapath::{Datapath, Nanos, Tables};
use nve_protocol::handover::TakeOver;
use nve_protocol::inspect::{Part, Place, Question};

use crate::replica::{Change, OutOfMemory};
use crate::tables::TableStore;

/// Tables that are changed while no frame is processed, and answers about all that
/// there is.
pub trait Node {
    /// The tables.
    type Tables: TableStore;

    /// The tables in force.
    fn tables(&self) -> &Self::Tables;

    /// Lets `change` work on the tables.
    fn update<R>(&mut self, now: Nanos, change: impl FnOnce(&mut Self::Tables) -> R) -> R;

    /// Tells what was done in a transaction, or beside one, for tables that are kept in
    /// step with these. A commit that was done has to be told: there is always room for it.
    fn tell(&mut self, _change: &Change) -> Result<(), OutOfMemory> {
        Ok(())
    }

    /// Answers a question: at most [`MAX_PARTS`](nve_protocol::inspect::MAX_PARTS)
    /// parts, of which the last one is the end. `None` if it takes a while; then the
    /// caller gives them to [`Session::answer`](crate::Session::answer).
    fn answer(&mut self, now: Nanos, question: &Question) -> Option<Vec<Part>>;

    /// Takes over what another NVE knew of a VAP's traffic.
    fn take_over(&mut self, now: Nanos, told: &TakeOver);

    /// The VM of a VAP was heard elsewhere in this NVE.
    fn wake(&mut self, now: Nanos, place: &Place);
}

impl Node for Datapath {
    type Tables = Tables;

    fn tables(&self) -> &Tables {
        Datapath::tables(self)
    }

    fn update<R>(&mut self, now: Nanos, change: impl FnOnce(&mut Tables) -> R) -> R {
        Datapath::update(self, now, change)
    }

    fn answer(&mut self, now: Nanos, question: &Question) -> Option<Vec<Part>> {
        Some(Datapath::answer(self, now, question).into_list())
    }

    fn take_over(&mut self, now: Nanos, told: &TakeOver) {
        Datapath::take_over(self, now, told);
    }

    fn wake(&mut self, now: Nanos, place: &Place) {
        Datapath::wake(self, now, place);
    }
}
