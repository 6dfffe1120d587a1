//! From what was told of a VM to what it is now: the events of TABLE I in between.
//!
//! Each event makes one change, and the last one leaves the VM as it is: whoever takes
//! all of them, or only the last, has the same.

use crate::events::types::{EventType, VmState, VmStatus, Vnic};
use crate::notice::ledger::Steps;

/// How a VM came to another host, or was on its way to one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Journey {
    /// The start of a live migration was told, and its end was not.
    pub started: bool,
    /// The host where it was is lost.
    pub lost: bool,
}

/// The events that lead from `told` to `now`. `now` is on its host for good: a VM that
/// is about to arrive elsewhere is still where it was.
pub(super) fn steps(told: Option<&VmState>, now: Option<&VmState>, journey: Journey) -> Steps {
    match (told, now) {
        (None, None) => Steps::default(),
        (None, Some(now)) => appear(now),
        (Some(told), None) => vanish(told),
        (Some(told), Some(now)) => follow(told, now, journey),
    }
}

fn appear(now: &VmState) -> Steps {
    let mut path = Path::from(stopped(now));
    path.tell(EventType::VmCreated);
    path.power(now);
    path.end(now)
}

fn vanish(told: &VmState) -> Steps {
    let gone = stopped(told);
    let mut path = Path::from(told.clone());
    path.power(&gone);
    path.tell(EventType::VmDeleted);
    Steps {
        events: path.events,
        ..Steps::default()
    }
}

fn follow(told: &VmState, now: &VmState, journey: Journey) -> Steps {
    let mut path = Path::from(told.clone());
    if told.host_uuid != now.host_uuid {
        path.travel(now, journey);
    } else if journey.started {
        // It was not to be: the migration ends where it began.
        path.tell(EventType::LiveMigrateFinish);
    }
    if !now.vm_status.forwards() {
        path.power(now);
    }
    path.change_vnics(now);
    path.power(now);
    path.end(now)
}

fn stopped(vm: &VmState) -> VmState {
    VmState {
        vm_status: VmStatus::Stop,
        ..vm.clone()
    }
}

/// A VM on its way through events.
struct Path {
    vm: VmState,
    events: Vec<(EventType, VmState)>,
}

impl Path {
    fn from(vm: VmState) -> Self {
        let events = Vec::new();
        Path { vm, events }
    }

    fn tell(&mut self, kind: EventType) {
        self.events.push((kind, self.vm.clone()));
    }

    /// Powers it on or off, if `now` forwards and it does not or the other way round.
    fn power(&mut self, now: &VmState) {
        if self.vm.vm_status.forwards() == now.vm_status.forwards() {
            return;
        }
        self.vm.vm_status = now.vm_status;
        self.tell(match now.vm_status.forwards() {
            true => EventType::VmPowerOn,
            false => EventType::VmPowerOff,
        });
    }

    /// Goes to the host of `now`.
    fn travel(&mut self, now: &VmState, journey: Journey) {
        let runs = now.vm_status.forwards();
        if !runs {
            self.power(now);
        }
        let (start, finish) = match (self.vm.vm_status.forwards(), journey) {
            (true, Journey { started: true, .. }) => (None, EventType::LiveMigrateFinish),
            (true, Journey { lost: true, .. }) => (None, EventType::HaFinish),
            (true, _) => (
                Some(EventType::LiveMigrateStart),
                EventType::LiveMigrateFinish,
            ),
            (false, _) => (
                Some(EventType::ColdMigrateStart),
                EventType::ColdMigrateFinish,
            ),
        };
        if let Some(start) = start {
            self.tell(start);
        }
        now.host_name.clone_into(&mut self.vm.host_name);
        self.vm.host_uuid = now.host_uuid;
        if self.vm.vm_status.forwards() {
            self.vm.vm_status = now.vm_status;
        }
        // Tags may be others there.
        for vnic in &mut self.vm.vnic_list {
            if let Some(there) = now.vnic_list.iter().find(|there| there.mac == vnic.mac) {
                *vnic = there.clone();
            }
        }
        self.tell(finish);
    }

    /// Detaches and attaches vNICs until it has those of `now`. One that changes its
    /// port group is detached from the one and attached to the other.
    fn change_vnics(&mut self, now: &VmState) {
        let gone: Vec<Vnic> = without(&self.vm.vnic_list, &now.vnic_list);
        for vnic in gone {
            self.vm.vnic_list.retain(|has| !same_place(has, &vnic));
            self.tell(EventType::VifDetach);
        }
        for vnic in without(&now.vnic_list, &self.vm.vnic_list) {
            self.vm.vnic_list.push(vnic);
            self.tell(EventType::VifAttach);
        }
    }

    /// What was told, and what `now` is beyond that, such as paused.
    fn end(self, now: &VmState) -> Steps {
        let silent = (self.vm != *now).then(|| now.clone());
        Steps {
            events: self.events,
            silent,
            destination: Some(now.host_name.clone()),
        }
    }
}

/// Those of `vnics` that are not among `others`.
fn without(vnics: &[Vnic], others: &[Vnic]) -> Vec<Vnic> {
    let is_new = |vnic: &&Vnic| !others.iter().any(|other| same_place(vnic, other));
    vnics.iter().filter(is_new).cloned().collect()
}

fn same_place(a: &Vnic, b: &Vnic) -> bool {
    (a.mac, &a.pg_name, a.port_segmentation_id) == (b.mac, &b.pg_name, b.port_segmentation_id)
}
