//! Several frames at once: order, and what goes wrong in the middle.

use super::super::header::{self, HEADER};
use super::{PLAIN, are_back, flush, frame, pool, receive, running, start};
use crate::virtio::Features;
use crate::virtio::fake::Handle;
use crate::{Burst, Drain, Nic, Packet, PartialChecksum, Pool};

/// A frame that differs from those with other numbers.
fn numbered(number: usize) -> Vec<u8> {
    frame(60 + number)
}

fn packet(pool: &'static Pool, number: usize) -> Packet {
    let mut packet = pool.take().unwrap();
    packet.append(&[&numbered(number)]).unwrap();
    packet
}

fn burst(pool: &'static Pool, numbers: std::ops::Range<usize>) -> Burst {
    numbers.map(|number| packet(pool, number)).collect()
}

/// The numbers of frames.
fn numbers<'f>(frames: impl IntoIterator<Item = &'f [u8]>) -> Vec<usize> {
    let number = |frame: &[u8]| {
        let number = frame.len() - 60;
        assert_eq!(frame, numbered(number));
        number
    };
    frames.into_iter().map(number).collect()
}

fn collected(device: &Handle) -> Vec<usize> {
    numbers(device.collect().iter().map(|(_, frame)| frame.as_slice()))
}

fn received(burst: &Burst) -> Vec<usize> {
    numbers(burst.iter().map(Packet::bytes))
}

#[test]
fn frames_keep_their_order_whatever_is_among_them() {
    for features in [Features::all(), Features::all().difference(Features::CSUM)] {
        let (mut nic, device, pool) = running(features);
        let partial = PartialChecksum {
            start: 14,
            offset: 2,
        };
        let mut burst = burst(pool, 0..10);
        for at in [0, 4, 5, 9] {
            burst[at].set_partial(Some(partial));
        }
        assert_eq!(nic.send_all(Drain::new(&mut burst)), 0);
        flush(&mut nic);
        let sent = device.collect();
        assert_eq!(sent.len(), 10);
        for (at, (header, sent)) in sent.iter().enumerate() {
            let (mut expected, mut open) = (numbered(at), None);
            if [0, 4, 5, 9].contains(&at) {
                match features.contains(Features::CSUM) {
                    true => open = Some(partial),
                    false => partial.complete(&mut expected).unwrap(),
                }
            }
            assert_eq!((header, sent), (&header::emit(open), &expected), "{at}");
        }
        assert_eq!(nic.statistics().tx_packets, 10);
        let bytes: usize = (60..70).sum();
        assert_eq!(nic.statistics().tx_bytes, bytes as u64);
    }
}

#[test]
fn what_a_queue_has_no_room_for_is_refused_and_freed() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    assert_eq!(nic.send_all(Drain::new(&mut burst(pool, 0..20))), 4);
    assert_eq!(pool.available(), free - 16);
    flush(&mut nic);
    assert_eq!(collected(&device), (0..16).collect::<Vec<usize>>());
    // The device has given all back, but a frame of another pool is still refused.
    let mut burst = burst(pool, 20..24);
    let other = super::pool(1);
    burst.insert(2, packet(other, 99)).unwrap();
    assert_eq!(nic.send_all(Drain::new(&mut burst)), 1);
    flush(&mut nic);
    assert_eq!(collected(&device), [20, 21, 22, 23]);
    assert_eq!(other.available(), 1);
    nic.remind();
    assert_eq!(pool.available(), free);
    assert_eq!(nic.statistics().tx_packets, 20);
}

#[test]
fn a_refused_frame_is_as_it_was() {
    let partial = PartialChecksum {
        start: 14,
        offset: 2,
    };
    for features in [Features::all(), Features::all().difference(Features::CSUM)] {
        let (mut nic, device, pool) = running(features);
        let open = |pool| {
            let mut packet = packet(pool, 7);
            packet.set_partial(Some(partial));
            packet
        };
        assert_eq!(nic.send_all(Drain::new(&mut burst(pool, 0..16))), 0);
        let other = super::pool(1);
        for pool in [pool, other] {
            let refused = nic.send(open(pool)).unwrap_err();
            assert_eq!(refused.bytes(), numbered(7));
            assert_eq!(refused.partial(), Some(partial));
            flush(&mut nic);
            device.collect();
        }
        nic.send(open(pool)).unwrap();
        flush(&mut nic);
        let mut expected = numbered(7);
        if !features.contains(Features::CSUM) {
            partial.complete(&mut expected).unwrap();
        }
        assert_eq!(device.collect()[0].1, expected);
    }
}

