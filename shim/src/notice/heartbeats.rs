//! Signs of life of those who follow the events.
//!
//! TCP tells when a peer's kernel is gone, not when its program hangs or a middlebox
//! has forgotten the connection. A follower that has begun to send heartbeats and
//! stops is cut off, and takes no place of others. Those who never send any are let be.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The newest heartbeat of each user; only users that there are send any.
#[derive(Debug)]
pub struct Heartbeats {
    newest: Mutex<BTreeMap<String, Instant>>,
    patience: Duration,
}

impl Heartbeats {
    /// Whoever is silent for `patience` is lost.
    pub fn new(patience: Duration) -> Self {
        Heartbeats {
            newest: Mutex::default(),
            patience,
        }
    }

    /// Takes a heartbeat.
    pub fn beat(&self, user: &str) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.insert(user.to_owned(), Instant::now());
    }

    /// Completes when `user` has stopped; never if none came after `since`.
    pub async fn lost(&self, user: &str, since: Instant) {
        loop {
            let newest = self.newest(user).filter(|at| *at >= since);
            match newest.map(|at| at + self.patience) {
                Some(due) if due <= Instant::now() => return,
                due => sleep_until(due.unwrap_or_else(|| Instant::now() + self.patience)).await,
            }
        }
    }

    fn newest(&self, user: &str) -> Option<Instant> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.get(user).copied()
    }
}
