//! Segments and the stacks that traps switch to, for each processor its own.

use alloc::boxed::Box;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::stacks::{BOOT, Stacks};

/// Index of the stack for interrupts in the table of stacks.
pub const INTERRUPT: u16 = 0;
/// Index of the stack for exceptions.
pub const EXCEPTION: u16 = 1;
/// Index of the stack for a fault while an exception is reported.
pub const DOUBLE_FAULT: u16 = 2;
/// Index of the stack for NMI and machine checks, which come at any time.
pub const NMI: u16 = 3;

/// The segments of one processor.
pub struct Segments {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

static TASK: Once<TaskStateSegment> = Once::new();
static SEGMENTS: Once<Segments> = Once::new();

/// Loads the segments and the stacks of traps of the first processor.
pub fn init() {
    let task = TASK.call_once(|| task(&BOOT));
    SEGMENTS.call_once(|| Segments::new(task)).load();
}

impl Segments {
    /// Segments for a processor with these stacks, from the heap, never freed.
    pub fn make(stacks: &Stacks) -> &'static Segments {
        let task = Box::leak(Box::new(task(stacks)));
        Box::leak(Box::new(Segments::new(task)))
    }

    fn new(task: &'static TaskStateSegment) -> Segments {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(task));
        Segments {
            gdt,
            code,
            data,
            task,
        }
    }

    /// Has this processor use them; no other may.
    pub fn load(&'static self) {
        self.gdt.load();
        // SAFETY: the selectors were made for the table that was just loaded, and
        // code and data are flat segments as those in use.
        unsafe {
            CS::set_reg(self.code);
            SS::set_reg(self.data);
            DS::set_reg(self.data);
            ES::set_reg(self.data);
            load_tss(self.task);
        }
    }
}

fn task(stacks: &Stacks) -> TaskStateSegment {
    let mut task = TaskStateSegment::new();
    let mut table = task.interrupt_stack_table;
    for (index, top) in [
        (INTERRUPT, stacks.interrupt.top()),
        (EXCEPTION, stacks.exception.top()),
        (DOUBLE_FAULT, stacks.double_fault.top()),
        (NMI, stacks.nmi.top()),
    ] {
        table[usize::from(index)] = VirtAddr::new(top);
    }
    task.interrupt_stack_table = table;
    task
}
