//! Who is here, as records change and VMs are heard.

extern crate std;
use std::vec;
use std::vec::Vec;

use nve_protocol::{Key, PortId, Record, TableSizes};

use super::*;

const VLAN: Vlan = Vlan::new(101).unwrap();
const VNI: Vni = Vni::new(5001).unwrap();
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ALL: [Presence; 3] = [Presence::Active, Presence::Standby, Presence::Departed];

fn vap(port: u8, presence: Presence) -> Vap {
    Vap {
        vlan: VLAN,
        port: PortId([port; 16]),
        vni: VNI,
        mac: MAC,
        port_security: true,
        presence,
    }
}

fn place(port: u8) -> Place {
    Place {
        vlan: VLAN,
        port: PortId([port; 16]),
    }
}

fn put(tables: &mut Tables, vap: Vap) {
    tables.put(&Record::Vap(vap)).unwrap();
}

fn tables(vap: Vap) -> Tables {
    let mut tables = Tables::new(TableSizes::uniform(10));
    tables.tell_changes_apart();
    put(&mut tables, vap);
    tables.settle();
    tables
}

/// Whether the VM is found, and its VAP a member of its network.
fn is_here(tables: &Tables) -> bool {
    let found = tables.local(VNI, MAC).is_some();
    let network = tables.network(VNI);
    assert_eq!(
        found,
        network.is_some_and(|network| network.vaps() == [VLAN])
    );
    assert_eq!(found, tables.is_here(tables.vap(VLAN.get()).unwrap()));
    found
}

#[test]
fn a_vap_is_found_if_its_vm_is_there() {
    for presence in ALL {
        let mut tables = tables(vap(1, presence));
        assert_eq!(is_here(&tables), presence == Presence::Active);
        let departed = presence == Presence::Departed;
        assert_eq!(tables.is_departed(VNI, MAC), departed);
        let digest = tables.digest();
        tables.wake(&place(2)).unwrap();
        assert_eq!(
            is_here(&tables),
            presence == Presence::Active,
            "another port"
        );
        tables.wake(&place(1)).unwrap();
        assert_eq!(is_here(&tables), presence != Presence::Departed);
        let woken = presence == Presence::Standby;
        assert_eq!(tables.next_awake(0), woken.then_some((1, place(1))));
        assert_eq!(tables.digest(), digest, "the shim did not tell it");
        tables.delete(&Key::Vap { vlan: VLAN });
        assert_eq!(tables.next_awake(0), None);
        assert!(tables.network(VNI).is_none() && tables.local(VNI, MAC).is_none());
        assert!(!tables.is_departed(VNI, MAC));
    }
}

/// Puts `next` over a VAP on standby that is awake, one by one and as a full state.
fn after(next: Vap) -> [Tables; 2] {
    let awake = || {
        let mut tables = tables(vap(1, Presence::Standby));
        tables.wake(&place(1)).unwrap();
        tables
    };
    let (mut changed, mut replaced) = (awake(), awake());
    put(&mut changed, next);
    let mut other = Tables::new(replaced.capacity());
    put(&mut other, next);
    replaced.replace(other);
    [changed, replaced]
}

#[test]
fn who_is_awake_stays_so_on_standby_for_the_same_port() {
    let moved = Vap {
        vni: Vni::new(7).unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 9]),
        ..vap(1, Presence::Standby)
    };
    for next in [vap(1, Presence::Standby), moved] {
        for tables in after(next) {
            assert_eq!(tables.local(next.vni, next.mac), Some(VLAN));
            assert_eq!(tables.next_awake(0), Some((1, place(1))), "the same one");
            assert_eq!(tables.awakenings(), 1);
        }
    }
    for tables in after(moved) {
        assert!(tables.local(VNI, MAC).is_none() && tables.network(VNI).is_none());
    }
    for next in [
        vap(2, Presence::Standby),
        vap(1, Presence::Active),
        vap(1, Presence::Departed),
    ] {
        for mut tables in after(next) {
            assert_eq!(is_here(&tables), next.presence == Presence::Active);
            assert_eq!(tables.next_awake(0), None);
            put(&mut tables, vap(1, Presence::Standby));
            assert!(!is_here(&tables), "it is waited for anew");
            tables.wake(&place(1)).unwrap();
            assert_eq!(tables.next_awake(1), Some((2, place(1))));
        }
    }
}

#[test]
fn a_vap_that_is_gone_from_a_full_state_is_not_awake() {
    let mut tables = tables(vap(1, Presence::Standby));
    tables.wake(&place(1)).unwrap();
    tables.replace(Tables::new(tables.capacity()));
    assert!(tables.local(VNI, MAC).is_none());
    put(&mut tables, vap(1, Presence::Standby));
    assert!(!is_here(&tables));
}

#[test]
fn awakenings_are_numbered_in_their_order() {
    let mut tables = Tables::new(TableSizes::uniform(10));
    let places: Vec<Place> = [5, 3, 4]
        .map(|tag| {
            let vap = Vap {
                vlan: Vlan::new(tag).unwrap(),
                mac: Mac([2, 0, 0, 0, 0, tag as u8]),
                ..vap(1, Presence::Standby)
            };
            put(&mut tables, vap);
            Place {
                vlan: vap.vlan,
                ..place(1)
            }
        })
        .into();
    for place in &places {
        tables.wake(place).unwrap();
        tables.wake(place).unwrap();
    }
    let mut told = vec![];
    while let Some((number, place)) = tables.next_awake(told.len() as u64) {
        told.push(place);
        assert_eq!(number, told.len() as u64);
    }
    assert_eq!(told, places);
}

#[test]
fn presence_is_a_change_of_the_vap_and_of_its_station() {
    let scopes = [Scope::Vap(VLAN), Scope::Station(VNI, MAC)];
    let changed = |tables: &mut Tables, change: &dyn Fn(&mut Tables)| {
        let epoch = tables.changes().epoch();
        change(tables);
        tables.settle();
        let since = tables.changes().since(epoch).unwrap();
        scopes.map(|scope| !since.same(scope))
    };
    for (before, next) in ALL.iter().flat_map(|one| ALL.map(|other| (*one, other))) {
        let mut tables = tables(vap(1, before));
        let change = |tables: &mut Tables| put(tables, vap(1, next));
        assert_eq!(changed(&mut tables, &change), [before != next; 2]);
    }
    let mut tables = tables(vap(1, Presence::Standby));
    let wake = |tables: &mut Tables| tables.wake(&place(1)).unwrap();
    assert_eq!(changed(&mut tables, &wake), [true; 2]);
    assert_eq!(changed(&mut tables, &wake), [false; 2]);
}