#[test]
fn a_device_that_takes_frames_meanwhile_makes_room_for_the_others() {
    let (mut nic, device, pool) = running(Features::all());
    for round in 0..100 {
        let mut burst = burst(pool, 0..9);
        assert_eq!(nic.send_all(Drain::new(&mut burst)), 0, "{round}");
        flush(&mut nic);
        assert_eq!(collected(&device), (0..9).collect::<Vec<usize>>());
    }
}

#[test]
fn a_broken_queue_refuses_all() {
    let (mut nic, device, pool) = running(Features::all());
    device.set(|device| device.rings[1].set_index(1));
    nic.remind();
    let free = pool.available();
    assert_eq!(nic.send_all(Drain::new(&mut burst(pool, 0..5))), 5);
    assert_eq!((pool.available(), nic.statistics().tx_packets), (free, 0));
}

#[test]
fn frames_in_front_of_a_wrong_slot_are_received_and_none_behind() {
    for id in [16, 255, 256, u32::MAX] {
        let (mut nic, device, pool) = running(Features::all());
        let free = pool.available();
        for number in 0..5 {
            if number == 3 {
                device.set(|device| device.rings[0].give(id, 72));
            }
            assert!(device.deliver(PLAIN, &[&numbered(number)]));
        }
        let burst = receive(&mut nic);
        assert_eq!(received(&burst), [0, 1, 2]);
        assert!(nic.is_broken());
        drop(burst);
        // The device keeps the others.
        assert_eq!(pool.available(), free + 3);
        assert_eq!(receive(&mut nic).len(), 0);
    }
}

#[test]
fn frames_in_front_of_a_slot_that_is_returned_twice_are_received_once() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    for number in 0..3 {
        assert!(device.deliver(PLAIN, &[&numbered(number)]));
    }
    device.set(|device| device.rings[0].give(1, 72));
    assert_eq!(received(&receive(&mut nic)), [0, 1, 2]);
    assert!(nic.is_broken());
    assert_eq!(pool.available(), free + 3);
}

#[test]
fn what_a_device_says_after_it_was_heard_changes_nothing() {
    let (mut nic, device, pool) = running(Features::all());
    for number in 0..3 {
        assert!(device.deliver(PLAIN, &[&numbered(number)]));
    }
    nic.fetch(60);
    // Other slots, one that is not with it, and more than a buffer holds.
    device.set(|device| {
        for (number, id) in [(0, 7), (1, 1), (2, u32::MAX)] {
            device.rings[0].tell(number, id, u32::MAX);
        }
    });
    let mut burst = Burst::new();
    nic.receive(&mut burst);
    assert_eq!(received(&burst), [0, 1, 2]);
    assert!(!nic.is_broken());
    assert_eq!(nic.statistics().device_errors, 0);
    drop(burst);
    flush(&mut nic);
    assert_eq!(pool.available(), 64 - 16 + 3);
}

#[test]
fn what_was_found_and_finds_no_room_is_next() {
    let (mut nic, device, pool) = running(Features::all());
    for number in 0..5 {
        assert!(device.deliver(PLAIN, &[&numbered(number)]));
    }
    let mut burst = burst(pool, 0..30);
    nic.fetch(60);
    nic.receive(&mut burst);
    assert_eq!(received(&burst)[30..], [0, 1]);
    assert!(nic.arm_interrupt(), "there are frames that nobody tells of");
    nic.disarm_interrupt();
    assert!(device.deliver(PLAIN, &[&numbered(5)]));
    drop(burst);
    // Those that are still there do not wait for others to be found.
    let mut burst = Burst::new();
    nic.receive(&mut burst);
    assert_eq!(received(&burst), [2, 3, 4]);
    assert_eq!(received(&receive(&mut nic)), [5]);
    assert!(!nic.arm_interrupt());
}

#[test]
fn what_was_found_is_kept_when_more_is_looked_for() {
    let (mut nic, device, pool) = running(Features::all());
    for number in 0..5 {
        assert!(device.deliver(PLAIN, &[&numbered(number)]));
    }
    let mut full = burst(pool, 0..30);
    nic.fetch(60);
    nic.receive(&mut full);
    assert_eq!(received(&full)[30..], [0, 1]);
    for number in 5..8 {
        assert!(device.deliver(PLAIN, &[&numbered(number)]));
    }
    let mut all = Vec::new();
    for _ in 0..2 {
        assert!(nic.fetch(60));
        let mut burst = Burst::new();
        nic.receive(&mut burst);
        all.extend(received(&burst));
    }
    assert_eq!(all, [2, 3, 4, 5, 6, 7]);
    assert!(!nic.fetch(60));
    drop(full);
    flush(&mut nic);
    assert_eq!(pool.available(), 64 - 16);
}

