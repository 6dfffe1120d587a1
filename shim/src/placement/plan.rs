//! Planning of what hypervisor managers tell.
//!
//! Timestamps are the managers'. One from the future counts as the moment at which
//! it came, lest nothing that comes later is newer.

use std::collections::HashSet;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::events::types::{EventType, Inventory, LifecycleEvent, VmState, VmStatus};
use crate::intent::{Plan, State};
use crate::model::{Mutation, PlacedVm, Tombstone};

/// How long a VM that went is remembered: longer than events are late.
const REMEMBERED: Duration = Duration::DAY;
/// Most VMs that went and are remembered.
const MAX_TOMBSTONES: usize = 4096;

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

/// Plans an event of a manager that came at `now`. Its id becomes the manager's
/// cursor in the same transaction, so that an event is either done or delivered
/// again.
pub fn plan_event(
    state: &State,
    manager: &str,
    event: &LifecycleEvent,
    now: OffsetDateTime,
) -> Plan<Outcome> {
    let id = event.vm.vm_uuid;
    let as_of = event.timestamp.min(now);
    let known = state.vm(id);
    let newest = known.map(|known| known.as_of.min(now));
    let deleted = event.event_type == EventType::VmDeleted;
    let (outcome, mut mutations) = match known {
        _ if newest > Some(as_of) => (Outcome::Late, vec![]),
        // A VM that went to another manager is not the old one's to delete.
        Some(known) if deleted && known.manager != manager => (Outcome::Unchanged, vec![]),
        Some(_) if deleted => (Outcome::Applied, vec![Mutation::DeleteVm(id)]),
        // Events that came before it may come after it.
        None if deleted => (Outcome::Unchanged, vec![]),
        None if state.tombstone(id) >= Some(as_of) => (Outcome::Late, vec![]),
        _ => {
            let vm = VmState {
                vm_status: status(event),
                ..event.vm.clone()
            };
            let outcome = match known {
                Some(known) if known.vm == vm => Outcome::Unchanged,
                _ => Outcome::Applied,
            };
            (outcome, put(state, manager, as_of, vm))
        }
    };
    let is_gone = known.is_none_or(|_| outcome == Outcome::Applied);
    if deleted && is_gone {
        mutations.extend(bury(state, &[id], as_of, now));
    }
    if state.cursor(manager) != Some(event.event_id) {
        mutations.push(Mutation::PutCursor(manager.to_owned(), event.event_id));
    }
    Plan {
        mutations,
        result: outcome,
    }
}

/// A VM as told; whatever was there of it before.
fn put(state: &State, manager: &str, as_of: OffsetDateTime, vm: VmState) -> Vec<Mutation> {
    let risen = state.tombstone(vm.vm_uuid);
    let risen = risen.map(|_| Mutation::DeleteTombstone(vm.vm_uuid));
    let told = PlacedVm {
        manager: manager.to_owned(),
        as_of,
        vm,
    };
    [Mutation::PutVm(told)].into_iter().chain(risen).collect()
}

/// Remembers that VMs went, and forgets of the others whom it remembers too long,
/// and the oldest if they are too many.
fn bury(state: &State, gone: &[Uuid], as_of: OffsetDateTime, now: OffsetDateTime) -> Vec<Mutation> {
    let mut buried: Vec<(OffsetDateTime, Uuid)> =
        state.tombstones().map(|(vm, as_of)| (as_of, vm)).collect();
    buried.sort_unstable();
    let old = buried.partition_point(|(as_of, _)| *as_of + REMEMBERED < now);
    let too_many = (buried.len() + gone.len()).saturating_sub(MAX_TOMBSTONES);
    let forgotten = buried.iter().take(old.max(too_many));
    let mut mutations: Vec<Mutation> = forgotten
        .map(|(_, vm)| Mutation::DeleteTombstone(*vm))
        .collect();
    mutations.extend(gone.iter().take(MAX_TOMBSTONES).map(|vm| {
        let vm_uuid = *vm;
        let as_of = state.tombstone(vm_uuid).map_or(as_of, |old| old.max(as_of));
        Mutation::PutTombstone(Tombstone { vm_uuid, as_of })
    }));
    mutations
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

/// Plans a manager's inventory that came at `now`; the result is how many VMs it
/// changed. VMs of that manager that it does not list are gone, unless something
/// newer than the listing is known of them.
pub fn plan_inventory(
    state: &State,
    manager: &str,
    inventory: &Inventory,
    now: OffsetDateTime,
) -> Plan<usize> {
    let as_of = inventory.timestamp.min(now);
    let listed: HashSet<Uuid> = inventory.vms.iter().map(|vm| vm.vm_uuid).collect();
    let changed = inventory
        .vms
        .iter()
        .filter(|vm| match state.vm(vm.vm_uuid) {
            Some(known) => {
                known.as_of.min(now) <= as_of && (known.vm != **vm || known.manager != manager)
            }
            None => state.tombstone(vm.vm_uuid) <= Some(as_of),
        });
    let mut result = 0;
    let mut mutations = Vec::new();
    for vm in changed {
        result += 1;
        mutations.extend(put(state, manager, as_of, vm.clone()));
    }
    let gone: Vec<Uuid> = state
        .vms()
        .filter(|known| known.manager == manager && known.as_of.min(now) <= as_of)
        .map(|known| known.vm.vm_uuid)
        .filter(|vm| !listed.contains(vm))
        .collect();
    result += gone.len();
    mutations.extend(gone.iter().map(|vm| Mutation::DeleteVm(*vm)));
    if !gone.is_empty() {
        mutations.extend(bury(state, &gone, as_of, now));
    }
    if let Some(last) = inventory
        .last_event_id
        .filter(|last| state.cursor(manager) != Some(*last))
    {
        mutations.push(Mutation::PutCursor(manager.to_owned(), last));
    }
    Plan { mutations, result }
}
