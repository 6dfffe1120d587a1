//! The other processors: found, started one by one, and each given its own stacks,
//! segments and APIC.
//!
//! Intel SDM volume 3A, 9.4 and 12.6. Whatever another processor does or does not do,
//! the first one goes on: what it waits for has an end, after which the other is
//! stopped and left alone. Neither spins while it waits for the other: on a host that is
//! short of processors, that would keep the other from answering.
//!
//! Invariant: a [`Start`] is taken by one processor at most, and every change of its
//! state but the last, [`REFUSED`], is from the state that the one who makes it knows.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use heapless::Vec;
use log::warn;
use nve_datapath::Nanos;
use nve_kernel::acpi::{self, ApicId, MAX_PROCESSORS};
use nve_kernel::tsc::{self, Skew};
use x86_64::registers::model_specific::Msr;
use x86_64::registers::mxcsr::{self, MxCsr};

use super::apic::{Apic, Common};
use super::physical::Physical;
use super::segments::Segments;
use super::stacks::Stacks;
use super::{entry, paging, power, time, traps};
use crate::boot::BootInfo;

/// Nanoseconds in which a processor has to be ready.
const PATIENCE: u64 = 100_000_000;

/// Nanoseconds from stopping a processor to starting it. None that has 64 bits needs
/// the 10 ms of the manual (Linux, `smp_quirk_init_udelay`).
const PAUSE: u64 = 10_000;

/// Nanoseconds after which a processor is told a second time to start.
const REPEAT: u64 = 1_000_000;

/// Nanoseconds by which counters may differ.
const MAX_SKEW: u64 = 1_000_000;

/// The first processor has told the other to start.
const CALLED: u32 = 0;
/// The other is there and waits for what it is told.
const READY: u32 = 1;
/// The first one wants to know the other's counter.
const ASKED: u32 = 2;
/// The other may run.
const RELEASED: u32 = 3;
/// The other runs.
const RUNNING: u32 = 4;
/// The first one does without the other.
const REFUSED: u32 = 5;

/// Which one a processor is: 0 is the first, and those that run have no gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorIndex(pub u8);

/// What a processor has to itself.
#[derive(Debug)]
pub struct Processor {
    /// Which one it is.
    pub index: ProcessorIndex,
    /// Its APIC.
    pub apic: Apic,
}

/// Why a processor is left alone.
#[derive(Debug)]
pub enum Error {
    /// There is no RAM in which it could begin, or for its stacks.
    Memory,
    /// It is not ready in time.
    Silent,
    /// Its time-stamp counter is not the first processor's, or cannot be compared.
    Counter,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Memory => "no memory for it",
            Error::Silent => "no answer in time",
            Error::Counter => "its time-stamp counter is not that of the others",
        })
    }
}

/// Registers that the manual wants to be the same on all processors, or that tell how
/// compiled code counts, and that boot.s does not set.
#[derive(Debug, Clone, Copy)]
struct Settings {
    pat: u64,
    mxcsr: MxCsr,
}

/// Page attribute table.
const PAT: u32 = 0x277;

impl Settings {
    fn read() -> Settings {
        // SAFETY: every 64-bit processor has the MSR.
        let pat = unsafe { Msr::new(PAT).read() };
        let mxcsr = mxcsr::read();
        Settings { pat, mxcsr }
    }

    fn write(self) {
        // SAFETY: the memory types that the first processor has with these tables.
        unsafe { Msr::new(PAT).write(self.pat) };
        mxcsr::write(self.mxcsr);
    }
}

/// What another processor starts with.
#[repr(C)]
pub struct Start {
    /// Top of its stack; boot.s reads this.
    stack: u64,
    state: AtomicU32,
    /// Its counter, when it was asked last.
    counter: AtomicU64,
    segments: &'static Segments,
    settings: Settings,
    apic: Common,
    /// Who started it.
    starter: ApicId,
    index: ProcessorIndex,
    entry: fn(Processor) -> !,
}

/// For the processor that is being started, which takes it.
pub static START: AtomicPtr<Start> = AtomicPtr::new(core::ptr::null_mut());

/// What the boot information says of processors.
#[derive(Debug)]
pub struct Processors {
    found: Vec<ApicId, MAX_PROCESSORS>,
    /// Page of RAM in which another processor can begin.
    page: Option<u64>,
}

impl Processors {
    /// Reads the boot information.
    pub fn find(boot: &BootInfo) -> Processors {
        Processors {
            found: acpi::processors(&Physical, boot.rsdp()),
            page: boot.real_mode_page(),
        }
    }

    /// How many there are, with the first one.
    pub fn count(&self) -> usize {
        self.found.len().max(1)
    }

    /// Starts all but the one that this runs on, whose APIC is `apic`, and warns of
    /// those that do not. Each runs `entry`. Number `n` of the result has index `n + 1`.
    ///
    /// To be called once, when boot information is not needed any more.
    pub fn start_others(
        &self,
        apic: &mut Apic,
        entry: fn(Processor) -> !,
    ) -> Vec<ApicId, MAX_PROCESSORS> {
        let mut started = Vec::new();
        let own = apic.id();
        for id in self.found.iter().copied().filter(|id| *id != own) {
            let index = ProcessorIndex(started.len() as u8 + 1);
            match self.start(apic, id, index, entry) {
                // There is a place for each that was found.
                Ok(()) => drop(started.push(id)),
                Err(why) => warn!("processors: APIC {}: {why}", id.0),
            }
        }
        started
    }

