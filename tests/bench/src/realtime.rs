//! Processors for the generator and the device under test alone, while they are
//! measured: others' threads wait (sched(7), `SCHED_FIFO`).
//!
//! What polls never sleeps, so a scheduler that is fair takes it for a hog and gives
//! half of its processor to whatever else is there. What else the device has runs on
//! the generator's processor, in the time that the kernel keeps for others.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::unistd::gettid;
use sluice_lab::process;

/// Threads that have their processors to themselves, until this is dropped.
#[derive(Debug)]
pub struct Exclusive {
    threads: Vec<String>,
}

impl Exclusive {
    /// Gives the calling thread its processor, and `cpu` to those threads of process
    /// `pid` that run on no other.
    pub fn take(pid: u32, cpu: usize) -> Result<Exclusive> {
        let mut threads = pollers(pid, cpu)?;
        ensure!(
            !threads.is_empty(),
            "the device does not poll on processor {cpu}"
        );
        threads.push(gettid().to_string());
        let mut exclusive = Exclusive {
            threads: Vec::new(),
        };
        for thread in threads {
            schedule("--fifo", "1", &thread)?;
            exclusive.threads.push(thread);
        }
        Ok(exclusive)
    }

    /// Lets `thread` go before the calling thread, which polls on the same processor:
    /// one for which the device would else wait.
    pub fn serve(&mut self, thread: &str) -> Result<()> {
        schedule("--fifo", "2", thread)?;
        self.threads.push(thread.to_owned());
        Ok(())
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // This thread first: what it starts next should not inherit its place.
        for thread in self.threads.iter().rev() {
            // Fails only for a thread that has ended.
            let _ = schedule("--other", "0", thread);
        }
    }
}

fn schedule(policy: &str, priority: &str, thread: &str) -> Result<()> {
    process::run("chrt", [policy, "--pid", priority, thread])?;
    Ok(())
}

/// Threads of a process that may run on `cpu` alone.
fn pollers(pid: u32, cpu: usize) -> Result<Vec<String>> {
    let mut threads = Vec::new();
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let task = task?;
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        let mut lines = status.lines();
        let allowed = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if allowed.map(str::trim) == Some(&cpu.to_string()) {
            threads.push(task.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(threads)
}
