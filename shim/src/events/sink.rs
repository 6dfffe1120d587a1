//! Where events and inventories go.

use std::future::Future;

use uuid::Uuid;

use super::types::{Inventory, LifecycleEvent};

/// Why a sink did not take what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The content cannot be right; giving it again would not help, so it is
    /// counted and skipped.
    #[error("refused: {0}")]
    Invalid(String),
    /// The sink cannot store it now; it is given again after a reconnect.
    #[error("not stored: {0}")]
    Unavailable(String),
}

/// Consumer of lifecycle events, durable before it returns `Ok`.
///
/// Invariants that callers keep: calls for one manager do not overlap. An event may be
/// repeated, other events may have its id, and it may be older than what an inventory
/// has told already, so a sink compares timestamps with what it knows of the VM, ignores
/// what is late, and returns `Ok` for it.
pub trait EventSink: Send + Sync + 'static {
    /// Takes one event of `manager` and remembers its id as the cursor.
    fn event(
        &self,
        manager: &str,
        event: LifecycleEvent,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Takes all VMs of `manager` as of `inventory.timestamp`: VMs that it does not
    /// list and of which nothing newer is known are gone, if it is whole. `is_gap`: events
    /// before it may have been missed, unless the last one that was taken is its
    /// `last_event_id`.
    fn inventory(
        &self,
        manager: &str,
        inventory: Inventory,
        is_gap: bool,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// The last event taken from `manager`: where its stream resumes.
    fn cursor(&self, manager: &str) -> impl Future<Output = Option<Uuid>> + Send;
}
