//! Live migrations: what managers tell and what NVEs hear, in every order.

use nve_protocol::Vlan;

use super::*;
use crate::compile::tests as fixtures;
use crate::model::{Departed, Migration, Mutation, PlacedVm, Port};
use crate::placement::{Awoken, plan_awake, plan_settled};

/// The VM that moves; its port is the nil one, its tag 101.
const VM: Uuid = Uuid::from_u128(7);

struct World {
    state: State,
    second: i64,
}

fn tag() -> Vlan {
    Vlan::new(101).unwrap()
}

fn host(name: &str) -> String {
    format!("hv-{name}")
}

fn on(name: &str, status: VmStatus) -> VmState {
    VmState {
        host_name: host(name),
        host_uuid: Uuid::from_u128(u128::from(name.as_bytes()[0])),
        ..vm(VM, status, 101)
    }
}

impl World {
    /// Hosts a to c with NVEs, and d without; the VM runs on a.
    fn new() -> World {
        let mut state = State::default();
        for (number, name) in (1..).zip(["a", "b", "c"]) {
            state.apply(&Mutation::PutNve(crate::model::Nve {
                host_name: host(name),
                ..fixtures::nve(number)
            }));
        }
        let mut world = World { state, second: 1 };
        world.bind("a");
        world.event(EventType::VmPowerOn, "a", None);
        world
    }

    fn bind(&mut self, name: &str) {
        let mut port = fixtures::port(1, 1, 1, true);
        port.common.id = Uuid::nil();
        self.state.apply(&Mutation::PutPort(Port {
            binding_host_id: host(name),
            segmentation_id: Some(tag()),
            ..port
        }));
    }

    fn tell(&mut self, event: &LifecycleEvent) -> Outcome {
        let plan = planned(&self.state, "lab", event, NOW);
        carry_out(&mut self.state, plan)
    }

    /// An event of the next second that has the VM running there.
    fn event(&mut self, kind: EventType, name: &str, to: Option<&str>) -> Outcome {
        self.second += 1;
        let mut told = event(kind, &on(name, VmStatus::Running), self.second);
        // Each vNIC is the same each time.
        told.vm.vnic_list = self.vnics(told.vm.vnic_list);
        told.destination_host_name = to.map(host);
        self.tell(&told)
    }

    fn vnics(&self, new: Vec<Vnic>) -> Vec<Vnic> {
        let known = self.state.vm(VM);
        known.map_or(new, |known| known.vm.vnic_list.clone())
    }

    fn start(&mut self, to: Option<&str>) -> Outcome {
        self.event(EventType::LiveMigrateStart, "a", to)
    }

    fn finish(&mut self, name: &str) -> Outcome {
        self.event(EventType::LiveMigrateFinish, name, None)
    }

    fn list(&mut self, name: &str, status: VmStatus) -> usize {
        self.list_after(name, status, false)
    }

    fn list_after(&mut self, name: &str, status: VmStatus, is_gap: bool) -> usize {
        self.second += 1;
        let vnic_list = self.vnics(vec![]);
        let listed = VmState {
            vnic_list,
            ..on(name, status)
        };
        list_after(&mut self.state, &[listed], self.second, is_gap)
    }

    fn awake(&mut self, name: &str) -> Option<Awoken> {
        self.awake_on(name, tag())
    }

    fn awake_on(&mut self, name: &str, tag: Vlan) -> Option<Awoken> {
        let (settings, now) = (&Settings::default(), at(NOW));
        let context = Context { settings, now };
        let plan = plan_awake(&self.state, context, &host(name), (Uuid::nil(), tag));
        assert_eq!(plan.mutations.is_empty(), plan.result.is_none());
        carry_out(&mut self.state, plan)
    }

    fn vm(&self) -> &PlacedVm {
        self.state.vm(VM).unwrap()
    }

    /// The host of the claim, those where the VM may come up, the one that it left.
    fn moves(&self) -> (String, Vec<String>, Option<String>) {
        let claims = Claims::of(&self.state);
        let place = claims.place(Uuid::nil()).unwrap();
        let placed = self.vm();
        assert_eq!(place.host, placed.host_name());
        let to = placed.migration.clone().map(|migration| migration.to);
        let departed = placed.departed.as_ref();
        if let Some(departed) = departed {
            assert_eq!(departed.vaps, [(Uuid::nil(), tag())]);
        }
        let left = departed.map(|departed| departed.host.clone());
        (place.host.clone(), to.unwrap_or_default(), left)
    }

    fn assert(&self, at: &str, to: &[&str], left: Option<&str>) {
        let to = to.iter().map(|name| host(name)).collect();
        assert_eq!(self.moves(), (host(at), to, left.map(host)));
    }
}

