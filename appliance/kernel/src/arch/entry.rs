//! The way from the PVH entry point to [`kernel_main`], and the main stack.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use nve_kernel::memory::{PAGE, Region};

use crate::kernel_main;

/// Bytes of the stack on which everything but exceptions runs.
const MAIN_STACK: usize = 256 * 1024;

/// A stack whose lowest page is not mapped, so that an overflow faults.
#[repr(C, align(4096))]
pub struct Stack<const SIZE: usize> {
    guard: [u8; PAGE as usize],
    space: UnsafeCell<[u8; SIZE]>,
}

// SAFETY: the space is only ever used as a stack, by address, by one processor.
unsafe impl<const SIZE: usize> Sync for Stack<SIZE> {}

impl<const SIZE: usize> Stack<SIZE> {
    /// A stack of `SIZE` bytes.
    pub const fn new() -> Self {
        Stack {
            guard: [0; PAGE as usize],
            space: UnsafeCell::new([0; SIZE]),
        }
    }

    /// Address of the page that must not be mapped.
    pub fn guard(&self) -> Region {
        Region::new(self.guard.as_ptr() as u64, PAGE)
    }

    /// Address that the stack grows down from.
    pub fn top(&self) -> u64 {
        self.space.get() as u64 + SIZE as u64
    }

    /// Whether `address` is in the stack.
    pub fn contains(&self, address: u64) -> bool {
        (self.space.get() as u64..self.top()).contains(&address)
    }
}

/// The stack on which everything but exceptions runs.
pub static STACK: Stack<MAIN_STACK> = Stack::new();

global_asm!(
    include_str!("boot.s"),
    main_stack = sym STACK,
    stack_size = const PAGE as usize + MAIN_STACK,
    kernel_main = sym kernel_main,
);
