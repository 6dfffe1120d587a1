//! The store of a single shim: one redb file in the data directory.
//!
//! redb is a copy-on-write B-tree with checksummed commit slots, so a kill at any
//! moment leaves the newest complete commit. Each commit is flushed before it
//! returns.
//!
//! redb does nothing more after it could not read or write, and a commit whose flush
//! failed may be in the file nevertheless. So the file is then opened anew, as after a
//! kill, and the number of the newest commit in it says which one that is. What the
//! system holds of the file in memory is dropped first: after a flush that failed it is
//! not what the disk has.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    StorageError, TableDefinition, WriteTransaction,
};

use super::record::{Kind, Record};
use super::{SCHEMA_VERSION, Store, StoreError};
use crate::model::Mutation;

/// Name of the file in the data directory.
const FILE: &str = "sluice.redb";

const META: TableDefinition<&str, u32> = TableDefinition::new("meta");
const SCHEMA: &str = "schema";
/// Number of the newest commit, modulo 2^32.
const COMMIT: &str = "commit";

/// Page cache; the working set is in [`crate::intent::State`] anyway.
const CACHE_BYTES: usize = 16 << 20;

const fn table(kind: Kind) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(kind.table())
}

/// Makes a database of an open file.
type Connect = Box<dyn Fn(File) -> Result<Database, DatabaseError> + Send + Sync>;

/// A redb file, locked while this value lives.
pub struct EmbeddedStore {
    path: PathBuf,
    connect: Connect,
    opened: Mutex<Opened>,
}

struct Opened {
    /// None after a failure, until the file can be opened again.
    database: Option<Database>,
    /// The newest commit that is known to be in it.
    newest: u32,
}

impl EmbeddedStore {
    /// Opens the store in `data_dir`; makes both if they are missing, readable by
    /// this user only.
    pub fn open(data_dir: &Path) -> Result<EmbeddedStore, StoreError> {
        let connect = |file| database(FileBackend::new(file)?);
        EmbeddedStore::open_with(data_dir, Box::new(connect))
    }

    /// The same with another way to the file's content.
    pub(super) fn open_with(
        data_dir: &Path,
        connect: Connect,
    ) -> Result<EmbeddedStore, StoreError> {
        let path = data_dir.join(FILE);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir);
        made.map_err(|source| unopened(&path, source))?;
        let mut options = existing();
        options.create(true).truncate(false).mode(0o600);
        let database = open_file(&path, &options, &connect)?;
        check_schema(&database, &path)?;
        let newest = newest(&database)?;
        Ok(EmbeddedStore {
            path,
            connect,
            opened: Mutex::new(Opened {
                database: Some(database),
                newest,
            }),
        })
    }

    /// Opens the file anew; tells whether the commit after the newest that was known is
    /// in it.
    fn reopen(&self, opened: &mut Opened) -> Result<bool, StoreError> {
        // It holds the lock.
        opened.database = None;
        let database = open_file(&self.path, &existing(), &self.connect)?;
        let newest = newest(&database)?;
        let is_in = match newest.wrapping_sub(opened.newest) {
            0 => false,
            1 => true,
            _ => {
                let reason = format!("{}: another process wrote it", self.path.display());
                return Err(StoreError::Failed(reason));
            }
        };
        *opened = Opened {
            database: Some(database),
            newest,
        };
        Ok(is_in)
    }
}

impl Store for EmbeddedStore {
    fn load(&self) -> Result<Vec<Mutation>, StoreError> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let view = opened.database()?.begin_read().map_err(failed)?;
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
        let records: Vec<Record> = mutations.iter().map(Record::of).collect::<Result<_, _>>()?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let number = opened.newest.wrapping_add(1);
        let Err(error) = write(opened.database()?, number, &records) else {
            opened.newest = number;
            return Ok(());
        };
        tracing::error!(%error, "the store is opened anew");
        match self.reopen(&mut opened) {
            Ok(true) => Ok(()),
            Ok(false) => Err(error),
            Err(unopened) => Err(StoreError::InDoubt(format!("{error}; {unopened}"))),
        }
    }

    fn settle(&self) -> Result<bool, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        self.reopen(&mut opened)
    }
}

impl Opened {
    fn database(&self) -> Result<&Database, StoreError> {
        let closed = || StoreError::Failed("it has not been opened again".to_owned());
        self.database.as_ref().ok_or_else(closed)
    }
}

/// To read and write the file if there is one.
fn existing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

fn open_file(
    path: &Path,
    options: &OpenOptions,
    connect: &Connect,
) -> Result<Database, StoreError> {
    let file = options
        .open(path)
        .map_err(|source| unopened(path, source))?;
    // To the end of the file.
    let all = 0;
    posix_fadvise(&file, 0, all, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(|error| unopened(path, error.into()))?;
    connect(file).map_err(|error| opening(path, error))
}

/// The database in a backend's content.
pub(super) fn database(backend: impl StorageBackend) -> Result<Database, DatabaseError> {
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)
}

/// Refuses a newer layout; brings a new or older file to this one, whose values
/// older ones can be read as.
fn check_schema(database: &Database, path: &Path) -> Result<(), StoreError> {
    let change = begin(database)?;
    {
        let mut meta = change.open_table(META).map_err(failed)?;
        let found = meta.get(SCHEMA).map_err(failed)?.map(|v| v.value());
        match found {
            Some(found) if found > SCHEMA_VERSION => {
                let path = path.to_owned();
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

/// Number of the newest commit.
fn newest(database: &Database) -> Result<u32, StoreError> {
    let view = database.begin_read().map_err(failed)?;
    let meta = view.open_table(META).map_err(failed)?;
    let number = meta.get(COMMIT).map_err(failed)?;
    Ok(number.map_or(0, |number| number.value()))
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut change = database.begin_write().map_err(failed)?;
    change
        .set_durability(Durability::Immediate)
        .map_err(failed)?;
    Ok(change)
}

/// Writes the commit of that number.
fn write(database: &Database, number: u32, records: &[Record]) -> Result<(), StoreError> {
    let change = begin(database)?;
    for record in records {
        let mut rows = change.open_table(table(record.kind)).map_err(failed)?;
        let key = record.key.as_str();
        match &record.value {
            Some(value) => rows.insert(key, value.as_slice()).map_err(failed)?,
            None => rows.remove(key).map_err(failed)?,
        };
    }
    {
        let mut meta = change.open_table(META).map_err(failed)?;
        meta.insert(COMMIT, number).map_err(failed)?;
    }
    change.commit().map_err(failed)
}

fn unopened(path: &Path, source: std::io::Error) -> StoreError {
    let path = path.to_owned();
    StoreError::Open { path, source }
}

fn opening(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) => unopened(path, source),
        other => StoreError::Damaged(format!("{}: {other}", path.display())),
    }
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        other => StoreError::Failed(other.to_string()),
    }
}
