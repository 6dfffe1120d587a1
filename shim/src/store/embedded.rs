//! The store of a single shim: one redb file in the data directory.
//!
//! redb is a copy-on-write B-tree with checksummed commit slots, so a kill at any
//! moment leaves the newest complete commit. Each commit is flushed before it
//! returns.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, WriteTransaction,
};

use super::record::{Kind, Record};
use super::{SCHEMA_VERSION, Store, StoreError};
use crate::model::Mutation;

/// Name of the file in the data directory.
const FILE: &str = "sluice.redb";

const META: TableDefinition<&str, u32> = TableDefinition::new("meta");
const SCHEMA: &str = "schema";

/// Page cache; the working set is in [`crate::intent::State`] anyway.
const CACHE_BYTES: usize = 16 << 20;

const fn table(kind: Kind) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(kind.table())
}

/// A redb file, locked while this value lives.
pub struct EmbeddedStore {
    database: Database,
}

impl EmbeddedStore {
    /// Opens the store in `data_dir`; makes both if they are missing, readable by
    /// this user only.
    pub fn open(data_dir: &Path) -> Result<EmbeddedStore, StoreError> {
        let path = data_dir.join(FILE);
        let unopened = |source| StoreError::Open {
            path: path.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(unopened)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unopened)?;
        let database = FileBackend::new(file)
            .and_then(|backend| {
                Database::builder()
                    .set_cache_size(CACHE_BYTES)
                    .create_with_backend(backend)
            })
            .map_err(|e| opening(&path, e))?;
        let store = EmbeddedStore { database };
        store.check_schema(path)?;
        Ok(store)
    }

    /// Refuses a newer layout; brings a new or older file to this one, whose values
    /// older ones can be read as.
    fn check_schema(&self, path: PathBuf) -> Result<(), StoreError> {
        let change = self.begin()?;
        {
            let mut meta = change.open_table(META).map_err(failed)?;
            let found = meta.get(SCHEMA).map_err(failed)?.map(|v| v.value());
            match found {
                Some(found) if found > SCHEMA_VERSION => {
                    return Err(StoreError::Newer { path, found });
                }
                Some(SCHEMA_VERSION) => {}
                Some(_) | None => {
                    meta.insert(SCHEMA, SCHEMA_VERSION).map_err(failed)?;
                }
            }
        }
        for kind in Kind::ALL {
            change.open_table(table(kind)).map_err(failed)?;
        }
        change.commit().map_err(failed)
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut change = self.database.begin_write().map_err(failed)?;
        change
            .set_durability(Durability::Immediate)
            .map_err(failed)?;
        Ok(change)
    }
}

impl Store for EmbeddedStore {
    fn load(&self) -> Result<Vec<Mutation>, StoreError> {
        let view = self.database.begin_read().map_err(failed)?;
        let mut mutations = Vec::new();
        for kind in Kind::ALL {
            let rows = view.open_table(table(kind)).map_err(failed)?;
            for row in rows.iter().map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                mutations.push(kind.decode(key.value(), value.value())?);
            }
        }
        Ok(mutations)
    }

    fn commit(&self, mutations: &[Mutation]) -> Result<(), StoreError> {
        let change = self.begin()?;
        for mutation in mutations {
            let record = Record::of(mutation)?;
            let mut rows = change.open_table(table(record.kind)).map_err(failed)?;
            let key = record.key.as_str();
            match &record.value {
                Some(value) => rows.insert(key, value.as_slice()).map_err(failed)?,
                None => rows.remove(key).map_err(failed)?,
            };
        }
        change.commit().map_err(failed)
    }
}

fn opening(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) => StoreError::Open {
            path: path.to_owned(),
            source,
        },
        other => StoreError::Damaged(format!("{}: {other}", path.display())),
    }
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        other => StoreError::Failed(other.to_string()),
    }
}
