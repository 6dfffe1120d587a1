//! Starting a device with as many pairs of queues as there are processors for them
//! (virtio 1.2, 5.1.2 and 5.1.5).
//!
//! A [`Pair`] goes to the processor that will use it, which gives it its pool: what a
//! processor has of a device, it has alone.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;

use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

use super::control::Control;
use super::net::{FEATURES, VirtioNet, read_config, start_queue};
use super::queue::IdleQueue;
use super::{Error, Features, Wiring};
use crate::dma::DmaSource;
use crate::pool::Pool;

/// What several pairs need.
const SEVERAL: Features = Features::MQ.union(Features::CTRL_VQ);

/// Most pairs that a device may have: the control queue comes behind them, and its number
/// has 16 bits.
const MAX_PAIRS: u16 = 0x7fff;

/// Offset of the number of pairs in the configuration space (virtio 1.2, 5.1.4), in bytes.
const CONFIG_PAIRS: usize = 8;

/// Looks at a device that is to reset itself.
const RESET_PATIENCE: usize = 100_000;

/// One receive and one transmit queue of a device that has been started. Frames that the
/// device has for it are lost until [`Pair::attach`]. Dropping the first pair of a device,
/// or what it has become, resets the device.
#[derive(Debug)]
pub struct Pair<T> {
    /// Of the first pair only.
    pub(super) transport: Option<T>,
    pub(super) features: Features,
    pub(super) mac: [u8; 6],
    pub(super) mtu: Option<u16>,
    /// Whether the link is up, as the first pair's user saw it last.
    pub(super) link: Arc<AtomicBool>,
    pub(super) receive: IdleQueue,
    pub(super) transmit: IdleQueue,
}

impl<T: Transport> Pair<T> {
    /// Features in use.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Gives the pair buffers of `pool` to receive into. All that it sends has to be of
    /// that pool as well.
    pub fn attach(self, pool: &'static Pool) -> VirtioNet<T> {
        VirtioNet::attach(self, pool)
    }
}

/// A device that has been started.
#[derive(Debug)]
pub struct Started<T> {
    /// At least one, in the order of their queues.
    pub pairs: Vec<Pair<T>>,
    /// Why it is one pair, though the device has more and they were wanted.
    pub alone: Option<Error>,
}

/// Starts a device with a pair of queues for each of `vectors`, or as many as it has:
/// with rings in memory of `memory`, and interrupts of each receive queue by that entry
/// of its table. If it does not do as it is told with several, it is started with one. It
/// hands over and takes large frames if they are `large_wanted` and it can.
///
/// With several it is told so by a command, whose answer is waited for as long as `wait`,
/// which is asked again and again, says so.
pub fn start<T: Transport>(
    mut transport: T,
    wiring: &mut impl Wiring,
    memory: &mut impl DmaSource,
    vectors: &[Option<u16>],
    large_wanted: bool,
    wait: &mut dyn FnMut() -> bool,
) -> Result<Started<T>, Error> {
    if transport.device_type() != DeviceType::Network {
        return Err(Error::NotANic);
    }
    let most = match vectors {
        [] | [_] => 1,
        _ => announced_pairs(&mut transport),
    };
    let mut wanted = FEATURES;
    if large_wanted {
        let offered = Features::from_bits_truncate(transport.read_device_features());
        wanted |= VirtioNet::<T>::large_features(offered);
    }
    let several = vectors.get(..vectors.len().min(most.into()));
    let mut alone = None;
    if let Some(several @ [_, _, ..]) = several {
        let (vectors, wanted) = (several, wanted.union(SEVERAL));
        match start_several(
            &mut transport,
            wiring,
            memory,
            vectors,
            (wanted, most),
            wait,
        ) {
            Ok(device) => return Ok(device.with(transport, None)),
            Err(why) => alone = Some(why),
        }
        reset(&mut transport)?;
    }
    let vector = vectors.first().copied().flatten();
    let device = set_up(&mut transport, wiring, memory, wanted, &[vector])?;
    transport.finish_init();
    Ok(device.with(transport, alone))
}

/// How many pairs a device has that was not started, as far as they can be used.
pub fn announced_pairs(transport: &mut impl Transport) -> u16 {
    let offered = Features::from_bits_truncate(transport.read_device_features());
    if !offered.contains(SEVERAL) {
        return 1;
    }
    let most = transport.read_config_space::<u16>(CONFIG_PAIRS).ok();
    most.filter(|most| *most <= MAX_PAIRS).unwrap_or(1)
}

/// Starts a device that has `most` pairs with one for each of `vectors`.
fn start_several(
    transport: &mut impl Transport,
    wiring: &mut impl Wiring,
    memory: &mut impl DmaSource,
    vectors: &[Option<u16>],
    (wanted, most): (Features, u16),
    wait: &mut dyn FnMut() -> bool,
) -> Result<Device, Error> {
    let device = set_up(transport, wiring, memory, wanted, vectors)?;
    if !device.features.contains(SEVERAL) {
        return Err(Error::Features);
    }
    // It comes behind all pairs that there are, not those in use (virtio 1.2, 5.1.2).
    let control = Control::new(transport, wiring, memory, 2 * most)?;
    transport.finish_init();
    control.set_pairs(vectors.len() as u16, wait)?;
    Ok(device)
}

/// What is known of a device when its queues are set up.
struct Device {
    features: Features,
    mac: [u8; 6],
    mtu: Option<u16>,
    queues: Vec<[IdleQueue; 2]>,
}

impl Device {
    fn with<T>(self, transport: T, alone: Option<Error>) -> Started<T> {
        let link = Arc::new(AtomicBool::new(true));
        let mut transport = Some(transport);
        let pair = |[receive, transmit]: [IdleQueue; 2]| Pair {
            transport: transport.take(),
            features: self.features,
            mac: self.mac,
            mtu: self.mtu,
            link: link.clone(),
            receive,
            transmit,
        };
        Started {
            pairs: self.queues.into_iter().map(pair).collect(),
            alone,
        }
    }
}

/// Sets up a device with `wanted` features, as far as it has them, and a pair of queues
/// for each of `vectors`. It is not started.
fn set_up(
    transport: &mut impl Transport,
    wiring: &mut impl Wiring,
    memory: &mut impl DmaSource,
    wanted: Features,
    vectors: &[Option<u16>],
) -> Result<Device, Error> {
    let features: Features = transport.begin_init(wanted);
    if !features.contains(Features::VERSION_1)
        || !transport.get_status().contains(DeviceStatus::FEATURES_OK)
    {
        return Err(Error::Features);
    }
    let (mac, mtu) = read_config(transport, features)?;
    let events = features.contains(Features::EVENT_IDX);
    let mut queues = Vec::with_capacity(vectors.len());
    for (receive, vector) in (0..).step_by(2).zip(vectors.iter().copied()) {
        let mut start =
            |number, vector| start_queue(transport, wiring, memory, number, vector, events);
        queues.push([start(receive, vector)?, start(receive + 1, None)?]);
    }
    Ok(Device {
        features,
        mac,
        mtu,
        queues,
    })
}

/// Has a device forget all that it was given.
fn reset(transport: &mut impl Transport) -> Result<(), Error> {
    transport.set_status(DeviceStatus::empty());
    for _ in 0..RESET_PATIENCE {
        if transport.get_status().is_empty() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(Error::Transport)
}
