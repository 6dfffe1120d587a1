//! The local APIC: end of interrupt, and a timer that ends a HLT.
//!
//! Intel SDM volume 3A, chapter 12. Interrupts are only ever open during a HLT
//! ([`Apic::wait`]), so no code runs concurrently with a handler.

use core::sync::atomic::Ordering;

use nve_datapath::Nanos;
use nve_kernel::memory::Region;
use nve_nic::pci::Message;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

use super::{cpu, time, traps};

const APIC_BASE: u32 = 0x1b;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const TSC_DEADLINE: u32 = 0x6e0;

/// Registers, by their offset in the xAPIC's page.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const TIMER: u32 = 0x320;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

/// Timer entry: compare with the time-stamp counter.
const DEADLINE_MODE: u32 = 2 << 17;
/// Divide register: by 16.
const BY_16: u32 = 3;

/// The local APIC of the processor.
#[derive(Debug)]
pub struct Apic {
    mode: Mode,
    timer: Timer,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    /// Registers in memory at this address.
    XApic(u64),
    /// Registers are MSRs.
    X2Apic,
}

#[derive(Debug, Clone, Copy)]
enum Timer {
    /// Takes the counter's value.
    Deadline,
    /// Counts down; this many times in a millisecond.
    Countdown { per_milli: u32 },
}

impl Apic {
    /// The page of xAPIC registers, to be mapped before [`Apic::new`].
    pub fn registers() -> Region {
        Region::new(base() & !0xfff, 4096)
    }

    /// Turns the APIC on. Needs the time and the trap handlers.
    pub fn new() -> Apic {
        mask_legacy_controllers();
        let mode = enable();
        let mut apic = Apic {
            mode,
            timer: Timer::Deadline,
        };
        apic.write(TASK_PRIORITY, 0);
        apic.write(SPURIOUS, 0x100 | u32::from(traps::SPURIOUS_VECTOR));
        apic.timer = apic.init_timer();
        apic
    }

    /// For the boot log: register access and timer in use.
    pub fn describe(&self) -> (&'static str, &'static str) {
        let mode = match self.mode {
            Mode::XApic(_) => "xAPIC",
            Mode::X2Apic => "x2APIC",
        };
        match self.timer {
            Timer::Deadline => (mode, "TSC deadline"),
            Timer::Countdown { .. } => (mode, "countdown"),
        }
    }

    /// A message that interrupts this processor with `vector` (Intel SDM 3A,
    /// 12.11). The boot processor's identifier fits its eight bits.
    pub fn message(&self, vector: u8) -> Message {
        let id = match self.mode {
            Mode::XApic(_) => self.read(ID) >> 24,
            Mode::X2Apic => self.read(ID) & 0xff,
        };
        Message {
            address: 0xfee0_0000 | u64::from(id) << 12,
            data: u32::from(vector),
        }
    }

    /// Halts until an interrupt comes or `deadline` has passed. Returns at once
    /// for an interrupt that came since the last call.
    pub fn wait(&mut self, deadline: Nanos) {
        self.set_timer(deadline);
        interrupts::enable_and_hlt();
        interrupts::disable();
    }

    fn set_timer(&mut self, deadline: Nanos) {
        match self.timer {
            Timer::Deadline => {
                // SAFETY: CPUID announced the MSR; a value in the past fires now.
                unsafe { Msr::new(TSC_DEADLINE).write(time::ticks_at(deadline).max(1)) };
            }
            Timer::Countdown { per_milli } => {
                let nanos = deadline.0.saturating_sub(time::since_boot().0);
                let count = u128::from(nanos) * u128::from(per_milli) / 1_000_000;
                let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
                self.write(INITIAL_COUNT, count);
            }
        }
    }

    fn init_timer(&mut self) -> Timer {
        let vector = u32::from(traps::TIMER_VECTOR);
        if cpu::leaf(1).ecx & 1 << 24 != 0 {
            self.write(TIMER, vector | DEADLINE_MODE);
            return Timer::Deadline;
        }
        self.write(DIVIDE, BY_16);
        self.write(TIMER, vector);
        self.write(INITIAL_COUNT, u32::MAX);
        let end = Nanos(time::since_boot().0 + 1_000_000);
        while time::since_boot() < end {
            core::hint::spin_loop();
        }
        let per_milli = (u32::MAX - self.read(CURRENT_COUNT)).max(1);
        self.write(INITIAL_COUNT, 0);
        Timer::Countdown { per_milli }
    }

    fn read(&self, register: u32) -> u32 {
        match self.mode {
            // SAFETY: a register of the APIC's page, which is mapped.
            Mode::XApic(base) => unsafe {
                ((base + u64::from(register)) as *const u32).read_volatile()
            },
            // SAFETY: x2APIC registers are at 0x800 plus the offset over 16.
            Mode::X2Apic => unsafe { Msr::new(0x800 + (register >> 4)).read() as u32 },
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        match self.mode {
            // SAFETY: a register of the APIC's page, which is mapped.
            Mode::XApic(base) => unsafe {
                ((base + u64::from(register)) as *mut u32).write_volatile(value);
            },
            // SAFETY: x2APIC registers are at 0x800 plus the offset over 16.
            Mode::X2Apic => unsafe { Msr::new(0x800 + (register >> 4)).write(u64::from(value)) },
        }
    }
}

fn base() -> u64 {
    // SAFETY: every 64-bit processor has the MSR.
    unsafe { Msr::new(APIC_BASE).read() }
}

fn enable() -> Mode {
    let base = base() | APIC_BASE_ENABLE;
    let mut register = Msr::new(APIC_BASE);
    // SAFETY: turning the APIC on, in the order that the SDM (figure 12-27)
    // allows: xAPIC first, then x2APIC where CPUID has it.
    unsafe { register.write(base) };
    if cpu::leaf(1).ecx & 1 << 21 != 0 {
        // SAFETY: as above.
        unsafe { register.write(base | APIC_BASE_X2APIC) };
        return Mode::X2Apic;
    }
    let address = Apic::registers().start;
    traps::EOI_REGISTER.store(address + u64::from(EOI), Ordering::Relaxed);
    Mode::XApic(address)
}

/// Masks every input of the two 8259 controllers; nothing here uses them.
fn mask_legacy_controllers() {
    for port in [0x21, 0xa1] {
        // SAFETY: the controllers' mask registers.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
}
