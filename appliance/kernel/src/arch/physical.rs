//! Reading memory that firmware and hypervisor filled, before the heap exists.

use nve_kernel::acpi;
use nve_kernel::memory::Region;

/// Addresses that the boot page tables map.
const MAPPED: u64 = 1 << 32;

/// Physical memory while boot information is being read.
pub struct Physical;

impl acpi::Memory for Physical {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        bytes(Region::new(address, length as u64))
    }
}

/// The bytes of `region`; `None` if the boot page tables do not map all of it.
pub fn bytes(region: Region) -> Option<&'static [u8]> {
    let length = usize::try_from(region.len()).ok()?;
    if region.start == 0 || region.end > MAPPED {
        return None;
    }
    // SAFETY: mapped, as just checked, and any content is a valid byte. It is not
    // written while it is in use: `wipe` and the heap, which may take this memory,
    // come after the last use of boot information.
    Some(unsafe { core::slice::from_raw_parts(region.start as *const u8, length) })
}

/// The first `N` bytes at `address`.
pub fn array<const N: usize>(address: u64) -> Option<&'static [u8; N]> {
    bytes(Region::new(address, N as u64))?.first_chunk()
}

/// Overwrites `region` with zeros, in a way that the compiler may not leave out.
pub fn wipe(region: Region) {
    if bytes(region).is_none() {
        return;
    }
    for address in region.start..region.end {
        // SAFETY: mapped and writable, as just checked; the caller is done with it.
        unsafe { core::ptr::write_volatile(address as *mut u8, 0) };
    }
}
