//! What the session needs of the tables that it keeps in step with the shim.

use nve_datapath::{TableError, Tables};
use nve_protocol::inspect::Place;
use nve_protocol::{Key, Record, Refusal, TableDigest};

/// A set of records with one record for each key.
///
/// Contract: putting a record back that a `delete` or a replacing `put` took out
/// succeeds as long as nothing else was put in between, memory permitting; a
/// roll-back relies on it. Should memory not permit, the digest tells the shim
/// at the next hello.
pub trait TableStore: Sized {
    /// Empty tables of the same capacity, made beside these.
    fn fresh(&self) -> Self;

    /// Puts a record; returns the one with the same key that it replaced. After
    /// an error nothing has changed.
    fn put(&mut self, record: &Record) -> Result<Option<Record>, TableError>;

    /// Takes the record out that has `key`, if there is one.
    fn delete(&mut self, key: &Key) -> Option<Record>;

    /// Puts others, made by [`fresh`](Self::fresh), in the place of these.
    fn replace(&mut self, other: Self);

    /// Digest of all records.
    fn digest(&self) -> TableDigest;

    /// How many VAPs on standby woke so far. What `replace` puts here counts on.
    fn awakenings(&self) -> u64;

    /// The first VAP that woke after so many, and is awake still, with its number.
    fn next_awake(&self, after: u64) -> Option<(u64, Place)>;
}

impl TableStore for Tables {
    fn fresh(&self) -> Self {
        Tables::new(self.capacity())
    }

    fn put(&mut self, record: &Record) -> Result<Option<Record>, TableError> {
        Tables::put(self, record)
    }

    fn delete(&mut self, key: &Key) -> Option<Record> {
        Tables::delete(self, key)
    }

    fn replace(&mut self, other: Self) {
        Tables::replace(self, other);
    }

    fn digest(&self) -> TableDigest {
        Tables::digest(self)
    }

    fn awakenings(&self) -> u64 {
        Tables::awakenings(self)
    }

    fn next_awake(&self, after: u64) -> Option<(u64, Place)> {
        Tables::next_awake(self, after)
    }
}

/// What the shim is told of an error.
pub(crate) fn refusal(error: TableError) -> Refusal {
    match error {
        TableError::Full => Refusal::TableFull,
        TableError::OutOfMemory => Refusal::OutOfMemory,
        TableError::BadRecord => Refusal::BadRecord,
    }
}
