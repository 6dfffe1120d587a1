//! Back end whose VMs are what its own REST interface says: for a lab, where VMs are
//! namespaces or small guests, and to try consumers of events.
//!
//! Every change is planned on the VMs as they are, written to the disk together with
//! its events, and only then applied and notified; what fails changes nothing.

mod api;
mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use time::OffsetDateTime;
use uuid::Uuid;

pub use api::router;
pub use plan::{HostRequest, MoveRequest, Refusal, VmRequest, VnicRequest};

use super::backend::{Backend, Feed};
use super::config::Config;
use super::log::EventLog;
use super::store::{Store, StoreError};
use crate::events::types::{EventType, Inventory, VmState};
use plan::{Hosts, Vms};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// It cannot be made.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The lab's VMs and their events.
#[derive(Debug)]
pub struct Lab {
    hosts: Hosts,
    store: Arc<Store>,
    /// Held from planning to applying. Readers do not wait for the disk.
    writer: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    vms: Vms,
    log: EventLog,
}

impl Lab {
    /// Reads the VMs and their latest events from `store`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(config: &Config, store: Arc<Store>) -> Result<Self, StoreError> {
        let log = EventLog::new(
            store.events()?,
            config.event_log,
            config.client_lag,
            OffsetDateTime::now_utc(),
        );
        let vms = store.lab_vms()?;
        Ok(Lab {
            hosts: Hosts::new(&config.hosts),
            state: RwLock::new(State { vms, log }),
            writer: Mutex::default(),
            store,
        })
    }

    /// All VMs, by UUID.
    fn vms(&self) -> Vec<VmState> {
        self.read().vms.values().cloned().collect()
    }

    fn vm(&self, uuid: Uuid) -> Result<VmState, Refusal> {
        plan::find(&self.read().vms, uuid).cloned()
    }

    /// Makes the change that `plan` makes of the VMs: the events to happen, each with
    /// its VM after it. Returns the VM after the last one. Blocks.
    fn change(
        &self,
        plan: impl FnOnce(&Hosts, &Vms) -> Result<Change, Refusal>,
    ) -> Result<VmState, LabError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (after, entries, first_kept) = {
            let state = self.read();
            let Change { after, steps } = plan(&self.hosts, &state.vms)?;
            let entries = state.log.prepare(steps, OffsetDateTime::now_utc());
            let first_kept = state.log.first_kept(entries.len());
            (after, entries, first_kept)
        };
        if entries.is_empty() {
            return Ok(after);
        }
        self.store.put_lab_events(&entries, first_kept)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for entry in &entries {
            let vm = &entry.event.vm;
            match entry.event.event_type {
                EventType::VmDeleted => state.vms.remove(&vm.vm_uuid),
                _ => state.vms.insert(vm.vm_uuid, vm.clone()),
            };
        }
        state.log.append(entries);
        Ok(after)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A planned change.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// The VM when all is done.
    after: VmState,
    /// What happens on the way; nothing if the VM is so already.
    steps: Vec<(EventType, VmState)>,
}

impl Backend for Lab {
    fn inventory(&self) -> Inventory {
        let state = self.read();
        Inventory {
            timestamp: state.log.newest(),
            last_event_id: state.log.last_event_id(),
            vms: state.vms.values().cloned().collect(),
        }
    }

    fn follow(&self, after: Option<Uuid>) -> Feed {
        self.read().log.follow(after)
    }
}

/// The UUID of a thing that is known by its name alone, the same on every start.
fn derived_uuid(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(
        &Uuid::NAMESPACE_URL,
        format!("sluice:{kind}:{name}").as_bytes(),
    )
}

impl Hosts {
    fn new(configured: &[super::config::HostConfig]) -> Self {
        let hosts = configured.iter().map(|host| {
            let uuid = host
                .uuid
                .unwrap_or_else(|| derived_uuid("host", &host.name));
            (host.name.clone(), uuid)
        });
        Hosts(hosts.collect::<BTreeMap<_, _>>())
    }
}
