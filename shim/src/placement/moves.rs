//! VMs that move while they run: where one may come up before that is told, that an
//! NVE has heard it there, and the host that it left.
//!
//! A live migration is known from its start until the VM is told to be on another host,
//! or its end is told. Until then managers tell of the host where it was; what an NVE
//! has heard is newer than that.

use std::collections::BTreeSet;

use nve_protocol::Vlan;
use time::Duration;
use uuid::Uuid;

use crate::events::types::{EventType, LifecycleEvent, VmState, Vnic};
use crate::intent::{Context, Plan, State};
use crate::model::{Departed, Migration, Mutation, PlacedVm};

/// A live migration whose end has not been told for so long has had one: who has the VM
/// where it was is believed then.
const LONGEST: Duration = Duration::DAY;
/// How long after an NVE has heard a VM elsewhere managers may still tell of the host
/// where it was. Who does so later tells of a VM that went back, or never came.
const OUTRUN: Duration = Duration::minutes(10);

/// What is told of a VM, and what follows for its moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) vm: VmState,
    pub(super) migration: Option<Migration>,
    pub(super) departed: Option<Departed>,
}

/// That an NVE has heard a VM whose live migration's end has not been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awoken {
    /// The VM's UUID.
    pub vm: Uuid,
    /// Name of the host that it left.
    pub from: String,
    /// How long ago the start of its migration was told.
    pub after: Duration,
}

impl Moved {
    /// By what is known of a VM and what is told of it now; `kind` is that of the event,
    /// if one tells it.
    pub(super) fn told(
        state: &State,
        context: Context<'_>,
        known: Option<&PlacedVm>,
        kind: Option<EventType>,
        vm: VmState,
    ) -> Moved {
        let known = known.filter(|known| forwards(known));
        let has_ended = matches!(
            kind,
            Some(EventType::LiveMigrateFinish | EventType::HaFinish)
        );
        if let Some(known) = known.filter(|known| !has_ended && is_outrun(known, &vm, context)) {
            return Moved {
                vm: known.vm.clone(),
                migration: known.migration.clone(),
                departed: known.departed.clone(),
            };
        }
        let migration = known
            .filter(|known| !has_ended && !is_overdue(known, context))
            .filter(|known| known.vm.host_name == vm.host_name)
            .and_then(|known| known.migration.clone());
        Moved::to(state, known, kind, vm, migration)
    }

    /// By the start of a live migration. It leaves the VM where it is known to be: some
    /// managers tell of the destination already.
    pub(super) fn started(
        state: &State,
        context: Context<'_>,
        known: Option<&PlacedVm>,
        event: &LifecycleEvent,
        mut vm: VmState,
    ) -> Moved {
        let known = known.filter(|known| forwards(known));
        let told = event.destination_host_name.as_deref();
        let destination = told
            .filter(|to| !to.is_empty() && *to != vm.host_name)
            .map(str::to_owned);
        let destination = destination.or_else(|| {
            let home = known.filter(|known| known.vm.host_name != vm.host_name)?;
            let there = std::mem::replace(&mut vm.host_name, home.vm.host_name.clone());
            vm.host_uuid = home.vm.host_uuid;
            vm.vnic_list.clone_from(&home.vm.vnic_list);
            Some(there)
        });
        let same = known.filter(|known| known.vm.host_name == vm.host_name);
        let same = same.filter(|known| !is_overdue(known, context));
        let before = same.and_then(|known| known.migration.as_ref());
        let migration = match before {
            // It has come up already, whoever still tells of its start.
            Some(before) if before.awake.is_some() => Some(before.clone()),
            _ => {
                let to = destinations(state, &vm, destination);
                let since = before.map_or(context.now, |before| before.since);
                (!to.is_empty()).then_some(Migration {
                    since,
                    to,
                    awake: None,
                    awake_since: None,
                })
            }
        };
        Moved::to(
            state,
            known,
            Some(EventType::LiveMigrateStart),
            vm,
            migration,
        )
    }

    fn to(
        state: &State,
        known: Option<&PlacedVm>,
        kind: Option<EventType>,
        vm: VmState,
        migration: Option<Migration>,
    ) -> Moved {
        if !vm.vm_status.forwards() {
            let (migration, departed) = (None, None);
            return Moved {
                vm,
                migration,
                departed,
            };
        }
        let here = migration.as_ref().and_then(|all| all.awake.as_deref());
        let here = here.unwrap_or(&vm.host_name);
        let departed = known.and_then(|known| match known.host_name() == here {
            // High availability takes VMs from hosts that are lost.
            _ if kind == Some(EventType::HaFinish) => None,
            true => known.departed.clone(),
            false => leaves(state, known),
        });
        Moved {
            vm,
            migration,
            departed,
        }
    }

    /// Whether that is what is known already.
    pub(super) fn is_known(&self, known: &PlacedVm) -> bool {
        self.vm == known.vm
            && self.migration == known.migration
            && self.departed == known.departed
            && !known.deleted
    }
}