#[test]
fn a_frame_over_several_buffers_may_be_half_found() {
    let device = Handle::new(Features::all(), 64);
    let pool = pool(128);
    let mut nic = start(&device, pool).unwrap();
    for number in 0..31 {
        assert!(device.deliver(PLAIN, &[&numbered(number)]));
    }
    // Its first buffer is the last of those that are found at once.
    let header: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
    let whole = numbered(600);
    assert!(device.deliver(header, &[&whole[..200], &whole[200..400], &whole[400..]]));
    assert!(device.deliver(PLAIN, &[&numbered(32)]));
    let burst = receive(&mut nic);
    assert_eq!(burst.len(), 32);
    assert_eq!(burst[31].bytes(), whole);
    assert_eq!(received(&receive(&mut nic)), [32]);
    assert_eq!(nic.statistics().device_errors, 0);
}

#[test]
fn frames_behind_a_wrong_one_are_received() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    assert!(device.deliver(PLAIN, &[&numbered(0)]));
    assert!(device.deliver(PLAIN, &[&frame(13)]));
    assert!(device.deliver([0; HEADER], &[&frame(60)]));
    assert!(device.deliver(PLAIN, &[&numbered(1)]));
    let burst = receive(&mut nic);
    assert_eq!(received(&burst), [0, 1]);
    drop(burst);
    assert_eq!(nic.statistics().device_errors, 2);
    assert_eq!(nic.statistics().rx_packets, 2);
    assert_eq!(nic.statistics().rx_bytes, 60 + 61);
    assert!(are_back(pool, free));
}

#[test]
fn a_wrong_slot_among_sent_ones_breaks_the_queue_and_frees_those_in_front() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    assert_eq!(nic.send_all(Drain::new(&mut burst(pool, 0..6))), 0);
    flush(&mut nic);
    device.set(|device| {
        let ring = &mut device.rings[1];
        for id in [0, 1, 1, 2] {
            ring.take();
            ring.give(id, 0);
        }
    });
    nic.remind();
    assert!(nic.is_broken());
    assert_eq!(pool.available(), free - 4);
}

#[test]
fn what_the_device_was_not_shown_is_not_taken_back() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    nic.send(packet(pool, 0)).unwrap();
    flush(&mut nic);
    // Only queued, and yet the device returns it, in place of the other.
    nic.send(packet(pool, 1)).unwrap();
    device.set(|device| device.rings[1].give(1, 0));
    nic.remind();
    let mut shown = Vec::new();
    device.set(|device| shown.extend(std::iter::from_fn(|| device.rings[1].take())));
    assert_eq!(shown, [0, 1], "before its buffer is free");
    assert_eq!(pool.available(), free - 1);
}

#[test]
fn buffers_of_dropped_frames_are_given_to_the_device_again() {
    let (mut nic, device, _) = running(Features::all());
    let mut burst = Burst::new();
    assert!(!nic.fetch(60));
    for round in 0..10 {
        while device.deliver(PLAIN, &[&frame(13)]) {}
        // As a loop does it that does not flush when it is idle.
        while nic.fetch(60) {
            nic.receive(&mut burst);
            assert_eq!(burst.len(), 0);
            flush(&mut nic);
        }
        assert_eq!(nic.statistics().device_errors, 16 * (round + 1));
    }
    assert!(device.deliver(PLAIN, &[&numbered(0)]));
    assert_eq!(received(&receive(&mut nic)), [0]);
}

#[test]
fn the_largest_ring_goes_round_more_often_than_its_index() {
    const SIZE: usize = 256;

    let device = Handle::new(Features::all(), SIZE as u32);
    let pool = pool(3 * SIZE);
    let mut nic = start(&device, pool).unwrap();
    let free = pool.available();
    assert_eq!(free, 2 * SIZE);
    let (mut number, mut next) = (0, 0);
    for round in 0.. {
        // From one to as many as there are slots, which are all full then.
        let count = 1 + round * 37 % SIZE;
        for _ in 0..count {
            assert!(device.deliver(PLAIN, &[&numbered(number % 1000)]));
            number += 1;
        }
        while nic.fetch(60) {
            let mut burst = Burst::new();
            nic.receive(&mut burst);
            assert_eq!(nic.send_all(Drain::new(&mut burst)), 0);
            flush(&mut nic);
        }
        for sent in collected(&device) {
            assert_eq!(sent, next % 1000);
            next += 1;
        }
        assert_eq!(next, number);
        nic.remind();
        assert_eq!(pool.available(), free);
        if number > 70_000 {
            break;
        }
    }
    let statistics = nic.statistics();
    assert_eq!(statistics.rx_packets, number as u64);
    assert_eq!(statistics.tx_packets, number as u64);
    assert_eq!(statistics.device_errors, 0);
}
