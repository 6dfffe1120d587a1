//! The newest lifecycle events, for operators who watch.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

use super::types::LifecycleEvent;

/// Events kept for those who come later.
const KEPT: usize = 1000;
/// Events that a watcher may be behind.
const LAG: usize = 256;

/// An event and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Name of the hypervisor manager, or of the user who posted it.
    pub manager: String,
    /// `applied`, `unchanged` or `late`.
    pub outcome: &'static str,
    /// The event as it came.
    #[serde(flatten)]
    pub event: LifecycleEvent,
}

/// A bounded list that can be watched.
#[derive(Debug)]
pub struct RecentEvents {
    kept: Mutex<VecDeque<Seen>>,
    watchers: broadcast::Sender<Seen>,
}

impl Default for RecentEvents {
    fn default() -> Self {
        RecentEvents {
            kept: Mutex::default(),
            watchers: broadcast::Sender::new(LAG),
        }
    }
}

impl RecentEvents {
    /// Adds an event, and takes the oldest away if there are too many.
    pub fn push(&self, seen: Seen) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(seen.clone());
        // Nobody watching is no error.
        let _ = self.watchers.send(seen);
    }

    /// The events kept, oldest first, and all that come after them.
    pub fn watch(&self) -> (Vec<Seen>, broadcast::Receiver<Seen>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().cloned().collect(), self.watchers.subscribe())
    }
}
