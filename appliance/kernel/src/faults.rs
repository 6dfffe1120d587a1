//! Faults on demand, to test what is left on the console. Only in images built
//! with the feature `fault-injection`, never in one that is shipped.

use core::hint::black_box;

use heapless::String;
use nve_kernel::acpi::ApicId;
use spin::Mutex;

use crate::arch::apic::Apic;

/// What another processor is to do.
static ORDER: Mutex<Option<String<32>>> = Mutex::new(None);

/// Has the first of the other processors do what `name` asks for behind `elsewhere:`.
pub fn inject_elsewhere(name: &str, apic: &mut Apic, others: &[ApicId]) {
    let Some(fault) = name.strip_prefix("elsewhere:") else {
        return;
    };
    if let Some(first) = others.first() {
        *ORDER.lock() = String::try_from(fault).ok();
        apic.wake(*first);
    }
}

/// Does what [`inject_elsewhere`] wants, once.
pub fn obey() {
    let order = ORDER.lock().take();
    if let Some(fault) = order {
        inject(&fault);
    }
}

/// Does what a configuration's `name` asks for; other names do nothing.
pub fn inject(name: &str) {
    match name {
        "fault:panic" => panic!("asked for"),
        "fault:null" => read(0),
        "fault:text" => write(inject as *const () as u64),
        "fault:heap" => run(black_box(alloc::vec![0xc3_u8]).as_ptr() as u64),
        "fault:stack" => {
            recurse(0);
        }
        "fault:opcode" => invalid_opcode(),
        _ => {}
    }
}

fn read(address: u64) {
    // SAFETY: it is the fault that is wanted.
    black_box(unsafe { (black_box(address) as *const u8).read_volatile() });
}

fn write(address: u64) {
    // SAFETY: it is the fault that is wanted.
    unsafe { (black_box(address) as *mut u8).write_volatile(0) };
}

fn run(address: u64) {
    // SAFETY: it is the fault that is wanted; were the heap executable, this
    // would be a return.
    let code: extern "C" fn() = unsafe { core::mem::transmute(black_box(address)) };
    code();
}

fn recurse(depth: u64) -> u64 {
    let mut frame = [depth; 64];
    black_box(&mut frame);
    if black_box(depth) == u64::MAX {
        return 0;
    }
    recurse(black_box(depth + 1)) + frame[0]
}

fn invalid_opcode() {
    // SAFETY: it is the fault that is wanted.
    unsafe { core::arch::asm!("ud2") };
}
