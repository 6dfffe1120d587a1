//! A table transaction, from `begin` to `commit`.
//!
//! A full state is built in tables of its own, which replace the live ones at
//! the commit. A change is staged as a list of operations, which the commit
//! turns into the list of their inverses while it applies them; if the outcome
//! is not what the shim expects, the inverses are applied backwards.
//!
//! Invariants: between calls the live tables hold one committed state, whole;
//! the list never grows beyond [`nve_protocol::MAX_CHANGES`].

use alloc::vec::Vec;

use nve_datapath::Nanos;
use nve_protocol::{Begin, Commit, Key, MAX_CHANGES, Record, Refusal};

use crate::tables::{TableStore, refusal};

/// One staged operation.
#[derive(Debug, Clone, Copy)]
enum Change {
    Put(Record),
    Delete(Key),
    /// Inverse of an operation that changed nothing.
    Nothing,
}

/// An open transaction.
pub(crate) struct Transaction<T> {
    generation: u64,
    started: Nanos,
    stage: Stage<T>,
}

enum Stage<T> {
    Full(T),
    Change(Vec<Change>),
}

impl<T: TableStore> Transaction<T> {
    /// Opens a transaction over `live`.
    pub(crate) fn begin(begin: Begin, live: &T, now: Nanos) -> Self {
        Transaction {
            generation: begin.generation,
            started: now,
            stage: match begin.full {
                true => Stage::Full(live.fresh()),
                false => Stage::Change(Vec::new()),
            },
        }
    }

    /// Generation that the commit will make.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// When it began.
    pub(crate) fn started(&self) -> Nanos {
        self.started
    }

    /// Stages a record.
    pub(crate) fn put(&mut self, record: Record) -> Result<(), Refusal> {
        match &mut self.stage {
            Stage::Full(tables) => tables.put(&record).map(|_| ()).map_err(refusal),
            Stage::Change(changes) => stage(changes, Change::Put(record)),
        }
    }

    /// Stages the removal of a record.
    pub(crate) fn delete(&mut self, key: Key) -> Result<(), Refusal> {
        match &mut self.stage {
            Stage::Full(tables) => {
                tables.delete(&key);
                Ok(())
            }
            Stage::Change(changes) => stage(changes, Change::Delete(key)),
        }
    }

    /// Applies all of it to `live`, or nothing.
    pub(crate) fn commit(self, commit: Commit, live: &mut T) -> Result<(), Refusal> {
        if commit.generation != self.generation {
            return Err(Refusal::WrongGeneration);
        }
        match self.stage {
            Stage::Full(tables) if tables.digest() == commit.digest => {
                live.replace(tables);
                Ok(())
            }
            Stage::Full(_) => Err(Refusal::DigestMismatch),
            Stage::Change(mut changes) => {
                let outcome = apply(&mut changes, live);
                let refusal = match outcome.refusal {
                    None if live.digest() == commit.digest => return Ok(()),
                    None => Refusal::DigestMismatch,
                    Some(refusal) => refusal,
                };
                roll_back(changes.iter().take(outcome.applied), live);
                Err(refusal)
            }
        }
    }
}

fn stage(changes: &mut Vec<Change>, change: Change) -> Result<(), Refusal> {
    if changes.len() >= MAX_CHANGES || changes.try_reserve(1).is_err() {
        return Err(Refusal::OutOfMemory);
    }
    changes.push(change);
    Ok(())
}

struct Outcome {
    /// How many changes were applied, and so are inverses now.
    applied: usize,
    /// Why the next one was not.
    refusal: Option<Refusal>,
}

fn apply<T: TableStore>(changes: &mut [Change], live: &mut T) -> Outcome {
    for (applied, change) in changes.iter_mut().enumerate() {
        match invert(change, live) {
            Ok(inverse) => *change = inverse,
            Err(refusal) => {
                return Outcome {
                    applied,
                    refusal: Some(refusal),
                };
            }
        }
    }
    Outcome {
        applied: changes.len(),
        refusal: None,
    }
}

/// Applies one change and returns what takes it back.
fn invert<T: TableStore>(change: &Change, live: &mut T) -> Result<Change, Refusal> {
    Ok(match change {
        Change::Put(record) => match live.put(record).map_err(refusal)? {
            Some(replaced) => Change::Put(replaced),
            None => Change::Delete(record.key()),
        },
        Change::Delete(key) => match live.delete(key) {
            Some(deleted) => Change::Put(deleted),
            None => Change::Nothing,
        },
        Change::Nothing => Change::Nothing,
    })
}

fn roll_back<'a, T: TableStore>(
    inverses: impl DoubleEndedIterator<Item = &'a Change>,
    live: &mut T,
) {
    for inverse in inverses.rev() {
        let undone = invert(inverse, live);
        debug_assert!(undone.is_ok(), "each step back finds the room it had");
    }
}
