//! What to send an NVE so that it gets the tables it should have: the decisions,
//! without I/O.
//!
//! One transaction is on its way at a time; what changes meanwhile goes into the
//! next one. A change is sent if the shim knows the very tables that the NVE has,
//! all of them otherwise.
//!
//! Invariant: generations of one NVE only grow, also over several sessions.

use std::sync::Arc;
use std::time::Duration;

use nve_protocol::{Applied, MAX_CHANGES, Refused, TableDigest};
use tokio::time::Instant;

use super::push::Push;
use crate::compile::{NveTables, Op};

/// How long a full state that was refused is not sent again, unless it changes.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The NVE answered something that was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SyncError {
    /// An answer without a transaction, or to another one.
    #[error("an answer to no transaction of ours")]
    Unasked,
    /// The NVE's generation cannot grow any more.
    #[error("generation used up")]
    Exhausted,
}

/// What [`Sync::next`] found out.
pub(super) enum Step {
    /// Nothing to send now.
    Nothing,
    /// The NVE has these tables now, which it should.
    InSync(Arc<NveTables>),
    /// Send this transaction.
    Send {
        /// Its messages.
        push: Push,
        /// Whether it is a full state.
        full: bool,
    },
}

/// State of one session's tables.
pub(super) struct Sync {
    generation: u64,
    digest: TableDigest,
    /// The tables that the NVE has, if known.
    held: Option<Arc<NveTables>>,
    sending: Option<Sending>,
    refused: Option<RefusedFull>,
    /// Whether a refusal has shown that changes do not do.
    only_full: bool,
    /// Whether [`Step::InSync`] has been said since the last transaction.
    settled: bool,
}

struct Sending {
    generation: u64,
    tables: Arc<NveTables>,
    full: bool,
    since: Instant,
}

struct RefusedFull {
    digest: TableDigest,
    retry_at: Instant,
}

impl Sync {
    /// For an NVE that says it has `generation` with `digest`; `known` are tables
    /// that it may have from an earlier session.
    pub(super) fn new(generation: u64, digest: TableDigest, known: &[Arc<NveTables>]) -> Self {
        let held = known.iter().find(|tables| tables.digest() == digest);
        Sync {
            generation,
            digest,
            held: held.cloned(),
            sending: None,
            refused: None,
            only_full: false,
            settled: false,
        }
    }

    /// The tables that the NVE has, if known.
    pub(super) fn held(&self) -> Option<&Arc<NveTables>> {
        self.held.as_ref()
    }

    /// When to call [`Sync::next`] again without any other reason.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.sending {
            Some(_) => None,
            None => self.refused.as_ref().map(|refused| refused.retry_at),
        }
    }

    /// What to do so that the NVE gets `wanted`.
    pub(super) fn next(
        &mut self,
        wanted: &Arc<NveTables>,
        now: Instant,
    ) -> Result<Step, SyncError> {
        if self.sending.is_some() {
            return Ok(Step::Nothing);
        }
        if wanted.digest() == self.digest {
            self.refused = None;
            return Ok(self.in_sync(wanted));
        }
        if let Some(refused) = &self.refused
            && refused.digest == wanted.digest()
            && now < refused.retry_at
        {
            return Ok(Step::Nothing);
        }
        let generation = self.generation.checked_add(1).ok_or(SyncError::Exhausted)?;
        let (push, full) = match self.changes_to(wanted) {
            Some(changes) => (Push::changes(generation, changes, wanted.digest()), false),
            None => (Push::full(generation, wanted), true),
        };
        self.generation = generation;
        self.settled = false;
        self.sending = Some(Sending {
            generation,
            tables: Arc::clone(wanted),
            full,
            since: now,
        });
        Ok(Step::Send { push, full })
    }

    /// The NVE applied a transaction; returns how long that took from its
    /// `begin`, with the tables that are in force now.
    pub(super) fn applied(
        &mut self,
        applied: &Applied,
        now: Instant,
    ) -> Result<(Duration, Arc<NveTables>), SyncError> {
        let sent = self.take_sending(applied.generation)?;
        if applied.digest != sent.tables.digest() {
            return Err(SyncError::Unasked);
        }
        self.digest = applied.digest;
        self.held = Some(Arc::clone(&sent.tables));
        self.refused = None;
        self.only_full = false;
        Ok((now.duration_since(sent.since), sent.tables))
    }

    /// The NVE refused a transaction and has the tables that it had.
    pub(super) fn refused(&mut self, refused: &Refused, now: Instant) -> Result<(), SyncError> {
        let sent = self.take_sending(refused.generation)?;
        self.only_full = true;
        if sent.full {
            self.refused = Some(RefusedFull {
                digest: sent.tables.digest(),
                retry_at: now + RETRY_AFTER,
            });
        }
        Ok(())
    }

    fn in_sync(&mut self, wanted: &Arc<NveTables>) -> Step {
        let held = self.held.replace(Arc::clone(wanted));
        let known = held.is_some_and(|held| Arc::ptr_eq(&held, wanted));
        if std::mem::replace(&mut self.settled, true) && known {
            return Step::Nothing;
        }
        Step::InSync(Arc::clone(wanted))
    }

    /// The changes that lead to `wanted`, if they are known and few enough.
    fn changes_to(&self, wanted: &NveTables) -> Option<Vec<Op>> {
        let held = self.held.as_ref().filter(|_| !self.only_full)?;
        let changes = wanted.changes_from(held);
        (changes.len() <= MAX_CHANGES).then_some(changes)
    }

    fn take_sending(&mut self, generation: u64) -> Result<Sending, SyncError> {
        self.sending
            .take_if(|sending| sending.generation == generation)
            .ok_or(SyncError::Unasked)
    }
}
