//! A device in memory, played by a test: honest, or as hostile as the test likes.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};

use super::header::HEADER;
use super::{Doorbell, Features, Wiring};
use crate::dma::{DmaMemory, DmaSource};

/// Memory at the same address for the device.
pub(crate) fn leak_memory(length: usize) -> DmaMemory {
    DmaMemory::from_heap(length).unwrap()
}

/// Memory from the host's heap.
pub(crate) struct HostMemory;

impl DmaSource for HostMemory {
    fn allocate(&mut self, length: usize) -> Option<DmaMemory> {
        DmaMemory::from_heap(length)
    }
}

/// The device's end of a ring: addresses as it was given them.
#[derive(Clone)]
pub(crate) struct DeviceRing {
    descriptors: *mut u8,
    available: *mut u16,
    used: *mut u16,
    size: u16,
    taken: u16,
    given: u16,
}

// The device plays with raw memory on purpose. SAFETY of every block here: the
// addresses are those of live rings and buffers of a test, which uses one thread.
impl DeviceRing {
    pub(crate) fn new(addresses: [u64; 3], size: u16) -> Self {
        let [descriptors, available, used] = addresses;
        DeviceRing {
            descriptors: descriptors as *mut u8,
            available: available as *mut u16,
            used: used as *mut u16,
            size,
            taken: 0,
            given: 0,
        }
    }

    fn available(&self, at: usize) -> u16 {
        // SAFETY: see the head of the implementation.
        unsafe { self.available.add(at).read_volatile() }
    }

    fn set_used(&self, at: usize, word: u16) {
        // SAFETY: see the head of the implementation.
        unsafe { self.used.add(at).write_volatile(word) };
    }

    /// The next slot that the driver offers.
    pub(crate) fn take(&mut self) -> Option<u16> {
        if self.available(1) == self.taken {
            return None;
        }
        let slot = self.available(2 + usize::from(self.taken % self.size));
        self.taken = self.taken.wrapping_add(1);
        Some(slot)
    }

    /// Address, length and flags of a slot's descriptor.
    pub(crate) fn descriptor(&self, slot: u16) -> (u64, u32, u16) {
        // SAFETY: see the head of the implementation.
        unsafe {
            let at = self.descriptors.add(usize::from(slot) * 16);
            (
                at.cast::<u64>().read_volatile(),
                at.add(8).cast::<u32>().read_volatile(),
                at.add(12).cast::<u16>().read_volatile(),
            )
        }
    }

    /// Where a slot's buffer goes on.
    pub(crate) fn next(&self, slot: u16) -> u16 {
        // SAFETY: see the head of the implementation.
        unsafe {
            let at = self.descriptors.add(usize::from(slot) * 16);
            at.add(14).cast::<u16>().read_volatile()
        }
    }

    /// The buffers of a slot, of its own descriptor or of the table that it leads to.
    pub(crate) fn buffers(&self, slot: u16) -> Vec<(u64, u32, u16)> {
        const INDIRECT: u16 = 4;

        let (address, length, flags) = self.descriptor(slot);
        if flags != INDIRECT {
            return vec![(address, length, flags)];
        }
        assert_eq!((address % 16, length % 16), (0, 0));
        let count = (length / 16) as u16;
        assert!(count <= self.size, "longer than the queue");
        let table = DeviceRing {
            descriptors: address as *mut u8,
            ..self.clone()
        };
        for number in 0..count {
            let next = table.next(number);
            let (_, _, flags) = table.descriptor(number);
            let last = number + 1 == count;
            assert_eq!((flags, next), if last { (0, 0) } else { (1, number + 1) });
        }
        (0..count)
            .map(|number| {
                let (address, length, _) = table.descriptor(number);
                (address, length, 0)
            })
            .collect()
    }

    /// Returns a slot, or whatever `id` is.
    pub(crate) fn give(&mut self, id: u32, length: u32) {
        self.tell(self.given, id, length);
        self.given = self.given.wrapping_add(1);
        self.set_used(1, self.given);
    }

    /// Says of the slot that was, or will be, the `number`th to be returned what it is.
    pub(crate) fn tell(&mut self, number: u16, id: u32, length: u32) {
        let at = 2 + 4 * usize::from(number % self.size);
        // SAFETY: see the head of the implementation.
        unsafe {
            self.used.add(at).cast::<u32>().write_volatile(id);
            self.used.add(at + 2).cast::<u32>().write_volatile(length);
        }
    }

