//! What hosts say, in the order in which it arrives, and what is told of it.

use nve_protocol::Mac;

use super::*;
use crate::events::types::Vnic;

const VM: Uuid = Uuid::from_u128(0x77);
const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);
const RUNNING: VmStatus = VmStatus::Running;
const STOP: VmStatus = VmStatus::Stop;

fn vnic(number: u8) -> Vnic {
    Vnic {
        vnic_name: format!("net{number}"),
        vnic_uuid: Uuid::from_u128(number.into()),
        pg_name: format!("pg{number}"),
        pg_uuid: Uuid::from_u128(number.into()),
        mac: Mac([2, 0, 0, 0, 0, number]),
        port_segmentation_id: 100 + u16::from(number),
        ip_list: vec![],
        ipv6_list: vec![],
    }
}

fn vm(host: Uuid, vm_status: VmStatus, vnics: &[u8]) -> VmState {
    VmState {
        vm_name: "vm".into(),
        vm_uuid: VM,
        vm_status,
        host_name: if host == A { "a" } else { "b" }.into(),
        host_uuid: host,
        vnic_list: vnics.iter().map(|number| vnic(*number)).collect(),
    }
}

fn of(seen: Seen) -> Listing {
    Listing {
        seen: vec![seen],
        unreadable: vec![],
    }
}

/// A story, what was told of it, and the time.
struct Teller {
    story: Story,
    told: Vms,
    now: Duration,
    /// Where the last migration leads to that has started.
    destination: Option<String>,
}

impl Teller {
    /// Two hosts, both up and empty, once nobody waits for any.
    fn of_two() -> Self {
        let mut teller = Teller {
            story: Story::new(&Vms::new(), 2),
            told: Vms::new(),
            now: START_GRACE,
            destination: None,
        };
        teller.story.listed(0, A, Listing::default(), teller.now);
        teller.story.listed(1, B, Listing::default(), teller.now);
        teller
    }

    /// The same with the VM running, or not, on A.
    fn with_vm(status: VmStatus) -> Self {
        let mut teller = Teller::of_two();
        teller.says(A, Cause::Other, Some(status));
        teller
    }

    /// The events of this moment, as `type host status`.
    fn tell(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for vm in self.story.due(self.now) {
            let steps = self.story.settle(vm, self.told.get(&vm), self.now);
            let kinds: Vec<EventType> = steps.events.iter().map(|(kind, _)| *kind).collect();
            if kinds.contains(&EventType::LiveMigrateStart) {
                self.destination = steps.destination;
            }
            for (kind, state) in steps.events {
                lines.push(format!(
                    "{kind} {} {:?} {}",
                    state.host_name,
                    state.vm_status,
                    state.vnic_list.len()
                ));
                match kind {
                    EventType::VmDeleted => self.told.remove(&vm),
                    _ => self.told.insert(vm, state),
                };
            }
            if let Some(state) = steps.silent {
                self.told.insert(vm, state);
            }
            self.story.told(vm, &kinds);
        }
        lines
    }

    fn says(&mut self, host: Uuid, cause: Cause, status: Option<VmStatus>) -> Vec<String> {
        let seen = status.map(|status| Seen {
            vm: vm(host, status, &[1]),
            migrating: false,
        });
        self.story.seen(host, VM, cause, seen, self.now);
        self.tell()
    }

    /// A host has it, paused for a migration.
    fn migrates(&mut self, host: Uuid, cause: Cause) -> Vec<String> {
        let seen = Seen {
            vm: vm(host, RUNNING, &[1]),
            migrating: true,
        };
        self.story.seen(host, VM, cause, Some(seen), self.now);
        self.tell()
    }

    fn has_vnics(&mut self, status: VmStatus, vnics: &[u8]) -> Vec<String> {
        let seen = Seen {
            vm: vm(A, status, vnics),
            migrating: false,
        };
        self.story.seen(A, VM, Cause::Other, Some(seen), self.now);
        self.tell()
    }

    fn later(&mut self, by: Duration) -> Vec<String> {
        self.now += by;
        self.tell()
    }
}

