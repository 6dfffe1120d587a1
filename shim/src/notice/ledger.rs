//! A back end's VMs and their latest events, in memory and on the disk.
//!
//! Invariant: a change is planned on the VMs as they are, written to the disk together
//! with its events, and only then applied and notified; what fails changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use time::OffsetDateTime;
use uuid::Uuid;

use super::backend::Feed;
use super::config::Config;
use super::log::EventLog;
use super::store::{Owner, Store, StoreError};
use crate::events::types::{EventType, Inventory, VmState};

/// VMs by UUID.
pub type Vms = BTreeMap<Uuid, VmState>;

/// What happens to one VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// The events, each with the VM after it.
    pub events: Vec<(EventType, VmState)>,
    /// The VM as it is at last, if no event says that.
    pub silent: Option<VmState>,
    /// Name of the host that a live migration leads to which starts among the events.
    pub destination: Option<String>,
}

/// The VMs and their events.
#[derive(Debug)]
pub struct Ledger {
    owner: Owner,
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

impl Ledger {
    /// Reads the VMs of `owner` and the latest events from `store`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(owner: Owner, config: &Config, store: Arc<Store>) -> Result<Self, StoreError> {
        let log = EventLog::new(
            store.events()?,
            config.event_log,
            config.client_lag,
            OffsetDateTime::now_utc(),
        );
        let vms = store.vms(owner)?;
        Ok(Ledger {
            owner,
            state: RwLock::new(State { vms, log }),
            writer: Mutex::default(),
            store,
        })
    }

    /// Looks at the VMs.
    pub fn with_vms<T>(&self, look: impl FnOnce(&Vms) -> T) -> T {
        look(&self.read().vms)
    }

    /// Makes the change that `plan` makes of the VMs. Blocks.
    ///
    /// # Errors
    /// `plan`'s, and when it cannot be written.
    pub fn change<T, E: From<StoreError>>(
        &self,
        plan: impl FnOnce(&Vms) -> Result<(T, Steps), E>,
    ) -> Result<T, E> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, entries, silent, first_kept) = {
            let state = self.read();
            let (result, steps) = plan(&state.vms)?;
            let now = OffsetDateTime::now_utc();
            let entries = state.log.prepare(steps.events, steps.destination, now);
            let first_kept = state.log.first_kept(entries.len());
            (result, entries, steps.silent, first_kept)
        };
        if entries.is_empty() && silent.is_none() {
            return Ok(result);
        }
        self.store
            .put_events(self.owner, &entries, silent.as_ref(), first_kept)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for entry in &entries {
            let vm = &entry.event.vm;
            match entry.event.event_type {
                EventType::VmDeleted => state.vms.remove(&vm.vm_uuid),
                _ => state.vms.insert(vm.vm_uuid, vm.clone()),
            };
        }
        if let Some(vm) = silent {
            state.vms.insert(vm.vm_uuid, vm);
        }
        state.log.append(entries);
        Ok(result)
    }

    /// All VMs at this moment.
    pub fn inventory(&self) -> Inventory {
        let state = self.read();
        Inventory {
            timestamp: state.log.newest(),
            last_event_id: state.log.last_event_id(),
            vms: state.vms.values().cloned().collect(),
            unread: Vec::new(),
        }
    }

    /// The events after `after`; see [`Feed`].
    pub fn follow(&self, after: Option<Uuid>) -> Feed {
        self.read().log.follow(after)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The UUID of a thing that is known by its name alone, the same on every start.
pub fn derived_uuid(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(
        &Uuid::NAMESPACE_URL,
        format!("sluice:{kind}:{name}").as_bytes(),
    )
}
