//! Finds the NICs that the configuration names and starts them.

use core::fmt;
use core::ptr::NonNull;

use alloc::alloc::{Layout, alloc_zeroed};
use alloc::vec::Vec;
use log::{info, warn};
use nve_kernel::config::{NicSelector, PciAddress};
use nve_kernel::memory::{PAGE, Region};
use nve_nic::DmaMemory;
use nve_nic::dma::DmaSource;
use nve_nic::pci::{self, Message, MsixError, Registers};
use nve_nic::virtio::pci::PciWiring;
use nve_nic::virtio::{self, Features, Pair};
use nve_protocol::Mac;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::DeviceFunction;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::arch::pci::ConfigSpace;
use crate::arch::{paging, time};

/// Most NICs that are looked at.
const MAX_NICS: usize = 16;

/// Nanoseconds in which a NIC has to answer a command.
const PATIENCE: u64 = 100_000_000;

/// This machine as drivers see it: memory is at its physical address.
pub struct Machine;

impl Registers for Machine {
    fn map(&mut self, address: u64, length: u64) -> Option<NonNull<u8>> {
        if !paging::map_device(Region::new(address, length)) {
            return None;
        }
        NonNull::new(address as *mut u8)
    }
}

impl DmaSource for Machine {
    fn allocate(&mut self, length: usize) -> Option<DmaMemory> {
        DmaMemory::from_heap(length)
    }
}

// SAFETY: memory comes zeroed and aligned from the heap, at its physical address.
unsafe impl Hal for Machine {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let layout = Layout::from_size_align(pages * PAGE as usize, PAGE as usize);
        // SAFETY: no caller asks for zero pages.
        let base = layout
            .ok()
            .and_then(|layout| NonNull::new(unsafe { alloc_zeroed(layout) }));
        // Address 0 is how the caller is told that there is none.
        base.map_or((0, NonNull::dangling()), |base| {
            (base.as_ptr() as PhysAddr, base)
        })
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        let Ok(layout) = Layout::from_size_align(pages * PAGE as usize, PAGE as usize) else {
            return -1;
        };
        // SAFETY: the caller got it from `dma_alloc` with as many pages.
        unsafe { alloc::alloc::dealloc(vaddr.as_ptr(), layout) };
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        // `nve_nic::virtio::pci::open` has mapped the range; it never is at zero.
        NonNull::new(paddr as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// Why there is no NIC for a role.
#[derive(Debug)]
pub enum Error {
    /// None matches the configuration.
    NotFound,
    /// The device that matches cannot be used.
    Device(virtio::Error),
    /// The device that matches has an MSI-X table that cannot be used.
    Msix,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound => f.write_str("no such virtio NIC"),
            Error::Device(problem) => problem.fmt(f),
            Error::Msix => f.write_str("MSI-X table out of reach"),
        }
    }
}

/// A virtio NIC that was found and not yet started.
pub struct Candidate {
    at: DeviceFunction,
    transport: PciTransport,
    wiring: PciWiring,
    /// Its MAC address.
    pub mac: Mac,
    /// Longest IP packet in bytes, if it says.
    pub mtu: Option<u16>,
    /// Pairs of queues that it has.
    pub pairs: u16,
}

/// The NICs of the machine that have no role yet.
pub struct Devices {
    space: ConfigSpace,
    candidates: heapless::Vec<Candidate, MAX_NICS>,
    interrupts: bool,
}

impl Devices {
    /// Looks for NICs and prints what is there.
    pub fn find(space: ConfigSpace) -> Devices {
        let mut candidates = heapless::Vec::new();
        for at in pci::functions(&space) {
            if !virtio::pci::is_network(&space, at) {
                continue;
            }
            match open(&space, at) {
                Ok(candidate) => {
                    info!("nic: {} virtio-net, mac {}", address(at), candidate.mac);
                    // NICs past the limit are left alone.
                    let _ = candidates.push(candidate);
                }
                Err(problem) => warn!("nic: {} virtio-net: {problem}", address(at)),
            }
        }
        Devices {
            space,
            candidates,
            interrupts: true,
        }
    }

    /// Takes the NIC that `selector` names.
    pub fn take(&mut self, selector: NicSelector) -> Result<Candidate, Error> {
        let index = self
            .candidates
            .iter()
            .position(|candidate| candidate.matches(selector))
            .ok_or(Error::NotFound)?;
        Ok(self.candidates.swap_remove(index))
    }

    /// Starts a NIC with a pair of queues for each of `messages`, or fewer, of which each
    /// interrupts by its own if it can, and with large frames if they are `large_wanted`
    /// and it can.
    pub fn start(
        &mut self,
        candidate: Candidate,
        messages: &[Message],
        large_wanted: bool,
    ) -> Result<Vec<Pair<PciTransport>>, Error> {
        let Candidate {
            at,
            transport,
            mut wiring,
            ..
        } = candidate;
        let vectors: Vec<Option<u16>> =
            match pci::enable_msix(&mut self.space, at, &mut Machine, messages) {
                Ok(count) => (0..count).map(Some).collect(),
                Err(MsixError::Missing) => {
                    warn!("nic: {} has no MSI-X: polled even when idle", address(at));
                    self.interrupts = false;
                    messages.iter().map(|_| None).collect()
                }
                Err(MsixError::Table) => return Err(Error::Msix),
            };
        let end = time::since_boot().0 + PATIENCE;
        let mut wait = || time::since_boot().0 < end;
        let (wiring, memory) = (&mut wiring, &mut Machine);
        let started = virtio::start(transport, wiring, memory, &vectors, large_wanted, &mut wait)
            .map_err(Error::Device)?;
        if let Some(why) = started.alone {
            warn!("nic: {} has one pair of queues: {why}", address(at));
        }
        if let [first, more @ ..] = started.pairs.as_slice() {
            info!("nic: {} features {}", address(at), Names(first.features()));
            if !more.is_empty() {
                info!("nic: {} pairs of queues {}", address(at), more.len() + 1);
            }
        }
        Ok(started.pairs)
    }

    /// Whether all NICs that were started can interrupt.
    pub fn interrupt(&self) -> bool {
        self.interrupts
    }
}

impl Candidate {
    fn matches(&self, selector: NicSelector) -> bool {
        match selector {
            NicSelector::Mac(mac) => self.mac == mac,
            NicSelector::Pci(wanted) => wanted == address(self.at),
        }
    }
}

/// Features by their names.
struct Names(Features);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, _)) in self.0.iter_names().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{name}")?;
        }
        Ok(())
    }
}

fn open(space: &ConfigSpace, at: DeviceFunction) -> Result<Candidate, virtio::Error> {
    let (mut transport, wiring) = virtio::pci::open::<Machine, _>(space, at, &mut Machine)?;
    let (mac, mtu) = virtio::announced(&mut transport)?;
    // Each pair has an interrupt, unless none has.
    let interrupts = pci::msix_entries(space, at).unwrap_or(u16::MAX);
    let pairs = virtio::announced_pairs(&mut transport).min(interrupts);
    Ok(Candidate {
        at,
        transport,
        wiring,
        mac: Mac(mac),
        mtu,
        pairs,
    })
}

fn address(at: DeviceFunction) -> PciAddress {
    PciAddress {
        bus: at.bus,
        device: at.device,
        function: at.function,
    }
}
