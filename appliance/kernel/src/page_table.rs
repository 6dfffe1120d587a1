//! Four-level page tables (Intel SDM volume 3A, 5.5): identity maps by pages of
//! 4 KiB and 2 MiB.
//!
//! The tables live in a [`Tables`], so the same code fills those of the machine
//! and those of a test. Invariant: what a call maps is exactly its range; a
//! larger page that covers more is split first and its rest keeps its access.

use crate::memory::{PAGE, Region};

/// Bytes of a large page.
pub const LARGE: u64 = 2 << 20;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const IS_LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What may be done with a page. There is none that is both writable and
/// executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Not mapped: any access faults.
    None,
    /// Fetched and read.
    Execute,
    /// Read.
    Read,
    /// Read and written.
    Write,
    /// Device registers: read and written, not cached.
    Device,
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Access::None => 0,
            Access::Execute => PRESENT,
            Access::Read => PRESENT | NO_EXECUTE,
            Access::Write => PRESENT | WRITE | NO_EXECUTE,
            Access::Device => PRESENT | WRITE | NO_EXECUTE | CACHE_DISABLE | WRITE_THROUGH,
        }
    }
}

/// Where page tables are kept.
pub trait Tables {
    /// A fresh table of 512 zero entries: its physical address.
    fn allocate(&mut self) -> Option<u64>;

    /// Entry `index` (below 512) of `table`.
    fn read(&self, table: u64, index: usize) -> u64;

    /// Sets entry `index` (below 512) of `table`.
    fn write(&mut self, table: u64, index: usize, entry: u64);
}

/// No memory is left for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTable;

/// An address space under construction or in use.
#[derive(Debug)]
pub struct Mapper<T> {
    tables: T,
    root: u64,
}

impl<T: Tables> Mapper<T> {
    /// An address space in which nothing is mapped.
    pub fn new(mut tables: T) -> Result<Self, NoTable> {
        let root = tables.allocate().ok_or(NoTable)?;
        Ok(Mapper { tables, root })
    }

    /// Physical address of the top table, for CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Maps the pages that `range` touches to themselves with `access`,
    /// replacing what was there.
    pub fn map(&mut self, range: Region, access: Access) -> Result<(), NoTable> {
        let range = range.grow_to_pages();
        let mut at = range.start;
        while at < range.end {
            let large = at.is_multiple_of(LARGE) && range.end - at >= LARGE;
            let directory = self.directory(at)?;
            if large {
                self.tables.write(
                    directory,
                    index(at, 1),
                    leaf(at, access) | large_bit(access),
                );
                at += LARGE;
            } else {
                let table = self.table(directory, at)?;
                self.tables.write(table, index(at, 0), leaf(at, access));
                at += PAGE;
            }
        }
        Ok(())
    }

    /// Whether and how the page at `address` is mapped.
    pub fn access(&self, address: u64) -> Access {
        let mut table = self.root;
        for level in [3, 2, 1, 0] {
            let entry = self.tables.read(table, index(address, level));
            if entry & PRESENT == 0 {
                return Access::None;
            }
            if level == 0 || entry & IS_LARGE != 0 {
                return access_of(entry);
            }
            table = entry & ADDRESS;
        }
        Access::None
    }

    fn directory(&mut self, address: u64) -> Result<u64, NoTable> {
        let pointers = self.next(self.root, index(address, 3))?;
        self.next(pointers, index(address, 2))
    }

    /// The table below entry `at` of `table`, made if there is none.
    fn next(&mut self, table: u64, at: usize) -> Result<u64, NoTable> {
        let entry = self.tables.read(table, at);
        if entry & PRESENT != 0 {
            return Ok(entry & ADDRESS);
        }
        let below = self.tables.allocate().ok_or(NoTable)?;
        self.tables.write(table, at, below | PRESENT | WRITE);
        Ok(below)
    }

    /// The table of 4 KiB pages for `address`; splits a large page.
    fn table(&mut self, directory: u64, address: u64) -> Result<u64, NoTable> {
        let at = index(address, 1);
        let entry = self.tables.read(directory, at);
        if entry & PRESENT == 0 || entry & IS_LARGE == 0 {
            return self.next(directory, at);
        }
        let table = self.tables.allocate().ok_or(NoTable)?;
        let small = entry & !IS_LARGE;
        for (i, offset) in (0..LARGE).step_by(PAGE as usize).enumerate() {
            self.tables.write(table, i, small + offset);
        }
        self.tables.write(directory, at, table | PRESENT | WRITE);
        Ok(table)
    }
}

