//! Events and inventories in every order that managers manage.

use nve_protocol::Mac;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::events::types::{EventType, Inventory, LifecycleEvent, Unread, VmState, VmStatus, Vnic};
use crate::intent::{Context, Plan, Settings, State};

mod moves;

/// When everything comes that is told here.
const NOW: i64 = 1000;

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(second).unwrap()
}

fn vm(uuid: Uuid, status: VmStatus, vlan: u16) -> VmState {
    let vnic = Vnic {
        vnic_name: "eth0".into(),
        vnic_uuid: Uuid::new_v4(),
        pg_name: format!("{}_{vlan}", Uuid::nil()),
        pg_uuid: Uuid::nil(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        port_segmentation_id: vlan,
        ip_list: vec![],
        ipv6_list: vec![],
    };
    VmState {
        vm_name: "vm".into(),
        vm_uuid: uuid,
        vm_status: status,
        host_name: "hv-a".into(),
        host_uuid: Uuid::nil(),
        vnic_list: vec![vnic],
    }
}

fn event(event_type: EventType, vm: &VmState, second: i64) -> LifecycleEvent {
    let event_id = Uuid::new_v4();
    LifecycleEvent {
        event_id,
        timestamp: at(second),
        event_type,
        vm: vm.clone(),
        destination_host_name: None,
    }
}

/// Plans an event that comes at that second, of a manager without inventories.
fn planned(state: &State, name: &str, event: &LifecycleEvent, second: i64) -> Plan<Outcome> {
    let settings = Settings::default();
    let now = at(second);
    let settings = &settings;
    let teller = Teller { name, lists: false };
    plan_event(state, Context { settings, now }, teller, event)
}

fn carry_out<T>(state: &mut State, plan: Plan<T>) -> T {
    for mutation in &plan.mutations {
        state.apply(mutation);
    }
    plan.result
}

fn tell(state: &mut State, event: &LifecycleEvent) -> Outcome {
    let plan = planned(state, "lab", event, NOW);
    let outcome = carry_out(state, plan);
    assert_eq!(state.cursor("lab"), Some(event.event_id));
    outcome
}

fn list(state: &mut State, vms: &[VmState], second: i64) -> usize {
    list_with(state, vms, &[], second, false)
}

/// Lists an inventory, before which events may have been missed.
fn list_after(state: &mut State, vms: &[VmState], second: i64, is_gap: bool) -> usize {
    list_with(state, vms, &[], second, is_gap)
}

/// An inventory in which there are also VMs that cannot be read, with these UUIDs.
fn list_with(
    state: &mut State,
    vms: &[VmState],
    unread: &[Option<Uuid>],
    second: i64,
    is_gap: bool,
) -> usize {
    let unread = unread.iter().map(|vm_uuid| Unread {
        vm_uuid: *vm_uuid,
        reason: "no VM of ours".into(),
    });
    let inventory = Inventory {
        timestamp: at(second),
        last_event_id: None,
        vms: vms.to_vec(),
        unread: unread.collect(),
    };
    let (settings, now) = (&Settings::default(), at(NOW));
    let context = Context { settings, now };
    let plan = plan_inventory(state, context, "lab", &inventory, is_gap);
    carry_out(state, plan)
}

#[test]
fn events_set_the_whole_state_and_the_type_decides_on_power() {
    let id = Uuid::new_v4();
    let mut state = State::default();
    let running = vm(id, VmStatus::Running, 101);
    let stopped = VmState {
        vm_status: VmStatus::Stop,
        ..running.clone()
    };
    assert_eq!(
        tell(&mut state, &event(EventType::VmCreated, &stopped, 1)),
        Outcome::Applied
    );
    assert!(Claims::of(&state).place(Uuid::nil()).is_none());
    assert_eq!(
        tell(&mut state, &event(EventType::VmPowerOn, &stopped, 2)),
        Outcome::Applied
    );
    assert!(Claims::of(&state).place(Uuid::nil()).is_some());
    assert_eq!(
        tell(&mut state, &event(EventType::VmPowerOff, &running, 3)),
        Outcome::Applied
    );
    assert!(Claims::of(&state).place(Uuid::nil()).is_none());
    assert_eq!(
        tell(&mut state, &event(EventType::VmDeleted, &stopped, 4)),
        Outcome::Applied
    );
    assert!(state.vm(id).is_none());
}

#[test]
fn late_and_repeated_events_change_nothing() {
    let id = Uuid::new_v4();
    let mut state = State::default();
    let running = vm(id, VmStatus::Running, 101);
    tell(&mut state, &event(EventType::VmPowerOn, &running, 10));
    let again = event(EventType::VmPowerOn, &running, 10);
    assert_eq!(tell(&mut state, &again), Outcome::Unchanged);
    for kind in [EventType::VmDeleted, EventType::VmPowerOff] {
        assert_eq!(tell(&mut state, &event(kind, &running, 9)), Outcome::Late);
    }
    assert_eq!(state.vm(id).unwrap().vm, running);
}

#[test]
fn an_inventory_repairs_what_lost_events_left() {
    let (stays, goes, comes) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let mut state = State::default();
    let running = |id| vm(id, VmStatus::Running, 101);
    let (staying, coming) = (running(stays), vm(comes, VmStatus::Running, 102));
    tell(&mut state, &event(EventType::VmPowerOn, &staying, 1));
    tell(&mut state, &event(EventType::VmPowerOn, &running(goes), 1));
    assert_eq!(list(&mut state, &[staying.clone(), coming.clone()], 5), 2);
    assert!(state.vm(goes).is_none());
    assert_eq!(state.vm(comes).unwrap().vm, coming);
    assert_eq!(
        list(&mut state, &[staying, coming], 6),
        0,
        "nothing new, nothing written"
    );
}

#[test]
fn an_old_inventory_neither_deletes_nor_reverts() {
    let id = Uuid::new_v4();
    let mut state = State::default();
    let running = vm(id, VmStatus::Running, 101);
    tell(&mut state, &event(EventType::VmPowerOn, &running, 10));
    assert_eq!(list(&mut state, &[], 9), 0);
    let stopped = VmState {
        vm_status: VmStatus::Stop,
        ..running.clone()
    };
    assert_eq!(list(&mut state, &[stopped], 9), 0);
    assert_eq!(state.vm(id).unwrap().vm, running);
}

#[test]
fn an_inventory_leaves_other_managers_vms_alone() {
    let mut state = State::default();
    let theirs = vm(Uuid::new_v4(), VmStatus::Running, 101);
    let on = event(EventType::VmPowerOn, &theirs, 1);
    let plan = planned(&state, "other", &on, NOW);
    carry_out(&mut state, plan);
    assert_eq!(list(&mut state, &[], 5), 0);
    let deleted = event(EventType::VmDeleted, &theirs, 6);
    assert_eq!(tell(&mut state, &deleted), Outcome::Unchanged);
    assert!(state.vm(theirs.vm_uuid).is_some());
}

#[test]
fn a_vm_that_cannot_be_read_is_not_taken_for_gone() {
    let mut state = State::default();
    let [one, two, three] = [101, 102, 103].map(|n| vm(Uuid::new_v4(), VmStatus::Running, n));
    list(&mut state, &[one.clone(), two.clone(), three.clone()], 1);
    let all = std::slice::from_ref(&one);
    assert_eq!(
        list_with(&mut state, all, &[Some(two.vm_uuid)], 2, false),
        1
    );
    assert!(state.vm(three.vm_uuid).is_none());
    assert_eq!(state.vm(two.vm_uuid).unwrap().vm, two);
    // It might be any of those that are not listed.
    assert_eq!(list_with(&mut state, &[], &[None], 3, false), 0);
    assert_eq!(state.vms().count(), 2);
    assert_eq!(list(&mut state, &[], 4), 2);
}

#[test]
fn a_vm_that_went_comes_back_only_by_what_is_newer() {
    let id = Uuid::new_v4();
    let running = vm(id, VmStatus::Running, 101);
    let mut state = State::default();
    let on = |second| event(EventType::VmPowerOn, &running, second);
    tell(&mut state, &on(1));
    tell(&mut state, &event(EventType::VmDeleted, &running, 5));
    assert_eq!(tell(&mut state, &on(4)), Outcome::Late);
    assert_eq!(list(&mut state, std::slice::from_ref(&running), 4), 0);
    assert!(state.vm(id).is_none());
    assert_eq!(tell(&mut state, &on(6)), Outcome::Applied);
    assert_eq!(state.tombstones().len(), 0, "it lives");
    assert_eq!(list(&mut state, &[], 7), 1, "the inventory has it no more");
    assert_eq!(tell(&mut state, &on(6)), Outcome::Late);
}

#[test]
fn who_went_is_remembered_for_a_day_and_up_to_a_number() {
    let mut state = State::default();
    let many: Vec<VmState> = (0..4097)
        .map(|n| vm(Uuid::from_u128(n), VmStatus::Stop, 101))
        .collect();
    list(&mut state, &many, 500);
    assert_eq!(list(&mut state, &[], 501), 4097);
    assert_eq!(state.tombstones().len(), 4096);
    let last = &many[4096];
    tell(&mut state, &event(EventType::VmDeleted, last, 502));
    assert_eq!(state.tombstones().len(), 4096, "another one was forgotten");
    assert_eq!(state.tombstone(last.vm_uuid), Some(at(502)));
    let other = event(EventType::VmDeleted, last, NOW + 24 * 3600);
    let plan = planned(&state, "lab", &other, NOW + 24 * 3600);
    carry_out(&mut state, plan);
    assert_eq!(state.tombstones().len(), 1, "a day has passed");
}

#[test]
fn a_timestamp_from_the_future_freezes_nothing() {
    let id = Uuid::new_v4();
    let mut state = State::default();
    let running = vm(id, VmStatus::Running, 101);
    tell(
        &mut state,
        &event(EventType::VmPowerOn, &running, NOW + 9000),
    );
    assert_eq!(state.vm(id).unwrap().as_of, at(NOW));
    let off = event(EventType::VmPowerOff, &running, NOW);
    assert_eq!(tell(&mut state, &off), Outcome::Applied);
    assert_eq!(list(&mut state, &[], NOW), 1);
}

/// What an event of a manager with inventories makes of the state.
fn tell_with_inventories(state: &mut State, event: &LifecycleEvent) -> Outcome {
    let (settings, now) = (&Settings::default(), at(NOW));
    let teller = Teller {
        name: "lab",
        lists: true,
    };
    let plan = plan_event(state, Context { settings, now }, teller, event);
    carry_out(state, plan)
}

#[test]
fn a_deleted_vm_is_withdrawn_at_once_and_goes_when_the_inventory_confirms() {
    let id = Uuid::new_v4();
    let mut state = State::default();
    let running = vm(id, VmStatus::Running, 101);
    tell_with_inventories(&mut state, &event(EventType::VmPowerOn, &running, 1));
    assert!(Claims::of(&state).place(Uuid::nil()).is_some());
    let deleted = event(EventType::VmDeleted, &running, 5);
    assert_eq!(
        tell_with_inventories(&mut state, &deleted),
        Outcome::Applied
    );
    assert!(Claims::of(&state).place(Uuid::nil()).is_none(), "withdrawn");
    assert!(state.vm(id).is_some_and(|vm| vm.deleted));
    assert_eq!(
        tell_with_inventories(&mut state, &deleted),
        Outcome::Unchanged
    );
    for second in [4, 5] {
        let on = event(EventType::VmPowerOn, &running, second);
        assert_eq!(tell_with_inventories(&mut state, &on), Outcome::Late);
    }
    let tag = nve_protocol::Vlan::new(101).unwrap();
    assert_eq!(
        state.occupants(Uuid::nil(), tag).len(),
        1,
        "its tag is kept"
    );

    // An inventory from before the deletion proves nothing; one that has it revokes it.
    assert_eq!(list(&mut state, &[], 4), 0);
    assert!(state.vm(id).is_some());
    assert_eq!(list(&mut state, std::slice::from_ref(&running), 6), 1);
    assert!(Claims::of(&state).place(Uuid::nil()).is_some());

    let again = event(EventType::VmDeleted, &running, 7);
    tell_with_inventories(&mut state, &again);
    assert_eq!(list(&mut state, &[], 7), 1);
    assert!(state.vm(id).is_none());
    let late = event(EventType::VmPowerOn, &running, 7);
    assert_eq!(tell_with_inventories(&mut state, &late), Outcome::Late);
    // The port is nowhere known, so its tag waits.
    let left: Vec<_> = state
        .quarantines()
        .map(|q| (q.host.as_str(), q.tag))
        .collect();
    assert_eq!(left, [("hv-a", tag)]);
}

#[test]
fn a_vm_that_high_availability_moved_takes_its_ports_binding_along() {
    let (mut state, id) = (State::default(), Uuid::new_v4());
    let mut port = crate::compile::tests::port(1, 1, 1, true);
    port.common.id = Uuid::nil();
    port.binding_host_id = "hv-a".into();
    port.segmentation_id = nve_protocol::Vlan::new(101);
    state.apply(&crate::model::Mutation::PutPort(port));
    let before = vm(id, VmStatus::Running, 101);
    tell(&mut state, &event(EventType::VmPowerOn, &before, 1));
    let after = VmState {
        host_name: "hv-b".into(),
        ..before.clone()
    };
    assert_eq!(
        tell(&mut state, &event(EventType::HaFinish, &after, 5)),
        Outcome::Applied
    );
    let port = state.port(Uuid::nil()).unwrap();
    assert_eq!(
        (port.binding_host_id.as_str(), port.common.revision_number),
        ("hv-b", 1)
    );
    assert_eq!(Claims::of(&state).place(Uuid::nil()).unwrap().host, "hv-b");
    // What the dead host's manager still had to say.
    let late = event(EventType::VmPowerOn, &before, 4);
    assert_eq!(tell(&mut state, &late), Outcome::Late);
    assert_eq!(state.port(Uuid::nil()).unwrap().binding_host_id, "hv-b");
    // Told twice, or after an inventory, it changes nothing more.
    tell(&mut state, &event(EventType::HaFinish, &after, 6));
    assert_eq!(state.port(Uuid::nil()).unwrap().common.revision_number, 1);
}

#[test]
fn ports_are_bound_anew_though_an_inventory_told_of_their_host_before() {
    let (mut state, id) = (State::default(), Uuid::new_v4());
    let mut port = crate::compile::tests::port(1, 1, 1, true);
    port.common.id = Uuid::nil();
    port.binding_host_id = "hv-a".into();
    state.apply(&crate::model::Mutation::PutPort(port));
    let before = vm(id, VmStatus::Running, 101);
    tell(&mut state, &event(EventType::VmPowerOn, &before, 1));
    let after = VmState {
        host_name: "hv-b".into(),
        ..before.clone()
    };
    assert_eq!(list(&mut state, std::slice::from_ref(&after), 7), 1);
    let finish = event(EventType::HaFinish, &after, 5);
    assert_eq!(tell(&mut state, &finish), Outcome::Late);
    assert_eq!(state.port(Uuid::nil()).unwrap().binding_host_id, "hv-b");
    // One that is late in every way changes nothing.
    let stale = event(EventType::HaFinish, &before, 4);
    assert_eq!(tell(&mut state, &stale), Outcome::Late);
    assert_eq!(state.port(Uuid::nil()).unwrap().binding_host_id, "hv-b");
}

#[test]
fn who_repeats_what_another_told_does_not_take_the_vm() {
    let (mut state, id) = (State::default(), Uuid::new_v4());
    let running = vm(id, VmStatus::Running, 101);
    let on = event(EventType::VmPowerOn, &running, 1);
    assert_eq!(tell(&mut state, &on), Outcome::Applied);
    let repeated = planned(&state, "openstack", &on, NOW);
    assert_eq!(carry_out(&mut state, repeated), Outcome::Unchanged);
    assert_eq!(state.vm(id).unwrap().manager, "lab");
    assert_eq!(list(&mut state, &[], 2), 1, "its manager's to delete");
}

#[test]
fn a_vm_that_is_listed_twice_stays_where_it_was_listed_last() {
    let (mut state, id) = (State::default(), Uuid::new_v4());
    let source = vm(id, VmStatus::Running, 101);
    let target = VmState {
        host_name: "hv-b".into(),
        ..source.clone()
    };
    let both = [source, target];
    assert_eq!(list(&mut state, &both, 1), 1);
    assert_eq!(state.vm(id).unwrap().vm.host_name, "hv-b");
    assert_eq!(list(&mut state, &both, 2), 0);
    assert_eq!(state.vm(id).unwrap().vm.host_name, "hv-b");
}

#[test]
fn a_manager_that_lost_its_inventory_can_delete_what_it_withdrew() {
    let (mut state, id) = (State::default(), Uuid::new_v4());
    let running = vm(id, VmStatus::Running, 101);
    tell_with_inventories(&mut state, &event(EventType::VmPowerOn, &running, 1));
    let deleted = event(EventType::VmDeleted, &running, 5);
    tell_with_inventories(&mut state, &deleted);
    assert!(state.vm(id).is_some());
    assert_eq!(tell(&mut state, &deleted), Outcome::Applied);
    assert!(state.vm(id).is_none());
}
