//! The way from the PVH entry point to [`kernel_main`], and from a start-up message
//! to [`processors::main`].

use core::arch::global_asm;

use super::stacks::{BOOT, Stacks};
use super::{paging, processors};
use crate::kernel_main;

global_asm!(
    include_str!("boot.s"),
    boot_stacks = sym BOOT,
    main_stack = const Stacks::MAIN_TOP,
    kernel_main = sym kernel_main,
    root = sym paging::ROOT,
    start = sym processors::START,
    processor_main = sym processors::main,
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// What another processor runs first; it works at the start of any page below 1 MiB.
pub fn trampoline_code() -> &'static [u8] {
    let (start, end) = (&raw const trampoline, &raw const trampoline_end);
    // SAFETY: the assembly defines both, in this order, around bytes that are never
    // written.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}
