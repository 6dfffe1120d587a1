//! What is left on the console when something is broken; then reset.
//!
//! The addresses are those of nve.debug.elf: `addr2line -fe nve.debug.elf ADDRESS`.

use core::arch::asm;
use core::fmt::{self, Display};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use log::error;

use crate::arch::{cpu, paging, power, stacks};

/// Most addresses of a back trace.
const MAX_TRACE: usize = 24;

/// The processor that reports: its APIC's identifier plus one. 0 while there is none.
static REPORTING: AtomicU32 = AtomicU32::new(0);

/// The state of the processor when it went wrong.
#[derive(Debug)]
pub struct Registers {
    /// General registers with their names.
    pub general: [(&'static str, u64); 16],
    /// Address of the instruction.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Address of the last page fault.
    pub cr2: u64,
    /// Where the chain of frame pointers starts.
    pub frame_pointer: u64,
}

/// Reports exception `vector` and resets.
pub fn exception(vector: u64, code: u64, registers: &Registers) -> ! {
    begin();
    error!(
        "exception {vector} ({}), code {code:#x}, at {:#x}, flags {:#x}, cr2 {:#x}",
        name(vector),
        registers.rip,
        registers.rflags,
        registers.cr2
    );
    for four in registers.general.chunks(4) {
        error!("{}", Row(four));
    }
    trace(registers.rip, registers.frame_pointer)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (stack, frame): (u64, u64);
    // SAFETY: copies two registers.
    unsafe { asm!("mov {}, rsp", "mov {}, rbp", out(reg) stack, out(reg) frame) };
    begin();
    match info.location() {
        Some(place) => error!("panic at {place}: {}", info.message()),
        None => error!("panic: {}", info.message()),
    }
    error!("{}", Row(&[("rsp", stack), ("rbp", frame)]));
    trace(0, frame)
}

/// Makes this processor the one that reports. A fault within its report resets at once;
/// other processors leave it to the first that had something to report.
fn begin() {
    let own = u32::from(cpu::apic_id().0) + 1;
    match REPORTING.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {}
        Err(reporter) if reporter == own => power::reset(),
        Err(_) => power::halt(),
    }
}

fn trace(first: u64, frame: u64) -> ! {
    error!("on the processor with APIC {}", cpu::apic_id().0);
    if first != 0 {
        error!("trace {first:#x}");
    }
    for address in (Frames { at: frame }).take(MAX_TRACE) {
        error!("trace {address:#x}");
    }
    error!("reset");
    power::reset()
}

/// Return addresses along the chain of frame pointers.
struct Frames {
    at: u64,
}

impl Iterator for Frames {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let at = self.at;
        if !at.is_multiple_of(8) || !stacks::contain(at) || !paging::is_readable(at + 8) {
            return None;
        }
        // SAFETY: within a stack, aligned and mapped, as just checked.
        let (next, address) = unsafe { (*(at as *const u64), *((at + 8) as *const u64)) };
        // A chain only goes up, so it ends.
        self.at = if next > at { next } else { 0 };
        (address != 0).then_some(address)
    }
}

struct Row<'a>(&'a [(&'static str, u64)]);

impl Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { "  " };
            write!(f, "{gap}{name:3} {value:016x}")?;
        }
        Ok(())
    }
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug",
        2 => "NMI",
        3 => "breakpoint",
        6 => "invalid opcode",
        7 => "no FPU",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack segment",
        13 => "general protection",
        14 => "page fault",
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        _ => "reserved",
    }
}
