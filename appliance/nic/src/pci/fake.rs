//! Configuration spaces in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::rc::Rc;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::Registers;

/// Function `function` of device `device` on bus `bus`.
pub(crate) fn at(bus: u8, device: u8, function: u8) -> DeviceFunction {
    DeviceFunction {
        bus,
        device,
        function,
    }
}

/// Words of every function's configuration space; what is not there reads as ones.
#[derive(Clone, Default)]
pub(crate) struct FakeBus {
    words: Rc<RefCell<HashMap<(DeviceFunction, u8), u32>>>,
    /// Size of each function's BAR, whichever it is.
    bar_size: u32,
}

impl FakeBus {
    /// A bus whose functions have BARs of `bar_size` bytes, a power of two.
    pub(crate) fn with_bars(bar_size: u32) -> Self {
        FakeBus {
            bar_size,
            ..FakeBus::default()
        }
    }

    pub(crate) fn set(&self, at: DeviceFunction, words: &[(u8, u32)]) {
        for (offset, word) in words {
            self.words.borrow_mut().insert((at, *offset), *word);
        }
    }
}

impl ConfigurationAccess for FakeBus {
    fn read_word(&self, at: DeviceFunction, offset: u8) -> u32 {
        let words = self.words.borrow();
        match words.get(&(at, offset)) {
            Some(word) => *word,
            None if words.contains_key(&(at, 0)) => 0,
            None => u32::MAX,
        }
    }

    fn write_word(&mut self, at: DeviceFunction, offset: u8, word: u32) {
        let is_bar = (0x10..0x28).contains(&offset);
        let before = self.read_word(at, offset);
        let word = match is_bar && before != 0 {
            true => word & !(self.bar_size - 1) | before & 0xf,
            false if is_bar => 0,
            false => word,
        };
        self.words.borrow_mut().insert((at, offset), word);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

/// Device registers at addresses of the host: `base` is where `memory` is said to be.
pub(crate) struct FakeRegisters {
    pub(crate) base: u64,
    pub(crate) memory: Vec<u64>,
}

impl Registers for FakeRegisters {
    fn map(&mut self, address: u64, length: u64) -> Option<NonNull<u8>> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let bytes = self.memory.len() * 8;
        if offset + usize::try_from(length).ok()? > bytes {
            return None;
        }
        // SAFETY: within the memory, as just checked.
        NonNull::new(unsafe { self.memory.as_mut_ptr().cast::<u8>().add(offset) })
    }
}
