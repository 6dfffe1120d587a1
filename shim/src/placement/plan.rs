//! Planning of what hypervisor managers tell.

use std::collections::HashSet;

use uuid::Uuid;

use crate::events::types::{EventType, Inventory, LifecycleEvent, VmState, VmStatus};
use crate::intent::{Plan, State};
use crate::model::{Mutation, PlacedVm};

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The VM's state is another one now.
    Applied,
    /// It told what was known.
    Unchanged,
    /// Something newer is known of the VM.
    Late,
}

impl Outcome {
    /// Name in the API and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Unchanged => "unchanged",
            Outcome::Late => "late",
        }
    }
}

/// Plans an event of a manager. Its id becomes the manager's cursor in the same
/// transaction, so that an event is either done or delivered again.
pub fn plan_event(state: &State, manager: &str, event: &LifecycleEvent) -> Plan<Outcome> {
    let known = state.vm(event.vm.vm_uuid);
    let deleted = event.event_type == EventType::VmDeleted;
    let (outcome, change) = match known {
        Some(known) if known.as_of > event.timestamp => (Outcome::Late, None),
        // A VM that went to another manager is not the old one's to delete.
        Some(known) if deleted && known.manager != manager => (Outcome::Unchanged, None),
        Some(_) if deleted => (Outcome::Applied, Some(Mutation::DeleteVm(event.vm.vm_uuid))),
        None if deleted => (Outcome::Unchanged, None),
        _ => {
            let vm = VmState {
                vm_status: status(event),
                ..event.vm.clone()
            };
            let told = PlacedVm {
                manager: manager.to_owned(),
                as_of: event.timestamp,
                vm,
            };
            let outcome = match known {
                Some(known) if known.vm == told.vm => Outcome::Unchanged,
                _ => Outcome::Applied,
            };
            (outcome, Some(Mutation::PutVm(told)))
        }
    };
    let cursor = (state.cursor(manager) != Some(event.event_id))
        .then(|| Mutation::PutCursor(manager.to_owned(), event.event_id));
    Plan {
        mutations: change.into_iter().chain(cursor).collect(),
        result: outcome,
    }
}

/// The status after the event. Managers differ in whether `vm_status` is from
/// before or after a power event; the event's type is what counts.
fn status(event: &LifecycleEvent) -> VmStatus {
    match (event.event_type, event.vm.vm_status) {
        (EventType::VmPowerOff, _) => VmStatus::Stop,
        (EventType::VmPowerOn, VmStatus::Stop) => VmStatus::Running,
        (_, told) => told,
    }
}

/// Plans a manager's inventory; the result is how many VMs it changed. VMs of
/// that manager that it does not list are gone, unless something newer than the
/// listing is known of them.
pub fn plan_inventory(state: &State, manager: &str, inventory: &Inventory) -> Plan<usize> {
    let listed: HashSet<Uuid> = inventory.vms.iter().map(|vm| vm.vm_uuid).collect();
    let changed = inventory
        .vms
        .iter()
        .filter(|vm| match state.vm(vm.vm_uuid) {
            Some(known) => {
                known.as_of <= inventory.timestamp && (known.vm != **vm || known.manager != manager)
            }
            None => true,
        });
    let put = changed.map(|vm| {
        let manager = manager.to_owned();
        Mutation::PutVm(PlacedVm {
            manager,
            as_of: inventory.timestamp,
            vm: vm.clone(),
        })
    });
    let gone = state.vms().filter(|known| {
        known.manager == manager
            && !listed.contains(&known.vm.vm_uuid)
            && known.as_of <= inventory.timestamp
    });
    let mut mutations: Vec<Mutation> = put.collect();
    mutations.extend(gone.map(|known| Mutation::DeleteVm(known.vm.vm_uuid)));
    let result = mutations.len();
    if let Some(last) = inventory
        .last_event_id
        .filter(|last| state.cursor(manager) != Some(*last))
    {
        mutations.push(Mutation::PutCursor(manager.to_owned(), last));
    }
    Plan { mutations, result }
}
