//! The stacks of each processor: one on which everything but traps runs, and those
//! that traps switch to. Below each is a page that is not mapped, so that an overflow
//! faults.

use alloc::alloc::{Layout, alloc};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use nve_kernel::acpi::MAX_PROCESSORS;
use nve_kernel::memory::{PAGE, Region};
use spin::Once;

use super::paging;

/// Bytes of the stack on which everything but traps runs.
const MAIN_STACK: usize = 256 * 1024;

/// Bytes of the stack of an exception, whose report formats text.
const REPORT_STACK: usize = 24 * 1024;

/// Bytes of the stack of an interrupt, whose entry pushes a few registers.
const INTERRUPT_STACK: usize = 4096;

/// A stack above its guard page.
#[repr(C, align(4096))]
pub struct Stack<const SIZE: usize> {
    guard: MaybeUninit<[u8; PAGE as usize]>,
    space: UnsafeCell<MaybeUninit<[u8; SIZE]>>,
}

// SAFETY: the space is only ever used as a stack, by address, by one processor.
unsafe impl<const SIZE: usize> Sync for Stack<SIZE> {}

impl<const SIZE: usize> Stack<SIZE> {
    const fn new() -> Self {
        Stack {
            guard: MaybeUninit::uninit(),
            space: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Address of the page that must not be mapped.
    fn guard(&self) -> Region {
        Region::new(self.guard.as_ptr() as u64, PAGE)
    }

    /// Address that the stack grows down from.
    pub fn top(&self) -> u64 {
        self.space.get() as u64 + SIZE as u64
    }

    /// Whether `address` is in the stack.
    fn contains(&self, address: u64) -> bool {
        (self.space.get() as u64..self.top()).contains(&address)
    }
}

/// The stacks of one processor. Any bytes are valid ones.
#[repr(C)]
pub struct Stacks {
    /// For everything but traps. The first, for boot.s.
    pub main: Stack<MAIN_STACK>,
    /// For interrupts.
    pub interrupt: Stack<INTERRUPT_STACK>,
    /// For exceptions.
    pub exception: Stack<REPORT_STACK>,
    /// For double faults.
    pub double_fault: Stack<REPORT_STACK>,
    /// For NMI and machine checks.
    pub nmi: Stack<REPORT_STACK>,
}

/// Those of the first processor.
pub static BOOT: Stacks = Stacks::new();

/// Those of the others.
static OTHERS: [Once<&'static Stacks>; MAX_PROCESSORS - 1] =
    [const { Once::new() }; MAX_PROCESSORS - 1];

impl Stacks {
    /// Bytes from the start to the top of [`Stacks::main`].
    pub const MAIN_TOP: usize = PAGE as usize + MAIN_STACK;

    const fn new() -> Stacks {
        Stacks {
            main: Stack::new(),
            interrupt: Stack::new(),
            exception: Stack::new(),
            double_fault: Stack::new(),
            nmi: Stack::new(),
        }
    }

    /// Stacks for another processor, from the heap, never freed. `None` if there is no
    /// memory, or there are stacks for as many processors as can be used. To be called
    /// by one processor at a time.
    pub fn make() -> Option<&'static Stacks> {
        let place = OTHERS.iter().find(|place| !place.is_completed())?;
        // SAFETY: the layout has a size.
        let memory = NonNull::new(unsafe { alloc(Layout::new::<Stacks>()) })?;
        // SAFETY: fresh and aligned, used by nobody else, and valid whatever is in it.
        let stacks: &'static Stacks = unsafe { memory.cast().as_ref() };
        paging::forbid(&stacks.guards()).then(|| *place.call_once(|| stacks))
    }

    /// The pages that must not be mapped.
    pub fn guards(&self) -> [Region; 5] {
        [
            self.main.guard(),
            self.interrupt.guard(),
            self.exception.guard(),
            self.double_fault.guard(),
            self.nmi.guard(),
        ]
    }

    /// Whether `address` is in a stack that Rust code runs on.
    fn contains(&self, address: u64) -> bool {
        self.main.contains(address)
            || self.exception.contains(address)
            || self.double_fault.contains(address)
            || self.nmi.contains(address)
    }
}

/// Whether `address` is in a stack of any processor that Rust code runs on.
pub fn contain(address: u64) -> bool {
    BOOT.contains(address)
        || OTHERS
            .iter()
            .filter_map(Once::get)
            .any(|stacks| stacks.contains(address))
}
