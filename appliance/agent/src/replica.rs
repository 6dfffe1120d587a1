//! Tables of other processors, which are kept in step with those of the session.
//!
//! What the session takes of a transaction it [tells](crate::Node::tell), step by step;
//! a [`Replica`] makes the same steps. They are told in order, and a commit only after
//! it succeeded: whoever has made all steps has the same tables. What is no part of any
//! transaction may come between its steps.

use nve_datapath::Nanos;
use nve_protocol::handover::TakeOver;
use nve_protocol::inspect::Place;
use nve_protocol::{Begin, Commit, Key, Record, Refusal};

use crate::node::Node;
use crate::tables::TableStore;
use crate::transaction::Transaction;

/// A step of a transaction, or something beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Begins one, in place of one that is open.
    Begin(Begin),
    /// Stages a record.
    Put(Record),
    /// Stages the removal of a record.
    Delete(Key),
    /// Applies all of it.
    Commit(Commit),
    /// Forgets it, if one is open.
    Abandon,
    /// Takes over what another NVE knew.
    TakeOver(TakeOver),
    /// A VAP's VM was heard.
    Wake(Place),
}

/// There is no memory to tell the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

/// The transaction that is open, as far as it was told.
pub struct Replica<T> {
    open: Option<Transaction<T>>,
}

impl<T: TableStore> Replica<T> {
    /// Nothing was told yet.
    pub fn new() -> Self {
        Replica { open: None }
    }

    /// Makes a step on `node`. After an error its tables are not those of the session,
    /// and will not be again.
    pub fn follow(
        &mut self,
        change: &Change,
        now: Nanos,
        node: &mut impl Node<Tables = T>,
    ) -> Result<(), Refusal> {
        match change {
            Change::Begin(begin) => {
                // Room for the new transaction's tables: an open one's go first.
                self.open = None;
                self.open = Some(Transaction::begin(*begin, node.tables(), now));
                Ok(())
            }
            Change::Put(record) => self.open()?.put(*record),
            Change::Delete(key) => self.open()?.delete(*key),
            Change::Abandon => {
                self.open = None;
                Ok(())
            }
            Change::TakeOver(told) => {
                node.take_over(now, told);
                Ok(())
            }
            Change::Wake(place) => {
                node.wake(now, place);
                Ok(())
            }
            Change::Commit(commit) => {
                let open = self.open.take().ok_or(Refusal::NoTransaction)?;
                node.update(now, |tables| open.commit(*commit, tables))
            }
        }
    }

    fn open(&mut self) -> Result<&mut Transaction<T>, Refusal> {
        self.open.as_mut().ok_or(Refusal::NoTransaction)
    }
}

impl<T: TableStore> Default for Replica<T> {
    fn default() -> Self {
        Replica::new()
    }
}
