//! virtio over PCI (virtio 1.2, 4.1).
//!
//! `virtio_drivers` has the transport. It trusts the capabilities that it reads
//! (a list without end, a structure that wraps around), so they are checked here
//! before it sees them; and it has no interrupt vectors, so [`PciWiring`] does.

use core::ptr::NonNull;

use virtio_drivers::Hal;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{DeviceFunction, PciRoot};

use super::{Doorbell, Error, Wiring};
use crate::pci::{self, Access, Registers};

const VENDOR: u32 = 0x1af4;
/// A network device, transitional and modern.
const DEVICES: [u32; 2] = [0x1000, 0x1041];

/// Capability of a virtio structure, and the structures' numbers.
const VENDOR_SPECIFIC: u8 = 0x09;
const COMMON: u32 = 1;
const NOTIFY: u32 = 2;
const LAST_STRUCTURE: u32 = 4;

/// Bytes of the common configuration, and offsets in it (virtio 1.2, 4.1.4.3).
const COMMON_LENGTH: u32 = 56;
const CONFIG_VECTOR: usize = 0x10;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_VECTOR: usize = 0x1a;
const QUEUE_NOTIFY_OFF: usize = 0x1e;

/// The vector that is none.
const NO_VECTOR: u16 = 0xffff;

/// The registers that `PciTransport` has no methods for.
#[derive(Debug)]
pub struct PciWiring {
    common: NonNull<u8>,
    notify: NonNull<u8>,
    notify_length: u32,
    notify_multiplier: u32,
}

/// Whether the function is a virtio network device.
pub fn is_network<C: Access>(access: &C, at: DeviceFunction) -> bool {
    let id = access.read_word(at, 0);
    id & 0xffff == VENDOR && DEVICES.contains(&(id >> 16))
}

/// Finds the device's structures and resets it.
///
/// `H::mmio_phys_to_virt` is called only for ranges that `registers` has mapped.
pub fn open<H: Hal, C: Access>(
    access: &C,
    at: DeviceFunction,
    registers: &mut impl Registers,
) -> Result<(PciTransport, PciWiring), Error> {
    if !is_network(access, at) {
        return Err(Error::NotANic);
    }
    pci::enable(access, at);
    let mut wiring = find_structures(access, at, registers)?;
    let transport = PciTransport::new::<H, C>(&mut PciRoot::new(access.clone()), at)
        .map_err(|_| Error::Transport)?;
    wiring.write(CONFIG_VECTOR, NO_VECTOR);
    Ok((transport, wiring))
}

/// Maps every structure that the transport may use, and keeps those that it does
/// not give access to.
fn find_structures<C: Access>(
    access: &C,
    at: DeviceFunction,
    registers: &mut impl Registers,
) -> Result<PciWiring, Error> {
    let list = pci::capabilities(access, at).ok_or(Error::Capabilities)?;
    let (mut common, mut notify) = (None, None);
    for (offset, _) in list.iter().filter(|(_, id)| *id == VENDOR_SPECIFIC) {
        let word = |index: u8| {
            // Capabilities end at 256, where offsets start over.
            let offset = offset.checked_add(4 * index)?;
            Some(access.read_word(at, offset))
        };
        let head = word(0).ok_or(Error::Registers)?;
        let structure = head >> 24;
        if !(COMMON..=LAST_STRUCTURE).contains(&structure) {
            continue;
        }
        let [Some(bar), Some(start), Some(length)] = [word(1), word(2), word(3)] else {
            return Err(Error::Registers);
        };
        let address = pci::in_bar(access, at, bar as u8, start, length).ok_or(Error::Registers)?;
        let mapped = registers
            .map(address, u64::from(length))
            .ok_or(Error::Registers)?;
        match structure {
            COMMON if common.is_none() => common = Some((mapped, length)),
            NOTIFY if notify.is_none() => {
                let multiplier = word(4).ok_or(Error::Registers)?;
                notify = Some((mapped, length, multiplier));
            }
            _ => {}
        }
    }
    let (common, common_length) = common.ok_or(Error::Transport)?;
    let (notify, notify_length, notify_multiplier) = notify.ok_or(Error::Transport)?;
    if common_length < COMMON_LENGTH || !common.cast::<u64>().is_aligned() {
        return Err(Error::Registers);
    }
    Ok(PciWiring {
        common,
        notify,
        notify_length,
        notify_multiplier,
    })
}

impl PciWiring {
    fn read(&self, offset: usize) -> u16 {
        // SAFETY: a 16-bit register of the common configuration, which is mapped,
        // aligned and at least as long as the specification says.
        unsafe { self.common.add(offset).cast::<u16>().read_volatile() }
    }

