//! The driver against a device in memory.

mod bursts;
mod hostile;
mod large;

use virtio_drivers::transport::DeviceType;

use super::fake::{Handle, HostMemory, leak_memory};
use super::header::{self, HEADER};
use super::net::REFILL;
use super::{Error, Features, VirtioNet};
use crate::{Burst, Nic, PartialChecksum, Pool};

const PLAIN: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn pool(count: usize) -> &'static Pool {
    Pool::new(leak_memory(Pool::bytes(count, 128, 2000)), 128, 2000).unwrap()
}

fn start(device: &Handle, pool: &'static Pool) -> Result<VirtioNet<Handle>, Error> {
    let mut wiring = device.clone();
    VirtioNet::new(
        device.clone(),
        &mut wiring,
        &mut HostMemory,
        pool,
        Some(0),
        true,
    )
}

fn running(features: Features) -> (VirtioNet<Handle>, Handle, &'static Pool) {
    let device = Handle::new(features, 16);
    let pool = pool(64);
    (start(&device, pool).unwrap(), device, pool)
}

fn receive(nic: &mut impl Nic) -> Burst {
    let mut burst = Burst::new();
    nic.fetch(60);
    nic.receive(&mut burst);
    flush(nic);
    burst
}

fn flush(nic: &mut impl Nic) {
    nic.flush();
    nic.notify();
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + length) as u8).collect()
}

#[test]
fn a_device_is_started_with_what_it_announces() {
    let (mut nic, device, _) = running(Features::all());
    assert_eq!(nic.mac(), [0x52, 0x54, 0, 0, 1, 1]);
    assert_eq!(nic.mtu(), Some(1600));
    assert!(nic.link_up() && nic.completes_checksums() && !nic.is_broken());
    device.set(|device| {
        assert_eq!(device.vectors, [Some(0), None]);
        let several = Features::MQ.union(Features::CTRL_VQ);
        let expected = Features::all().difference(several);
        assert_eq!(device.driver_features, expected.bits());
        // The driver has told the device of its buffers.
        assert_eq!(device.doorbells[0], 0);
        device.config[6] = 0;
    });
    assert!(!nic.link_up());
}

#[test]
fn a_device_is_reminded_of_what_it_has_and_of_nothing_else() {
    let (mut nic, device, pool) = running(Features::all());
    let bells = || {
        let mut rung = [0; 2];
        device.set(|device| rung = std::mem::replace(&mut device.doorbells, [u16::MAX; 2]));
        rung
    };
    bells();
    nic.remind();
    assert_eq!(bells(), [0, u16::MAX], "there is nothing to be sent");
    let mut packet = pool.take().unwrap();
    packet.append(&[&frame(60)]).unwrap();
    nic.send(packet).unwrap();
    flush(&mut nic);
    bells();
    flush(&mut nic);
    assert_eq!(bells(), [u16::MAX; 2], "it was told already");
    nic.remind();
    assert_eq!(bells(), [0, 1]);
}

#[test]
fn a_device_that_does_not_fit_is_refused() {
    let with = |change: fn(&mut super::fake::Device)| {
        let device = Handle::new(Features::all(), 16);
        device.set(change);
        start(&device, pool(4)).err()
    };
    assert_eq!(with(|d| d.kind = DeviceType::Block), Some(Error::NotANic));
    assert_eq!(with(|d| d.features = 1 << 5), Some(Error::Features));
    assert_eq!(with(|d| d.accepts_features = false), Some(Error::Features));
    assert_eq!(with(|d| d.features &= !(1 << 5)), Some(Error::NoMac));
    assert_eq!(with(|d| d.config.truncate(8)), Some(Error::Config));
    assert_eq!(with(|d| d.config.clear()), Some(Error::Config));
    assert_eq!(with(|d| d.generation = None), Some(Error::Config));
    assert_eq!(with(|d| d.queue_size = 0), Some(Error::Queue));
    assert_eq!(with(|d| d.accepts_vectors = false), Some(Error::Vector));
    assert_eq!(with(|d| d.has_doorbells = false), Some(Error::Doorbell));
    assert_eq!(with(|d| d.queue_size = 100_000), None);
    assert_eq!(with(|d| d.queue_size = 100), None);
}

#[test]
fn an_mtu_that_no_ip_host_can_use_is_ignored() {
    let device = Handle::new(Features::all(), 16);
    device.set(|device| device.config[10..12].copy_from_slice(&[67, 0]));
    assert_eq!(start(&device, pool(4)).unwrap().mtu(), None);
}

/// Whether all buffers are back that were free, but for those that the device is to get
/// with some more.
fn are_back(pool: &Pool, free: usize) -> bool {
    (free..free + REFILL).contains(&pool.available())
}