#[test]
fn a_vm_is_created_powered_and_deleted() {
    let mut teller = Teller::of_two();
    let other = Cause::Other;
    assert_eq!(teller.says(A, other, Some(STOP)), ["vmcreated a Stop 1"]);
    assert_eq!(
        teller.says(A, other, Some(RUNNING)),
        ["vmpoweron a Running 1"]
    );
    assert!(teller.says(A, other, Some(VmStatus::Paused)).is_empty());
    assert_eq!(teller.told[&VM].vm_status, VmStatus::Paused);
    assert_eq!(teller.says(A, other, Some(STOP)), ["vmpoweroff a Stop 1"]);
    assert!(teller.says(A, other, None).is_empty());
    assert_eq!(teller.later(GRACE), ["vmdeleted a Stop 1"]);
    assert_eq!(teller.story.next(), None);
}

#[test]
fn one_without_a_definition_is_gone_when_it_stops() {
    let mut teller = Teller::of_two();
    let came = teller.says(A, Cause::Other, Some(RUNNING));
    assert_eq!(came, ["vmcreated a Stop 1", "vmpoweron a Running 1"]);
    let stopped = teller.says(A, Cause::Other, None);
    assert_eq!(stopped, ["vmpoweroff a Stop 1"]);
    assert_eq!(teller.later(GRACE), ["vmdeleted a Stop 1"]);
}

#[test]
fn vnics_come_and_go_one_by_one() {
    let mut teller = Teller::with_vm(RUNNING);
    let came = teller.has_vnics(RUNNING, &[1, 2, 3]);
    assert_eq!(came, ["vifattach a Running 2", "vifattach a Running 3"]);
    assert_eq!(
        teller.has_vnics(RUNNING, &[2, 3]),
        ["vifdetach a Running 2"]
    );
    // Those that were never configured go with the power.
    let off = teller.has_vnics(STOP, &[2]);
    assert_eq!(off, ["vmpoweroff a Stop 2", "vifdetach a Stop 1"]);
    let on = teller.has_vnics(RUNNING, &[2, 4]);
    assert_eq!(on, ["vifattach a Stop 2", "vmpoweron a Running 2"]);
    // Another port group is another place.
    let seen = {
        let mut moved = vm(A, RUNNING, &[2, 4]);
        moved.vnic_list[0].port_segmentation_id = 7;
        moved
    };
    let migrating = false;
    let seen = Seen {
        vm: seen,
        migrating,
    };
    teller
        .story
        .seen(A, VM, Cause::Other, Some(seen), teller.now);
    assert_eq!(
        teller.tell(),
        ["vifdetach a Running 1", "vifattach a Running 2"]
    );
}

#[test]
fn a_live_migration_starts_and_finishes() {
    let mut teller = Teller::with_vm(RUNNING);
    let started = teller.migrates(B, Cause::Arriving);
    assert_eq!(started, ["livemigratetestart a Running 1"]);
    assert_eq!(teller.destination.as_deref(), Some("b"));
    assert!(teller.migrates(A, Cause::Other).is_empty());
    assert!(teller.migrates(B, Cause::Other).is_empty());
    let resumed = teller.says(B, Cause::Other, Some(RUNNING));
    assert_eq!(resumed, ["livemigratefinish b Running 1"]);
    // The source's last words, early and late ones.
    assert!(teller.migrates(A, Cause::Other).is_empty());
    assert!(teller.says(A, Cause::Left, Some(STOP)).is_empty());
    assert!(teller.says(A, Cause::Look, None).is_empty());
    assert!(teller.later(GRACE).is_empty());
    // And back.
    let back = teller.migrates(A, Cause::Arriving);
    assert_eq!(back, ["livemigratetestart b Running 1"]);
    assert_eq!(teller.destination.as_deref(), Some("a"));
    // The source's is heard first.
    let left = teller.says(B, Cause::Left, None);
    assert_eq!(left, ["livemigratefinish a Running 1"]);
    assert!(teller.says(A, Cause::Other, Some(RUNNING)).is_empty());
}

#[test]
fn one_that_arrives_is_not_there_though_its_host_does_not_say_why_it_is_paused() {
    for starting in [VmStatus::Paused, STOP] {
        let mut teller = Teller::with_vm(RUNNING);
        let started = teller.says(B, Cause::Arriving, Some(starting));
        assert_eq!(started, ["livemigratetestart a Running 1"]);
        let resumed = teller.says(B, Cause::Other, Some(RUNNING));
        assert_eq!(resumed, ["livemigratefinish b Running 1"]);
    }
    // One that is paused by its user stays so.
    let mut teller = Teller::with_vm(VmStatus::Paused);
    teller.migrates(B, Cause::Arriving);
    let arrived = teller.says(B, Cause::Other, Some(VmStatus::Paused));
    assert_eq!(arrived, ["livemigratefinish b Paused 1"]);
}

