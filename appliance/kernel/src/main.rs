//! The image of the NVE appliance: one binary on the bare machine.
//!
//! Boots by PVH, reads its configuration from a boot module, brings up memory,
//! interrupts and NICs, and then polls: see `appliance/kernel` in
//! docs/architecture.md. The first processor does all but the last by itself. Interrupts are open only while a processor halts.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod boot;
mod devices;
#[cfg(feature = "fault-injection")]
mod faults;
mod heap;
mod report;
mod run;
mod stations;

use core::fmt::Display;

use arch::apic::Apic;
use arch::cpu::{self, Entropy};
use arch::pci::{self, ConfigSpace};
use arch::power::{self, Exit};
use arch::processors::Processors;
use arch::{console, segments, time, traps};
use boot::BootInfo;
use log::{error, info};

/// Called by boot.s with the address of the start information and the time-stamp
/// counter at entry.
extern "C" fn kernel_main(start_info: u64, entry_ticks: u64) -> ! {
    segments::init();
    traps::init();
    let clock = time::init(entry_ticks);
    console::init();
    info!("sluice {}", env!("CARGO_PKG_VERSION"));
    if !cpu::is_supported() {
        give_up(Exit::Processor, "cpu: lacks instructions of x86-64-v2");
    }
    info!("cpu: {}", cpu::brand());
    match clock {
        Some((source, hertz)) => info!("tsc: {} kHz from {source}", hertz / 1000),
        None => give_up(Exit::Processor, "tsc: no source for its rate"),
    }
    let Some(entropy) = Entropy::find() else {
        give_up(
            Exit::Entropy,
            "entropy: the processor has neither RDSEED nor RDRAND",
        );
    };
    let boot = BootInfo::read(start_info).unwrap_or_else(|why| give_up(Exit::Memory, why));
    let config = boot
        .config()
        .unwrap_or_else(|why| give_up(Exit::Config, why));
    log::set_max_level(config.log_level);
    let (ram, ecam) = (boot.ram_bytes(), pci::find_ecam(boot.rsdp()));
    let processors = Processors::find(&boot);
    boot.into_memory()
        .unwrap_or_else(|why| give_up(Exit::Memory, why));
    info!(
        "memory: {} KiB, {} KiB of it heap",
        ram >> 10,
        heap::usage().1 >> 10
    );
    let (space, mut apic) = (ConfigSpace::new(ecam), Apic::new());
    let (mode, timer) = apic.describe();
    info!("pci: {}, apic: {mode}, timer: {timer}", space.describe());
    let mut others = heapless::Vec::new();
    if processors.count() > 1 {
        others = processors.start_others(&mut apic, stations::work);
        stations::await_rest(others.len(), &mut apic);
        info!(
            "processors: {}, {} started",
            processors.count(),
            others.len()
        );
        #[cfg(feature = "fault-injection")]
        faults::inject_elsewhere(&config.name, &mut apic, &others);
    }
    run::run(&config, space, apic, entropy, &others)
}

/// Prints one line and powers off with a status that tells why.
fn give_up(exit: Exit, why: impl Display) -> ! {
    error!("{why}");
    power::off(exit)
}
