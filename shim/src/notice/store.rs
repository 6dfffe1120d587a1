//! What the module keeps over a restart: registrations, the event log, VMs, port groups.
//!
//! One redb file. Each function is one transaction, on the disk when it returns; all
//! of them block, so asynchronous code calls them on a blocking thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
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

/// The open state file.
#[derive(Debug)]
pub struct Store {
    db: Database,
}

impl Store {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// When another process has it open, and when it cannot be read or written.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let named = |error: &dyn ToString| StoreError(format!("{file:?}: {}", error.to_string()));
        let db = Database::create(file).map_err(|error| named(&error))?;
        let create = || -> Result<(), redb::Error> {
            let transaction = db.begin_write()?;
            transaction.open_table(REGISTRATIONS)?;
            transaction.open_table(EVENTS)?;
            transaction.open_table(LAB_VMS)?;
            transaction.open_table(LIBVIRT_VMS)?;
            transaction.open_table(PORT_GROUPS)?;
            transaction.commit()?;
            Ok(())
        };
        create().map_err(|error| named(&error))?;
        Ok(Store { db })
    }

    /// All registrations.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn registrations(&self) -> Result<Registered, StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::new)?;
        let table = transaction
            .open_table(REGISTRATIONS)
            .map_err(StoreError::new)?;
        let mut all = Registered::new();
        for row in table.iter().map_err(StoreError::new)? {
            let (user, types) = row.map_err(StoreError::new)?;
            all.insert(user.value().to_owned(), decode(types.value())?);
        }
        Ok(all)
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
        let write = || -> Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            transaction
                .open_table(REGISTRATIONS)?
                .insert(user, json.as_slice())?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(StoreError::new)
    }

    /// The event log, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self) -> Result<Vec<Entry>, StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::new)?;
        let table = transaction.open_table(EVENTS).map_err(StoreError::new)?;
        let mut all = Vec::new();
        for row in table.iter().map_err(StoreError::new)? {
            let (seq, event) = row.map_err(StoreError::new)?;
            all.push(Entry {
                seq: seq.value(),
                event: Arc::new(decode(event.value())?),
            });
        }
        Ok(all)
    }

    /// The VMs of a back end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn vms(&self, owner: Owner) -> Result<BTreeMap<Uuid, VmState>, StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::new)?;
        let table = transaction
            .open_table(owner.table())
            .map_err(StoreError::new)?;
        let mut all = BTreeMap::new();
        for row in table.iter().map_err(StoreError::new)? {
            let (uuid, vm) = row.map_err(StoreError::new)?;
            all.insert(Uuid::from_u128(uuid.value()), decode(vm.value())?);
        }
        Ok(all)
    }

    /// Names of the port groups that are wanted.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn port_groups(&self) -> Result<Vec<String>, StoreError> {
        let read = || -> Result<Vec<String>, redb::Error> {
            let table = self.db.begin_read()?.open_table(PORT_GROUPS)?;
            let mut names = Vec::new();
            for row in table.iter()? {
                names.push(row?.0.value().to_owned());
            }
            Ok(names)
        };
        read().map_err(StoreError::new)
    }

    /// Writes down that a port group is wanted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put_port_group(&self, name: &str) -> Result<(), StoreError> {
        self.change_port_groups(|table| table.insert(name, ()).map(drop))
    }

    /// Writes down that a port group is not wanted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn delete_port_group(&self, name: &str) -> Result<(), StoreError> {
        self.change_port_groups(|table| table.remove(name).map(drop))
    }

    fn change_port_groups(
        &self,
        change: impl FnOnce(&mut redb::Table<&str, ()>) -> Result<(), redb::StorageError>,
    ) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            change(&mut transaction.open_table(PORT_GROUPS)?)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(StoreError::new)
    }

    /// Writes events and what they make of their VMs, then `silent`, which is what VMs
    /// are without an event, and forgets events before `first_kept`.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing of it was.
    pub fn put_events(
        &self,
        owner: Owner,
        entries: &[Entry],
        silent: Option<&VmState>,
        first_kept: u64,
    ) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            {
                let mut events = transaction.open_table(EVENTS)?;
                let mut vms = transaction.open_table(owner.table())?;
                for Entry { seq, event } in entries {
                    let json = encode(event.as_ref()).map_err(corrupted)?;
                    events.insert(seq, json.as_slice())?;
                    let uuid = event.vm.vm_uuid.as_u128();
                    if event.event_type == EventType::VmDeleted {
                        vms.remove(uuid)?;
                    } else {
                        let json = encode(&event.vm).map_err(corrupted)?;
                        vms.insert(uuid, json.as_slice())?;
                    }
                }
                if let Some(vm) = silent {
                    let json = encode(vm).map_err(corrupted)?;
                    vms.insert(vm.vm_uuid.as_u128(), json.as_slice())?;
                }
                events.retain_in(..first_kept, |_, _| false)?;
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(StoreError::new)
    }
}

fn corrupted(error: StoreError) -> redb::Error {
    redb::Error::Corrupted(error.to_string())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::new)
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(StoreError::new)
}
