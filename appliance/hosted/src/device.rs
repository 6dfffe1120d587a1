//! A virtio network device whose other end is in this process or behind a socket: the
//! transport that `nve_nic`'s driver sees instead of PCI.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

use anyhow::{Result, anyhow};
use nve_nic::virtio::{Doorbell, Features, Wiring};
use virtio_drivers::PhysAddr;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Queues of a device with one pair.
pub const QUEUES: usize = 2;

/// Most entries of a queue.
const MAX_QUEUE: u32 = 1024;

/// Where the driver put a queue, in addresses as the device sees memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueArea {
    /// Entries.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

/// The device's end.
pub trait Backend {
    /// Features that the device has (virtio 1.2, 5.1.3 and 6).
    fn features(&mut self) -> Result<u64>;

    /// Starts the device with features that the driver chose of those, and its receive
    /// and transmit queue.
    fn start(&mut self, features: u64, queues: [QueueArea; QUEUES]) -> Result<()>;

    /// Tells the device of new buffers in a queue.
    fn kick(&mut self, queue: usize) -> Result<()>;
}

/// The registers by which the driver notifies the device: the number of a queue is
/// written into its own.
#[derive(Debug, Clone, Copy)]
struct Registers(NonNull<[u16; QUEUES]>);

/// What a register holds that nothing was written to.
const UNTOUCHED: u16 = u16::MAX;

impl Registers {
    fn new() -> Registers {
        Registers(NonNull::from(Box::leak(Box::new([UNTOUCHED; QUEUES]))))
    }

    fn register(self, queue: usize) -> Option<NonNull<u16>> {
        // SAFETY: at most the number of queues, so inside of the array, which is never
        // freed.
        (queue < QUEUES).then(|| unsafe { self.0.cast::<u16>().add(queue) })
    }

    /// Whether the queue's was written since it was last asked.
    fn take(self, queue: usize) -> bool {
        let Some(register) = self.register(queue) else {
            return false;
        };
        // SAFETY: never freed, aligned, and of this thread, as the driver is.
        let written = unsafe { register.read_volatile() } != UNTOUCHED;
        if written {
            // SAFETY: as above.
            unsafe { register.write_volatile(UNTOUCHED) };
        }
        written
    }
}

/// What the node's loop has of a device that the driver owns.
#[derive(Debug)]
pub struct Handle<B> {
    registers: Registers,
    inner: Rc<RefCell<Inner<B>>>,
}

#[derive(Debug)]
struct Inner<B> {
    backend: B,
    failure: Option<anyhow::Error>,
}

impl<B: Backend> Handle<B> {
    /// Passes notifications of the driver on.
    pub fn notify(&self) -> Result<()> {
        for queue in 0..QUEUES {
            if self.registers.take(queue) {
                self.inner.borrow_mut().backend.kick(queue)?;
            }
        }
        Ok(())
    }

    /// What went wrong while the driver started the device.
    pub fn check(&self) -> Result<()> {
        self.inner.borrow_mut().failure.take().map_or(Ok(()), Err)
    }

    /// Lets `work` have the device's end.
    pub fn with<T>(&self, work: impl FnOnce(&mut B) -> T) -> T {
        work(&mut self.inner.borrow_mut().backend)
    }
}

/// The driver's end.
#[derive(Debug)]
pub struct Device<B> {
    registers: Registers,
    inner: Rc<RefCell<Inner<B>>>,
    mac: [u8; 6],
    features: u64,
    status: DeviceStatus,
    queues: [Option<QueueArea>; QUEUES],
}

impl<B: Backend> Device<B> {
    /// A device with this station's address; the handle is for whoever polls.
    pub fn new(backend: B, mac: [u8; 6]) -> (Device<B>, Handle<B>) {
        let registers = Registers::new();
        let inner = Rc::new(RefCell::new(Inner {
            backend,
            failure: None,
        }));
        let handle = Handle {
            registers,
            inner: inner.clone(),
        };
        let device = Device {
            registers,
            inner,
            mac,
            features: 0,
            status: DeviceStatus::empty(),
            queues: [None; QUEUES],
        };
        (device, handle)
    }

    /// Notes the first thing that goes wrong; the driver's calls have no results.
    fn attempt<T>(&self, work: impl FnOnce(&mut B) -> Result<T>) -> Option<T> {
        let mut inner = self.inner.borrow_mut();
        match work(&mut inner.backend) {
            Ok(value) => Some(value),
            Err(error) => {
                inner.failure.get_or_insert(error);
                None
            }
        }
    }

    fn start(&self) {
        let (features, queues) = (self.features, self.queues);
        self.attempt(|backend| match queues {
            [Some(receive), Some(transmit)] => backend.start(features, [receive, transmit]),
            _ => Err(anyhow!("the driver left out a queue")),
        });
    }
}

impl<B: Backend> Transport for Device<B> {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        // The address is ours, not the other end's; memory is at the addresses that
        // both agreed on.
        let offered = self.attempt(Backend::features).unwrap_or(0);
        let ours = Features::MAC | Features::MTU | Features::STATUS | Features::ACCESS_PLATFORM;
        offered & !ours.bits() | Features::MAC.bits()
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        self.features = driver_features;
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        MAX_QUEUE
    }

    fn notify(&mut self, queue: u16) {
        self.attempt(|backend| backend.kick(usize::from(queue)));
    }

    fn get_status(&self) -> DeviceStatus {
        self.status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let started = status.contains(DeviceStatus::DRIVER_OK);
        if started && !self.status.contains(DeviceStatus::DRIVER_OK) {
            self.start();
        }
        self.status = status;
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        if let (Some(place), Ok(size)) =
            (self.queues.get_mut(usize::from(queue)), u16::try_from(size))
        {
            *place = Some(QueueArea {
                size,
                descriptors,
                available: driver_area,
                used: device_area,
            });
        }
    }

    fn queue_unset(&mut self, queue: u16) {
        if let Some(place) = self.queues.get_mut(usize::from(queue)) {
            *place = None;
        }
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        matches!(self.queues.get(usize::from(queue)), Some(Some(_)))
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<T> {
        let end = offset.saturating_add(size_of::<T>());
        let bytes = self.mac.get(offset..end);
        bytes
            .and_then(|bytes| T::read_from_bytes(bytes).ok())
            .ok_or(virtio_drivers::Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> virtio_drivers::Result<()> {
        Err(virtio_drivers::Error::Unsupported)
    }
}

/// The wiring of a [`Device`], apart from it as the driver wants it.
#[derive(Debug)]
pub struct Wires(Registers);

impl<B> Device<B> {
    /// Its wiring.
    pub fn wires(&self) -> Wires {
        Wires(self.registers)
    }
}

impl Wiring for Wires {
    fn bind(&mut self, _queue: u16, _vector: Option<u16>) -> bool {
        // Where a device's interrupts go is its other end's business.
        true
    }

    fn doorbell(&mut self, queue: u16) -> Option<Doorbell> {
        let register = self.0.register(usize::from(queue))?;
        // SAFETY: never freed; writing to it does nothing until `Handle::notify` looks.
        Some(unsafe { Doorbell::new(register, queue) })
    }
}
