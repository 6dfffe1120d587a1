//! Access to PCI configuration space, by memory (ECAM) or by ports.

use nve_kernel::acpi::{self, Ecam};
use nve_kernel::memory::Region;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use x86_64::instructions::port::Port;

use super::paging;
use super::physical::Physical;

/// Configuration space as this machine offers it.
#[derive(Debug, Clone, Copy)]
pub enum ConfigSpace {
    /// In memory, mapped.
    Memory(Ecam),
    /// Behind ports 0xcf8 and 0xcfc (PCI Local Bus 3.0, 3.2.2.3.2).
    Ports,
}

/// Where ACPI says that configuration space is in memory. To be called while
/// boot information is there.
pub fn find_ecam(rsdp: u64) -> Option<Ecam> {
    acpi::ecam(&Physical, rsdp)
}

impl ConfigSpace {
    /// By memory if there is one and it can be mapped, else by ports.
    pub fn new(ecam: Option<Ecam>) -> ConfigSpace {
        match ecam {
            Some(ecam) if paging::map_device(ecam_region(&ecam)) => ConfigSpace::Memory(ecam),
            _ => ConfigSpace::Ports,
        }
    }

    /// For the boot log.
    pub fn describe(&self) -> &'static str {
        match self {
            ConfigSpace::Memory(_) => "ECAM",
            ConfigSpace::Ports => "ports",
        }
    }
}

fn ecam_region(ecam: &Ecam) -> Region {
    let start = ecam.base + (u64::from(ecam.first) << 20);
    Region::new(start, (u64::from(ecam.last - ecam.first) + 1) << 20)
}

/// Address of a word in memory; `None` if its bus is not there.
fn word_address(ecam: &Ecam, at: DeviceFunction, offset: u8) -> Option<*mut u32> {
    if !(ecam.first..=ecam.last).contains(&at.bus) || !at.valid() {
        return None;
    }
    let function =
        u64::from(at.bus) << 20 | u64::from(at.device) << 15 | u64::from(at.function) << 12;
    Some((ecam.base + function + u64::from(offset & !3)) as *mut u32)
}

/// Selects a word for the data port.
fn select(at: DeviceFunction, offset: u8) {
    let address = 1 << 31
        | u32::from(at.bus) << 16
        | u32::from(at.device & 31) << 11
        | u32::from(at.function & 7) << 8
        | u32::from(offset & !3);
    // SAFETY: the address port of configuration space; selecting has no effect.
    unsafe { Port::<u32>::new(0xcf8).write(address) };
}

impl ConfigurationAccess for ConfigSpace {
    fn read_word(&self, at: DeviceFunction, offset: u8) -> u32 {
        match self {
            ConfigSpace::Memory(ecam) => match word_address(ecam, at, offset) {
                // SAFETY: in the configuration space that is mapped.
                Some(word) => unsafe { word.read_volatile() },
                None => u32::MAX,
            },
            ConfigSpace::Ports => {
                select(at, offset);
                // SAFETY: the data port of configuration space.
                unsafe { Port::<u32>::new(0xcfc).read() }
            }
        }
    }

    fn write_word(&mut self, at: DeviceFunction, offset: u8, data: u32) {
        match self {
            ConfigSpace::Memory(ecam) => {
                if let Some(word) = word_address(ecam, at, offset) {
                    // SAFETY: in the configuration space that is mapped.
                    unsafe { word.write_volatile(data) };
                }
            }
            ConfigSpace::Ports => {
                select(at, offset);
                // SAFETY: the data port of configuration space.
                unsafe { Port::<u32>::new(0xcfc).write(data) };
            }
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}
