//! Large frames, in and out.

use proptest::prelude::*;

use super::super::fake::{Device, Handle};
use super::super::header::{self, HEADER};
use super::{PLAIN, flush, frame, pool, receive, start};
use crate::virtio::{Features, VirtioNet};
use crate::{Burst, Nic, Packet, PartialChecksum, Pool, Segmentation};

const SEGMENTATION: Segmentation = Segmentation {
    size: 1448,
    is_ipv4: true,
};

const PARTIAL: PartialChecksum = PartialChecksum {
    start: 38,
    offset: 16,
};

/// What `GUEST` and `HOST` need beside them.
const BASIS: [Features; 4] = [
    Features::CSUM,
    Features::GUEST_CSUM,
    Features::MRG_RXBUF,
    Features::INDIRECT_DESC,
];

/// With room for large frames.
fn running(features: Features, buffers: usize) -> (VirtioNet<Handle>, Handle, &'static Pool) {
    let device = Handle::new(features, 128);
    let pool = pool(buffers);
    (start(&device, pool).unwrap(), device, pool)
}

/// The header of a large frame in `buffers`.
fn large_header(buffers: u16) -> [u8; HEADER] {
    let mut header = header::emit_large(PARTIAL, 70, SEGMENTATION);
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}

/// A frame of `length` bytes whose TCP header has 32.
fn large_frame(length: usize) -> Vec<u8> {
    let mut bytes = frame(length);
    bytes[38 + 12] = 0x80;
    bytes
}

fn deliver(device: &Handle, header: [u8; HEADER], frame: &[u8]) -> bool {
    let parts: Vec<&[u8]> = frame.chunks(1600).collect();
    device.deliver(header, &parts)
}

fn all_bytes(packet: &mut Packet) -> Vec<u8> {
    let large = packet.large().unwrap();
    let head = large.space[large.start..large.start + large.length].to_vec();
    [&head, large.rest.concat().as_slice()].concat()
}

fn receive_large(nic: &mut impl Nic) -> Packet {
    let mut burst = receive(nic);
    assert_eq!(burst.len(), 1);
    burst.pop().unwrap()
}

#[test]
fn a_large_frame_goes_in_and_out_as_it_is() {
    let (mut nic, device, pool) = running(Features::all(), 400);
    let free = pool.available();
    for length in [65_553, 1_448 + 70, 20_000, 1601] {
        let sent = large_frame(length);
        let buffers = length.div_ceil(1600);
        assert!(deliver(&device, large_header(buffers as u16), &sent));
        let mut packet = receive_large(&mut nic);
        assert!(packet.is_large());
        assert_eq!(packet.partial(), Some(PARTIAL));
        assert_eq!(packet.segmentation(), Some(SEGMENTATION));
        assert_eq!(all_bytes(&mut packet), sent);
        nic.send(packet).unwrap();
        flush(&mut nic);
        let header = header::emit_large(PARTIAL, 70, SEGMENTATION);
        assert_eq!(device.collect(), [(header, sent)]);
        nic.remind();
        assert_eq!(pool.available(), free);
    }
    let statistics = nic.statistics();
    assert_eq!((statistics.rx_large, statistics.tx_large), (4, 4));
    assert_eq!((statistics.rx_packets, statistics.tx_packets), (4, 4));
    let bytes = 65_553 + 1_448 + 70 + 20_000 + 1601;
    assert_eq!((statistics.rx_bytes, statistics.tx_bytes), (bytes, bytes));
    assert_eq!(statistics.device_errors, 0);
}

#[test]
fn a_large_frame_comes_by_itself_and_in_order() {
    let (mut nic, device, _) = running(Features::all(), 400);
    let large = large_frame(5000);
    assert!(device.deliver(PLAIN, &[&frame(60)]));
    assert!(device.deliver(PLAIN, &[&frame(61)]));
    assert!(deliver(&device, large_header(4), &large));
    assert!(deliver(&device, large_header(4), &large));
    assert!(device.deliver(PLAIN, &[&frame(62)]));
    let lengths = |burst: &Burst| -> Vec<usize> {
        let length = |packet: &Packet| packet.len() + packet.large_len();
        burst.iter().map(length).collect()
    };
    assert_eq!(lengths(&receive(&mut nic)), [60, 61]);
    assert!(nic.arm_interrupt(), "there is one more");
    assert_eq!(lengths(&receive(&mut nic)), [5000]);
    assert_eq!(lengths(&receive(&mut nic)), [5000]);
    assert_eq!(lengths(&receive(&mut nic)), [62]);
    assert_eq!(nic.statistics().rx_packets, 5);
    assert!(!nic.arm_interrupt());
}