#[test]
fn one_that_is_made_ready_for_a_migration_is_where_it_was() {
    let mut teller = Teller::with_vm(RUNNING);
    assert!(teller.says(B, Cause::Look, Some(STOP)).is_empty());
    let started = teller.migrates(B, Cause::Arriving);
    assert_eq!(started, ["livemigratetestart a Running 1"]);
}

#[test]
fn a_source_that_is_heard_before_everything_else_is_waited_for() {
    let mut teller = Teller::with_vm(RUNNING);
    assert!(teller.says(A, Cause::Left, None).is_empty());
    let started = teller.migrates(B, Cause::Arriving);
    assert_eq!(started, ["livemigratetestart a Running 1"]);
    let resumed = teller.says(B, Cause::Other, Some(RUNNING));
    assert_eq!(resumed, ["livemigratefinish b Running 1"]);

    let mut teller = Teller::with_vm(RUNNING);
    assert!(teller.says(A, Cause::Left, Some(STOP)).is_empty());
    // It went to a host that is not ours.
    assert_eq!(teller.later(GRACE), ["vmpoweroff a Stop 1"]);
}

#[test]
fn an_aborted_migration_ends_where_it_began() {
    let mut teller = Teller::with_vm(RUNNING);
    let started = teller.migrates(B, Cause::Arriving);
    assert_eq!(started, ["livemigratetestart a Running 1"]);
    let failed = teller.says(B, Cause::Other, None);
    assert_eq!(failed, ["livemigratefinish a Running 1"]);
    // The destination is lost on the way.
    let started = teller.migrates(B, Cause::Arriving);
    assert_eq!(started, ["livemigratetestart a Running 1"]);
    teller.story.lost(1, teller.now);
    assert_eq!(teller.tell(), ["livemigratefinish a Running 1"]);
}

#[test]
fn a_destination_that_says_nothing_more_holds_nothing_up() {
    let started = ["livemigratetestart a Running 1"];
    let ends = ["livemigratefinish a Running 1", "vmpoweroff a Stop 1"];
    // Its home ends it.
    let mut teller = Teller::with_vm(RUNNING);
    assert_eq!(teller.migrates(B, Cause::Arriving), started);
    assert!(teller.says(A, Cause::Other, Some(STOP)).is_empty());
    assert_eq!(teller.later(GRACE), ends);
    // What the destination still says is not believed.
    assert!(teller.migrates(B, Cause::Look).is_empty());
    assert_eq!(
        teller.says(A, Cause::Other, Some(RUNNING)),
        ["vmpoweron a Running 1"]
    );

    // It takes for ever.
    let mut teller = Teller::with_vm(RUNNING);
    teller.migrates(B, Cause::Arriving);
    for _ in 0..59 {
        assert!(teller.migrates(B, Cause::Look).is_empty());
        assert!(teller.later(MIGRATION / 60).is_empty());
    }
    assert_eq!(teller.later(MIGRATION / 60), ends[..1]);
    let arrived = teller.says(B, Cause::Other, Some(RUNNING));
    let both = [started[0], "livemigratefinish b Running 1"];
    assert_eq!(arrived, both);

    // Its home let it go for that destination, and said so first.
    let mut teller = Teller::with_vm(RUNNING);
    assert!(teller.says(A, Cause::Left, None).is_empty());
    assert_eq!(teller.migrates(B, Cause::Arriving), started);
    assert_eq!(teller.later(GRACE), both[1..]);
}

