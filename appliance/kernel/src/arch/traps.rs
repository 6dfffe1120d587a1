//! Exceptions are reported and reset the machine; interrupts end a HLT.

use core::arch::global_asm;
use core::sync::atomic::AtomicU64;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::{Entry, HandlerFunc, InterruptDescriptorTable};

use super::segments;
use crate::report::{self, Registers};

/// Vector of the timer.
pub const TIMER_VECTOR: u8 = 0x40;
/// Vector by which processors wake each other.
pub const WAKE_VECTOR: u8 = 0x41;
/// First vector of device interrupts.
pub const DEVICE_VECTOR: u8 = 0x50;
/// Vector of the local APIC's spurious interrupts.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// Address of the xAPIC's end-of-interrupt register; 0 in x2APIC mode.
pub static EOI_REGISTER: AtomicU64 = AtomicU64::new(0);

global_asm!(
    include_str!("trap.s"),
    eoi_register = sym EOI_REGISTER,
    exception_report = sym exception_report,
);

unsafe extern "C" {
    static exception_entries: [u64; 32];
    fn interrupt_entry();
    fn spurious_entry();
}

/// What the entry of an exception leaves on the stack.
#[repr(C)]
pub struct TrapFrame {
    general: [u64; 15],
    vector: u64,
    code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Installs the handlers on this processor, whose segments come first.
pub fn init() {
    IDT.call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        install_exceptions(&mut idt);
        for vector in 32..=255u8 {
            let entry = if vector == SPURIOUS_VECTOR {
                spurious_entry as *const () as u64
            } else {
                interrupt_entry as *const () as u64
            };
            install(&mut idt[vector], entry, segments::INTERRUPT);
        }
        idt
    })
    .load();
}

fn install_exceptions(idt: &mut InterruptDescriptorTable) {
    // SAFETY: the assembly defines the table with 32 words and none is written.
    let entries = unsafe { &exception_entries };
    for (vector, entry) in entries.iter().enumerate() {
        let stack = match vector {
            8 => segments::DOUBLE_FAULT,
            2 | 18 => segments::NMI,
            _ => segments::EXCEPTION,
        };
        // The crate types each exception's slot on its own; all are 16 bytes of
        // the same layout, which is what the processor sees.
        let slots = (&raw mut *idt).cast::<Entry<HandlerFunc>>();
        // SAFETY: the table has 256 slots, `vector` is below 32, and the slots
        // differ only by a marker type.
        let slot = unsafe { &mut *slots.add(vector) };
        install(slot, *entry, stack);
    }
}

fn install(slot: &mut Entry<HandlerFunc>, entry: u64, stack: u16) {
    // SAFETY: `entry` is code of trap.s for this kind of vector, and `stack` is
    // one of the task segment's stacks.
    unsafe {
        slot.set_handler_addr(VirtAddr::new(entry))
            .set_stack_index(stack);
    }
}

/// Called by trap.s with every register saved.
extern "C" fn exception_report(frame: &TrapFrame) -> ! {
    let [
        r15,
        r14,
        r13,
        r12,
        r11,
        r10,
        r9,
        r8,
        rbp,
        rdi,
        rsi,
        rdx,
        rcx,
        rbx,
        rax,
    ] = frame.general;
    let registers = Registers {
        general: [
            ("rax", rax),
            ("rbx", rbx),
            ("rcx", rcx),
            ("rdx", rdx),
            ("rsi", rsi),
            ("rdi", rdi),
            ("rbp", rbp),
            ("rsp", frame.rsp),
            ("r8", r8),
            ("r9", r9),
            ("r10", r10),
            ("r11", r11),
            ("r12", r12),
            ("r13", r13),
            ("r14", r14),
            ("r15", r15),
        ],
        rip: frame.rip,
        rflags: frame.rflags,
        cr2: Cr2::read_raw(),
        frame_pointer: rbp,
    };
    report::exception(frame.vector, frame.code, &registers)
}