#[test]
fn large_frames_are_asked_for_if_they_can_be_both_received_and_sent() {
    let features = |offered: Features| {
        let (nic, ..) = running(offered, 300);
        nic.features()
    };
    let v4 = Features::GUEST_TSO4 | Features::HOST_TSO4;
    let v6 = Features::GUEST_TSO6 | Features::HOST_TSO6;
    let all = Features::all() - Features::MQ - Features::CTRL_VQ;
    assert_eq!(features(Features::all()), all);
    for (one, other) in [(v4, v6), (v6, v4)] {
        for bit in one.iter() {
            assert_eq!(features(all - bit), all - one);
        }
        let neither = all - one - other - Features::INDIRECT_DESC;
        assert_eq!(features(all - one - other), neither);
    }
    for bit in BASIS {
        let neither = all - v4 - v6 - Features::INDIRECT_DESC - bit;
        assert_eq!(features(all - bit), neither, "{bit:?}");
    }
    let device = Handle::new(all, 128);
    let mut wiring = device.clone();
    let mut memory = super::HostMemory;
    let nic = VirtioNet::new(device, &mut wiring, &mut memory, pool(4), None, false);
    let neither = all - v4 - v6 - Features::INDIRECT_DESC;
    assert_eq!(nic.unwrap().features(), neither);
}

#[test]
fn a_large_frame_that_was_not_asked_for_is_an_error() {
    for missing in [Features::GUEST_TSO4, Features::HOST_TSO4, BASIS[0]] {
        let (mut nic, device, pool) = running(Features::all() - missing, 400);
        let free = pool.available();
        assert!(deliver(&device, large_header(2), &large_frame(2000)));
        assert!(device.deliver(PLAIN, &[&frame(60)]));
        assert_eq!(receive(&mut nic).len(), 1);
        assert_eq!(nic.statistics().device_errors, 1);
        nic.remind();
        assert_eq!(pool.available(), free);
    }
}

#[test]
fn a_large_frame_that_the_device_describes_wrongly_is_dropped_whole() {
    let changes: [fn(&mut [u8; HEADER]); 8] = [
        // No checksum, or not TCP's, or not in the first buffer.
        |header| header[0] = 0,
        |header| header[8] = 6,
        |header| header[6..8].copy_from_slice(&1581u16.to_le_bytes()),
        |header| header[6] = 13,
        // UDP, congestion marks, no size.
        |header| header[1] = 3,
        |header| header[1] = 0x81,
        |header| header[4..6].fill(0),
        |header| header[1] = 5,
    ];
    for change in changes {
        let (mut nic, device, pool) = running(Features::all(), 400);
        let free = pool.available();
        let mut header = large_header(3);
        change(&mut header);
        assert!(deliver(&device, header, &large_frame(4000)));
        assert!(device.deliver(PLAIN, &[&frame(60)]));
        let burst = receive(&mut nic);
        assert_eq!((burst.len(), burst[0].len()), (1, 60));
        drop(burst);
        assert_eq!(nic.statistics().device_errors, 1);
        nic.remind();
        assert_eq!(pool.available(), free);
    }
}

#[test]
fn a_broken_chain_of_buffers_is_dropped_whole() {
    for length in [0, 2000 + 64 + 12 + 1, u32::MAX] {
        let (mut nic, device, pool) = running(Features::all(), 400);
        let free = pool.available();
        // The second buffer is returned with a length of the device's own.
        let first = [&large_header(3)[..], &large_frame(1600)].concat();
        device.set(|device| give_chain(device, &first, [first.len() as u32, length, 60]));
        assert!(device.deliver(PLAIN, &[&frame(60)]));
        let burst = receive(&mut nic);
        assert_eq!((burst.len(), burst[0].len()), (1, 60));
        drop(burst);
        assert_eq!(nic.statistics().device_errors, 1);
        nic.remind();
        assert_eq!(pool.available(), free);
    }
}

/// Returns the next buffers with these lengths, `first` in the first of them.
fn give_chain(device: &mut Device, first: &[u8], lengths: [u32; 3]) {
    for (number, length) in lengths.into_iter().enumerate() {
        let slot = device.rings[0].take().unwrap();
        if number == 0 {
            let (address, ..) = device.rings[0].descriptor(slot);
            // SAFETY: the driver offered this memory, which is long enough.
            unsafe { (address as *mut u8).copy_from_nonoverlapping(first.as_ptr(), first.len()) };
        }
        device.rings[0].give(u32::from(slot), length);
    }
}

#[test]
fn more_buffers_than_a_large_frame_can_have_are_dropped_whole() {
    let (mut nic, device, pool) = running(Features::all(), 400);
    let free = pool.available();
    let parts = vec![large_frame(100); 65];
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    assert!(device.deliver(large_header(65), &parts));
    assert_eq!(receive(&mut nic).len(), 0);
    assert_eq!(nic.statistics().device_errors, 1);
    flush(&mut nic);
    assert_eq!(pool.available(), free);
}

#[test]
fn large_frames_with_a_slow_device_leave_buffers_for_others() {
    let (mut nic, device, pool) = running(Features::all(), 400);
    let free = pool.available();
    let frame = large_frame(40 * 1600);
    let (mut sent, mut refused) = (0, 0);
    for _ in 0..10 {
        assert!(deliver(&device, large_header(40), &frame));
        let packet = receive_large(&mut nic);
        match nic.send(packet) {
            Ok(()) => sent += 1,
            Err(_) => refused += 1,
        }
        flush(&mut nic);
    }
    // Of 400 buffers a quarter, 41 each.
    assert_eq!((sent, refused), (2, 8));
    assert_eq!(pool.available(), free - 82);
    // As soon as the device has sent them, others are sent.
    assert_eq!(device.collect().len(), 2);
    assert!(deliver(&device, large_header(40), &frame));
    let packet = receive_large(&mut nic);
    nic.send(packet).unwrap();
    flush(&mut nic);
    assert_eq!(device.collect().len(), 1);
    nic.remind();
    assert_eq!(pool.available(), free);
}