    fn write(&mut self, offset: usize, value: u16) {
        // SAFETY: as for `read`.
        unsafe { self.common.add(offset).cast::<u16>().write_volatile(value) };
    }
}

impl Wiring for PciWiring {
    fn bind(&mut self, queue: u16, vector: Option<u16>) -> bool {
        let vector = vector.unwrap_or(NO_VECTOR);
        self.write(QUEUE_SELECT, queue);
        self.write(QUEUE_VECTOR, vector);
        self.read(QUEUE_VECTOR) == vector
    }

    fn doorbell(&mut self, queue: u16) -> Option<Doorbell> {
        self.write(QUEUE_SELECT, queue);
        let offset = u32::from(self.read(QUEUE_NOTIFY_OFF)).checked_mul(self.notify_multiplier)?;
        if offset.checked_add(2)? > self.notify_length {
            return None;
        }
        // SAFETY: within the notification structure, which is mapped.
        let register = unsafe { self.notify.add(offset as usize) }.cast::<u16>();
        // SAFETY: a doorbell, by the device's own word; nobody else has this one.
        register
            .is_aligned()
            .then(|| unsafe { Doorbell::new(register, queue) })
    }
}

#[cfg(test)]
mod tests {
    use virtio_drivers::transport::pci::bus::ConfigurationAccess;

    use super::*;
    use crate::pci::fake::{FakeBus, FakeRegisters, at};

    const BAR: u32 = 0xfeb0_0000;

    fn device() -> (FakeBus, FakeRegisters) {
        let bus = FakeBus::with_bars(0x1000);
        let capability = |kind: u32, next: u32| kind << 24 | 20 << 16 | next << 8 | 0x09;
        bus.set(
            at(0, 1, 0),
            &[
                (0x00, 0x1041_1af4),
                (0x04, 1 << 20),
                (0x10, BAR),
                (0x34, 0x40),
                (0x40, capability(COMMON, 0x54)),
                (0x44, 0),
                (0x48, 0),
                (0x4c, 56),
                (0x54, capability(NOTIFY, 0)),
                (0x58, 0),
                (0x5c, 0x800),
                (0x60, 0x100),
                (0x64, 4),
            ],
        );
        let registers = FakeRegisters {
            base: u64::from(BAR),
            memory: vec![0; 512],
        };
        (bus, registers)
    }

    fn find(bus: &FakeBus, registers: &mut FakeRegisters) -> Result<PciWiring, Error> {
        find_structures(bus, at(0, 1, 0), registers)
    }

    #[test]
    fn structures_are_found_where_capabilities_say() {
        let (bus, mut registers) = device();
        let mut wiring = find(&bus, &mut registers).unwrap();
        assert!(wiring.bind(1, Some(3)));
        assert!(wiring.bind(0, None));
        // queue_notify_off of 0x40 would be the first one behind the structure.
        wiring.write(QUEUE_NOTIFY_OFF, 0x3f);
        assert!(wiring.doorbell(0).is_some());
        wiring.write(QUEUE_NOTIFY_OFF, 0x40);
        assert!(wiring.doorbell(0).is_none());
    }

    #[test]
    fn structures_outside_of_their_bar_are_refused() {
        for (offset, word) in [
            (0x48, 0xfd0),
            (0x48, 0xffff_fff0),
            (0x4c, 0xffff_ffff),
            (0x4c, 20),
            (0x44, 6),
            (0x44, 1),
            (0x5c, 0xf01),
            (0x60, 0x801),
        ] {
            let (bus, mut registers) = device();
            bus.set(at(0, 1, 0), &[(offset, word)]);
            let result = find(&bus, &mut registers).err();
            assert_eq!(result, Some(Error::Registers), "{offset:#x} {word:#x}");
        }
    }

    #[test]
    fn missing_structures_and_circles_are_refused() {
        let (bus, mut registers) = device();
        bus.set(at(0, 1, 0), &[(0x40, 0x0114_0009)]);
        assert_eq!(find(&bus, &mut registers).err(), Some(Error::Transport));
        bus.set(at(0, 1, 0), &[(0x40, 0x0114_4009)]);
        assert_eq!(find(&bus, &mut registers).err(), Some(Error::Capabilities));
    }

    #[test]
    fn a_multiplier_that_overflows_has_no_doorbell() {
        let (bus, mut registers) = device();
        bus.set(at(0, 1, 0), &[(0x64, u32::MAX)]);
        let mut wiring = find(&bus, &mut registers).unwrap();
        wiring.write(QUEUE_NOTIFY_OFF, 2);
        assert!(wiring.doorbell(0).is_none());
        assert!(is_network(&bus, at(0, 1, 0)));
        assert_eq!(bus.read_word(at(0, 2, 0), 0), u32::MAX);
    }
}
