//! Back end whose VMs are what its own REST interface says: for a lab, where VMs are
//! namespaces or small guests, and to try consumers of events.

mod api;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

pub use api::router;
pub use plan::{HostRequest, MoveRequest, Refusal, VmRequest, VnicRequest};

use super::backend::{Backend, Feed};
use super::config::Config;
use super::ledger::{Ledger, Steps, Vms, derived_uuid};
use super::store::{Owner, Store, StoreError};
use crate::events::types::{EventType, Inventory, VmState};
use plan::Hosts;

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
    ledger: Ledger,
}

impl Lab {
    /// Reads the VMs and their latest events from `store`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(config: &Config, store: Arc<Store>) -> Result<Self, StoreError> {
        Ok(Lab {
            hosts: Hosts::new(&config.hosts),
            ledger: Ledger::open(Owner::Lab, config, store)?,
        })
    }

    /// All VMs, by UUID.
    fn vms(&self) -> Vec<VmState> {
        self.ledger.with_vms(|vms| vms.values().cloned().collect())
    }

    fn vm(&self, uuid: Uuid) -> Result<VmState, Refusal> {
        self.ledger.with_vms(|vms| plan::find(vms, uuid).cloned())
    }

    /// Makes the change that `plan` makes of the VMs: the events to happen, each with
    /// its VM after it. Returns the VM after the last one. Blocks.
    fn change(
        &self,
        plan: impl FnOnce(&Hosts, &Vms) -> Result<Change, Refusal>,
    ) -> Result<VmState, LabError> {
        self.ledger.change(|vms| {
            let Change { after, steps } = plan(&self.hosts, vms)?;
            let steps = Steps {
                destination: Some(after.host_name.clone()),
                events: steps,
                silent: None,
            };
            Ok((after, steps))
        })
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
        self.ledger.inventory()
    }

    fn follow(&self, after: Option<Uuid>) -> Feed {
        self.ledger.follow(after)
    }
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
