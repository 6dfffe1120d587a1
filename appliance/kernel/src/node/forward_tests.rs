//! Bursts whose frames do not all go the same way.

use core::net::Ipv4Addr;

use nve_datapath::{DropReason, Side};

use super::tests::{Bench, LOCAL, NVE, OTHER_VTEP, PEER, REMOTE, VM, VTEP, arp, checksum, tagged};

/// Where a frame of the trunk's burst goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Trunk,
    Uplink,
    Lost,
}

/// A frame that goes that way, with its number at the end.
fn frame(way: Way, number: u8) -> Vec<u8> {
    let mut frame = match way {
        Way::Trunk => tagged(LOCAL, VM, 101),
        Way::Uplink => tagged(REMOTE, VM, 101),
        Way::Lost => tagged(REMOTE, VM, 99),
    };
    frame.push(number);
    frame
}

/// The numbers of frames, in their order.
fn numbers(frames: &[Vec<u8>]) -> Vec<u8> {
    frames
        .iter()
        .filter_map(|frame| frame.last())
        .copied()
        .collect()
}

/// The frame in a tunnel from the other NVE.
fn tunnelled(inner: &[u8]) -> Vec<u8> {
    let length = |headers: usize| ((headers + inner.len()) as u16).to_be_bytes();
    let mut ip = [&[0x45, 0][..], &length(36), &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
    for address in [OTHER_VTEP, VTEP] {
        ip.extend(Ipv4Addr::octets(&address));
    }
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let udp = [&[0xc0, 0, 0x12, 0xb5][..], &length(16), &[0, 0]].concat();
    let vxlan = [8, 0, 0, 0, 0, 0x13, 0x88, 0];
    [&NVE.0[..], &PEER.0, &[8, 0], &ip, &udp, &vxlan, inner].concat()
}

#[test]
fn frames_of_one_burst_go_each_their_way_and_in_order() {
    let mut bench = Bench::new();
    bench.resolve();
    bench.add_local();
    let free = bench.pool.available();
    let mut lost = 0;
    for ways in [
        &[Way::Trunk, Way::Uplink][..],
        &[Way::Uplink, Way::Trunk, Way::Lost],
        &[Way::Lost, Way::Lost, Way::Uplink, Way::Uplink, Way::Trunk],
        &[Way::Uplink],
        &[Way::Trunk],
        &[Way::Lost],
    ] {
        for count in [1, 2, 31, 32, 33, 100] {
            let sent = || (0..count).zip(ways.iter().cycle().copied());
            for (number, way) in sent() {
                bench.receive(Side::Trunk, &frame(way, number));
            }
            let of = |wanted: Way| {
                let those = sent().filter(|(_, way)| *way == wanted);
                those.map(|(number, _)| number).collect::<Vec<u8>>()
            };
            let trunk = bench.run(Side::Trunk);
            let uplink = bench.uplink.take_sent();
            assert_eq!(numbers(&trunk), of(Way::Trunk), "{count} {ways:?}");
            assert_eq!(numbers(&uplink), of(Way::Uplink), "{count} {ways:?}");
            lost += of(Way::Lost).len() as u64;
            assert_eq!(bench.pool.available(), free);
        }
    }
    let counters = bench.node.forwarder.parts().1.counters();
    assert_eq!(counters.dropped(DropReason::UnknownVlan), lost);
}

#[test]
fn a_turn_in_which_all_is_dropped_by_the_nic_gives_it_buffers() {
    let mut bench = Bench::new();
    bench.run(Side::Trunk);
    for side in [Side::Trunk, Side::Uplink] {
        let nic = match side {
            Side::Trunk => bench.trunk.clone(),
            Side::Uplink => bench.uplink.clone(),
        };
        let forwarder = &mut bench.node.forwarder;
        let before = nic.wire.borrow().flushes;
        assert!(!forwarder.poll(bench.now), "nothing came in");
        assert_eq!(nic.wire.borrow().flushes, before);
        nic.wire.borrow_mut().runts = 3;
        assert!(forwarder.poll(bench.now));
        assert_eq!(nic.wire.borrow().flushes, before + 1);
    }
}

#[test]
fn a_full_queue_takes_only_its_own_frames_of_a_burst() {
    let mut bench = Bench::new();
    bench.resolve();
    bench.add_local();
    let free = bench.pool.available();
    bench.uplink.wire.borrow_mut().full = true;
    for number in 0..32 {
        let way = if number % 3 == 0 {
            Way::Trunk
        } else {
            Way::Uplink
        };
        bench.receive(Side::Trunk, &frame(way, number));
    }
    let trunk = bench.run(Side::Trunk);
    let expected: Vec<u8> = (0..32).step_by(3).collect();
    assert_eq!(numbers(&trunk), expected);
    let counters = bench.node.forwarder.parts().1.counters();
    assert_eq!(counters.dropped(DropReason::QueueFull), 21);
    assert_eq!(bench.pool.available(), free);
}

#[test]
fn frames_for_the_host_among_others_get_to_it() {
    let mut bench = Bench::new();
    bench.resolve();
    let free = bench.pool.available();
    for number in 0..32 {
        let mut inner = [VM.0, REMOTE.0].concat();
        inner.extend([0x88, 0xb5]);
        inner.extend([number; 60]);
        bench.receive(Side::Uplink, &tunnelled(&inner));
        if number % 5 == 0 {
            let question = arp(1, PEER, OTHER_VTEP, NVE, VTEP);
            bench.receive(Side::Uplink, &question);
        }
    }
    let answers = bench.run(Side::Uplink);
    assert_eq!(answers.len(), 7);
    let expected: Vec<u8> = (0..32).collect();
    assert_eq!(numbers(&bench.trunk.take_sent()), expected);
    assert_eq!(bench.pool.available(), free);
}
