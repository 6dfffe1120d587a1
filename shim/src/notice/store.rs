//! What the module keeps over a restart: registrations, the event log, VMs, port groups.
//!
//! One redb file. Each function is one transaction, on the disk when it returns; all
//! of them block, so asynchronous code calls them on a blocking thread.
//!
//! After an error of the disk, redb refuses everything until the file is opened anew,
//! which the next function does. Each may be called again after an error: what it writes
//! replaces what may have been written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::log::Entry;
use crate::events::types::{EventType, VmState};

/// User name to the JSON list of the types that it has registered.
const REGISTRATIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("registrations");
/// Sequence number to the JSON of the event.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// VM UUID to the JSON of the VM, one table for each back end.
type VmTable = TableDefinition<'static, u128, &'static [u8]>;
const LAB_VMS: VmTable = TableDefinition::new("lab_vms");
const LIBVIRT_VMS: VmTable = TableDefinition::new("libvirt_vms");

/// Names of the port groups that are wanted on every host.
const PORT_GROUPS: TableDefinition<&str, ()> = TableDefinition::new("port_groups");
/// Names of those that are to be deleted from every host, and may still be on some.
const LEAVING_PORT_GROUPS: TableDefinition<&str, ()> = TableDefinition::new("leaving_port_groups");

/// Whose VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The lab's.
    Lab,
    /// libvirt's, as it was told of them last.
    #[cfg(feature = "libvirt")]
    Libvirt,
}

impl Owner {
    const fn table(self) -> VmTable {
        match self {
            Owner::Lab => LAB_VMS,
            #[cfg(feature = "libvirt")]
            Owner::Libvirt => LIBVIRT_VMS,
        }
    }
}

/// The state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("state file: {0}")]
pub struct StoreError(String);

impl StoreError {
    fn new(error: impl ToString) -> Self {
        StoreError(error.to_string())
    }
}

/// Registered event types per user.
pub type Registered = BTreeMap<String, BTreeSet<EventType>>;

