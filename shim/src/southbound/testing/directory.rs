//! A directory in memory, and snapshots made of loose records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nve_protocol::Record;
use nve_protocol::inspect::Place;
use tokio::sync::watch;
use uuid::Uuid;

use crate::compile::NveTables;
use crate::southbound::{Noting, NveDirectory, NveIdentity, PublicKey};

/// A directory in memory.
#[derive(Debug, Default)]
pub struct MemoryDirectory {
    nves: Mutex<HashMap<PublicKey, Member>>,
    awake: Arc<Mutex<Vec<(Uuid, Place)>>>,
}

#[derive(Debug)]
struct Member {
    nve: NveIdentity,
    desired: watch::Sender<Arc<NveTables>>,
}

impl MemoryDirectory {
    /// Without any NVE.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Registers an NVE that should have `tables`.
    pub fn add(&self, nve: NveIdentity, key: PublicKey, tables: Arc<NveTables>) {
        let desired = watch::Sender::new(tables);
        self.lock().insert(key, Member { nve, desired });
    }

    /// Changes what an NVE should have.
    pub fn set(&self, nve: Uuid, tables: Arc<NveTables>) {
        for member in self.lock().values().filter(|member| member.nve.id == nve) {
            member.desired.send_replace(Arc::clone(&tables));
        }
    }

    /// Removes an NVE.
    pub fn remove(&self, nve: Uuid) {
        self.lock().retain(|_, member| member.nve.id != nve);
    }

    /// Which NVEs have heard VMs of VAPs on standby, in order.
    pub fn awake(&self) -> Vec<(Uuid, Place)> {
        let awake = self.awake.lock();
        awake.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Member>> {
        self.nves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NveDirectory for MemoryDirectory {
    fn by_public_key(&self, key: &PublicKey) -> Option<NveIdentity> {
        self.lock().get(key).map(|member| member.nve.clone())
    }

    fn desired(&self, nve: Uuid) -> Option<watch::Receiver<Arc<NveTables>>> {
        let nves = self.lock();
        let member = nves.values().find(|member| member.nve.id == nve)?;
        Some(member.desired.subscribe())
    }

    fn awake(&self, nve: Uuid, place: Place) -> Noting {
        let awake = Arc::clone(&self.awake);
        Box::pin(async move {
            let mut awake = awake.lock().unwrap_or_else(PoisonError::into_inner);
            awake.push((nve, place));
        })
    }
}

/// A snapshot of these records; of several with one key, the last.
pub fn snapshot(records: impl IntoIterator<Item = Record>) -> Arc<NveTables> {
    Arc::new(records.into_iter().collect())
}