    pub(crate) fn set_index(&mut self, index: u16) {
        self.set_used(1, index);
    }

    pub(crate) fn set_used_flags(&self, flags: u16) {
        self.set_used(0, flags);
    }

    pub(crate) fn set_avail_event(&self, event: u16) {
        self.set_used(2 + 4 * usize::from(self.size), event);
    }

    /// Whether the driver wants an interrupt, by its flags.
    pub(crate) fn wants_interrupt(&self, flags: u16) -> bool {
        self.available(0) == flags
    }

    /// Whether the driver wants an interrupt, by its event index.
    pub(crate) fn wants_interrupt_event(&self, before: u16, after: u16) -> bool {
        let event = self.available(2 + usize::from(self.size));
        after.wrapping_sub(event).wrapping_sub(1) < after.wrapping_sub(before)
    }
}

/// What a device announces, and what the driver told it.
pub(crate) struct Device {
    pub(crate) features: u64,
    pub(crate) accepts_features: bool,
    pub(crate) accepts_vectors: bool,
    pub(crate) has_doorbells: bool,
    pub(crate) kind: DeviceType,
    pub(crate) queue_size: u32,
    pub(crate) config: Vec<u8>,
    pub(crate) driver_features: u64,
    pub(crate) status: DeviceStatus,
    pub(crate) rings: Vec<DeviceRing>,
    pub(crate) control: Option<DeviceRing>,
    pub(crate) vectors: Vec<Option<u16>>,
    pub(crate) doorbells: [u16; 2],
    /// Of the queues behind the first pair.
    pub(crate) more_doorbells: [u16; 14],
    pub(crate) control_doorbell: u16,
    pub(crate) generation: Option<u32>,
    pub(crate) resets: bool,
}

impl Device {
    /// The control queue: behind all pairs that there are, if that was negotiated.
    fn control_queue(&self) -> Option<u16> {
        let negotiated = Features::from_bits_truncate(self.driver_features);
        let most = u16::from_le_bytes(self.config[8..10].try_into().unwrap());
        let count = if negotiated.contains(Features::MQ) {
            most
        } else {
            1
        };
        (negotiated.contains(Features::CTRL_VQ)).then_some(2 * count)
    }
}

/// Handle to a device, shared by the driver (as its transport) and the test.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Rc<RefCell<Device>>);

impl Handle {
    pub(crate) fn new(features: Features, queue_size: u32) -> Handle {
        let mut config = vec![0x52, 0x54, 0, 0, 1, 1, 1, 0, 1, 0];
        config.extend(1600u16.to_le_bytes());
        Handle(Rc::new(RefCell::new(Device {
            features: features.bits(),
            accepts_features: true,
            accepts_vectors: true,
            has_doorbells: true,
            kind: DeviceType::Network,
            queue_size,
            config,
            driver_features: 0,
            status: DeviceStatus::empty(),
            rings: Vec::new(),
            control: None,
            vectors: Vec::new(),
            doorbells: [u16::MAX; 2],
            more_doorbells: [u16::MAX; 14],
            control_doorbell: u16::MAX,
            generation: Some(0),
            resets: true,
        })))
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Device)) {
        change(&mut self.0.borrow_mut());
    }

    /// With the queues of pair `number` in the places of the first one's.
    pub(crate) fn with_pair(&self, number: usize, act: impl FnOnce(&Handle)) {
        let swap = |device: &mut Device| {
            for queue in [0, 1] {
                device.rings.swap(queue, 2 * number + queue);
            }
        };
        self.set(swap);
        act(self);
        self.set(swap);
    }

    /// Takes a command from the control queue, if there is one, and gives it back, with
    /// an answer if there is one.
    pub(crate) fn answer(&self, answer: Option<u8>) -> Option<[u8; 4]> {
        let device = &mut *self.0.borrow_mut();
        assert!(device.status.contains(DeviceStatus::DRIVER_OK));
        let ring = device.control.as_mut()?;
        let slot = ring.take()?;
        let (address, length, flags) = ring.descriptor(slot);
        assert_eq!((length, flags), (4, 1));
        let (place, length, flags) = ring.descriptor(ring.next(slot));
        assert_eq!((length, flags), (1, 2));
        // SAFETY: the driver offered this memory.
        let command = unsafe { (address as *const [u8; 4]).read_unaligned() };
        if let Some(answer) = answer {
            // SAFETY: as above.
            unsafe { (place as *mut u8).write_volatile(answer) };
        }
        ring.give(u32::from(slot), 1);
        Some(command)
    }

    /// Receives `parts`, one buffer each, as the device writes them; the first is
    /// behind `header`. Returns false if the driver has not offered enough.
    pub(crate) fn deliver(&self, header: [u8; HEADER], parts: &[&[u8]]) -> bool {
        let device = &mut *self.0.borrow_mut();
        let mut slots = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let bytes = match i {
                0 => [&header, *part].concat(),
                _ => part.to_vec(),
            };
            let Some(slot) = device.rings[0].take() else {
                return false;
            };
            let (address, length, flags) = device.rings[0].descriptor(slot);
            assert_eq!(flags, 2);
            assert!(bytes.len() <= length as usize);
            // SAFETY: the driver offered this memory.
            unsafe {
                (address as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            slots.push((slot, bytes.len()));
        }
        for (slot, length) in slots {
            device.rings[0].give(u32::from(slot), length as u32);
        }
        true
    }

    /// Takes the frames that were sent, with their headers.
    pub(crate) fn collect(&self) -> Vec<([u8; HEADER], Vec<u8>)> {
        let device = &mut *self.0.borrow_mut();
        let mut frames = Vec::new();
        while let Some(slot) = device.rings[1].take() {
            let mut bytes = Vec::new();
            for (address, length, flags) in device.rings[1].buffers(slot) {
                assert_eq!(flags, 0);
                // SAFETY: the driver offered this memory.
                bytes.extend(unsafe {
                    std::slice::from_raw_parts(address as *const u8, length as usize)
                });
            }
            let (header, frame) = bytes.split_first_chunk().unwrap();
            frames.push((*header, frame.to_vec()));
            device.rings[1].give(u32::from(slot), 0);
        }
        frames
    }
}

