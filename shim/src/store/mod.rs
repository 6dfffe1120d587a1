//! Durable state: what was acknowledged is still there after a crash.
//!
//! A store keeps the newest value of each object and nothing else. It knows
//! neither meaning nor indexes: [`crate::intent::State`] is built from what
//! [`Store::load`] returns.
//!
//! Invariant: the mutations of one [`Store::commit`] are visible after a restart
//! either all or not at all: all if `commit` returned `Ok`, and none if it returned an
//! error, unless it says that this is in doubt. Then [`Store::settle`] tells.

mod embedded;
mod memory;
mod record;

use std::path::PathBuf;

pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;

use crate::model::Mutation;

/// Version of the layout of tables, keys and values.
pub const SCHEMA_VERSION: u32 = 4;

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory or the file in it cannot be made or opened.
    #[error("cannot open {path}: {source}; check that the directory exists and is writable")]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error("{0} is in use by another process; stop the other shim first")]
    Locked(PathBuf),
    /// A newer shim wrote the file.
    #[error(
        "{path} has schema version {found}, this shim knows up to {SCHEMA_VERSION}; \
         start the shim that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
    },
    /// The file is no store of ours, or is damaged.
    #[error("the store is damaged: {0}; restore the data directory from a backup")]
    Damaged(String),
    /// Reading or writing failed, for example because the disk is full.
    #[error("the store failed: {0}")]
    Failed(String),
    /// Writing failed, and whether it was done cannot be found out now.
    #[error("the store failed, and whether the change is in it is not known yet: {0}")]
    InDoubt(String),
}

/// Keeps objects durably. Calls block, for as long as a disk flush takes.
pub trait Store: Send + Sync {
    /// All objects, each as the mutation that puts it.
    fn load(&self) -> Result<Vec<Mutation>, StoreError>;

    /// Makes all `mutations` durable in one transaction, in order.
    ///
    /// # Errors
    /// [`StoreError::InDoubt`] when they may be in the store or not; then
    /// [`settle`](Self::settle) comes before the next commit. After any other error they
    /// are not.
    fn commit(&self, mutations: &[Mutation]) -> Result<(), StoreError>;

    /// Whether the mutations of a commit that was in doubt are in the store.
    ///
    /// # Errors
    /// When that cannot be found out yet.
    fn settle(&self) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests;
