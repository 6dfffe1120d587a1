//! How far apart two processors are: the time that a cache line takes there and back.
//!
//! A virtual machine's processors are moved about by its host. When they are not on
//! the same core complex, all that generator and device pass to each other takes
//! several times as long, and each of them looks half as fast. That is nothing about
//! the device: such moments are waited out where they can be, and else noted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::clock;

/// Round trips in a probe.
const TRIPS: u64 = 4_000;
/// Cycles from which processors count as far apart: within one complex it is 150 to
/// 400, on a mesh 500 to 700, else 800 and more.
const FAR: u64 = 750;
/// Longest probe.
const PROBE: Duration = Duration::from_millis(500);
/// Between two probes while waiting.
const PAUSE: Duration = Duration::from_millis(100);

/// A counter on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// Whether this many cycles are far apart.
pub fn is_far(cycles: u64) -> bool {
    cycles > FAR
}

/// Cycles from the calling thread's processor to `cpu` and back: the first quartile,
/// since in others one of the two threads may have had to wait for its processor.
pub fn round_trip(cpu: usize) -> Result<u64> {
    let (there, back) = (Line::default(), Line::default());
    let end = Instant::now() + PROBE;
    let mut trips = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| answer(cpu, &there, &back, end));
        for trip in 1..=TRIPS {
            let start = clock::now();
            there.0.store(trip, Ordering::Release);
            if !await_value(&back, trip, end) {
                break;
            }
            trips.push(clock::now().wrapping_sub(start));
        }
        there.0.store(u64::MAX, Ordering::Release);
    });
    trips.sort_unstable();
    let quartile = trips.get(trips.len() / 4).copied();
    quartile.with_context(|| format!("processor {cpu} does not answer"))
}

/// Answers each trip on `cpu`.
fn answer(cpu: usize, there: &Line, back: &Line, end: Instant) {
    let mut cpus = CpuSet::new();
    if cpus.set(cpu).is_err() || sched_setaffinity(Pid::from_raw(0), &cpus).is_err() {
        return;
    }
    for trip in 1..=TRIPS {
        if !await_value(there, trip, end) {
            return;
        }
        back.0.store(trip, Ordering::Release);
    }
}

/// Waits for a value; false if it takes too long, or another one comes.
fn await_value(line: &Line, value: u64, end: Instant) -> bool {
    /// Looks at the line between two looks at the clock.
    const LOOKS: usize = 4_096;

    loop {
        for _ in 0..LOOKS {
            match line.0.load(Ordering::Acquire) {
                found if found == value => return true,
                u64::MAX => return false,
                _ => {}
            }
        }
        if Instant::now() >= end {
            return false;
        }
        // Its thread may want this very processor, until it has moved to its own.
        thread::yield_now();
    }
}

/// Waits until `cpu` is near, or `patience` is over. Returns the last round trip.
pub fn wait_near(cpu: usize, patience: Duration) -> Result<u64> {
    let end = Instant::now() + patience;
    loop {
        let cycles = round_trip(cpu)?;
        if !is_far(cycles) || Instant::now() >= end {
            return Ok(cycles);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_there_is_answers_and_another_does_not() {
        // With one processor the threads take turns, which is far.
        assert!(round_trip(0).unwrap() > 0);
        assert!(round_trip(CpuSet::count() - 1).is_err());
    }
}
