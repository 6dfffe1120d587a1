//! A device behind a vhost-user socket: this process is the front end, the vSwitch (or a
//! bench's generator) the back end (QEMU, docs/interop/vhost-user.rst).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::device::{Backend, QUEUES, QueueArea};

/// How long a socket may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks for it.
const RETRY: Duration = Duration::from_millis(50);

/// The bit by which a back end says that it has features of the protocol itself.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// A connected back end.
pub struct VhostUser {
    frontend: Frontend,
    /// The same socket, to see when its other end goes away.
    socket: UnixStream,
    memory: VhostUserMemoryRegionInfo,
    offered: u64,
    kicks: [EventFd; QUEUES],
    /// Told by the device when frames came in.
    call: EventFd,
    /// Nobody waits for frames that are out.
    unheard: EventFd,
}

impl VhostUser {
    /// Connects to the back end that listens at `path`, and waits for that a while.
    pub fn connect(path: &Path, memory: VhostUserMemoryRegionInfo) -> Result<VhostUser> {
        let socket = dial(path).with_context(|| format!("{}", path.display()))?;
        let frontend = Frontend::from_stream(socket.try_clone()?, QUEUES as u64);
        let event = || EventFd::new(EFD_NONBLOCK);
        Ok(VhostUser {
            frontend,
            socket,
            memory,
            offered: 0,
            kicks: [event()?, event()?],
            call: event()?,
            unheard: event()?,
        })
    }

    /// What is ready when frames came in, while the driver asks for interrupts, or when
    /// the back end went away.
    pub fn watched(&self) -> [PollFd<'_>; 2] {
        // SAFETY: as long as the borrow of the event, which owns it.
        let call = unsafe { BorrowedFd::borrow_raw(self.call.as_raw_fd()) };
        [
            PollFd::new(call, PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::empty()),
        ]
    }

    /// Forgets interrupts that were told.
    pub fn clear_interrupt(&self) {
        // Nothing to read is no error here.
        let _ = self.call.read();
    }

    /// An error if the back end has closed the connection.
    pub fn check(&self) -> Result<()> {
        let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut watched, PollTimeout::ZERO)?;
        let closed = PollFlags::POLLHUP | PollFlags::POLLERR;
        match watched[0].revents() {
            Some(events) if events.intersects(closed) => bail!("the back end is gone"),
            _ => Ok(()),
        }
    }

    /// Address in this process of what is at `address` of the device's.
    fn host_address(&self, address: u64) -> u64 {
        address - self.memory.guest_phys_addr + self.memory.userspace_addr
    }

    fn start_queue(&mut self, index: usize, queue: &QueueArea) -> Result<()> {
        let layout = VringConfigData {
            queue_max_size: queue.size,
            queue_size: queue.size,
            flags: 0,
            desc_table_addr: self.host_address(queue.descriptors),
            used_ring_addr: self.host_address(queue.used),
            avail_ring_addr: self.host_address(queue.available),
            log_addr: None,
        };
        let call = match index {
            0 => &self.call,
            _ => &self.unheard,
        };
        self.frontend.set_vring_num(index, queue.size)?;
        self.frontend.set_vring_base(index, 0)?;
        self.frontend.set_vring_addr(index, &layout)?;
        self.frontend.set_vring_call(index, call)?;
        if let Some(kick) = self.kicks.get(index) {
            self.frontend.set_vring_kick(index, kick)?;
        }
        Ok(())
    }
}

impl Backend for VhostUser {
    fn features(&mut self) -> Result<u64> {
        self.frontend.set_owner()?;
        self.offered = self.frontend.get_features()?;
        if self.offered & PROTOCOL_FEATURES != 0 {
            let known = VhostUserProtocolFeatures::REPLY_ACK;
            let has = self.frontend.get_protocol_features()?;
            self.frontend.set_protocol_features(has & known)?;
        }
        Ok(self.offered)
    }

    fn start(&mut self, features: u64, queues: [QueueArea; QUEUES]) -> Result<()> {
        let accepted = (features | PROTOCOL_FEATURES) & self.offered;
        self.frontend.set_features(accepted)?;
        self.frontend.set_mem_table(&[self.memory])?;
        for (index, queue) in queues.iter().enumerate() {
            self.start_queue(index, queue)?;
        }
        if accepted & PROTOCOL_FEATURES != 0 {
            for index in 0..QUEUES {
                self.frontend.set_vring_enable(index, true)?;
            }
        }
        Ok(())
    }

    fn kick(&mut self, queue: usize) -> Result<()> {
        match self.kicks.get(queue) {
            Some(kick) => Ok(kick.write(1)?),
            None => Ok(()),
        }
    }
}

fn dial(path: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context("no back end listens there");
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}