    fn start(
        &self,
        apic: &mut Apic,
        id: ApicId,
        index: ProcessorIndex,
        entry: fn(Processor) -> !,
    ) -> Result<(), Error> {
        let page = self.page.ok_or(Error::Memory)?;
        if paging::ROOT.load(Ordering::Relaxed) == 0 {
            return Err(Error::Memory);
        }
        let stacks = Stacks::make().ok_or(Error::Memory)?;
        let start: &'static Start = Box::leak(Box::new(Start {
            stack: stacks.main.top(),
            state: AtomicU32::new(CALLED),
            counter: AtomicU64::new(0),
            segments: Segments::make(stacks),
            settings: Settings::read(),
            apic: apic.common(),
            starter: apic.id(),
            index,
            entry,
        }));
        install(page);
        START.store((&raw const *start).cast_mut(), Ordering::Release);
        let end = after(PATIENCE);
        let result = call(apic, id, page, start, end)
            .and_then(|()| compare(apic, id, start, end))
            .and_then(|()| start.ask(apic, id, RELEASED, RUNNING, end));
        if result.is_ok() || start.state.swap(REFUSED, Ordering::AcqRel) == RUNNING {
            return Ok(());
        }
        START.store(core::ptr::null_mut(), Ordering::Release);
        apic.stop(id);
        result
    }
}

/// Copies what a processor runs first to `page`.
fn install(page: u64) {
    let code = entry::trampoline_code();
    // SAFETY: RAM by the memory map that nothing uses any more and the heap does not
    // have, mapped to be written; the code is shorter than a page.
    unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), page as *mut u8, code.len()) };
}

/// Has the processor begin at `page`.
fn call(apic: &mut Apic, id: ApicId, page: u64, start: &Start, end: Nanos) -> Result<(), Error> {
    apic.stop(id);
    let pause = after(PAUSE);
    while time::since_boot() < pause {
        core::hint::spin_loop();
    }
    apic.start(id, page);
    // The message may have come too early.
    if !start.comes_to(READY, apic, after(REPEAT)) {
        apic.start(id, page);
    }
    let is_ready = start.comes_to(READY, apic, end);
    is_ready.then_some(()).ok_or(Error::Silent)
}

/// Compares the processor's counter with ours.
fn compare(apic: &mut Apic, id: ApicId, start: &Start, end: Nanos) -> Result<(), Error> {
    let limit = time::ticks_in(MAX_SKEW);
    while time::since_boot() < end {
        let asked = time::ticks();
        start.ask(apic, id, ASKED, READY, end)?;
        let answered = time::ticks();
        let theirs = start.counter.load(Ordering::Relaxed);
        match tsc::skew(asked, theirs, answered, limit) {
            Skew::Within => return Ok(()),
            Skew::Beyond => return Err(Error::Counter),
            Skew::Unknown => {}
        }
    }
    Err(Error::Counter)
}

/// The time in `nanos`.
fn after(nanos: u64) -> Nanos {
    Nanos(time::since_boot().0 + nanos)
}

impl Start {
    /// Waits for a state until `end`; whether it has come.
    fn comes_to(&self, state: u32, apic: &mut Apic, end: Nanos) -> bool {
        loop {
            // The time comes first: who was late to look has not looked in vain.
            let is_late = time::since_boot() >= end;
            if self.state.load(Ordering::Acquire) == state {
                return true;
            }
            if is_late {
                return false;
            }
            apic.wait(end);
        }
    }

    /// Has the other, which is ready, see `question`, and waits for `answer`.
    fn ask(
        &self,
        apic: &mut Apic,
        other: ApicId,
        question: u32,
        answer: u32,
        end: Nanos,
    ) -> Result<(), Error> {
        self.change(READY, question).ok_or(Error::Silent)?;
        apic.wake(other);
        let has_answered = self.comes_to(answer, apic, end);
        has_answered.then_some(()).ok_or(Error::Silent)
    }

    /// The other's answer.
    fn answer(&self, apic: &mut Apic, from: u32, to: u32) -> Option<()> {
        self.change(from, to)?;
        apic.wake(self.starter);
        Some(())
    }

    /// Goes from one state to another, if it still is in the first.
    fn change(&self, from: u32, to: u32) -> Option<()> {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(drop)
    }

    /// Does what the first processor wants until this one may run.
    fn attend(&self, apic: &mut Apic) -> Option<()> {
        self.answer(apic, CALLED, READY)?;
        loop {
            match self.state.load(Ordering::Acquire) {
                ASKED => {
                    self.counter.store(time::ticks(), Ordering::Relaxed);
                    self.answer(apic, ASKED, READY)?;
                }
                RELEASED => return self.answer(apic, RELEASED, RUNNING),
                REFUSED => return None,
                _ => apic.sleep(),
            }
        }
    }
}

/// Called by boot.s on another processor, with what it took from [`START`].
pub extern "C" fn main(start: &'static Start) -> ! {
    start.segments.load();
    traps::init();
    start.settings.write();
    let mut apic = Apic::another(start.apic);
    if start.attend(&mut apic).is_none() {
        power::halt();
    }
    (start.entry)(Processor {
        index: start.index,
        apic,
    })
}