#[test]
fn frames_come_in_behind_their_headroom_and_buffers_go_round() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    for round in 0..1000 {
        let sent = frame(60 + round);
        assert!(device.deliver(PLAIN, &[&sent]));
        let burst = receive(&mut nic);
        assert_eq!(burst.len(), 1);
        assert_eq!(burst[0].bytes(), sent);
        assert_eq!(burst[0].start(), 128);
        assert_eq!(burst[0].partial(), None);
        drop(burst);
        assert!(are_back(pool, free));
    }
    assert_eq!(nic.statistics().rx_packets, 1000);
    assert_eq!(nic.statistics().device_errors, 0);
}

#[test]
fn a_frame_over_several_buffers_becomes_one() {
    let (mut nic, device, _) = running(Features::all());
    let (a, b, c) = (frame(700), frame(5), frame(800));
    let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
    assert!(device.deliver(header, &[&a, &b, &c]));
    assert!(device.deliver(PLAIN, &[&frame(64)]));
    let burst = receive(&mut nic);
    assert_eq!(burst.len(), 2);
    assert_eq!(burst[0].bytes(), [a, b, c].concat());
    assert_eq!(burst[1].bytes(), frame(64));
}

#[test]
fn a_merged_frame_that_is_too_long_is_dropped_whole() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    assert!(device.deliver(header, &[&frame(1500), &frame(1500)]));
    assert!(device.deliver(PLAIN, &[&frame(64)]));
    let burst = receive(&mut nic);
    assert_eq!(burst.len(), 1);
    assert_eq!(burst[0].bytes(), frame(64));
    drop(burst);
    assert_eq!(nic.statistics().device_errors, 1);
    assert!(are_back(pool, free));
}

#[test]
fn the_count_of_buffers_is_ignored_unless_it_was_negotiated() {
    let (mut nic, device, _) = running(Features::all().difference(Features::MRG_RXBUF));
    assert!(device.deliver([0; HEADER], &[&frame(64)]));
    assert_eq!(receive(&mut nic).len(), 1);
}

#[test]
fn partial_checksums_come_in_with_the_frame() {
    let (mut nic, device, _) = running(Features::all());
    let partial = PartialChecksum {
        start: 34,
        offset: 16,
    };
    let mut header = header::emit(Some(partial));
    header[10] = 1;
    assert!(device.deliver(header, &[&frame(52)]));
    // One byte short, and one whose checksum the device has verified.
    assert!(device.deliver(header, &[&frame(51)]));
    assert!(device.deliver([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[&frame(60)]));
    let burst = receive(&mut nic);
    assert_eq!(burst.len(), 2);
    assert_eq!(burst[0].partial(), Some(partial));
    assert_eq!(burst[1].partial(), None);
    assert_eq!(nic.statistics().device_errors, 1);
}

#[test]
fn frames_that_the_device_describes_wrongly_are_counted() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    let none = [0; HEADER];
    let many = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0];
    let segmented = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    for header in [none, many, segmented] {
        assert!(device.deliver(header, &[&frame(60)]));
    }
    assert!(device.deliver(PLAIN, &[&frame(13)]));
    for length in [0, 11, 100_000, u32::MAX] {
        device.set(|device| {
            let slot = device.rings[0].take().unwrap();
            device.rings[0].give(u32::from(slot), length);
        });
    }
    assert_eq!(receive(&mut nic).len(), 0);
    assert_eq!(nic.statistics().device_errors, 8);
    assert_eq!(pool.available(), free);
    assert!(!nic.is_broken());
    assert!(device.deliver(PLAIN, &[&frame(60)]));
    assert_eq!(receive(&mut nic).len(), 1);
}

#[test]
fn a_slot_that_is_not_with_the_device_breaks_the_ring() {
    for id in [16, 0xffff, 0x1_0000, u32::MAX] {
        let (mut nic, device, _) = running(Features::all());
        device.set(|device| device.rings[0].give(id, 72));
        assert_eq!(receive(&mut nic).len(), 0);
        assert!(nic.is_broken());
        assert!(nic.statistics().device_errors > 0);
        assert!(device.deliver(PLAIN, &[&frame(60)]));
        assert_eq!(receive(&mut nic).len(), 0, "a broken ring stays unused");
        assert!(!nic.arm_interrupt());
    }
}

#[test]
fn a_slot_that_is_returned_twice_breaks_the_ring() {
    let device = Handle::new(Features::all(), 16);
    // Few buffers, so that a slot which was returned is not offered again.
    let pool = pool(2);
    let mut nic = start(&device, pool).unwrap();
    let mut slot = 0;
    device.set(|device| {
        slot = device.rings[0].take().unwrap();
        device.rings[0].give(u32::from(slot), 72);
        device.rings[0].give(u32::from(slot), 72);
    });
    assert!(receive(&mut nic).len() <= 1);
    assert!(nic.is_broken());
}

#[test]
fn an_index_from_nowhere_breaks_the_ring() {
    let (mut nic, device, _) = running(Features::all());
    device.set(|device| device.rings[0].set_index(17));
    assert_eq!(receive(&mut nic).len(), 0);
    assert!(nic.is_broken());
    let (mut nic, device, pool) = running(Features::all());
    device.set(|device| device.rings[1].set_index(1));
    nic.remind();
    assert!(nic.is_broken());
    assert!(nic.send(pool.take().unwrap()).is_err());
}