#[test]
fn a_wrong_slot_breaks_the_queue_while_a_large_frame_is_out() {
    // Slots 0 and 2 have ordinary frames, slot 1 has a large one in 3 buffers and a table.
    for (ids, freed) in [
        (&[128][..], 0),
        (&[u32::MAX], 0),
        (&[3], 0),
        (&[0, 0], 1),
        (&[1, 1], 4),
        (&[1, 0, 1], 5),
        (&[0, 3, 1], 1),
        (&[0, 1, 129], 5),
    ] {
        let (mut nic, device, pool) = running(Features::all(), 400);
        let free = pool.available();
        nic.send(pool.take().unwrap()).unwrap();
        assert!(deliver(&device, large_header(3), &large_frame(4000)));
        let packet = receive_large(&mut nic);
        nic.send(packet).unwrap();
        nic.send(pool.take().unwrap()).unwrap();
        flush(&mut nic);
        nic.remind();
        assert_eq!(pool.available(), free - 6);
        device.set(|device| ids.iter().for_each(|id| device.rings[1].give(*id, 0)));
        nic.remind();
        assert!(nic.is_broken(), "{ids:?}");
        assert_eq!(pool.available(), free - 6 + freed, "{ids:?}");
        // Nothing comes of it later, and each of the freed buffers is there once.
        device.set(|device| device.rings[1].give(2, 0));
        nic.remind();
        let packets: Vec<Packet> = std::iter::from_fn(|| pool.take()).collect();
        let mut spaces: Vec<_> = packets.iter().flat_map(Packet::spaces).collect();
        spaces.extend(nic.with_device());
        spaces.sort();
        spaces.dedup();
        assert_eq!((packets.len(), spaces.len()), (free - 6 + freed, 400));
    }
}

#[test]
fn a_queue_that_is_full_or_too_short_hands_a_large_frame_back() {
    let device = Handle::new(Features::all(), 16);
    let pool = pool(200);
    let mut nic = start(&device, pool).unwrap();
    let assemble = |buffers: usize| {
        let mut head = pool.take().unwrap();
        head.append(&[&large_frame(100)]).unwrap();
        head.set_partial(Some(PARTIAL));
        let mut assembly = crate::pool::large::Assembly::new(head, SEGMENTATION);
        for _ in 1..buffers {
            let mut more = pool.take().unwrap();
            more.append(&[&[7; 100]]).unwrap();
            assembly.add(more).unwrap();
        }
        assembly.finish()
    };
    let free = pool.available();
    assert!(nic.send(assemble(17)).is_err(), "longer than the queue");
    assert_eq!(pool.available(), free);
    nic.send(assemble(16)).unwrap();
    for _ in 1..16 {
        nic.send(pool.take().unwrap()).unwrap();
    }
    assert!(nic.send(assemble(2)).is_err());
    flush(&mut nic);
    assert_eq!(device.collect().len(), 16);
    nic.send(assemble(2)).unwrap();
    flush(&mut nic);
    assert_eq!(device.collect().len(), 1);
    nic.remind();
    assert_eq!(pool.available(), free);
}

#[test]
fn waiting_ends_when_the_device_is_done_and_when_it_is_not() {
    let (mut nic, device, pool) = running(Features::all(), 400);
    let free = pool.available();
    for _ in 0..100 {
        nic.send(pool.take().unwrap()).unwrap();
    }
    nic.wait();
    assert_eq!(pool.available(), free - 100);
    assert_eq!(device.collect().len(), 100, "it was shown them");
    nic.wait();
    assert_eq!(pool.available(), free);
}

proptest! {
    #[test]
    fn no_device_makes_large_frames_leak(
        headers in proptest::collection::vec((any::<[u8; HEADER]>(), 1u16..6, 40usize..1600), 1..20),
        plausible: bool,
    ) {
        let (mut nic, device, pool) = running(Features::all(), 300);
        let free = pool.available();
        for (mut header, buffers, length) in headers {
            if plausible {
                header = large_header(header[0].into());
            }
            let part = large_frame(length.max(60));
            let parts = vec![part.as_slice(); buffers.into()];
            if !device.deliver(header, &parts) {
                break;
            }
            let mut burst = receive(&mut nic);
            for packet in &mut burst {
                prop_assert!(packet.large_len() <= 64 * 2200);
                packet.cut_large(length * 2);
            }
            for packet in burst {
                let _ = nic.send(packet);
            }
            flush(&mut nic);
            device.collect();
        }
        while !receive(&mut nic).is_empty() {}
        nic.remind();
        prop_assert_eq!(pool.available(), free);
    }
}
