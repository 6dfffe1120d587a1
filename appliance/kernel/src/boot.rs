//! What the hypervisor handed over: memory map, configuration, ACPI tables.

use heapless::Vec;
use nve_kernel::config::Config;
use nve_kernel::memory::{self, MAX_REGIONS, Region};
use nve_kernel::pvh::{self, StartInfo};

use crate::arch::{paging, physical};
use crate::heap;

/// Longest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 64 * 1024;

/// Most entries of the memory map that are looked at.
const MAX_MAP: u32 = 256;

/// Firmware's own memory, and what starts other processors.
const FIRMWARE: Region = Region {
    start: 0,
    end: 1 << 20,
};

/// Boot information whose structure is sound.
#[derive(Debug)]
pub struct BootInfo {
    info: StartInfo,
    /// Every region of RAM.
    pub ram: Vec<Region, MAX_REGIONS>,
}

impl BootInfo {
    /// Reads what the entry point was given.
    pub fn read(address: u64) -> Result<BootInfo, &'static str> {
        let bytes = physical::array(address).ok_or("boot information out of reach")?;
        let info = StartInfo::parse(bytes).map_err(|problem| match problem {
            pvh::Error::Magic => "not started by the PVH protocol",
            pvh::Error::Version => "boot information without a memory map",
        })?;
        let entries = (0..u64::from(info.memory_entries.min(MAX_MAP))).filter_map(|i| {
            let address = info.memory_map.checked_add(i * pvh::MAP_ENTRY as u64)?;
            pvh::ram(physical::array(address)?)
        });
        let limit = Region {
            start: 0,
            end: paging::RAM_LIMIT,
        };
        let ram = memory::usable(entries, &[], limit);
        Ok(BootInfo { info, ram })
    }

    /// Bytes of RAM.
    pub fn ram_bytes(&self) -> u64 {
        self.ram.iter().map(Region::len).sum()
    }

    /// Physical address of ACPI's root pointer; 0 if there is none.
    pub fn rsdp(&self) -> u64 {
        self.info.rsdp
    }

    /// A page of RAM in which another processor can begin: below 1 MiB, and above what
    /// real mode has in use. Boot information may be in it.
    pub fn real_mode_page(&self) -> Option<u64> {
        const WINDOW: Region = Region {
            start: 0x8000,
            end: 0xa_0000,
        };

        let pages = memory::usable(self.ram.iter().copied(), &[], WINDOW);
        pages.first().map(|region| region.start)
    }

    /// Reads the configuration, the first boot module, and wipes its text, which
    /// holds a private key.
    pub fn config(&self) -> Result<Config, ConfigError> {
        if self.info.modules == 0 {
            return Err(ConfigError::NoModule);
        }
        let entry = physical::array(self.info.module_list).ok_or(ConfigError::OutOfReach)?;
        let module = pvh::module(entry);
        if module.len() > MAX_CONFIG {
            return Err(ConfigError::TooLong);
        }
        // It is wiped below, so it must not be what runs here.
        if module.overlaps(&paging::image()) {
            return Err(ConfigError::OutOfReach);
        }
        let text = physical::bytes(module).ok_or(ConfigError::OutOfReach)?;
        let config = Config::parse(text).map_err(ConfigError::Field);
        physical::wipe(module);
        config
    }

    /// Switches to the final address space and makes the heap. Boot information
    /// is gone after this.
    pub fn into_memory(self) -> Result<(), &'static str> {
        let reserved = [FIRMWARE, paging::image()];
        let everything = Region {
            start: 0,
            end: paging::RAM_LIMIT,
        };
        let mut free = memory::usable(self.ram.iter().copied(), &reserved, everything);
        // The tables have to be within what the boot page tables map.
        let mut low: Vec<Region, MAX_REGIONS> = free
            .iter()
            .copied()
            .filter(|region| region.end <= 1 << 32)
            .collect();
        let tables = memory::take(&mut low, paging::table_bytes(&self.ram))
            .ok_or("not enough memory for page tables")?;
        free = memory::usable(free.iter().copied(), &[tables], everything);
        paging::init(tables, &self.ram).map_err(|_| "not enough memory for page tables")?;
        // SAFETY: RAM by the memory map, mapped by the new tables, without the
        // image, firmware's memory and the tables.
        unsafe { heap::init(&free) };
        Ok(())
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The hypervisor passed no boot module.
    NoModule,
    /// The module is not in memory that can be read.
    OutOfReach,
    /// The module is longer than any configuration.
    TooLong,
    /// The text is wrong.
    Field(nve_kernel::config::Error),
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ConfigError::NoModule => f.write_str("config: no boot module (QEMU: -initrd FILE)"),
            ConfigError::OutOfReach => f.write_str("config: boot module out of reach"),
            ConfigError::TooLong => f.write_str("config: longer than 64 KiB"),
            ConfigError::Field(problem) => problem.fmt(f),
        }
    }
}
