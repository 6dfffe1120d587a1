//! Memory that a device in another process can map: packet buffers and rings.
//!
//! Invariant: what was allocated is never given out again, and the mapping lives as
//! long as the process.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nve_nic::DmaMemory;
use nve_nic::dma::DmaSource;
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{FileOffset, MmapRegion};

/// Address of the first byte as devices see it.
const BASE: u64 = 1 << 32;

/// Devices want their structures on pages of their own.
const ALIGN: usize = 4096;

/// Bytes of a huge page.
pub const HUGE: usize = 2 << 20;

/// What pages the memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Ordinary ones.
    Small,
    /// Pages of 2 MiB; the system has to have them (`vm.nr_hugepages`).
    Huge,
}

/// A range of shared memory, given out from its front.
#[derive(Debug)]
pub struct Shared {
    mapping: &'static MmapRegion,
    file: &'static File,
    used: usize,
}

impl Shared {
    /// At least `bytes` of memory, zeroed.
    pub fn new(bytes: usize, pages: Pages) -> Result<Shared> {
        let bytes = bytes.next_multiple_of(HUGE);
        let flags = match pages {
            Pages::Small => MFdFlags::MFD_CLOEXEC,
            Pages::Huge => MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB,
        };
        let file = File::from(memfd_create(c"nve", flags).context("no shared memory")?);
        file.set_len(bytes as u64)?;
        // Huge pages that are missing are an error here, not a signal later.
        nix::fcntl::posix_fallocate(&file, 0, bytes as i64)
            .with_context(|| format!("no {} MiB of shared memory", bytes >> 20))?;
        let mapped = file.try_clone()?;
        let mapping = MmapRegion::from_file(FileOffset::new(mapped, 0), bytes)?;
        Ok(Shared {
            mapping: Box::leak(Box::new(mapping)),
            file: Box::leak(Box::new(file)),
            used: 0,
        })
    }

    /// How another process maps it.
    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: BASE,
            memory_size: self.mapping.size() as u64,
            userspace_addr: self.mapping.as_ptr() as u64,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }
}

impl DmaSource for Shared {
    fn allocate(&mut self, length: usize) -> Option<DmaMemory> {
        let start = self.used;
        let end = start.checked_add(length.max(1))?.next_multiple_of(ALIGN);
        if end > self.mapping.size() {
            return None;
        }
        self.used = end;
        let base = NonNull::new(self.mapping.as_ptr().wrapping_add(start))?;
        // SAFETY: inside of the mapping, which is never unmapped; zeroed, as a fresh
        // file is; aligned, and given to nobody else, since `used` has moved on.
        Some(unsafe { DmaMemory::new(base, BASE + start as u64, length) })
    }
}