#[test]
fn a_destination_that_is_lost_on_the_way_may_have_it_nevertheless() {
    let arrives = || {
        of(Seen {
            vm: vm(B, RUNNING, &[1]),
            migrating: false,
        })
    };
    let mut teller = Teller::with_vm(RUNNING);
    teller.migrates(B, Cause::Arriving);
    teller.story.lost(1, teller.now);
    assert_eq!(teller.tell(), ["livemigratefinish a Running 1"]);
    // It went on, and the source has it no more.
    assert!(teller.says(A, Cause::Left, None).is_empty());
    assert!(teller.later(GRACE * 10).is_empty());
    teller.story.listed(0, A, Listing::default(), teller.now);
    assert!(teller.tell().is_empty());
    teller.story.listed(1, B, arrives(), teller.now);
    let found = [
        "livemigratetestart a Running 1",
        "livemigratefinish b Running 1",
    ];
    assert_eq!(teller.tell(), found);
    assert!(teller.later(AWAY).is_empty());

    // Or it did not.
    let mut teller = Teller::with_vm(RUNNING);
    teller.story.lost(1, teller.now);
    assert!(teller.says(A, Cause::Left, None).is_empty());
    assert_eq!(teller.later(AWAY), ["vmpoweroff a Stop 1"]);
    assert!(teller.later(GRACE).is_empty());
    // Nobody is down who might have it.
    teller.story.listed(1, B, Listing::default(), teller.now);
    assert_eq!(teller.tell(), ["vmdeleted a Stop 1"]);
}

#[test]
fn while_a_host_is_down_a_vm_is_not_gone_so_soon() {
    let mut teller = Teller::with_vm(STOP);
    teller.story.lost(1, teller.now);
    assert!(teller.says(A, Cause::Other, None).is_empty());
    assert!(teller.later(GRACE * 10).is_empty());
    assert_eq!(teller.later(AWAY), ["vmdeleted a Stop 1"]);
}

#[test]
fn saved_here_and_restored_there_is_a_cold_migration() {
    let mut teller = Teller::with_vm(RUNNING);
    let saved = teller.says(A, Cause::Other, Some(STOP));
    assert_eq!(saved, ["vmpoweroff a Stop 1"]);
    let restored = teller.says(B, Cause::Other, Some(RUNNING));
    assert_eq!(
        restored,
        [
            "coldmigrateteststart a Stop 1",
            "coldmigratetestfinish b Stop 1",
            "vmpoweron b Running 1"
        ]
    );
    assert!(teller.says(A, Cause::Other, None).is_empty());
}

#[test]
fn moved_while_off_is_a_cold_migration_in_either_order() {
    let cold = [
        "coldmigrateteststart a Stop 1",
        "coldmigratetestfinish b Stop 1",
    ];
    let mut teller = Teller::with_vm(STOP);
    assert!(teller.says(B, Cause::Other, Some(STOP)).is_empty());
    // libvirt does not tell that the source forgets it.
    let asked = teller.story.looks(teller.now);
    assert_eq!(asked, [(A, VM)]);
    assert_eq!(teller.says(A, Cause::Look, None), cold);
    let mut asked = 0;
    for _ in 0..100 {
        asked += teller.story.looks(teller.now).len();
        teller.now += Duration::from_millis(100);
    }
    assert_eq!(asked, LOOKS.len() - 1);

    let mut teller = Teller::with_vm(STOP);
    assert!(teller.says(A, Cause::Other, None).is_empty());
    assert_eq!(teller.says(B, Cause::Other, Some(STOP)), cold);
    assert!(teller.later(GRACE).is_empty());
}

#[test]
fn started_elsewhere_after_its_host_was_lost_is_high_availability() {
    let mut teller = Teller::with_vm(RUNNING);
    teller.story.lost(0, teller.now);
    assert!(teller.tell().is_empty());
    assert!(teller.says(B, Cause::Other, Some(STOP)).is_empty());
    let started = teller.says(B, Cause::Other, Some(RUNNING));
    assert_eq!(started, ["hafinish b Running 1"]);
    // The lost one comes back, and may even have it running.
    for status in [RUNNING, STOP] {
        let seen = Seen {
            vm: vm(A, status, &[1]),
            migrating: false,
        };
        teller.story.listed(0, A, of(seen), teller.now);
        assert!(teller.tell().is_empty(), "{status:?}");
    }
    let off = teller.says(B, Cause::Other, Some(STOP));
    assert_eq!(off, ["vmpoweroff b Stop 1"]);
}

