//! The address space: everything at its physical address, nothing both writable
//! and executable, no page at zero, guard pages below stacks.

use core::sync::atomic::{AtomicU32, Ordering};

use nve_kernel::acpi::MAX_PROCESSORS;
use nve_kernel::memory::{PAGE, Region};
use nve_kernel::page_table::{Access, LARGE, Mapper, NoTable, Tables};
use spin::{Mutex, Once};
use x86_64::PhysAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::stacks;

/// RAM above this is not used: one entry of the top table covers it.
pub const RAM_LIMIT: u64 = 512 << 30;

/// Addresses below 4 GiB are mapped whether or not there is RAM: devices.
const LOW: u64 = 4 << 30;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __image_start: u8;
    static __image_end: u8;
}

/// Bytes that page tables for this memory map take at most.
pub fn table_bytes(ram: &[Region]) -> u64 {
    // The fixed part: top and lower tables for 4 GiB, splits around the image and
    // at page 0, and device memory of a few NICs above RAM.
    const FIXED: u64 = 48;
    // The guards of a processor's stacks split two large pages at most.
    const STACKS: u64 = 2 * (MAX_PROCESSORS as u64 - 1);
    let top = ram.iter().map(|region| region.end).max().unwrap_or(0);
    (FIXED + STACKS + top.min(RAM_LIMIT).div_ceil(1 << 30)) * PAGE
}

/// The image with its stacks.
pub fn image() -> Region {
    section(&raw const __image_start, &raw const __image_end)
}

fn section(start: *const u8, end: *const u8) -> Region {
    Region {
        start: start as u64,
        end: end as u64,
    }
}

/// Pages for tables, handed out once each.
struct Frames {
    free: Region,
}

impl Tables for Frames {
    fn allocate(&mut self) -> Option<u64> {
        let frame = self.free.start;
        if self.free.len() < PAGE {
            return None;
        }
        self.free.start += PAGE;
        for i in 0..512 {
            self.write(frame, i, 0);
        }
        Some(frame)
    }

    fn read(&self, table: u64, index: usize) -> u64 {
        // SAFETY: `table` came from `allocate` (entries are only written by the
        // mapper), is mapped at its address, and `index` is below 512.
        unsafe { (table as *const u64).add(index & 511).read_volatile() }
    }

    fn write(&mut self, table: u64, index: usize, entry: u64) {
        // SAFETY: as for `read`.
        unsafe { (table as *mut u64).add(index & 511).write_volatile(entry) };
    }
}

/// Physical address of the top table, for boot.s; 0 if there is none that it can use.
pub static ROOT: AtomicU32 = AtomicU32::new(0);

static SPACE: Once<Mutex<Mapper<Frames>>> = Once::new();

/// Builds the address space in `tables` for `ram` and switches to it.
pub fn init(tables: Region, ram: &[Region]) -> Result<(), NoTable> {
    let mut mapper = Mapper::new(Frames { free: tables })?;
    mapper.map(Region { start: 0, end: LOW }, Access::Device)?;
    for region in ram {
        mapper.map(ram_pages(region), Access::Write)?;
    }
    for (start, end, access) in [
        (
            &raw const __text_start,
            &raw const __text_end,
            Access::Execute,
        ),
        (
            &raw const __rodata_start,
            &raw const __rodata_end,
            Access::Read,
        ),
        (
            &raw const __data_start,
            &raw const __image_end,
            Access::Write,
        ),
    ] {
        mapper.map(section(start, end), access)?;
    }
    mapper.map(Region::new(0, PAGE), Access::None)?;
    for guard in stacks::BOOT.guards() {
        mapper.map(guard, Access::None)?;
    }
    // Another processor can load 32 bits of it; tables are below 4 GiB, where the boot
    // page tables reach.
    let low = u32::try_from(mapper.root()).unwrap_or(0);
    ROOT.store(low, Ordering::Relaxed);
    let root = PhysFrame::containing_address(PhysAddr::new(mapper.root()));
    // SAFETY: the new map has everything in use (code, stacks, tables, RAM) where
    // the old one has it, with the access that its use needs.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
    SPACE.call_once(|| Mutex::new(mapper));
    Ok(())
}

/// Firmware tables and RAM share large pages at RAM's edges; both are cacheable.
fn ram_pages(region: &Region) -> Region {
    Region {
        start: region.start & !(LARGE - 1),
        end: region.end.saturating_add(LARGE - 1).min(RAM_LIMIT) & !(LARGE - 1),
    }
}

/// Makes device registers at `region` usable at their physical address. False if
/// there is no memory for the tables, or the region is not a device's.
#[must_use]
pub fn map_device(region: Region) -> bool {
    let Some(space) = SPACE.get() else {
        return false;
    };
    let mut space = space.lock();
    let region = region.grow_to_pages();
    for page in (region.start..region.end).step_by(PAGE as usize) {
        match space.access(page) {
            Access::Device => {}
            Access::None if page >= LOW => {
                if space.map(Region::new(page, PAGE), Access::Device).is_err() {
                    return false;
                }
            }
            _ => return false,
        }
    }
    tlb::flush_all();
    true
}

/// Has `pages` fault from now on, whatever is done with them. False if there is no
/// memory for the tables. Other processors may still reach them for a while.
#[must_use]
pub fn forbid(pages: &[Region]) -> bool {
    let Some(space) = SPACE.get() else {
        return false;
    };
    let mut space = space.lock();
    let done = pages
        .iter()
        .all(|page| space.map(*page, Access::None).is_ok());
    tlb::flush_all();
    done
}

/// Whether data can be read at `address`.
pub fn is_readable(address: u64) -> bool {
    match SPACE.get().and_then(Mutex::try_lock) {
        Some(space) => !matches!(space.access(address), Access::None | Access::Device),
        None => (PAGE..LOW).contains(&address),
    }
}