#[test]
fn the_destination_is_the_events_or_where_ports_are_bound_or_anywhere_in_the_cluster() {
    let mut world = World::new();
    assert_eq!(world.start(Some("d")), Outcome::Applied);
    world.assert("a", &["d"], None);

    let mut world = World::new();
    world.bind("b");
    world.start(None);
    world.assert("a", &["b"], None);
    // What the event says counts more; that it is where the VM is says nothing.
    world.start(Some("c"));
    world.assert("a", &["c"], None);
    world.start(Some("a"));
    world.assert("a", &["b"], None);

    let mut world = World::new();
    world.start(None);
    world.assert("a", &["b", "c"], None);
    let cluster = crate::model::Cluster {
        id: Uuid::from_u128(1),
        name: "east".into(),
        hosts: vec![host("a"), host("c")],
    };
    world.state.apply(&Mutation::PutCluster(cluster));
    world.start(None);
    world.assert("a", &["c"], None);
    assert_eq!(world.start(None), Outcome::Unchanged);
}

#[test]
fn a_manager_whose_start_names_the_destination_does_not_move_the_vm_yet() {
    let mut world = World::new();
    let before = world.vm().vm.clone();
    for _ in 0..2 {
        world.event(EventType::LiveMigrateStart, "b", None);
        world.assert("a", &["b"], None);
        assert_eq!(world.vm().vm, before);
    }
    // Both may be named.
    world.event(EventType::LiveMigrateStart, "b", Some("b"));
    world.assert("a", &["b"], None);
    world.finish("b");
    world.assert("b", &[], Some("a"));
    // With a destination of its own, the host is where it is.
    world.event(EventType::LiveMigrateStart, "c", Some("a"));
    world.assert("c", &["a"], Some("b"));
}

#[test]
fn an_unknown_vm_is_where_the_start_of_its_migration_has_it() {
    let mut world = World::new();
    world.state.apply(&Mutation::DeleteVm(VM));
    world.event(EventType::LiveMigrateStart, "b", Some("c"));
    world.assert("b", &["c"], None);
}

#[test]
fn who_comes_up_before_the_end_is_told_is_there_at_once() {
    let mut world = World::new();
    world.start(Some("b"));
    let awoken = world.awake("b").unwrap();
    assert_eq!((awoken.vm, awoken.from), (VM, host("a")));
    world.assert("b", &["b"], Some("a"));
    // Until the end is told, managers tell of the old host, and start over again.
    assert_eq!(world.list("a", VmStatus::Running), 0);
    assert_eq!(
        world.event(EventType::VifAttach, "a", None),
        Outcome::Unchanged
    );
    assert_eq!(world.start(Some("b")), Outcome::Unchanged);
    assert_eq!(world.start(Some("c")), Outcome::Unchanged);
    world.event(EventType::LiveMigrateStart, "b", None);
    assert_eq!(world.list("a", VmStatus::Paused), 1);
    world.assert("b", &["b"], Some("a"));
    assert_eq!(world.awake("b"), None, "told again");
    assert_eq!(world.finish("b"), Outcome::Applied);
    world.assert("b", &[], Some("a"));
    assert_eq!(world.finish("b"), Outcome::Unchanged);
    assert_eq!(world.awake("b"), None, "late");
}

#[test]
fn the_end_may_be_told_first_by_an_event_or_an_inventory() {
    for by_event in [true, false] {
        let mut world = World::new();
        world.start(Some("b"));
        if by_event {
            world.finish("b");
        } else {
            assert_eq!(world.list("b", VmStatus::Running), 1);
        }
        world.assert("b", &[], Some("a"));
        assert_eq!(world.awake("b"), None);
        world.assert("b", &[], Some("a"));
    }
}

#[test]
fn an_aborted_migration_leaves_nothing_behind() {
    let mut world = World::new();
    world.start(None);
    world.finish("a");
    world.assert("a", &[], None);
    // One that was heard elsewhere has left there.
    world.start(None);
    world.awake("c").unwrap();
    world.finish("a");
    world.assert("a", &[], Some("c"));
}

#[test]
fn what_is_heard_where_nothing_leads_to_changes_nothing() {
    let mut world = World::new();
    assert_eq!(world.awake("b"), None, "no migration");
    world.start(Some("b"));
    assert_eq!(world.awake("c"), None, "another host");
    assert_eq!(world.awake("a"), None, "where it is");
    assert_eq!(world.awake_on("b", Vlan::new(102).unwrap()), None);
    world.assert("a", &["b"], None);
    world.start(None);
    world.awake("c").unwrap();
    assert_eq!(world.awake("b"), None, "it is elsewhere");
    world.assert("c", &["b", "c"], Some("a"));
}

#[test]
fn a_late_start_changes_nothing() {
    let mut world = World::new();
    world.start(Some("b"));
    world.finish("b");
    let late = event(EventType::LiveMigrateStart, &on("a", VmStatus::Running), 2);
    assert_eq!(world.tell(&late), Outcome::Late);
    world.assert("b", &[], Some("a"));
}

