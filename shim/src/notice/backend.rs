//! What the Subscribe-Notice module asks of a hypervisor manager.

use std::sync::Arc;

use tokio::sync::broadcast;
use uuid::Uuid;

use crate::events::types::{Inventory, LifecycleEvent};

/// Source of VMs and of what happens to them.
///
/// Invariants: event timestamps rise strictly; an inventory contains exactly the
/// events up to its `last_event_id`, and its timestamp is not before theirs and before
/// that of every later one. So "older than the inventory" means "contained in it".
pub trait Backend: Send + Sync + 'static {
    /// All VMs at one moment.
    fn inventory(&self) -> Inventory;

    /// The events after `after`, or only those to come if it is `None`.
    fn follow(&self, after: Option<Uuid>) -> Feed;
}

/// How a feed continues from where its reader was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The reader named no event: only what is to come.
    FromNow,
    /// Nothing is missing.
    Resumed,
    /// The event is unknown or too old, so events may be missing: list the inventory.
    Broken,
}

/// Events in order, without a gap between `backlog` and `live`.
#[derive(Debug)]
pub struct Feed {
    /// Whether something is missing before them.
    pub continuity: Continuity,
    /// What has happened already.
    pub backlog: Vec<Arc<LifecycleEvent>>,
    /// What is to come; a reader that lags behind by more than the channel's capacity
    /// loses events and has to start again.
    pub live: broadcast::Receiver<Arc<LifecycleEvent>>,
}
