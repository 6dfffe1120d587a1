//! The back end of vhost-user: the device's side of the socket over which a driver
//! shares its memory and says where its queues are.
//!
//! Each NIC has one pair of queues. A thread per NIC answers messages; who moves
//! frames locks the NIC for a burst, and lets go when [`Nic::is_wanted`].

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use memmap2::{MmapOptions, MmapRaw};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result as Reply, VhostUserBackendReqHandlerMut,
};

use crate::memory::{Memory, Region};
use crate::queue::{Done, ReceiveQueue, TransmitQueue};
use crate::ring::{Fault, Parts, Ring};

/// `VIRTIO_NET_F_MRG_RXBUF`: a frame may come in several buffers (ours never does).
const MRG_RXBUF: u64 = 1 << 15;
/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_IN_ORDER`: buffers are given back in their order.
const IN_ORDER: u64 = 1 << 35;

const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
const FEATURES: u64 = MRG_RXBUF | VERSION_1 | IN_ORDER | PROTOCOL;

/// Index of the driver's receive queue.
const RECEIVE: usize = 0;
/// Index of its transmit queue.
const TRANSMIT: usize = 1;

/// What the driver says of one queue.
#[derive(Debug, Default)]
struct Vring {
    size: u16,
    parts: Option<Parts>,
    /// Where the device starts, or stopped.
    position: u16,
    kicked: bool,
    enabled: bool,
    call: Option<File>,
}

impl Vring {
    /// The queue's ring, once the driver has said all that it takes.
    fn ring(
        &self,
        memory: Option<&Arc<Memory>>,
        access: crate::ring::Access,
    ) -> Option<Result<Ring, Fault>> {
        let parts = self.parts.filter(|_| self.kicked && self.enabled)?;
        let memory = memory?.clone();
        Some(Ring::new(memory, self.size, parts, self.position, access))
    }

    fn notify(&self) {
        if let Some(mut call) = self.call.as_ref() {
            // Fails only when the counter is full: then it is notified already.
            let _ = call.write_all(&1u64.to_ne_bytes());
        }
    }
}

/// A range of the driver's own addresses, in which it says where queues are.
#[derive(Debug, Clone, Copy)]
struct Range {
    user: u64,
    guest: u64,
    length: u64,
}

/// What one driver has said.
#[derive(Debug, Default)]
struct State {
    features: u64,
    memory: Option<Arc<Memory>>,
    ranges: Vec<Range>,
    vrings: [Vring; 2],
    receive: Option<ReceiveQueue>,
    transmit: Option<TransmitQueue>,
    fault: Option<Fault>,
}

/// A NIC, locked for a burst.
#[derive(Debug)]
pub struct Locked<'a>(MutexGuard<'a, State>);

impl Locked<'_> {
    /// See [`ReceiveQueue::send`]; nothing is sent while the queue is not ready.
    #[inline]
    pub fn send(
        &mut self,
        most: usize,
        typical: usize,
        fill: impl FnMut(&mut crate::queue::Room) -> usize,
    ) -> Result<usize, Fault> {
        let state = &mut *self.0;
        let queue = state.receive.as_mut();
        let done = queue.map(|queue| queue.send(most, typical, fill));
        state.conclude(RECEIVE, done)
    }

    /// See [`TransmitQueue::receive`]; nothing comes while the queue is not ready.
    #[inline]
    pub fn receive(
        &mut self,
        look: impl FnMut(&crate::queue::Incoming<'_>),
    ) -> Result<usize, Fault> {
        let state = &mut *self.0;
        let queue = state.transmit.as_mut();
        let done = queue.map(|queue| queue.receive(look));
        state.conclude(TRANSMIT, done)
    }

    /// Whether the driver has started both queues.
    pub fn is_ready(&self) -> bool {
        self.0.receive.is_some() && self.0.transmit.is_some()
    }
}

impl State {
    #[inline]
    fn conclude(
        &mut self,
        index: usize,
        done: Option<Result<Done, Fault>>,
    ) -> Result<usize, Fault> {
        match done {
            Some(Ok(done)) => {
                if done.notify
                    && let Some(vring) = self.vrings.get(index)
                {
                    vring.notify();
                }
                Ok(done.frames)
            }
            Some(Err(fault)) => {
                self.fault = Some(fault);
                Err(fault)
            }
            None => self.fault.map_or(Ok(0), Err),
        }
    }

    fn vring(&mut self, index: impl TryInto<usize>) -> Reply<&mut Vring> {
        let index = index.try_into().map_err(|_| Error::InvalidParam)?;
        self.vrings.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// Takes the queues off their rings, and notes where they stopped.
    fn stop(&mut self) {
        let [receive, transmit] = &mut self.vrings;
        if let Some(queue) = self.receive.take() {
            receive.position = queue.position();
        }
        if let Some(queue) = self.transmit.take() {
            transmit.position = queue.position();
        }
    }

    /// Puts the queues on the rings that the driver has described.
    fn start(&mut self) -> Reply<()> {
        self.stop();
        let [receive, transmit] = &self.vrings;
        let memory = self.memory.as_ref();
        let receive = receive.ring(memory, ReceiveQueue::ACCESS).transpose();
        let transmit = transmit.ring(memory, TransmitQueue::ACCESS).transpose();
        match (receive, transmit) {
            (Ok(receive), Ok(transmit)) => {
                self.receive = receive.map(ReceiveQueue::new);
                self.transmit = transmit.map(TransmitQueue::new);
                Ok(())
            }
            (Err(fault), _) | (_, Err(fault)) => {
                self.fault = Some(fault);
                Err(Error::InvalidParam)
            }
        }
    }

    /// Translates the driver's own address into the one it writes into rings.
    fn guest(&self, user: u64) -> Reply<u64> {
        let found = self.ranges.iter().find_map(|range| {
            let offset = user.checked_sub(range.user)?;
            (offset < range.length).then(|| range.guest.checked_add(offset))?
        });
        found.ok_or(Error::InvalidParam)
    }
}

/// Maps one region of the driver's memory.
fn map(region: &VhostUserMemoryRegion, file: &File) -> Option<(Region, MmapRaw)> {
    let length = usize::try_from(region.memory_size).ok()?;
    let offset = usize::try_from(region.mmap_offset).ok()?;
    let whole = offset.checked_add(length)?;
    // From the file's start: offsets of huge pages are not those of small ones.
    let mapped = MmapOptions::new().len(whole).map_raw(file).ok()?;
    // A file that is shorter faults when it is touched.
    let enough = file.metadata().ok()?.len() >= whole as u64;
    let first = NonNull::new(mapped.as_mut_ptr())?;
    let region = Region {
        guest: region.guest_phys_addr,
        length,
        // SAFETY: the mapping is `offset + length` bytes long.
        pointer: unsafe { first.add(offset) },
    };
    enough.then_some((region, mapped))
}

impl VhostUserBackendReqHandlerMut for State {
    fn set_owner(&mut self) -> Reply<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Reply<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Reply<()> {
        *self = State::default();
        Ok(())
    }

    fn get_features(&mut self) -> Reply<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Reply<()> {
        if features & !FEATURES != 0 || features & VERSION_1 == 0 {
            return Err(Error::FeatureMismatch);
        }
        self.features = features;
        if features & PROTOCOL == 0 {
            // Without protocol features, queues need no enabling.
            for vring in &mut self.vrings {
                vring.enabled = true;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Reply<Option<Vec<u64>>> {
        let mut mapped = Vec::new();
        let mut owners = Vec::new();
        self.ranges.clear();
        for (region, file) in regions.iter().zip(&files) {
            let (region_here, owner) = map(region, file).ok_or(Error::InvalidParam)?;
            mapped.push(region_here);
            owners.push(owner);
            self.ranges.push(Range {
                user: region.user_addr,
                guest: region.guest_phys_addr,
                length: region.memory_size,
            });
        }
        // SAFETY: the regions are within the mappings, which the memory owns.
        let memory = unsafe { Memory::new(mapped, owners) };
        self.memory = Some(Arc::new(memory));
        self.start()?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Reply<()> {
        self.vring(index)?.size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Reply<()> {
        let parts = Parts {
            descriptors: self.guest(descriptor)?,
            available: self.guest(available)?,
            used: self.guest(used)?,
        };
        self.vring(index)?.parts = Some(parts);
        self.start()
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Reply<()> {
        self.stop();
        self.vring(index)?.position = base as u16;
        self.start()
    }

    fn get_vring_base(&mut self, index: u32) -> Reply<VhostUserVringState> {
        self.stop();
        let vring = self.vring(index)?;
        vring.kicked = false;
        let state = VhostUserVringState::new(index, vring.position.into());
        self.start()?;
        Ok(state)
    }

    fn set_vring_kick(&mut self, index: u8, _: Option<File>) -> Reply<()> {
        // Queues are polled: that there is a kick starts them, and that is all.
        self.vring(index)?.kicked = true;
        self.start()
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Reply<()> {
        self.vring(index)?.call = call;
        Ok(())
    }

    fn set_vring_err(&mut self, _: u8, _: Option<File>) -> Reply<()> {
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Reply<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, _: u64) -> Reply<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Reply<u64> {
        Ok(1)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Reply<()> {
        self.vring(index)?.enabled = enable;
        self.start()
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Reply<Vec<u8>> {
        Err(NOT_OFFERED)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Reply<()> {
        Err(NOT_OFFERED)
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Reply<()> {
        Err(NOT_OFFERED)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Reply<File> {
        Err(NOT_OFFERED)
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Reply<(VhostUserInflight, File)> {
        Err(NOT_OFFERED)
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Reply<()> {
        Err(NOT_OFFERED)
    }

    fn get_max_mem_slots(&mut self) -> Reply<u64> {
        Err(NOT_OFFERED)
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Reply<Option<u64>> {
        Err(NOT_OFFERED)
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Reply<()> {
        Err(NOT_OFFERED)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Reply<Option<File>> {
        Err(NOT_OFFERED)
    }

    fn check_device_state(&mut self) -> Reply<()> {
        Err(NOT_OFFERED)
    }

    fn get_shmem_config(&mut self) -> Reply<VhostUserShMemConfig> {
        Err(NOT_OFFERED)
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Reply<()> {
        Err(NOT_OFFERED)
    }
}

/// Bytes of `VHOST_USER_SET_VRING_ENABLE`: request, flags, size, index, whether.
const ENABLE_LENGTH: usize = 20;

/// Reads `VHOST_USER_SET_VRING_ENABLE` that wants no answer: the queue's index, and
/// whether it is enabled.
fn read_enable(message: &[u8]) -> Option<(u32, bool)> {
    /// Request, version, bytes that follow.
    const HEAD: [u32; 3] = [18, 1, 8];
    let (words, []) = message.as_chunks::<4>() else {
        return None;
    };
    let mut words = words.iter().map(|word| u32::from_ne_bytes(*word));
    if HEAD.iter().any(|word| words.next() != Some(*word)) {
        return None;
    }
    let (index, enable) = (words.next()?, words.next()?);
    (enable <= 1).then_some((index, enable == 1))
}

/// What the driver was not told that the device could do.
const NOT_OFFERED: Error = Error::InvalidOperation("not offered");

/// A NIC behind a socket.
#[derive(Debug, Clone)]
pub struct Nic {
    state: Arc<Mutex<State>>,
    wanted: Arc<AtomicBool>,
}

impl Nic {
    /// Listens at `socket` for one driver after the other, for ever.
    pub fn listen(socket: &Path) -> Result<Nic> {
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        let nic = Nic {
            state: Arc::default(),
            wanted: Arc::default(),
        };
        let served = nic.clone();
        thread::Builder::new()
            .name("vhost-user".to_owned())
            .spawn(move || served.serve(&listener))?;
        Ok(nic)
    }

    /// Locks the NIC for a burst.
    #[inline]
    pub fn lock(&self) -> Locked<'_> {
        // What a thread that panicked left is described by the driver all the same.
        Locked(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a message from the driver waits for the lock.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn serve(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                continue;
            };
            let mut handler = BackendReqHandler::from_stream(stream, self.state.clone());
            if let Err(error) = self.converse(&mut handler) {
                eprintln!("vhost-user: {error:#}");
            }
            let mut state = self.lock();
            state.0.stop();
            *state.0 = State::default();
        }
    }

    /// Takes a message that enables a queue before any feature is set, if that is the
    /// next one. QEMU sends these, and only these; the handler would refuse them.
    fn enable_early(&self, mut socket: &UnixStream) -> Result<bool> {
        let mut state = self.lock();
        if state.0.features & PROTOCOL != 0 {
            return Ok(false);
        }
        let mut message = [0; ENABLE_LENGTH];
        let length = recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_PEEK)?;
        let Some((index, enable)) = message.get(..length).and_then(read_enable) else {
            return Ok(false);
        };
        socket.read_exact(&mut message)?;
        // One that there is no queue for is not answered either.
        let _ = state.0.set_vring_enable(index, enable);
        Ok(true)
    }

    /// Answers messages until the driver hangs up.
    fn converse(&self, handler: &mut BackendReqHandler<Mutex<State>>) -> Result<()> {
        let socket = handler.try_clone_connection()?;
        loop {
            let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut waiting, PollTimeout::NONE)?;
            self.wanted.store(true, Ordering::Relaxed);
            let outcome = match self.enable_early(&socket)? {
                true => Ok(()),
                false => handler.handle_request(),
            };
            self.wanted.store(false, Ordering::Relaxed);
            match outcome {
                Ok(()) => {}
                Err(Error::Disconnected | Error::PartialMessage) => return Ok(()),
                Err(Error::SocketBroken(error) | Error::SocketError(error))
                    if error.kind() == ErrorKind::ConnectionReset =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_enables_a_queue_is_read() {
        let message = |words: [u32; 5]| words.map(u32::to_ne_bytes).concat();
        for (words, expected) in [
            ([18, 1, 8, 0, 1], Some((0, true))),
            ([18, 1, 8, 1, 0], Some((1, false))),
            ([18, 1, 8, 1, 2], None),
            ([18, 9, 8, 1, 1], None),
            ([18, 1, 16, 1, 1], None),
            ([8, 1, 8, 1, 1], None),
        ] {
            assert_eq!(read_enable(&message(words)), expected, "{words:?}");
        }
        let whole = message([18, 1, 8, 0, 1]);
        for length in 0..20 {
            assert_eq!(read_enable(&whole[..length]), None);
        }
    }
}
