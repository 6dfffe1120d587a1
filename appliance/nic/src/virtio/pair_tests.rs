//! Starting a device with several pairs of queues, against a device in memory.

use virtio_drivers::transport::DeviceStatus;
use virtio_drivers::transport::pci::PciTransport;

use super::fake::{Handle, HostMemory, leak_memory};
use super::header::HEADER;
use super::net::FEATURES;
use super::{Error, Features, Pair, Started, VirtioNet, start};
use crate::{Burst, Nic, Pool};

const PLAIN: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// What the device does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// It answers.
    Says(u8),
    /// It gives the command back without an answer.
    Nothing,
    /// It keeps the command.
    Silence,
}

const OK: Reply = Reply::Says(0);
const ERROR: Reply = Reply::Says(1);

const SEVERAL: Features = Features::MQ.union(Features::CTRL_VQ);

fn pool() -> &'static Pool {
    Pool::new(leak_memory(Pool::bytes(64, 128, 2000)), 128, 2000).unwrap()
}

/// A device that says it has `pairs` pairs.
fn device(pairs: u16) -> Handle {
    let device = Handle::new(Features::all(), 16);
    device.set(|device| device.config[8..10].copy_from_slice(&pairs.to_le_bytes()));
    device
}

/// Starts a device with `wanted` pairs; it replies `reply` to each command. Returns the
/// commands as well.
fn start_with(
    device: &Handle,
    wanted: u16,
    reply: Reply,
) -> (Result<Started<Handle>, Error>, Vec<[u8; 4]>) {
    let vectors: Vec<Option<u16>> = (0..wanted).map(Some).collect();
    let (mut commands, mut looks) = (Vec::new(), 0);
    let mut wait = || {
        commands.extend(match reply {
            Reply::Says(answer) => device.answer(Some(answer)),
            Reply::Nothing => device.answer(None),
            Reply::Silence => None,
        });
        looks += 1;
        looks < 10
    };
    let started = start(
        device.clone(),
        &mut device.clone(),
        &mut HostMemory,
        &vectors,
        false,
        &mut wait,
    );
    (started, commands)
}

fn receive(nic: &mut impl Nic) -> Burst {
    let mut burst = Burst::new();
    nic.fetch(60);
    nic.receive(&mut burst);
    burst
}

#[test]
fn several_pairs_are_set_up_and_the_device_is_told() {
    let device = device(8);
    let (started, commands) = start_with(&device, 2, OK);
    let started = started.unwrap();
    assert_eq!((started.pairs.len(), started.alone), (2, None));
    // Class MQ, command VQ_PAIRS_SET, two pairs.
    assert_eq!(commands, [[4, 0, 2, 0]]);
    device.set(|device| {
        assert_eq!(device.vectors, [Some(0), None, Some(1), None, None]);
        let wanted = FEATURES.union(Features::MQ).union(Features::CTRL_VQ);
        assert_eq!(device.driver_features, wanted.bits());
        assert_eq!(device.rings.len(), 4);
        // Behind the pairs that there are, in use or not.
        assert_eq!(device.control_doorbell, 16);
        assert!(device.status.contains(DeviceStatus::DRIVER_OK));
    });
}

#[test]
fn frames_of_a_pair_are_its_users() {
    let device = device(2);
    let (started, _) = start_with(&device, 2, OK);
    let pools = [pool(), pool()];
    let mut pairs = started.unwrap().pairs.into_iter().zip(pools);
    let [mut first, mut second] =
        [(); 2].map(|()| pairs.next().map(|(pair, pool)| pair.attach(pool)).unwrap());
    assert_eq!(first.mac(), second.mac());
    device.with_pair(1, |device| assert!(device.deliver(PLAIN, &[&[7; 60]])));
    assert_eq!(receive(&mut first).len(), 0);
    assert_eq!(receive(&mut second)[0].bytes(), [7; 60]);
    assert_eq!(first.statistics().rx_packets, 0);
    assert_eq!(second.statistics().rx_packets, 1);

    let mut packet = pools[1].take().unwrap();
    packet.append(&[&[8; 60]]).unwrap();
    // Each has a pool of its own.
    let packet = first.send(packet).unwrap_err();
    second.send(packet).unwrap();
    second.flush();
    second.notify();
    assert_eq!(device.collect().len(), 0);
    device.with_pair(1, |device| assert_eq!(device.collect()[0].1, [8; 60]));
    device.set(|device| assert_eq!(device.more_doorbells[..2], [2, 3]));
}

