//! Buffers of ordinary frames.

use super::*;
use crate::virtio::fake::leak_memory;

fn pool(count: usize) -> &'static Pool {
    Pool::new(leak_memory(Pool::bytes(count, 128, 2000)), 128, 2000).unwrap()
}

#[test]
fn each_buffer_is_handed_out_once_and_comes_back() {
    let pool = pool(8);
    let mut packets: Vec<Packet> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(packets.len(), 8);
    for (i, packet) in packets.iter_mut().enumerate() {
        packet.space_mut().fill(i as u8);
        let (header, _) = packet.header_mut::<12>();
        header.fill(i as u8);
    }
    for (i, packet) in packets.iter_mut().enumerate() {
        assert!(packet.space_mut().iter().all(|byte| *byte == i as u8));
        assert_eq!(packet.header_mut::<12>().1 % ALIGN as u64, 0);
    }
    packets.truncate(3);
    assert_eq!(pool.available(), 5);
    drop(packets);
    assert_eq!(pool.available(), 8);
}

#[test]
fn a_fresh_packet_has_its_headroom_and_room() {
    let packet = pool(1).take().unwrap();
    assert_eq!((packet.start(), packet.len()), (128, 0));
    assert!(packet.capacity() >= 2000);
    assert_eq!(packet.partial(), None);
}

#[test]
fn a_range_outside_of_the_buffer_is_refused() {
    let mut packet = pool(1).take().unwrap();
    let space = packet.space_mut().len();
    assert_eq!(packet.set_range(0, space), Some(()));
    assert_eq!(packet.len(), space);
    for (start, length) in [(0, space + 1), (space, 1), (usize::MAX, 2), (2, usize::MAX)] {
        assert_eq!(packet.set_range(start, length), None);
    }
    assert_eq!(packet.len(), space);
}

#[test]
fn appending_keeps_order_and_stops_at_the_end() {
    let mut packet = pool(1).take().unwrap();
    packet.append(&[b"ab", b"", b"cde"]).unwrap();
    assert_eq!(packet.bytes(), b"abcde");
    let rest = packet.capacity() - 5;
    assert_eq!(packet.append(&[&vec![0; rest], b"x"]), None);
    assert_eq!(packet.bytes_mut(), b"abcde");
    packet.append(&[&vec![0; rest]]).unwrap();
    assert_eq!(packet.capacity(), packet.len());
}

#[test]
fn a_packet_moves_to_another_pool_of_the_same_memory() {
    let memory = || leak_memory(Pool::bytes(8, 128, 2000));
    let pools = Pool::several(memory(), 128, 2000, 3).unwrap();
    let pools: Vec<&Pool> = pools.into_iter().map(IdlePool::open).collect();
    let available = |pools: &[&Pool]| pools.iter().map(|it| it.available()).collect::<Vec<_>>();
    assert_eq!(available(&pools), [2, 2, 2]);
    let mut packets: Vec<Packet> = std::iter::from_fn(|| pools[0].take()).collect();
    packets[1].append(&[b"abc"]).unwrap();
    let moved: Vec<Packet> = packets
        .into_iter()
        .map(|packet| pools[2].adopt(packet.leave()).unwrap())
        .collect();
    assert_eq!(moved[1].bytes(), b"abc");
    assert_eq!(available(&pools), [0, 2, 2]);
    drop(moved);
    assert_eq!(available(&pools), [0, 2, 4]);
    let other = Pool::new(memory(), 128, 2000).unwrap();
    let packet = pools[1].take().unwrap();
    let refused = other.adopt(packet.leave()).unwrap_err();
    drop(pools[1].adopt(refused).unwrap());
    assert_eq!(available(&pools), [0, 2, 4]);
    assert!(Pool::several(memory(), 128, 2000, 9).is_none());
}

#[test]
fn the_header_of_a_frame_at_the_very_front_is_in_the_buffer() {
    let mut packet = pool(1).take().unwrap();
    packet.set_range(0, 60).unwrap();
    packet.bytes_mut().fill(7);
    let (header, _) = packet.header_mut::<12>();
    header.fill(9);
    assert_eq!(packet.bytes(), [7; 60]);
}

#[test]
fn a_large_frame_is_no_plain_one_even_without_a_checksum_to_be_completed() {
    let pool = pool(1);
    let mut packet = pool.take().unwrap();
    assert!(packet.is_plain());
    let partial = PartialChecksum {
        start: 34,
        offset: 16,
    };
    packet.set_partial(Some(partial));
    assert!(!packet.is_plain());
    packet.set_partial(None);
    assert!(packet.is_plain());
    let segmentation = large::Segmentation {
        size: 1448,
        is_ipv4: true,
    };
    let mut packet = large::Assembly::new(packet, segmentation).finish();
    packet.set_partial(None);
    assert!(!packet.is_plain());
}
