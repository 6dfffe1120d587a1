//! The local APIC: end of interrupt, a timer that ends a HLT, messages to other
//! processors.
//!
//! Intel SDM volume 3A, chapter 12. Interrupts are only ever open during a HLT
//! ([`Apic::wait`], [`Apic::sleep`]), so no code runs concurrently with a handler of
//! its processor.

use core::arch::x86_64::{_mm_lfence, _mm_mfence};
use core::sync::atomic::Ordering;

use nve_datapath::Nanos;
use nve_kernel::acpi::ApicId;
use nve_kernel::memory::Region;
use nve_nic::pci::Message;
use x86_64::instructions::port::Port;
use x86_64::instructions::{interrupts, nop};
use x86_64::registers::model_specific::Msr;

use super::{cpu, time, traps};

const APIC_BASE: u32 = 0x1b;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TSC_DEADLINE: u32 = 0x6e0;

/// Registers, by their offset in the xAPIC's page.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const COMMAND: u32 = 0x300;
const COMMAND_TARGET: u32 = 0x310;
const TIMER: u32 = 0x320;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

/// Interrupt command register: a fixed vector, INIT, and start-up at a page; edge, but
/// for the level that all of these want.
const FIXED: u32 = 1 << 14;
const INIT: u32 = 5 << 8 | 1 << 14;
const START_UP: u32 = 6 << 8 | 1 << 14;
/// The last message has not been sent yet.
const PENDING: u32 = 1 << 12;

/// Polls until a message counts as sent, which takes the bus some.
const PATIENCE: usize = 100_000;

/// Timer entry: compare with the time-stamp counter.
const DEADLINE_MODE: u32 = 2 << 17;
/// Divide register: by 16.
const BY_16: u32 = 3;

/// The local APIC of the processor that uses it.
#[derive(Debug)]
pub struct Apic {
    mode: Mode,
    timer: Timer,
    /// Whether the timer may have to be stopped.
    is_set: bool,
}