#[test]
fn the_first_pair_sees_the_link_for_all() {
    let device = device(2);
    let pairs = start_with(&device, 2, OK).0.unwrap().pairs;
    let mut nics: Vec<VirtioNet<Handle>> =
        pairs.into_iter().map(|pair| pair.attach(pool())).collect();
    assert!(nics.iter_mut().all(Nic::link_up));
    device.set(|device| device.config[6] = 0);
    assert!(nics[1].link_up(), "nobody has looked yet");
    assert!(!nics[0].link_up() && !nics[1].link_up());
    device.set(|device| device.config[6] = 1);
    assert!(nics[0].link_up() && nics[1].link_up());
}

#[test]
fn there_are_as_many_pairs_as_are_wanted_and_there() {
    for (there, wanted, expected) in [
        (0, 2, 1),
        (1, 2, 1),
        (2, 2, 2),
        (2, 3, 2),
        (8, 3, 3),
        (8, 1, 1),
        (8, 0, 1),
        (0x7fff, 2, 2),
        // There is no number for a control queue behind as many.
        (0x8000, 2, 1),
        (65_535, 2, 1),
    ] {
        let device = device(there);
        let (started, commands) = start_with(&device, wanted, OK);
        let started = started.unwrap();
        assert_eq!(started.pairs.len(), expected, "{there} {wanted}");
        assert_eq!(started.alone, None);
        assert_eq!(commands.len(), usize::from(expected > 1));
        device.set(|device| {
            assert_eq!(device.rings.len(), 2 * expected);
            assert_eq!(device.control.is_some(), expected > 1);
            let negotiated = Features::from_bits_truncate(device.driver_features);
            assert_eq!(negotiated.contains(SEVERAL), expected > 1);
            assert_eq!(negotiated.intersects(SEVERAL), expected > 1);
        });
    }
}

#[test]
fn without_a_control_queue_there_is_one_pair() {
    for missing in [Features::MQ, Features::CTRL_VQ] {
        let device = device(2);
        device.set(|device| device.features &= !missing.bits());
        let (started, commands) = start_with(&device, 2, OK);
        let started = started.unwrap();
        assert_eq!((started.pairs.len(), started.alone), (1, None));
        assert!(commands.is_empty());
    }
}

#[test]
fn a_device_that_does_not_do_as_it_is_told_is_started_with_one_pair() {
    for (reply, why) in [
        (ERROR, Error::Refused),
        (Reply::Says(0xff), Error::Refused),
        (Reply::Nothing, Error::Refused),
        (Reply::Silence, Error::Silent),
    ] {
        let device = device(2);
        let (started, commands) = start_with(&device, 2, reply);
        let started = started.unwrap();
        assert_eq!((started.pairs.len(), started.alone), (1, Some(why)));
        assert_eq!(commands.len(), usize::from(reply != Reply::Silence));
        device.set(|device| {
            let negotiated = Features::from_bits_truncate(device.driver_features);
            assert!(!negotiated.intersects(SEVERAL));
            assert_eq!(device.vectors, [Some(0), None]);
            assert_eq!(device.rings.len(), 2);
            assert!(device.control.is_none());
        });
        let pair = started.pairs.into_iter().next().unwrap();
        let mut nic = pair.attach(pool());
        assert!(device.deliver(PLAIN, &[&[7; 60]]));
        assert_eq!(receive(&mut nic).len(), 1);
    }
}

#[test]
fn a_control_queue_that_cannot_be_used_leaves_one_pair() {
    let device = device(2);
    device.set(|device| device.queue_size = 1);
    let started = start_with(&device, 2, OK).0.unwrap();
    assert_eq!(
        (started.pairs.len(), started.alone),
        (1, Some(Error::Queue))
    );
}

#[test]
fn a_device_that_does_not_reset_is_refused() {
    let device = device(2);
    device.set(|device| device.resets = false);
    let (started, _) = start_with(&device, 2, ERROR);
    assert_eq!(started.err(), Some(Error::Transport));
}

#[test]
fn a_pair_may_go_to_another_processor() {
    fn may_go<T: Send>() {}
    may_go::<Pair<PciTransport>>();
}
