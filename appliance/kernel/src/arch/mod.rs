//! The processor and the parts of the machine that every x86 hypervisor has.

pub mod apic;
pub mod console;
pub mod cpu;
pub mod entry;
pub mod memory_functions;
pub mod paging;
pub mod pci;
pub mod physical;
pub mod power;
pub mod processors;
pub mod segments;
pub mod stacks;
pub mod time;
pub mod traps;