/// What the APICs of all processors have in common.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    registers: u64,
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
        Region::new(base() & APIC_BASE_ADDRESS, 4096)
    }

    /// Turns the APIC of the first processor on. Needs the time and the trap handlers.
    pub fn new() -> Apic {
        mask_legacy_controllers();
        let mut apic = Apic::enable(Apic::registers().start);
        apic.timer = apic.init_timer();
        apic
    }

    /// What another processor needs for [`Apic::another`].
    pub fn common(&self) -> Common {
        Common {
            registers: Apic::registers().start,
            timer: self.timer,
        }
    }

    /// Turns the APIC of another processor on, called on that processor.
    pub fn another(common: Common) -> Apic {
        let mut apic = Apic::enable(common.registers);
        apic.timer = common.timer;
        apic.set_timer_entry();
        apic
    }

    fn enable(registers: u64) -> Apic {
        let mut apic = Apic {
            mode: enable(registers),
            timer: Timer::Deadline,
            is_set: false,
        };
        apic.write(TASK_PRIORITY, 0);
        apic.write(SPURIOUS, 0x100 | u32::from(traps::SPURIOUS_VECTOR));
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

    /// The processor's identifier. That of the first one fits eight bits, and others
    /// are not started unless theirs does.
    pub fn id(&self) -> ApicId {
        match self.mode {
            Mode::XApic(_) => ApicId((self.read(ID) >> 24) as u8),
            Mode::X2Apic => ApicId(self.read(ID) as u8),
        }
    }

    /// Has [`Apic::wait`] of another processor return, or its next call if it is not in
    /// one. It then sees what was written here before.
    pub fn wake(&mut self, processor: ApicId) {
        self.send(processor, FIXED | u32::from(traps::WAKE_VECTOR));
    }

    /// Stops another processor, as a reset does, until it is told to start.
    pub fn stop(&mut self, processor: ApicId) {
        self.send(processor, INIT);
    }

    /// Starts another processor that was stopped, in real mode at `page`, which is
    /// below 1 MiB. Does nothing to one that runs.
    pub fn start(&mut self, processor: ApicId, page: u64) {
        self.send(processor, START_UP | (page >> 12) as u32 & 0xff);
    }

    fn send(&mut self, processor: ApicId, command: u32) {
        // Writing the register orders nothing by itself in x2APIC mode (12.12.3).
        // SAFETY: every 64-bit processor has both instructions.
        unsafe {
            _mm_mfence();
            _mm_lfence();
        }
        let target = u32::from(processor.0);
        match self.mode {
            Mode::XApic(_) => {
                self.write(COMMAND_TARGET, target << 24);
                self.write(COMMAND, command);
                for _ in 0..PATIENCE {
                    if self.read(COMMAND) & PENDING == 0 {
                        break;
                    }
                    core::hint::spin_loop();
                }
            }
            Mode::X2Apic => {
                let command = u64::from(target) << 32 | u64::from(command);
                // SAFETY: the interrupt command register, one MSR in this mode.
                unsafe { Msr::new(0x800 + (COMMAND >> 4)).write(command) };
            }
        }
    }

    /// Halts until an interrupt comes or `deadline` has passed. Returns at once
    /// for an interrupt that came since the last call.
    pub fn wait(&mut self, deadline: Nanos) {
        self.set_timer(deadline);
        halt();
    }

    /// Halts until an interrupt comes, however long it takes. Returns at once for one
    /// that came since the last call.
    pub fn sleep(&mut self) {
        if core::mem::take(&mut self.is_set) {
            match self.timer {
                // SAFETY: CPUID announced the MSR; 0 is no deadline.
                Timer::Deadline => unsafe { Msr::new(TSC_DEADLINE).write(0) },
                Timer::Countdown { .. } => self.write(INITIAL_COUNT, 0),
            }
        }
        halt();
    }

    /// Takes the interrupts that have come, so that the next halt does not.
    pub fn take_pending(&mut self) {
        interrupts::enable();
        // Interrupts are open only after the instruction that follows (Intel SDM 2B, STI).
        nop();
        interrupts::disable();
    }

    fn set_timer(&mut self, deadline: Nanos) {
        self.is_set = true;
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
        if cpu::leaf(1).ecx & 1 << 24 != 0 {
            self.set_timer_entry();
            return Timer::Deadline;
        }
        self.timer = Timer::Countdown { per_milli: 1 };
        self.set_timer_entry();
        self.write(INITIAL_COUNT, u32::MAX);
        let end = Nanos(time::since_boot().0 + 1_000_000);
        while time::since_boot() < end {
            core::hint::spin_loop();
        }
        let per_milli = (u32::MAX - self.read(CURRENT_COUNT)).max(1);
        self.write(INITIAL_COUNT, 0);
        Timer::Countdown { per_milli }
    }

    /// Has the timer interrupt, in its mode.
    fn set_timer_entry(&mut self) {
        let vector = u32::from(traps::TIMER_VECTOR);
        match self.timer {
            Timer::Deadline => self.write(TIMER, vector | DEADLINE_MODE),
            Timer::Countdown { .. } => {
                self.write(DIVIDE, BY_16);
                self.write(TIMER, vector);
            }
        }
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

/// [`Apic::wake`] from anywhere, once the processor's APIC is on.
pub fn wake(processor: ApicId) {
    let mode = match traps::EOI_REGISTER.load(Ordering::Relaxed) {
        0 => Mode::X2Apic,
        register => Mode::XApic(register - u64::from(EOI)),
    };
    let mut apic = Apic {
        mode,
        timer: Timer::Deadline,
        is_set: false,
    };
    apic.wake(processor);
}

/// A message that interrupts a processor with `vector` (Intel SDM 3A, 12.11).
pub fn message(processor: ApicId, vector: u8) -> Message {
    Message {
        address: 0xfee0_0000 | u64::from(processor.0) << 12,
        data: u32::from(vector),
    }
}

fn halt() {
    interrupts::enable_and_hlt();
    interrupts::disable();
}

fn base() -> u64 {
    // SAFETY: every 64-bit processor has the MSR.
    unsafe { Msr::new(APIC_BASE).read() }
}

fn enable(registers: u64) -> Mode {
    let base = base() & !APIC_BASE_ADDRESS | registers | APIC_BASE_ENABLE;
    let mut register = Msr::new(APIC_BASE);
    // SAFETY: turning the APIC on, in the order that the SDM (figure 12-27)
    // allows: xAPIC first, then x2APIC where CPUID has it.
    unsafe { register.write(base) };
    if cpu::leaf(1).ecx & 1 << 21 != 0 {
        // SAFETY: as above.
        unsafe { register.write(base | APIC_BASE_X2APIC) };
        return Mode::X2Apic;
    }
    traps::EOI_REGISTER.store(registers + u64::from(EOI), Ordering::Relaxed);
    Mode::XApic(registers)
}

/// Masks every input of the two 8259 controllers; nothing here uses them.
fn mask_legacy_controllers() {
    for port in [0x21, 0xa1] {
        // SAFETY: the controllers' mask registers.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
}