impl Transport for Handle {
    fn device_type(&self) -> DeviceType {
        self.0.borrow().kind
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().features
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        self.0.borrow_mut().driver_features = driver_features;
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        self.0.borrow().queue_size
    }

    fn notify(&mut self, _queue: u16) {}

    fn get_status(&self) -> DeviceStatus {
        let device = self.0.borrow();
        let status = match device.accepts_features {
            true => device.status,
            false => device.status & !DeviceStatus::FEATURES_OK,
        };
        match device.resets {
            true => status,
            false => status | DeviceStatus::DRIVER,
        }
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let mut device = self.0.borrow_mut();
        device.status = status;
        if status.is_empty() {
            device.driver_features = 0;
            device.rings.clear();
            device.vectors.clear();
            device.control = None;
        }
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, queue: u16, size: u32, d: PhysAddr, a: PhysAddr, u: PhysAddr) {
        let mut device = self.0.borrow_mut();
        assert!(!device.status.contains(DeviceStatus::DRIVER_OK));
        let ring = DeviceRing::new([d, a, u], size as u16);
        if device.control_queue() == Some(queue) {
            device.control = Some(ring);
            return;
        }
        assert_eq!(usize::from(queue), device.rings.len());
        device.rings.push(ring);
    }

    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, _queue: u16) -> bool {
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        let mut device = self.0.borrow_mut();
        match device.generation {
            Some(generation) => generation,
            None => {
                device.doorbells[0] = device.doorbells[0].wrapping_add(1);
                u32::from(device.doorbells[0])
            }
        }
    }

    fn read_config_space<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &self,
        offset: usize,
    ) -> Result<T> {
        let device = self.0.borrow();
        let bytes = device.config.get(offset..).unwrap_or_default();
        T::read_from_prefix(bytes)
            .map(|(value, _)| value)
            .map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        Err(Error::Unsupported)
    }
}

impl Wiring for Handle {
    fn bind(&mut self, _queue: u16, vector: Option<u16>) -> bool {
        let mut device = self.0.borrow_mut();
        device.vectors.push(vector);
        device.accepts_vectors
    }

    fn doorbell(&mut self, queue: u16) -> Option<Doorbell> {
        let mut device = self.0.borrow_mut();
        if !device.has_doorbells {
            return None;
        }
        let is_control = device.control_queue() == Some(queue);
        let register = match queue {
            _ if is_control => &mut device.control_doorbell,
            0 | 1 => &mut device.doorbells[usize::from(queue)],
            _ => device.more_doorbells.get_mut(usize::from(queue) - 2)?,
        };
        let register = NonNull::from(register);
        // SAFETY: the word lives as long as the device, which the driver keeps.
        Some(unsafe { Doorbell::new(register, queue) })
    }
}