fn leaf(address: u64, access: Access) -> u64 {
    match access.bits() {
        0 => 0,
        bits => address & ADDRESS | bits,
    }
}

fn large_bit(access: Access) -> u64 {
    if access == Access::None { 0 } else { IS_LARGE }
}

fn access_of(entry: u64) -> Access {
    if entry & CACHE_DISABLE != 0 {
        Access::Device
    } else if entry & WRITE != 0 {
        Access::Write
    } else if entry & NO_EXECUTE != 0 {
        Access::Read
    } else {
        Access::Execute
    }
}

/// Index into the table of `level` (0 holds 4 KiB pages, 3 is the root).
fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level) & 0x1ff) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        tables: Vec<[u64; 512]>,
        limit: usize,
    }

    impl Tables for Fake {
        fn allocate(&mut self) -> Option<u64> {
            if self.tables.len() == self.limit {
                return None;
            }
            self.tables.push([0; 512]);
            Some(self.tables.len() as u64 * PAGE)
        }

        fn read(&self, table: u64, index: usize) -> u64 {
            self.tables[(table / PAGE) as usize - 1][index]
        }

        fn write(&mut self, table: u64, index: usize, entry: u64) {
            self.tables[(table / PAGE) as usize - 1][index] = entry;
        }
    }

    fn mapper(limit: usize) -> Mapper<Fake> {
        let tables = Vec::new();
        Mapper::new(Fake { tables, limit }).unwrap()
    }

    fn region(start: u64, end: u64) -> Region {
        Region { start, end }
    }

    #[test]
    fn exactly_the_range_is_mapped() {
        let mut mapper = mapper(16);
        mapper.map(region(0x1000, 4 << 20), Access::Write).unwrap();
        assert_eq!(mapper.access(0xfff), Access::None);
        assert_eq!(mapper.access(0x1000), Access::Write);
        assert_eq!(mapper.access((4 << 20) - 1), Access::Write);
        assert_eq!(mapper.access(4 << 20), Access::None);
    }

    #[test]
    fn aligned_memory_takes_large_pages() {
        let mut mapper = mapper(16);
        mapper.map(region(0, 1 << 30), Access::Write).unwrap();
        assert_eq!(mapper.tables.tables.len(), 3);
        assert_eq!(
            mapper.tables.read(3 * PAGE, 5),
            (5 * LARGE) | IS_LARGE | Access::Write.bits()
        );
    }

    #[test]
    fn splitting_a_large_page_keeps_the_rest_as_it_was() {
        let mut mapper = mapper(16);
        mapper.map(region(0, 8 << 20), Access::Write).unwrap();
        mapper
            .map(region(0x20_0000, 0x20_3000), Access::Execute)
            .unwrap();
        mapper
            .map(region(0x20_5000, 0x20_6000), Access::None)
            .unwrap();
        mapper.map(region(0, 1), Access::None).unwrap();
        assert_eq!(mapper.access(0), Access::None);
        assert_eq!(mapper.access(0x1000), Access::Write);
        assert_eq!(mapper.access(0x20_2fff), Access::Execute);
        assert_eq!(mapper.access(0x20_3000), Access::Write);
        assert_eq!(mapper.access(0x20_5000), Access::None);
        assert_eq!(mapper.access(0x20_6000), Access::Write);
        assert_eq!(mapper.access(0x3f_ffff), Access::Write);
    }

    #[test]
    fn far_device_memory_gets_tables_of_its_own() {
        let mut mapper = mapper(16);
        let bar = 0x38_0000_0000_4000;
        mapper
            .map(Region::new(bar & ADDRESS, 0x1000), Access::Device)
            .unwrap();
        assert_eq!(mapper.access(bar & ADDRESS), Access::Device);
    }

    #[test]
    fn no_access_is_both_writable_and_executable() {
        for access in [Access::Execute, Access::Read, Access::Write, Access::Device] {
            assert!(access.bits() & WRITE == 0 || access.bits() & NO_EXECUTE != 0);
        }
    }

    #[test]
    fn running_out_of_tables_is_an_error() {
        let mut mapper = mapper(3);
        assert_eq!(
            mapper.map(region(0x1000, 0x2000), Access::Read),
            Err(NoTable)
        );
    }
}