type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The state file.
pub struct Store {
    open: Open,
    /// None after an error, until the file is opened anew.
    db: Mutex<Option<Arc<Database>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// When another process has it open, and when it cannot be read or written.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let path = file.to_owned();
        let open = Box::new(move || Database::create(&path));
        Store::with_open(open).map_err(|StoreError(error)| StoreError(format!("{file:?}: {error}")))
    }

    fn with_open(open: Open) -> Result<Self, StoreError> {
        let db = Mutex::default();
        let store = Store { open, db };
        store.write(|transaction| {
            transaction.open_table(REGISTRATIONS)?;
            transaction.open_table(EVENTS)?;
            transaction.open_table(LAB_VMS)?;
            transaction.open_table(LIBVIRT_VMS)?;
            transaction.open_table(PORT_GROUPS)?;
            transaction.open_table(LEAVING_PORT_GROUPS)?;
            Ok(())
        })?;
        Ok(store)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|db| work(&db.begin_read()?))
    }

    fn write(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        self.with(|db| {
            let transaction = db.begin_write()?;
            work(&transaction)?;
            Ok(transaction.commit()?)
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let db = self.database()?;
        work(&db).map_err(|error| {
            let mut current = self.lock();
            if current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, &db))
            {
                *current = None;
            }
            StoreError::new(error)
        })
    }

    /// The open file. It cannot be opened while another thread still has one that failed.
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut current = self.lock();
        if let Some(db) = &*current {
            return Ok(Arc::clone(db));
        }
        let db = Arc::new((self.open)().map_err(StoreError::new)?);
        *current = Some(Arc::clone(&db));
        Ok(db)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All registrations.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn registrations(&self) -> Result<Registered, StoreError> {
        let rows = self.read(|transaction| {
            let table = transaction.open_table(REGISTRATIONS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (user, types) = row?;
                rows.push((user.value().to_owned(), types.value().to_vec()));
            }
            Ok(rows)
        })?;
        let decoded = rows
            .into_iter()
            .map(|(user, types)| Ok((user, decode(&types)?)));
        decoded.collect()
    }

    /// Replaces the registrations of one user.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put_registrations(
        &self,
        user: &str,
        types: &BTreeSet<EventType>,
    ) -> Result<(), StoreError> {
        let json = encode(types)?;
        self.write(|transaction| {
            let mut table = transaction.open_table(REGISTRATIONS)?;
            table.insert(user, json.as_slice())?;
            Ok(())
        })
    }

    /// The event log, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self) -> Result<Vec<Entry>, StoreError> {
        let rows = self.read(|transaction| {
            let table = transaction.open_table(EVENTS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (seq, event) = row?;
                rows.push((seq.value(), event.value().to_vec()));
            }
            Ok(rows)
        })?;
        let decoded = rows.into_iter().map(|(seq, event)| {
            let event = Arc::new(decode(&event)?);
            Ok(Entry { seq, event })
        });
        decoded.collect()
    }

    /// The VMs of a back end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn vms(&self, owner: Owner) -> Result<BTreeMap<Uuid, VmState>, StoreError> {
        let rows = self.read(|transaction| {
            let table = transaction.open_table(owner.table())?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (uuid, vm) = row?;
                rows.push((Uuid::from_u128(uuid.value()), vm.value().to_vec()));
            }
            Ok(rows)
        })?;
        let decoded = rows.into_iter().map(|(uuid, vm)| Ok((uuid, decode(&vm)?)));
        decoded.collect()
    }

    /// The port groups that are wanted.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn port_groups(&self) -> Result<Vec<String>, StoreError> {
        self.read(|transaction| names(transaction, PORT_GROUPS))
    }

    /// The port groups that are to be deleted, and may still be on hosts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn leaving_port_groups(&self) -> Result<Vec<String>, StoreError> {
        self.read(|transaction| names(transaction, LEAVING_PORT_GROUPS))
    }

    /// Writes down that a port group is wanted, and not to be deleted any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put_port_group(&self, name: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(LEAVING_PORT_GROUPS)?.remove(name)?;
            transaction.open_table(PORT_GROUPS)?.insert(name, ())?;
            Ok(())
        })
    }

    /// Writes down that a port group is not wanted, and is to be deleted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn delete_port_group(&self, name: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(PORT_GROUPS)?.remove(name)?;
            transaction
                .open_table(LEAVING_PORT_GROUPS)?
                .insert(name, ())?;
            Ok(())
        })
    }

    /// Writes down that a port group is on no host any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget_port_group(&self, name: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(LEAVING_PORT_GROUPS)?.remove(name)?;
            Ok(())
        })
    }

    /// Writes events and what they make of their VMs, then `silent`, which is what VMs
    /// are without an event, and forgets events before `first_kept`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put_events(
        &self,
        owner: Owner,
        entries: &[Entry],
        silent: Option<&VmState>,
        first_kept: u64,
    ) -> Result<(), StoreError> {
        let coded = entries.iter().map(|Entry { seq, event }| {
            let vm = match event.event_type {
                EventType::VmDeleted => None,
                _ => Some(encode(&event.vm)?),
            };
            Ok((*seq, event.vm.vm_uuid, encode(event.as_ref())?, vm))
        });
        let coded = coded.collect::<Result<Vec<_>, StoreError>>()?;
        let silent = match silent {
            Some(vm) => Some((vm.vm_uuid.as_u128(), encode(vm)?)),
            None => None,
        };
        self.write(|transaction| {
            let mut events = transaction.open_table(EVENTS)?;
            let mut vms = transaction.open_table(owner.table())?;
            if let Some((first, ..)) = coded.first() {
                // What an attempt that failed may have left.
                events.retain_in(*first.., |_, _| false)?;
            }
            for (seq, uuid, event, vm) in &coded {
                events.insert(seq, event.as_slice())?;
                match vm {
                    None => vms.remove(uuid.as_u128())?,
                    Some(vm) => vms.insert(uuid.as_u128(), vm.as_slice())?,
                };
            }
            if let Some((uuid, vm)) = &silent {
                vms.insert(uuid, vm.as_slice())?;
            }
            events.retain_in(..first_kept, |_, _| false)?;
            Ok(())
        })
    }
}

fn names(
    transaction: &ReadTransaction,
    table: TableDefinition<&str, ()>,
) -> Result<Vec<String>, redb::Error> {
    let table = transaction.open_table(table)?;
    let names = table.iter()?.map(|row| Ok(row?.0.value().to_owned()));
    names.collect()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::new)
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(StoreError::new)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::StorageBackend;
    use redb::backends::FileBackend;

    use super::*;

    /// A disk that can fail.
    #[derive(Debug)]
    struct Disk {
        file: FileBackend,
        fails: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            match self.fails.load(Ordering::Relaxed) {
                true => Err(io::Error::other("the disk fails")),
                false => Ok(()),
            }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.file.write(offset, data)
        }
    }

    #[test]
    fn an_error_of_the_disk_is_over_when_the_disk_is_well_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notice.redb");
        let fails = Arc::new(AtomicBool::new(false));
        let disk = Arc::clone(&fails);
        let open = move || {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = FileBackend::new(options.open(&path)?)?;
            let fails = Arc::clone(&disk);
            Database::builder().create_with_backend(Disk { file, fails })
        };
        let store = Store::with_open(Box::new(open)).unwrap();
        store.put_port_group("before").unwrap();
        fails.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let refused = store.put_port_group("lost").unwrap_err();
            assert!(refused.to_string().contains("the disk fails"), "{refused}");
        }
        fails.store(false, Ordering::Relaxed);
        store.put_port_group("after").unwrap();
        assert_eq!(store.port_groups().unwrap(), ["after", "before"]);
    }
}
