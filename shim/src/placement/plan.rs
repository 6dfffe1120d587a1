//! Planning of what hypervisor managers tell.
//!
//! Timestamps are the managers'. One from the future counts as the moment at which
//! it came, lest nothing that comes later is newer.

use std::collections::{BTreeMap, HashSet};

use nve_protocol::Vlan;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::events::types::{EventType, Inventory, LifecycleEvent, VmState, VmStatus};
use crate::intent::{Context, Plan, State, revise, tag};
use crate::model::{Mutation, PlacedVm, Tombstone};
use crate::placement::moves::{Moved, is_overdue, may_be_over};

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

/// Who tells of VMs.
#[derive(Debug, Clone, Copy)]
pub struct Teller<'a> {
    /// Name of the manager.
    pub name: &'a str,
    /// Whether it lists its inventory, which then confirms that a VM is deleted.
    pub lists: bool,
}

/// Plans an event that comes now. Its id becomes the manager's cursor in the same
/// transaction, so that an event is either done or delivered again.
///
/// A VM that is deleted is withdrawn at once; it goes, and its tags with it, when the
/// manager's inventory confirms that, or at once if there is none to wait for.
pub fn plan_event(
    state: &State,
    context: Context<'_>,
    teller: Teller<'_>,
    event: &LifecycleEvent,
) -> Plan<Outcome> {
    let (manager, now) = (teller.name, context.now);
    let id = event.vm.vm_uuid;
    let as_of = event.timestamp.min(now);
    let known = state.vm(id);
    let newest = known.map(|known| known.as_of.min(now));
    let deleted = event.event_type == EventType::VmDeleted;
    let (outcome, mut mutations) = match known {
        _ if newest > Some(as_of) => (Outcome::Late, vec![]),
        Some(known) if known.deleted && deleted && teller.lists => (Outcome::Unchanged, vec![]),
        Some(known) if known.deleted && !deleted && newest == Some(as_of) => {
            (Outcome::Late, vec![])
        }
        // A VM that went to another manager is not the old one's to delete.
        Some(known) if deleted && known.manager != manager => (Outcome::Unchanged, vec![]),
        Some(known) if deleted && teller.lists => {
            let withdrawn = PlacedVm {
                as_of,
                deleted: true,
                migration: None,
                departed: None,
                ..known.clone()
            };
            (Outcome::Applied, vec![Mutation::PutVm(withdrawn)])
        }
        Some(known) if deleted => (Outcome::Applied, remove(state, context, known)),
        // Events that came before it may come after it.
        None if deleted => (Outcome::Unchanged, vec![]),
        None if state.tombstone(id) >= Some(as_of) => (Outcome::Late, vec![]),
        _ => {
            let vm = VmState {
                vm_status: status(event),
                ..event.vm.clone()
            };
            let moved = match event.event_type {
                EventType::LiveMigrateStart => Moved::started(state, context, known, event, vm),
                kind => Moved::told(state, context, known, Some(kind), vm),
            };
            let outcome = match known {
                Some(known) if moved.is_known(known) => Outcome::Unchanged,
                _ => Outcome::Applied,
            };
            // Who repeats what another manager told does not take the VM from it.
            let owner = match (outcome, known) {
                (Outcome::Unchanged, Some(known)) => known.manager.as_str(),
                _ => manager,
            };
            (outcome, put(state, context, owner, as_of, moved))
        }
    };
    // An inventory may have told before where the VM is now.
    let is_there = |known: &PlacedVm| known.vm.host_name == event.vm.host_name && !known.deleted;
    if event.event_type == EventType::HaFinish
        && (outcome != Outcome::Late || known.is_some_and(is_there))
    {
        mutations.extend(rebind(state, context, &event.vm));
    }
    let is_gone = match known {
        Some(_) => outcome == Outcome::Applied && !teller.lists,
        None => true,
    };
    if deleted && is_gone {
        mutations.extend(bury(state, &[id], as_of, now));
    }
    if state.cursor(manager) != Some(event.event_id) {
        mutations.push(Mutation::PutCursor(manager.to_owned(), event.event_id));
    }
    tag::forget_ended(state, context, &mut mutations);
    Plan {
        mutations,
        result: outcome,
    }
}

/// A VM as told; whatever was there of it before.
fn put(
    state: &State,
    context: Context<'_>,
    manager: &str,
    as_of: OffsetDateTime,
    moved: Moved,
) -> Vec<Mutation> {
    let Moved {
        vm,
        migration,
        departed,
    } = moved;
    let risen = state.tombstone(vm.vm_uuid);
    let risen = risen.map(|_| Mutation::DeleteTombstone(vm.vm_uuid));
    let known = state.vm(vm.vm_uuid);
    let left = known.map(|known| left(state, context, known, Some(&vm)));
    let told = PlacedVm {
        manager: manager.to_owned(),
        as_of,
        vm,
        deleted: false,
        migration,
        departed,
    };
    let told = [Mutation::PutVm(told)].into_iter().chain(risen);
    told.chain(left.into_iter().flatten()).collect()
}