#[test]
fn a_vm_that_does_not_run_does_not_move() {
    for awake in [false, true] {
        let mut world = World::new();
        world.start(Some("b"));
        let stops_on = if awake {
            world.awake("b").unwrap();
            // Where it was its process ends.
            assert_eq!(
                world.event(EventType::VmPowerOff, "a", None),
                Outcome::Unchanged
            );
            assert_eq!(world.list("a", VmStatus::Stop), 1);
            world.assert("b", &["b"], Some("a"));
            "b"
        } else {
            "a"
        };
        world.event(EventType::VmPowerOff, stops_on, None);
        let placed = world.vm();
        assert_eq!((&placed.migration, &placed.departed), (&None, &None));
        assert_eq!(world.awake("b"), None);
        // It may be started elsewhere: nothing of it is left where it was.
        world.event(EventType::VmPowerOn, "b", None);
        world.assert("b", &[], None);
    }
    let mut world = World::new();
    world.start(Some("b"));
    let told = event(EventType::VmDeleted, &on("a", VmStatus::Running), 9);
    assert_eq!(
        tell_with_inventories(&mut world.state, &told),
        Outcome::Applied
    );
    assert_eq!(
        (world.vm().migration.as_ref(), world.vm().deleted),
        (None, true)
    );
    assert_eq!(world.awake("b"), None);
}

#[test]
fn nothing_is_left_on_a_host_that_is_lost() {
    let mut world = World::new();
    world.start(Some("b"));
    world.event(EventType::HaFinish, "c", None);
    world.assert("c", &[], None);
}

#[test]
fn nothing_is_left_on_a_host_without_an_nve() {
    let mut world = World::new();
    world.start(Some("d"));
    world.finish("d");
    world.assert("d", &[], Some("a"));
    world.event(EventType::LiveMigrateStart, "d", Some("b"));
    world.assert("d", &["b"], Some("a"));
    world.finish("b");
    world.assert("b", &[], None);
}

#[test]
fn a_host_is_forgotten_once_and_only_the_one_that_was_left_last() {
    let mut world = World::new();
    world.start(Some("b"));
    world.awake("b").unwrap();
    let left = world.vm().departed.clone().unwrap();
    let other = Departed {
        host: host("c"),
        ..left.clone()
    };
    assert!(!plan_settled(&world.state, VM, &other).result);
    let plan = plan_settled(&world.state, VM, &left);
    assert!(carry_out(&mut world.state, plan));
    world.assert("b", &["b"], None);
    assert!(!plan_settled(&world.state, VM, &left).result);
    // The end, which is told at last, does not bring it back.
    world.finish("b");
    world.assert("b", &[], None);
}

#[test]
fn a_migration_whose_end_was_lost_ends_after_a_day() {
    let mut world = World::new();
    world.start(Some("b"));
    assert_eq!(world.list("a", VmStatus::Running), 0);
    let day = time::Duration::DAY + time::Duration::SECOND;
    let migration = world.vm().migration.clone().unwrap();
    let aged = PlacedVm {
        migration: Some(Migration {
            since: migration.since - day,
            ..migration
        }),
        ..world.vm().clone()
    };
    world.state.apply(&Mutation::PutVm(aged));
    assert_eq!(world.list("a", VmStatus::Running), 1);
    world.assert("a", &[], None);
}

#[test]
fn a_vm_that_is_told_to_be_where_it_was_long_after_it_was_heard_elsewhere_is_there() {
    let mut world = World::new();
    world.start(Some("b"));
    world.awake("b").unwrap();
    assert_eq!(world.list("a", VmStatus::Running), 0);
    world.assert("b", &["b"], Some("a"));
    let migration = world.vm().migration.clone().unwrap();
    let heard = migration.awake_since.unwrap();
    let aged = PlacedVm {
        migration: Some(Migration {
            awake_since: Some(heard - time::Duration::minutes(11)),
            ..migration
        }),
        ..world.vm().clone()
    };
    world.state.apply(&Mutation::PutVm(aged));
    assert_eq!(world.list("a", VmStatus::Running), 1);
    world.assert("a", &[], Some("b"));
}

#[test]
fn a_migration_may_be_over_if_events_were_missed_unless_it_was_heard_where_it_went() {
    let running = VmStatus::Running;
    let mut world = World::new();
    world.start(Some("b"));
    assert_eq!(world.list_after("a", running, true), 1);
    world.assert("a", &[], None);
    world.start(Some("b"));
    world.awake("b").unwrap();
    assert_eq!(world.list_after("a", running, true), 0);
    world.assert("b", &["b"], Some("a"));

    // The last event that was taken is the last one that there is.
    let mut world = World::new();
    world.start(Some("b"));
    let inventory = Inventory {
        timestamp: at(world.second + 1),
        last_event_id: world.state.cursor("lab"),
        vms: vec![world.vm().vm.clone()],
        unread: vec![],
    };
    let (settings, now) = (&Settings::default(), at(NOW));
    let context = Context { settings, now };
    let plan = plan_inventory(&world.state, context, "lab", &inventory, true);
    assert_eq!((plan.result, plan.mutations), (0, vec![]));
}
