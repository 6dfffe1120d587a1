//! Several tests: those that can bear it side by side, the others one by one.
//!
//! Each runs in a process of its own, so that what it prints stays together, and
//! what it breaks is its own.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

use super::Case;
use crate::process::append;
use crate::qemu::{ACCEL, Accelerator};

/// Tests at a time for each core: most of a test is waiting.
const PER_CORE: usize = 2;

/// Runs `cases`, with logs under `dir`; whether each passed.
pub(super) fn run(cases: &[&Case], dir: &Path, accelerator: Accelerator) -> Result<Vec<bool>> {
    let (alone, beside): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.alone);
    let mut outcomes = Vec::new();
    for (queue, workers) in [(beside, workers()?), (alone, 1)] {
        let queue = Mutex::new(VecDeque::from(queue));
        let next = || {
            queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        };
        let work = || {
            let mut outcomes = Vec::new();
            while let Some(case) = next() {
                outcomes.push(run_apart(case, dir, accelerator)?);
            }
            Ok(outcomes)
        };
        let done: Result<Vec<_>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let ended = workers.into_iter().map(|worker| match worker.join() {
                Ok(outcomes) => outcomes,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.collect()
        });
        outcomes.extend(done?.concat());
    }
    Ok(outcomes)
}

fn workers() -> Result<usize> {
    Ok(PER_CORE * thread::available_parallelism()?.get())
}

/// Runs this program again for one test, and prints what it printed.
fn run_apart(case: &Case, dir: &Path, accelerator: Accelerator) -> Result<bool> {
    let log = dir.join(format!("{}.log", case.name));
    let file = append(&log)?;
    let status = Command::new("/proc/self/exe")
        .args(["case", case.name])
        .env(ACCEL, accelerator.name())
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot run test {}", case.name))?;
    print(case, &log, status)?;
    Ok(status.success())
}

fn print(case: &Case, log: &Path, status: ExitStatus) -> Result<()> {
    let text = fs::read(log)?;
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    // One that fails says so; one that was killed, or panicked, does not.
    let said = String::from_utf8_lossy(&text).contains(&format!("test {}: FAILED", case.name));
    if !status.success() && !said {
        writeln!(out, "test {}: FAILED ({status})", case.name)?;
    }
    out.flush()?;
    Ok(())
}