/// Whether a VM's ports take part in forwarding.
fn forwards(placed: &PlacedVm) -> bool {
    placed.vm.vm_status.forwards() && !placed.deleted
}

/// Whether a migration has been under way for too long to be believed in.
pub(super) fn is_overdue(known: &PlacedVm, context: Context<'_>) -> bool {
    let migration = known.migration.as_ref();
    migration.is_some_and(|migration| {
        let heard = migration.awake_since;
        migration.since + LONGEST < context.now
            || heard.is_some_and(|since| since + OUTRUN < context.now)
    })
}

/// Whether a VM is told to have stopped on a host that it has left already: its process
/// ends there when it has moved.
fn is_outrun(known: &PlacedVm, vm: &VmState, context: Context<'_>) -> bool {
    let migration = known.migration.as_ref();
    migration.is_some_and(|migration| migration.awake.is_some())
        && !is_overdue(known, context)
        && vm.host_name == known.vm.host_name
        && !vm.vm_status.forwards()
}

/// Whether a migration may have ended without that being heard, by an inventory that
/// comes after events were missed. What an NVE has heard counts more than that.
pub(super) fn may_be_over(known: &PlacedVm) -> bool {
    let migration = known.migration.as_ref();
    migration.is_some_and(|migration| migration.awake.is_none())
}

/// Where a VM that starts to migrate may come up: where that is told, else where Neutron
/// binds its ports to, else on any other host of the cluster. Hosts without an NVE are
/// of no interest.
fn destinations(state: &State, vm: &VmState, told: Option<String>) -> Vec<String> {
    let home = vm.host_name.as_str();
    if told.is_some() {
        return told.into_iter().collect();
    }
    let bound: BTreeSet<&str> = ports(vm)
        .filter_map(|(port, _)| Some(state.port(port)?.binding_host_id.as_str()))
        .filter(|host| !host.is_empty() && *host != home)
        .collect();
    if !bound.is_empty() {
        return bound.into_iter().map(str::to_owned).collect();
    }
    let cluster = state.cluster_of(home);
    let hosts = state.nves().map(|nve| nve.host_name.as_str());
    let others = hosts.filter(|host| *host != home && state.cluster_of(host) == cluster);
    let others: BTreeSet<&str> = others.collect();
    others.into_iter().map(str::to_owned).collect()
}

/// What a VM leaves behind on its host, if there is an NVE.
fn leaves(state: &State, known: &PlacedVm) -> Option<Departed> {
    let host = known.host_name();
    state.nve_by_host(host)?;
    let vaps: BTreeSet<(Uuid, Vlan)> = ports(&known.vm).collect();
    (!vaps.is_empty()).then(|| Departed {
        host: host.to_owned(),
        vaps: vaps.into_iter().collect(),
    })
}

/// The ports of a VM, with their tags.
fn ports(vm: &VmState) -> impl Iterator<Item = (Uuid, Vlan)> {
    let of = |vnic: &Vnic| Some((vnic.port_id()?, Vlan::new(vnic.port_segmentation_id)?));
    vm.vnic_list.iter().filter_map(of)
}

/// Plans that an NVE has heard a VM on a VAP that was on standby: the VM is there from now
/// on. Nothing happens if no migration leads there, or has led to another host already.
pub fn plan_awake(
    state: &State,
    context: Context<'_>,
    host: &str,
    vap: (Uuid, Vlan),
) -> Plan<Option<Awoken>> {
    let comes = |placed: &&PlacedVm| {
        let migration = placed.migration.as_ref();
        migration.is_some_and(|all| all.awake.is_none() && all.to.iter().any(|to| to == host))
            && ports(&placed.vm).any(|of| of == vap)
    };
    // As with claims: the newest counts.
    let candidates = state.vms().filter(|placed| forwards(placed)).filter(comes);
    let newest =
        candidates.max_by_key(|placed| (placed.as_of, std::cmp::Reverse(placed.vm.vm_uuid)));
    let Some((known, migration)) = newest.and_then(|known| Some((known, known.migration.clone()?)))
    else {
        let (mutations, result) = (vec![], None);
        return Plan { mutations, result };
    };
    let awoken = Awoken {
        vm: known.vm.vm_uuid,
        from: known.vm.host_name.clone(),
        after: context.now - migration.since,
    };
    let placed = PlacedVm {
        migration: Some(Migration {
            awake: Some(host.to_owned()),
            awake_since: Some(context.now),
            ..migration
        }),
        departed: leaves(state, known),
        ..known.clone()
    };
    Plan {
        mutations: vec![Mutation::PutVm(placed)],
        result: Some(awoken),
    }
}

/// Plans that nobody sends to the host any more that a VM has left; whether it is the
/// host that it left last.
pub fn plan_settled(state: &State, vm: Uuid, departed: &Departed) -> Plan<bool> {
    let known = state.vm(vm);
    let left = known.filter(|known| known.departed.as_ref() == Some(departed));
    let settled = left.map(|known| PlacedVm {
        departed: None,
        ..known.clone()
    });
    Plan {
        result: settled.is_some(),
        mutations: settled.into_iter().map(Mutation::PutVm).collect(),
    }
}
