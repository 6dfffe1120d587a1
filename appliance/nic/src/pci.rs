//! What PCI devices have in common and `virtio_drivers` leaves out: finding all
//! of them, bounded walks of their capabilities, MSI-X (PCI Local Bus 3.0,
//! chapter 6).

use core::ptr::NonNull;

use heapless::Vec;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, PciRoot,
};

/// Most functions that are looked at.
pub const MAX_FUNCTIONS: usize = 64;

/// Capability of MSI-X.
const MSIX: u8 = 0x11;

/// Capabilities are at least 4 bytes in the 192 behind the header.
const MAX_CAPABILITIES: usize = 48;

/// Type of a function's header: a bridge to another bus.
const BRIDGE: u32 = 1;

/// Access to configuration space through which the same device can be reached
/// twice: by this crate and by `virtio_drivers`.
pub trait Access: ConfigurationAccess + Clone {}

impl<C: ConfigurationAccess + Clone> Access for C {}

/// Makes device registers usable.
pub trait Registers {
    /// Maps `length` bytes at physical address `address`, uncached. `None` if they
    /// are not a device's or cannot be mapped.
    fn map(&mut self, address: u64, length: u64) -> Option<NonNull<u8>>;
}

/// Why MSI-X cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MsixError {
    /// The function has no such capability.
    Missing,
    /// Its table is not in one of its BARs, or would have no entry.
    Table,
}

/// A message-signalled interrupt: what is written where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Physical address.
    pub address: u64,
    /// Value.
    pub data: u32,
}

/// Every function behind the root bus, bridges followed.
pub fn functions<C: Access>(access: &C) -> Vec<DeviceFunction, MAX_FUNCTIONS> {
    let mut found = Vec::new();
    let mut buses: Vec<u8, MAX_FUNCTIONS> = Vec::new();
    // The list is empty, so there is a place.
    let _ = buses.push(0);
    let mut next = 0;
    while let Some(bus) = buses.get(next).copied() {
        next += 1;
        scan_bus(access, bus, &mut found, &mut buses);
    }
    found
}

fn scan_bus<C: Access>(
    access: &C,
    bus: u8,
    found: &mut Vec<DeviceFunction, MAX_FUNCTIONS>,
    buses: &mut Vec<u8, MAX_FUNCTIONS>,
) {
    /// Header type bit: the device has more than function 0.
    const MULTI_FUNCTION: u32 = 0x80;

    for device in 0..32 {
        for function in 0..8 {
            let at = DeviceFunction {
                bus,
                device,
                function,
            };
            if access.read_word(at, 0) & 0xffff == 0xffff {
                if function == 0 {
                    break;
                }
                continue;
            }
            let header = access.read_word(at, 0x0c) >> 16;
            // Functions and buses past the limits stay unused.
            if header & 0x7f == BRIDGE {
                let secondary = (access.read_word(at, 0x18) >> 8) as u8;
                if !buses.contains(&secondary) {
                    let _ = buses.push(secondary);
                }
            } else {
                let _ = found.push(at);
            }
            if function == 0 && header & MULTI_FUNCTION == 0 {
                break;
            }
        }
    }
}

/// Offsets and identifiers of a function's capabilities. `None` if the list does
/// not end.
pub fn capabilities<C: Access>(
    access: &C,
    at: DeviceFunction,
) -> Option<Vec<(u8, u8), MAX_CAPABILITIES>> {
    let mut list = Vec::new();
    let has_list = access.read_word(at, 0x04) >> 20 & 1 == 1;
    let mut offset = if has_list {
        access.read_word(at, 0x34) as u8 & 0xfc
    } else {
        0
    };
    while offset >= 0x40 {
        let header = access.read_word(at, offset);
        list.push((offset, header as u8)).ok()?;
        offset = (header >> 8) as u8 & 0xfc;
    }
    Some(list)
}

/// Lets the function use memory and be bus master, without its legacy interrupt.
pub fn enable<C: Access>(access: &C, at: DeviceFunction) {
    let command = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
    PciRoot::new(access.clone()).set_command(at, command);
}

/// Where `length` bytes from `offset` of memory BAR `bar` are. `None` if they are
/// not all in it, or it has no address.
pub fn in_bar<C: Access>(
    access: &C,
    at: DeviceFunction,
    bar: u8,
    offset: u32,
    length: u32,
) -> Option<u64> {
    if bar > 5 {
        return None;
    }
    let info = PciRoot::new(access.clone()).bar_info(at, bar).ok()??;
    let BarInfo::Memory { address, size, .. } = info else {
        return None;
    };
    let end = u64::from(offset) + u64::from(length);
    if address == 0 || end > size {
        return None;
    }
    address.checked_add(end)?;
    Some(address + u64::from(offset))
}

/// How many entries the function's MSI-X table has; `None` if it has none.
pub fn msix_entries<C: Access>(access: &C, at: DeviceFunction) -> Option<u16> {
    let list = capabilities(access, at)?;
    let (capability, _) = list.iter().find(|(_, id)| *id == MSIX)?;
    Some(entries(access.read_word(at, *capability)))
}

/// The number of entries in a capability's first word: less one, in the upper half.
fn entries(control: u32) -> u16 {
    (control >> 16) as u16 % 0x800 + 1
}

/// Turns MSI-X on with the first entries of the table sending `messages`, as far as it
/// has entries, and returns how many that are. All others stay masked, as they are after
/// a reset.
pub fn enable_msix<C: Access>(
    access: &mut C,
    at: DeviceFunction,
    registers: &mut impl Registers,
    messages: &[Message],
) -> Result<u16, MsixError> {
    /// Bytes of a table entry.
    const ENTRY: u32 = 16;
    /// Message control, in the upper half of the capability's first word.
    const ENABLE: u32 = 1 << 31;
    const FUNCTION_MASK: u32 = 1 << 30;

    let list = capabilities(access, at).ok_or(MsixError::Missing)?;
    let (capability, _) = list
        .iter()
        .find(|(_, id)| *id == MSIX)
        .ok_or(MsixError::Missing)?;
    // The table's place is the second word, so the capability ends in time.
    let place = capability.checked_add(4).ok_or(MsixError::Table)?;
    let table = access.read_word(at, place);
    let (bar, offset) = ((table & 7) as u8, table & !7);
    let control = access.read_word(at, *capability);
    let count = messages.len().min(entries(control).into());
    let length = count as u32 * ENTRY;
    let address = in_bar(access, at, bar, offset, length).ok_or(MsixError::Table)?;
    let words = registers
        .map(address, u64::from(length))
        .ok_or(MsixError::Table)?
        .cast::<u32>();
    if count == 0 || !words.is_aligned() {
        return Err(MsixError::Table);
    }
    let written = messages.iter().take(count).flat_map(|message| {
        let unmasked = 0;
        let [low, high] = [message.address as u32, (message.address >> 32) as u32];
        [low, high, message.data, unmasked]
    });
    for (i, word) in written.enumerate() {
        // SAFETY: one of the entries' words, mapped just now and aligned.
        unsafe { words.add(i).write_volatile(word) };
    }
    access.write_word(at, *capability, control & !FUNCTION_MASK | ENABLE);
    Ok(count as u16)
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
