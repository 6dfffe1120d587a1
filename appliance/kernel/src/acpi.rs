//! What is needed of ACPI: where PCI configuration space is in memory, and which
//! processors there are.
//!
//! Root pointer and tables: ACPI 6.5, sections 5.2.5 to 5.2.8; MCFG: PCI Firmware
//! specification 3.3, table 4-2; MADT: ACPI 6.5, section 5.2.12. Every length and
//! checksum is checked.

use heapless::Vec;

/// Bytes of a table's header.
const HEADER: usize = 36;

/// Longest table that is read, in bytes.
const MAX_TABLE: usize = 64 * 1024;

/// Most processors that are used.
pub const MAX_PROCESSORS: usize = 16;

/// Identifier of a processor's local APIC. Eight bits: others have no place in the
/// message of a NIC (Intel SDM 3A, 12.11), and 255 is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApicId(pub u8);

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
    find(memory, rsdp, b"MCFG").and_then(segment_0)
}

/// Finds the processors that can be used, each once and in the table's order, given
/// the address of the root pointer. None without a table.
pub fn processors(memory: &impl Memory, rsdp: u64) -> Vec<ApicId, MAX_PROCESSORS> {
    let mut found = Vec::new();
    let madt = find(memory, rsdp, b"APIC").unwrap_or_default();
    // Behind the header: address of the APICs, and flags.
    let mut rest = madt.get(HEADER + 8..).unwrap_or_default();
    while let Some((structure, behind)) = split_structure(rest) {
        if let Some(id) = enabled(structure).filter(|id| !found.contains(id)) {
            // Those past the limit are left alone.
            let _ = found.push(id);
        }
        rest = behind;
    }
    found
}

/// The first structure of a MADT's list, and those behind it; `None` at its end, and
/// where a length is impossible.
fn split_structure(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(*list.get(1)?);
    if length < 2 {
        return None;
    }
    list.split_at_checked(length)
}

/// The processor that a structure of the MADT is about, if it is enabled and can be
/// told by eight bits.
fn enabled(structure: &[u8]) -> Option<ApicId> {
    const LOCAL_APIC: u8 = 0;
    const LOCAL_X2APIC: u8 = 9;
    const ENABLED: u8 = 1;

    let (id, flags) = match *structure.first()? {
        LOCAL_APIC => (u64::from(*structure.get(3)?), *structure.get(4)?),
        LOCAL_X2APIC => (little_endian(structure.get(4..8)?), *structure.get(8)?),
        _ => return None,
    };
    let id = u8::try_from(id).ok().filter(|id| *id != u8::MAX)?;
    (flags & ENABLED != 0).then_some(ApicId(id))
}

/// The first sound table with this signature.
fn find<'a>(memory: &'a impl Memory, rsdp: u64, signature: &[u8; 4]) -> Option<&'a [u8]> {
    let (root, entry) = root_table(memory, rsdp)?;
    let root = table(memory, root)?;
    root.get(HEADER..)?
        .chunks_exact(entry)
        .filter_map(|entry| table(memory, little_endian(entry)))
        .find(|table| table.starts_with(signature))
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
    use std::vec::Vec;

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

    fn local_apic(id: u8, flags: u32) -> Vec<u8> {
        let mut structure = vec![0, 8, !id, id];
        structure.extend(flags.to_le_bytes());
        structure
    }

    fn local_x2apic(id: u32, flags: u32) -> Vec<u8> {
        let mut structure = vec![9, 16, 0, 0];
        for word in [id, flags, !id] {
            structure.extend(word.to_le_bytes());
        }
        structure
    }

    /// Identifiers of the processors of a MADT with this list.
    fn listed(list: &[u8]) -> Vec<u8> {
        let mut image = image(2);
        let body = [&0xfee0_0000u32.to_le_bytes(), &[1, 0, 0, 0], list].concat();
        image.table(0x400, b"APIC", &body);
        let found = processors(&image, RSDP);
        found.iter().map(|id| id.0).collect()
    }

    /// As QEMU 7.2 makes it for `-machine q35 -smp 2,maxcpus=3`.
    const MADT: &[u8] = &[
        0, 8, 0, 0, 1, 0, 0, 0, // processor 0, enabled
        0, 8, 1, 1, 1, 0, 0, 0, // processor 1, enabled
        0, 8, 2, 2, 0, 0, 0, 0, // processor 2, to be plugged in
        1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0, // I/O APIC
        2, 10, 0, 0, 2, 0, 0, 0, 0, 0, // override of an interrupt
        4, 6, 0xff, 0, 0, 1, // NMI
    ];

    #[test]
    fn processors_that_are_enabled_are_found() {
        assert_eq!(listed(MADT), [0, 1]);
        assert_eq!(processors(&image(2), RSDP).as_slice(), []);
        assert_eq!(processors(&image(2), 0).as_slice(), []);
    }

    #[test]
    fn x2apic_identifiers_count_if_a_message_has_room_for_them() {
        let list = [
            local_x2apic(254, 1),
            local_x2apic(255, 1),
            local_x2apic(256, 1),
            local_x2apic(7, 0),
            // To be plugged in.
            local_x2apic(9, 2),
            local_apic(10, 2),
            local_x2apic(8, 3),
            local_apic(255, 1),
        ];
        assert_eq!(listed(&list.concat()), [254, 8]);
    }

    #[test]
    fn a_processor_that_is_listed_twice_is_one() {
        let list = [local_apic(3, 1), local_x2apic(3, 1), local_apic(2, 1)];
        assert_eq!(listed(&list.concat()), [3, 2]);
    }

    #[test]
    fn the_list_ends_where_a_length_is_impossible() {
        let good = local_apic(1, 1);
        for broken in [&[0, 0][..], &[0, 1], &[0, 1, 2], &[0, 200]] {
            let list = [&good, broken, &local_apic(5, 1)[..]].concat();
            assert_eq!(listed(&list), [1], "{broken:?}");
        }
        for cut in 1..8 {
            let list = [&good, &local_apic(5, 1)[..cut]].concat();
            assert_eq!(listed(&list), [1], "{cut}");
        }
        // Too short for what they are said to be.
        let short = [&[0, 2][..], &[9, 8, 0, 0, 1, 0, 0, 0], &good].concat();
        assert_eq!(listed(&short), [1]);
    }

    #[test]
    fn processors_past_the_limit_are_left_alone() {
        let list: Vec<u8> = (0..300u32).flat_map(|id| local_x2apic(id, 1)).collect();
        let mut image = image(2);
        image.0.resize(0x4000, 0);
        image.table(
            0x300,
            b"XSDT",
            &[0x2000u64.to_le_bytes(), 0x500u64.to_le_bytes()].concat(),
        );
        image.table(0x2000, b"APIC", &[&[0; 8], list.as_slice()].concat());
        let found = processors(&image, RSDP);
        assert!(found.iter().map(|id| id.0).eq(0..MAX_PROCESSORS as u8));
    }

    proptest! {
        #[test]
        fn no_table_panics(at in 0..0x600usize, byte in any::<u8>(), revision in 0..3u8) {
            let mut image = image(revision);
            image.0[at] = byte;
            let _ = ecam(&image, RSDP);
        }

        #[test]
        fn no_list_of_processors_panics(list in proptest::collection::vec(any::<u8>(), 0..150)) {
            prop_assert!(listed(&list).len() <= MAX_PROCESSORS);
        }
    }
}
