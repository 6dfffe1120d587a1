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

use super::{Case, failed};
use crate::process::append;
use crate::qemu::{ACCEL, Accelerator};

/// Tests at a time for each core: most of a test is waiting.
const PER_CORE: usize = 2;

/// Runs `cases`, with logs under `dir`; for each that failed, the line that says why.
pub(super) fn run(
    cases: &[&Case],
    dir: &Path,
    accelerator: Accelerator,
) -> Result<Vec<Option<String>>> {
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

/// Runs this program again for one test, and prints what it printed; the line that says
/// why it failed, if it did.
fn run_apart(case: &Case, dir: &Path, accelerator: Accelerator) -> Result<Option<String>> {
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
    let text = fs::read(&log)?;
    io::stdout().lock().write_all(&text)?;
    Ok(failure(case, status, &String::from_utf8_lossy(&text)))
}

/// The line that says why a test failed, if it did. One that was killed, or panicked,
/// printed none.
fn failure(case: &Case, status: ExitStatus, text: &str) -> Option<String> {
    let failed = failed(case);
    let said = text.lines().find(|line| line.starts_with(&failed));
    let line = said.map_or_else(|| format!("{failed} ({status})"), str::to_owned);
    (!status.success()).then_some(line)
}