#[test]
fn frames_go_out_with_one_notification_and_buffers_come_back() {
    let (mut nic, device, pool) = running(Features::all());
    let free = pool.available();
    for _ in 0..1000 {
        device.set(|device| device.doorbells[1] = u16::MAX);
        for i in 0..3 {
            let mut packet = pool.take().unwrap();
            packet.append(&[&frame(60 + i)]).unwrap();
            nic.send(packet).unwrap();
        }
        assert_eq!(device.collect().len(), 0, "not before the flush");
        flush(&mut nic);
        let sent = device.collect();
        assert_eq!(sent.len(), 3);
        assert_eq!(sent[2], (header::emit(None), frame(62)));
        nic.remind();
        assert_eq!(pool.available(), free);
    }
    assert_eq!(nic.statistics().tx_packets, 3000);
    assert_eq!(nic.statistics().tx_bytes, 1000 * (60 + 61 + 62));
}

#[test]
fn sent_buffers_come_back_at_once_when_buffers_are_short() {
    let device = Handle::new(Features::all(), 16);
    let pool = pool(20);
    let mut nic = start(&device, pool).unwrap();
    for _ in 0..4 {
        nic.send(pool.take().unwrap()).unwrap();
    }
    flush(&mut nic);
    assert_eq!((device.collect().len(), pool.available()), (4, 0));
    flush(&mut nic);
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_full_queue_hands_the_frame_back() {
    let (mut nic, device, pool) = running(Features::all());
    for _ in 0..16 {
        nic.send(pool.take().unwrap()).unwrap();
    }
    flush(&mut nic);
    assert!(nic.send(pool.take().unwrap()).is_err());
    assert_eq!(device.collect().len(), 16);
    assert!(nic.send(pool.take().unwrap()).is_ok());
}

#[test]
fn a_received_buffer_is_sent_on_without_a_copy() {
    let (mut from, from_device, pool) = running(Features::all());
    let to_device = Handle::new(Features::all(), 16);
    let mut to = start(&to_device, pool).unwrap();
    assert!(from_device.deliver(PLAIN, &[&frame(100)]));
    let mut burst = receive(&mut from);
    let mut packet = burst.pop().unwrap();
    // All of the headroom is used for headers.
    packet.set_range(0, 128 + 100).unwrap();
    let address = packet.bytes().as_ptr();
    to.send(packet).unwrap();
    flush(&mut to);
    let mut seen = 0;
    to_device.set(|device| {
        seen = device.rings[1].descriptor(0).0;
    });
    let sent = to_device.collect();
    assert_eq!(sent[0].1[128..], frame(100));
    assert_eq!(seen, address as u64 - HEADER as u64);
}

#[test]
fn partial_checksums_go_to_the_device_or_are_completed() {
    let partial = PartialChecksum {
        start: 14,
        offset: 2,
    };
    for features in [Features::all(), Features::all().difference(Features::CSUM)] {
        let (mut nic, device, pool) = running(features);
        let mut packet = pool.take().unwrap();
        packet.append(&[&frame(60)]).unwrap();
        packet.set_partial(Some(partial));
        nic.send(packet).unwrap();
        flush(&mut nic);
        let sent = device.collect();
        let mut completed = frame(60);
        partial.complete(&mut completed).unwrap();
        if features.contains(Features::CSUM) {
            assert_eq!(sent, [(header::emit(Some(partial)), frame(60))]);
        } else {
            assert_eq!(sent, [(header::emit(None), completed)]);
        }
    }
}

#[test]
fn interrupts_are_armed_only_when_there_is_nothing() {
    let (mut nic, device, _) = running(Features::all());
    assert!(!nic.arm_interrupt());
    device.set(|device| assert!(device.rings[0].wants_interrupt_event(0, 1)));
    nic.disarm_interrupt();
    device.set(|device| assert!(!device.rings[0].wants_interrupt_event(0, 1)));
    assert!(device.deliver(PLAIN, &[&frame(60)]));
    assert!(nic.arm_interrupt());
}

#[test]
fn without_free_buffers_reception_goes_on_when_there_are_again() {
    let device = Handle::new(Features::all(), 16);
    let pool = pool(4);
    let mut nic = start(&device, pool).unwrap();
    for _ in 0..4 {
        assert!(device.deliver(PLAIN, &[&frame(60)]));
    }
    assert!(!device.deliver(PLAIN, &[&frame(60)]));
    let burst = receive(&mut nic);
    assert_eq!(burst.len(), 4);
    drop(burst);
    assert_eq!(receive(&mut nic).len(), 0);
    assert!(device.deliver(PLAIN, &[&frame(60)]));
    assert_eq!(receive(&mut nic).len(), 1);
}
