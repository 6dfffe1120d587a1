//! The one thing needed of ACPI: where PCI configuration space is in memory.
//!
//! Root pointer and tables: ACPI 6.5, sections 5.2.5 to 5.2.8; MCFG: PCI Firmware
//! specification 3.3, table 4-2. Every length and checksum is checked.

/// Bytes of a table's header.
const HEADER: usize = 36;

/// Longest table that is read, in bytes.
const MAX_TABLE: usize = 64 * 1024;

/// Configuration space of PCI segment 0 in memory: 1 MiB for each bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecam {
    /// Physical address of bus 0, which need not be mapped.
    pub base: u64,
    /// First bus that is there.
    pub first: u8,
    /// Last bus that is there.
    pub last: u8,
}

/// Reads physical memory: `length` bytes at an address.
pub trait Memory {
    /// `None` if they cannot be read.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// Finds the memory of PCI segment 0, given the address of the root pointer.
pub fn ecam(memory: &impl Memory, rsdp: u64) -> Option<Ecam> {
    let (root, entry) = root_table(memory, rsdp)?;
    let root = table(memory, root)?;
    root.get(HEADER..)?
        .chunks_exact(entry)
        .filter_map(|entry| table(memory, little_endian(entry)))
        .find(|table| table.starts_with(b"MCFG"))
        .and_then(segment_0)
}

/// Address of the root table and bytes of its entries: XSDT, or RSDT.
fn root_table(memory: &impl Memory, rsdp: u64) -> Option<(u64, usize)> {
    if rsdp == 0 {
        return None;
    }
    let pointer = memory.bytes(rsdp, 20)?;
    if !pointer.starts_with(b"RSD PTR ") || checksum(pointer) != 0 {
        return None;
    }
    let old = (little_endian(pointer.get(16..20)?), 4);
    if *pointer.get(15)? < 2 {
        return Some(old);
    }
    let pointer = memory.bytes(rsdp, 36)?;
    match little_endian(pointer.get(24..32)?) {
        0 => Some(old),
        _ if checksum(pointer) != 0 => Some(old),
        address => Some((address, 8)),
    }
}

fn table(memory: &impl Memory, address: u64) -> Option<&[u8]> {
    let header = memory.bytes(address, HEADER)?;
    let length = usize::try_from(little_endian(header.get(4..8)?)).ok()?;
    if !(HEADER..=MAX_TABLE).contains(&length) {
        return None;
    }
    let table = memory.bytes(address, length)?;
    (checksum(table) == 0).then_some(table)
}

fn segment_0(mcfg: &[u8]) -> Option<Ecam> {
    mcfg.get(HEADER + 8..)?.chunks_exact(16).find_map(|entry| {
        let segment = little_endian(entry.get(8..10)?);
        let (first, last) = (*entry.get(10)?, *entry.get(11)?);
        let base = little_endian(entry.get(..8)?);
        // The last byte of the last bus has an address too.
        base.checked_add((u64::from(last) + 1) << 20)?;
        (segment == 0 && first <= last && base != 0).then_some(Ecam { base, first, last })
    })
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Image(Vec<u8>);

    impl Memory for Image {
        fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
            let start = usize::try_from(address).ok()?;
            self.0.get(start..start.checked_add(length)?)
        }
    }

    impl Image {
        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }

        fn table(&mut self, at: usize, name: &[u8; 4], body: &[u8]) {
            let mut table = vec![0; HEADER];
            table[..4].copy_from_slice(name);
            table.extend_from_slice(body);
            let length = u32::try_from(table.len()).unwrap();
            table[4..8].copy_from_slice(&length.to_le_bytes());
            table[9] = checksum(&table).wrapping_neg();
            self.put(at, &table);
        }
    }

    const RSDP: u64 = 0x40;

    fn image(revision: u8) -> Image {
        let mut image = Image(vec![0; 0x1000]);
        let mut pointer = [0; 36];
        pointer[..8].copy_from_slice(b"RSD PTR ");
        pointer[15] = revision;
        pointer[16..20].copy_from_slice(&0x200u32.to_le_bytes());
        pointer[8] = checksum(&pointer[..20]).wrapping_neg();
        pointer[24..32].copy_from_slice(&0x300u64.to_le_bytes());
        pointer[32] = checksum(&pointer).wrapping_neg();
        image.put(RSDP as usize, &pointer);
        image.table(
            0x200,
            b"RSDT",
            &[0x400u32.to_le_bytes(), 0x500u32.to_le_bytes()].concat(),
        );
        image.table(
            0x300,
            b"XSDT",
            &[0x400u64.to_le_bytes(), 0x500u64.to_le_bytes()].concat(),
        );
        image.table(0x400, b"FACP", &[0; 40]);
        let mut mcfg = vec![0; 8];
        mcfg.extend(0xb000_0000u64.to_le_bytes());
        mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
        image.table(0x500, b"MCFG", &mcfg);
        image
    }

    #[test]
    fn configuration_space_is_found_by_either_root_table() {
        let expected = Ecam {
            base: 0xb000_0000,
            first: 0,
            last: 255,
        };
        for revision in [0, 2] {
            assert_eq!(ecam(&image(revision), RSDP), Some(expected));
        }
    }

    #[test]
    fn without_sound_tables_there_is_none() {
        assert_eq!(ecam(&image(2), 0), None);
        assert_eq!(ecam(&image(2), 0x41), None);
        assert_eq!(ecam(&image(2), u64::MAX), None);
        let mut broken = image(2);
        broken.0[0x530] ^= 1;
        assert_eq!(ecam(&broken, RSDP), None);
    }

    proptest! {
        #[test]
        fn no_table_panics(at in 0..0x600usize, byte in any::<u8>(), revision in 0..3u8) {
            let mut image = image(revision);
            image.0[at] = byte;
            let _ = ecam(&image, RSDP);
        }
    }
}
