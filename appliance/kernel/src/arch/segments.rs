//! Segments and the stacks that traps switch to.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::entry::Stack;

/// Bytes of the stack of an exception, whose report formats text.
const REPORT_STACK: usize = 24 * 1024;

/// Bytes of the stack of an interrupt, whose entry pushes a few registers.
const INTERRUPT_STACK: usize = 4096;

/// Index of the stack for interrupts in the table of stacks.
pub const INTERRUPT: u16 = 0;
/// Index of the stack for exceptions.
pub const EXCEPTION: u16 = 1;
/// Index of the stack for a fault while an exception is reported.
pub const DOUBLE_FAULT: u16 = 2;
/// Index of the stack for NMI and machine checks, which come at any time.
pub const NMI: u16 = 3;

/// Stack for interrupts.
pub static INTERRUPT_SPACE: Stack<INTERRUPT_STACK> = Stack::new();
/// Stack for exceptions.
pub static EXCEPTION_SPACE: Stack<REPORT_STACK> = Stack::new();
/// Stack for double faults.
pub static DOUBLE_FAULT_SPACE: Stack<REPORT_STACK> = Stack::new();
/// Stack for NMI and machine checks.
pub static NMI_SPACE: Stack<REPORT_STACK> = Stack::new();

struct Tables {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

static TASK: Once<TaskStateSegment> = Once::new();
static TABLES: Once<Tables> = Once::new();

/// Loads the segments and the stacks of traps.
pub fn init() {
    let task = TASK.call_once(|| {
        let mut task = TaskStateSegment::new();
        let mut stacks = task.interrupt_stack_table;
        for (index, top) in [
            (INTERRUPT, INTERRUPT_SPACE.top()),
            (EXCEPTION, EXCEPTION_SPACE.top()),
            (DOUBLE_FAULT, DOUBLE_FAULT_SPACE.top()),
            (NMI, NMI_SPACE.top()),
        ] {
            stacks[usize::from(index)] = VirtAddr::new(top);
        }
        task.interrupt_stack_table = stacks;
        task
    });
    let tables = TABLES.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(task));
        Tables {
            gdt,
            code,
            data,
            task,
        }
    });
    tables.gdt.load();
    // SAFETY: the selectors were made for the table that was just loaded, and
    // code and data are flat segments as those in use.
    unsafe {
        CS::set_reg(tables.code);
        SS::set_reg(tables.data);
        DS::set_reg(tables.data);
        ES::set_reg(tables.data);
        load_tss(tables.task);
    }
}
