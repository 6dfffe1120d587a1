//! Ending: power-off with an exit status, and reset.

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

/// Why the appliance gave up; the run profile's exit status is twice this plus 1.
///
/// QEMU's `isa-debug-exit` at port 0xf4 turns the value written into an exit
/// status; image/README.md lists them.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Exit {
    /// The configuration is missing or wrong: status 33.
    Config = 0x10,
    /// A NIC that the configuration names is not there or not usable: status 35.
    Nic = 0x11,
    /// The processor has no random number generator: status 37.
    Entropy = 0x12,
    /// The processor lacks instructions that the image needs: status 39.
    Processor = 0x13,
    /// Not enough memory, or none that the boot information describes: status 41.
    Memory = 0x14,
}

/// Powers off.
pub fn off(exit: Exit) -> ! {
    // SAFETY: isa-debug-exit ends the emulator here; elsewhere nothing listens.
    unsafe { Port::<u32>::new(0xf4).write(exit as u32) };
    // SAFETY: PM1a control of QEMU's q35 and pc: SLP_EN with the type of S5
    // (ACPI 6.5, 4.8.3.2.1); elsewhere nothing listens.
    unsafe { Port::<u16>::new(0x604).write(0x2000) };
    // SAFETY: sleep control of Cloud Hypervisor's and Firecracker's reduced ACPI
    // hardware (ACPI 6.5, 4.8.3.7): SLP_EN with type 5.
    unsafe { Port::<u8>::new(0x600).write(0x34) };
    halt()
}

/// Resets the machine.
pub fn reset() -> ! {
    // SAFETY: the reset control register of the chipset; full reset.
    unsafe { Port::<u8>::new(0xcf9).write(0x06) };
    // SAFETY: the keyboard controller's pulse of the reset line.
    unsafe { Port::<u8>::new(0x64).write(0xfe) };
    halt()
}

/// Stops this processor for good; others go on.
pub fn halt() -> ! {
    interrupts::disable();
    loop {
        hlt();
    }
}
