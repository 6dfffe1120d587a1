//! The PVH boot protocol's start information.
//!
//! Layouts from Xen's `xen/include/public/arch-x86/hvm/start_info.h`. The words
//! are what the hypervisor or its firmware wrote; addresses are not checked here.

use crate::memory::Region;

/// Value of the first word.
const MAGIC: u32 = 0x336e_c578;

/// Bytes of `hvm_start_info` from version 1 on.
pub const START_INFO: usize = 56;

/// Bytes of an `hvm_memmap_table_entry`.
pub const MAP_ENTRY: usize = 24;

/// Bytes of an `hvm_modlist_entry`.
pub const MODULE_ENTRY: usize = 32;

/// Memory type of an entry that is RAM (`XEN_HVM_MEMMAP_TYPE_RAM`).
const RAM: u32 = 1;

/// What is wrong with the start information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// It does not start with the protocol's magic number.
    Magic,
    /// Version 0, which has no memory map.
    Version,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Error::Magic => "no PVH start information",
            Error::Version => "PVH start information of version 0, without a memory map",
        })
    }
}

/// Where the rest of the boot information is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartInfo {
    /// Number of modules.
    pub modules: u32,
    /// Physical address of the first module's entry.
    pub module_list: u64,
    /// Physical address of the ACPI RSDP; 0 if there is none.
    pub rsdp: u64,
    /// Physical address of the first memory map entry.
    pub memory_map: u64,
    /// Number of memory map entries.
    pub memory_entries: u32,
}

impl StartInfo {
    /// Reads the structure.
    pub fn parse(bytes: &[u8; START_INFO]) -> Result<StartInfo, Error> {
        if u32_at(bytes, 0) != MAGIC {
            return Err(Error::Magic);
        }
        if u32_at(bytes, 4) == 0 {
            return Err(Error::Version);
        }
        Ok(StartInfo {
            modules: u32_at(bytes, 12),
            module_list: u64_at(bytes, 16),
            rsdp: u64_at(bytes, 32),
            memory_map: u64_at(bytes, 40),
            memory_entries: u32_at(bytes, 48),
        })
    }
}

/// The RAM that an entry of the memory map describes, if it is RAM.
pub fn ram(entry: &[u8; MAP_ENTRY]) -> Option<Region> {
    (u32_at(entry, 16) == RAM).then(|| Region::new(u64_at(entry, 0), u64_at(entry, 8)))
}

/// Where the module of an entry of the module list is.
pub fn module(entry: &[u8; MODULE_ENTRY]) -> Region {
    Region::new(u64_at(entry, 0), u64_at(entry, 8))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |field| u64::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_info(version: u32) -> [u8; START_INFO] {
        let mut bytes = [0; START_INFO];
        bytes[0..4].copy_from_slice(&[0x78, 0xc5, 0x6e, 0x33]);
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&1u32.to_le_bytes());
        bytes[16..24].copy_from_slice(&0x1000u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&0xf_5a70u64.to_le_bytes());
        bytes[40..48].copy_from_slice(&0x2000u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&7u32.to_le_bytes());
        bytes
    }

    #[test]
    fn start_information_is_read_where_xen_puts_it() {
        assert_eq!(
            StartInfo::parse(&start_info(1)),
            Ok(StartInfo {
                modules: 1,
                module_list: 0x1000,
                rsdp: 0xf_5a70,
                memory_map: 0x2000,
                memory_entries: 7,
            })
        );
        assert_eq!(StartInfo::parse(&start_info(0)), Err(Error::Version));
        assert_eq!(StartInfo::parse(&[0; START_INFO]), Err(Error::Magic));
    }

    #[test]
    fn only_ram_entries_are_memory() {
        let mut entry = [0; MAP_ENTRY];
        entry[0..8].copy_from_slice(&0x10_0000u64.to_le_bytes());
        entry[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
        entry[16] = 1;
        assert_eq!(ram(&entry), Some(Region::new(0x10_0000, 0x20_0000)));
        entry[16] = 2;
        assert_eq!(ram(&entry), None);
    }

    #[test]
    fn a_module_that_wraps_around_ends_at_the_last_address() {
        let entry = [0xff; MODULE_ENTRY];
        assert_eq!(
            module(&entry),
            Region {
                start: u64::MAX,
                end: u64::MAX
            }
        );
    }
}