#[test]
fn a_listing_tells_what_was_missed() {
    let mut teller = Teller::with_vm(RUNNING);
    teller.story.lost(0, teller.now);
    let seen = |status, vnics: &[u8]| {
        of(Seen {
            vm: vm(A, status, vnics),
            migrating: false,
        })
    };
    teller
        .story
        .listed(0, A, seen(RUNNING, &[1, 2]), teller.now);
    assert_eq!(teller.tell(), ["vifattach a Running 2"]);
    teller.story.listed(0, A, seen(STOP, &[1, 2]), teller.now);
    assert_eq!(teller.tell(), ["vmpoweroff a Stop 2"]);
    teller.story.listed(0, A, Listing::default(), teller.now);
    assert!(teller.tell().is_empty());
    assert_eq!(teller.later(GRACE), ["vmdeleted a Stop 2"]);
}

#[test]
fn a_host_with_a_new_uuid_is_no_second_host() {
    const NEW: Uuid = Uuid::from_u128(0xaa);
    let told = Vms::from([(VM, vm(B, RUNNING, &[1]))]);
    let mut teller = Teller {
        story: Story::new(&told, 2),
        told,
        now: Duration::ZERO,
        destination: None,
    };
    // The one link says both; the host with the VM is not heard of yet.
    teller.story.listed(0, A, Listing::default(), teller.now);
    teller.story.listed(0, NEW, Listing::default(), teller.now);
    assert!(teller.later(START_GRACE).is_empty());

    // What it had as the old one is gone, unless it has it as the new one.
    let mut teller = Teller::with_vm(RUNNING);
    teller.story.lost(0, teller.now);
    teller.story.listed(0, NEW, Listing::default(), teller.now);
    assert_eq!(teller.tell(), ["vmpoweroff a Stop 1"]);
    assert_eq!(teller.later(GRACE), ["vmdeleted a Stop 1"]);
}

#[test]
fn one_that_cannot_be_read_in_a_listing_is_as_it_was() {
    let mut teller = Teller::with_vm(RUNNING);
    let listing = Listing {
        seen: vec![],
        unreadable: vec![VM, Uuid::from_u128(0x78)],
    };
    for _ in 0..3 {
        teller.story.listed(0, A, listing.clone(), teller.now);
        assert!(teller.later(GRACE).is_empty());
    }
    assert_eq!(teller.told[&VM].vm_status, RUNNING);
    let stopped = teller.says(A, Cause::Other, None);
    assert_eq!(stopped, ["vmpoweroff a Stop 1"]);
}

#[test]
fn after_a_restart_hosts_are_waited_for_before_anything_is_gone() {
    let told = Vms::from([(VM, vm(A, RUNNING, &[1]))]);
    let start = |told: &Vms| Teller {
        story: Story::new(told, 2),
        told: told.clone(),
        now: Duration::ZERO,
        destination: None,
    };
    let on_b = || Seen {
        vm: vm(B, RUNNING, &[1]),
        migrating: false,
    };
    let mut teller = start(&told);
    teller.story.listed(1, B, Listing::default(), teller.now);
    assert!(teller.tell().is_empty());
    // It went meanwhile.
    teller.story.listed(0, A, Listing::default(), teller.now);
    assert_eq!(teller.tell(), ["vmpoweroff a Stop 1"]);
    assert_eq!(teller.later(GRACE), ["vmdeleted a Stop 1"]);

    // It moved meanwhile, and the host that it left is heard first.
    let mut teller = start(&told);
    teller.story.listed(0, A, Listing::default(), teller.now);
    assert_eq!(teller.tell(), ["vmpoweroff a Stop 1"]);
    teller.later(GRACE);
    teller.story.listed(1, B, of(on_b()), teller.now);
    assert_eq!(
        teller.tell(),
        [
            "coldmigrateteststart a Stop 1",
            "coldmigratetestfinish b Stop 1",
            "vmpoweron b Running 1"
        ]
    );

    // The host that has it now is heard first.
    let mut teller = start(&told);
    teller.story.listed(1, B, of(on_b()), teller.now);
    assert_eq!(
        teller.tell(),
        [
            "livemigratetestart a Running 1",
            "livemigratefinish b Running 1"
        ]
    );

    // Its host is none of the configured ones any more.
    let mut teller = start(&told);
    teller.story.expected = 1;
    teller.story.listed(1, B, Listing::default(), teller.now);
    assert_eq!(teller.tell(), ["vmpoweroff a Stop 1", "vmdeleted a Stop 1"]);
}