/// A VM's end.
fn remove(state: &State, context: Context<'_>, known: &PlacedVm) -> Vec<Mutation> {
    let mut mutations = vec![Mutation::DeleteVm(known.vm.vm_uuid)];
    mutations.extend(left(state, context, known, None));
    mutations
}

/// Quarantine of the tags that a VM's vNICs leave: of those whose port is gone, or
/// holds no lease of the tag there.
fn left(
    state: &State,
    context: Context<'_>,
    old: &PlacedVm,
    new: Option<&VmState>,
) -> Vec<Mutation> {
    let host = old.vm.host_name.as_str();
    let stays = new.filter(|new| new.host_name == host);
    let vnics = old.vm.vnic_list.iter().filter(|vnic| {
        let mut others = stays.iter().flat_map(|new| &new.vnic_list);
        !others.any(|other| other.pg_name == vnic.pg_name)
    });
    let left = vnics.filter_map(|vnic| {
        let (port, tag) = (vnic.port_id()?, Vlan::new(vnic.port_segmentation_id)?);
        let leased = state.port(port).is_some_and(|port| {
            let bound = port.binding_host_id.as_str();
            port.segmentation_id == Some(tag)
                && !bound.is_empty()
                && state.cluster_of(bound) == state.cluster_of(host)
        });
        (!leased).then(|| tag::quarantine(context, host, tag, port))?
    });
    left.collect()
}

/// Binds the ports of a VM, which high availability started on another host, to that
/// host: nobody else does, for the VM's owner did not move it.
fn rebind(state: &State, context: Context<'_>, vm: &VmState) -> Vec<Mutation> {
    let vnics = vm.vnic_list.iter();
    let rebound = vnics.filter_map(|vnic| {
        let old = state.port(vnic.port_id()?)?;
        let bound = old.binding_host_id.as_str();
        if bound.is_empty() || bound == vm.host_name || old.router().is_some() {
            return None;
        }
        let mut port = old.clone();
        port.binding_host_id.clone_from(&vm.host_name);
        revise(&mut port.common, context.now);
        let mut mutations = vec![Mutation::PutPort(port)];
        mutations.extend(tag::release(context, old));
        Some(mutations)
    });
    rebound.flatten().collect()
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

/// Plans a manager's inventory that comes now; the result is how many VMs it
/// changed. VMs of that manager that it does not list are gone, unless something
/// newer than the listing is known of them, or the listing is not whole. `is_gap`: events
/// before it may have been missed, unless the last one that was taken is the last one that
/// it contains.
pub fn plan_inventory(
    state: &State,
    context: Context<'_>,
    manager: &str,
    inventory: &Inventory,
    is_gap: bool,
) -> Plan<usize> {
    let now = context.now;
    let last = inventory.last_event_id;
    let is_gap = is_gap && (last.is_none() || last != state.cursor(manager));
    let is_over = |known: &PlacedVm| {
        is_overdue(known, context) || (is_gap && known.manager == manager && may_be_over(known))
    };
    let as_of = inventory.timestamp.min(now);
    let listed: HashSet<Uuid> = inventory.listed().collect();
    let is_whole = inventory.is_whole();
    // Of a VM that is listed twice the last entry counts, or it would go to and fro.
    let last_of: BTreeMap<Uuid, &VmState> =
        inventory.vms.iter().map(|vm| (vm.vm_uuid, vm)).collect();
    let changed = last_of
        .into_values()
        .filter(|vm| match state.vm(vm.vm_uuid) {
            Some(known) => {
                let differs = known.vm != **vm || known.manager != manager || known.deleted;
                known.as_of.min(now) <= as_of && (differs || is_over(known))
            }
            None => state.tombstone(vm.vm_uuid) <= Some(as_of),
        });
    let mut result = 0;
    let mut mutations = Vec::new();
    for vm in changed {
        result += 1;
        let known = state.vm(vm.vm_uuid);
        let ends = known.is_some_and(is_over);
        let kind = ends.then_some(EventType::LiveMigrateFinish);
        let moved = Moved::told(state, context, known, kind, vm.clone());
        mutations.extend(put(state, context, manager, as_of, moved));
    }
    let told = state
        .vms()
        .filter(|known| known.manager == manager && known.as_of.min(now) <= as_of);
    let gone: Vec<&PlacedVm> = told
        .filter(|known| is_whole && !listed.contains(&known.vm.vm_uuid))
        .collect();
    result += gone.len();
    for known in &gone {
        mutations.extend(remove(state, context, known));
    }
    let gone: Vec<Uuid> = gone.iter().map(|known| known.vm.vm_uuid).collect();
    if !gone.is_empty() {
        mutations.extend(bury(state, &gone, as_of, now));
    }
    if let Some(last) = inventory
        .last_event_id
        .filter(|last| state.cursor(manager) != Some(*last))
    {
        mutations.push(Mutation::PutCursor(manager.to_owned(), last));
    }
    tag::forget_ended(state, context, &mut mutations);
    Plan { mutations, result }
}
