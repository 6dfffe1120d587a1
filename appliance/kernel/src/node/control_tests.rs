//! The node against a shim of a few lines, over TCP on both sides.

use std::time::Duration;

use nve_datapath::{Nanos, Side};
use nve_protocol::{Mac, PortId, Presence, Record, ToShim, Vap, Vlan, Vni};

use super::shim::Shim;
use super::tests::{Bench, NOW, OTHER_VTEP, PEER, SHIM_KEY};

const MILLI: u64 = 1_000_000;

/// Runs both for `millis`, a millisecond at a time.
fn run(bench: &mut Bench, shim: &mut Shim, millis: u64) {
    for _ in 0..millis {
        bench.now = Nanos(bench.now.0 + MILLI);
        NOW.set(bench.now);
        for frame in bench.run(Side::Uplink) {
            shim.wire.incoming.push_back(frame);
        }
        shim.poll(Duration::from_nanos(bench.now.0));
        let mut wire = bench.uplink.wire.borrow_mut();
        wire.incoming.extend(shim.wire.outgoing.drain(..));
    }
}

fn connected() -> (Bench, Shim) {
    let mut bench = Bench::new();
    let mut shim = Shim::new(SHIM_KEY, PEER, OTHER_VTEP);
    run(&mut bench, &mut shim, 1500);
    (bench, shim)
}

fn vaps(count: u16) -> Vec<Record> {
    let record = |number| {
        Record::Vap(Vap {
            vlan: Vlan::new(number).unwrap(),
            port: PortId([number as u8; 16]),
            vni: Vni::new(7).unwrap(),
            mac: Mac([2, 0, 0, 0, 9, number as u8]),
            port_security: false,
            presence: Presence::Active,
        })
    };
    (1..=count).map(record).collect()
}

#[test]
fn the_node_dials_its_shim_and_reports() {
    let (mut bench, mut shim) = connected();
    let Some(ToShim::Hello(hello)) = shim.heard.first() else {
        panic!("{:?}", shim.heard);
    };
    assert_eq!(hello.boot_us, 5);
    run(&mut bench, &mut shim, 1000);
    let stats = shim
        .stats()
        .expect("reports come at the interval that the shim asked for");
    assert!(stats.uptime_ms > 1000);
    assert_eq!((stats.heap_used, stats.heap_size), (1, 2));
    assert_eq!(stats.tables.vaps, 1);
}

#[test]
fn a_transaction_changes_what_is_forwarded() {
    let (mut bench, mut shim) = connected();
    shim.send_state(4, &vaps(8));
    run(&mut bench, &mut shim, 50);
    assert_eq!(shim.applied(), Some(4), "{:?}", shim.heard);
    assert_eq!(bench.node.tables().sizes().vaps, 8);
    assert!(
        bench.node.tables().vap(101).is_none(),
        "the old state is gone"
    );
}

#[test]
fn a_lost_shim_is_dialed_again_and_tables_stay() {
    let (mut bench, mut shim) = connected();
    let free = bench.pool.available();
    for round in 1..4 {
        shim.socket().abort();
        run(&mut bench, &mut shim, 3000);
        assert_eq!(shim.sessions(), 1 + round);
        assert_eq!(bench.node.tables().sizes().vaps, 1);
        assert_eq!(bench.pool.available(), free);
    }
}

#[test]
fn garbage_ends_the_connection_and_the_node_dials_again() {
    let (mut bench, mut shim) = connected();
    for garbage in [&[0, 48][..], &[0x5a; 48], &[0xff; 64]] {
        shim.socket().send_slice(garbage).unwrap();
        run(&mut bench, &mut shim, 3000);
    }
    assert_eq!(shim.sessions(), 3, "after the record, and after the length");
    assert_eq!(bench.node.tables().sizes().vaps, 1);
}

/// The first VAP on standby.
fn standby() -> Vec<Record> {
    let mut records = vaps(1);
    if let Record::Vap(vap) = &mut records[0] {
        vap.presence = Presence::Standby;
    }
    records
}

fn awake(shim: &Shim) -> Vec<u16> {
    let told = shim.heard.iter().filter_map(|message| match message {
        ToShim::Awake(place) => Some(place.vlan.get()),
        _ => None,
    });
    told.collect()
}

#[test]
fn the_shim_is_told_at_once_that_a_vm_has_come() {
    let (mut bench, mut shim) = connected();
    shim.send_state(4, &standby());
    run(&mut bench, &mut shim, 50);
    assert_eq!((shim.applied(), awake(&shim)), (Some(4), vec![]));
    let broadcast = Mac::BROADCAST.0;
    let sender = [2, 0, 0, 0, 9, 1];
    let frame = [
        &broadcast[..],
        &sender,
        &[0x81, 0, 0, 1, 0x80, 0x35],
        &[0; 46],
    ]
    .concat();
    bench.trunk.wire.borrow_mut().incoming.push_back(frame);
    run(&mut bench, &mut shim, 2);
    assert_eq!(awake(&shim), [1]);
    run(&mut bench, &mut shim, 1000);
    assert_eq!(awake(&shim), [1], "once");
    shim.socket().abort();
    run(&mut bench, &mut shim, 3000);
    assert_eq!(awake(&shim), [1, 1], "and on the next connection");
    shim.send_state(5, &vaps(1));
    run(&mut bench, &mut shim, 50);
    shim.socket().abort();
    run(&mut bench, &mut shim, 3000);
    assert_eq!(shim.sessions(), 3);
    assert_eq!(awake(&shim), [1, 1], "it is known by now");
}
