//! VMs that move: what another NVE knew, and who woke.

use nve_protocol::handover::{Known, Level, TakeOver};
use nve_protocol::inspect::Place;
use nve_protocol::*;

use crate::support::*;

fn place(id: u16) -> Place {
    Place {
        vlan: Vlan::new(id).unwrap(),
        port: PortId([1; 16]),
    }
}

/// The VAPs that the shim heard of on this connection, in order.
fn awake(pair: &Pair) -> Vec<u16> {
    let told = pair.shim.heard.iter().filter_map(|message| match message {
        ToShim::Awake(place) => Some(place.vlan.get()),
        _ => None,
    });
    told.collect()
}

#[test]
fn the_shim_is_told_once_of_each_vap_that_woke() {
    let mut pair = Pair::established();
    assert_eq!(awake(&pair), []);
    pair.tables.awake.push(Some(place(5)));
    pair.run_ms(10);
    assert_eq!(awake(&pair), [5]);
    pair.tables.awake.extend([Some(place(3)), None]);
    pair.run_ms(10);
    pair.send(&[ToNve::Ping(1)]);
    pair.run_ms(10);
    assert_eq!(awake(&pair), [5, 3]);
    assert_eq!(pair.shim.heard.last(), Some(&ToShim::Pong(1)));
}

#[test]
fn it_is_told_again_on_each_connection_until_its_record_says_so() {
    let mut pair = Pair::new(1);
    pair.tables.awake = vec![Some(place(5)), Some(place(6))];
    pair.run_ms(10);
    assert_eq!(awake(&pair), [5, 6]);
    pair.tables.awake[0] = None;
    for _ in 0..2 {
        pair.cut();
        pair.run_ms(60_000);
        assert_eq!(awake(&pair), [6]);
    }
}

#[test]
fn any_number_of_them_is_told_however_little_fits() {
    let mut pair = Pair::established();
    pair.piece = 100;
    pair.tables.awake = (1..=4000).map(|id| Some(place(id))).collect();
    pair.send(&[ToNve::Ping(1)]);
    pair.run_ms(100);
    assert_eq!(awake(&pair), (1..=4000).collect::<Vec<_>>());
    assert!(pair.shim.heard.contains(&ToShim::Pong(1)));
    assert_eq!(pair.closes, []);
}

fn told(id: u16) -> TakeOver {
    TakeOver {
        place: place(id),
        known: Known::Level(Level {
            direction: Direction::Egress,
            bits: -5,
            packets: i64::MAX,
        }),
    }
}

#[test]
fn what_another_knew_is_taken_over_even_within_a_transaction() {
    let mut pair = Pair::established();
    let records = [record(1), record(2)];
    let mut messages = puts(1, true, &records, &Model::of(&records));
    for (at, id) in [(0, 1), (2, 2), (4, 3), (6, 4)] {
        messages.insert(at, ToNve::TakeOver(told(id)));
    }
    messages.push(ToNve::TakeOver(told(5)));
    let answer = pair.transact(&messages);
    assert!(matches!(answer, ToShim::Applied(_)), "{answer:?}");
    assert_eq!(pair.tables.taken_over, [1, 2, 3, 4, 5].map(told));
    let passed_on = pair.tables.told.iter().filter_map(|change| match change {
        nve_agent::Change::TakeOver(told) => Some(*told),
        _ => None,
    });
    let passed_on: Vec<TakeOver> = passed_on.collect();
    assert_eq!(passed_on, pair.tables.taken_over);
}

#[test]
fn nothing_is_taken_over_from_a_shim_that_did_not_welcome() {
    let mut pair = Pair::new(1);
    pair.shim.welcome = None;
    pair.run_ms(5);
    pair.send(&[ToNve::TakeOver(told(1))]);
    pair.run_ms(5);
    assert_eq!(pair.tables.taken_over, []);
    assert_eq!(pair.closes, [nve_agent::CloseReason::Unexpected]);
}

#[test]
fn a_replica_makes_steps_beside_transactions() {
    let mut tables = Model::new(usize::MAX);
    let mut replica = nve_agent::Replica::new();
    let now = nve_datapath::Nanos(1);
    for change in [
        nve_agent::Change::Wake(place(7)),
        nve_agent::Change::TakeOver(told(7)),
    ] {
        assert_eq!(replica.follow(&change, now, &mut tables), Ok(()));
    }
    assert_eq!(tables.awake, [Some(place(7))]);
    assert_eq!(tables.taken_over, [told(7)]);
}
