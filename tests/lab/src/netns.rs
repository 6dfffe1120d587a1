//! Network namespaces without names: a namespace lives as long as the handle or
//! a process inside it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process;

/// Handle to a network namespace. Clones are the same namespace.
#[derive(Debug, Clone)]
pub struct Netns(Arc<File>);

impl Netns {
    /// Makes a namespace whose only device is the loopback, which is up.
    pub fn create() -> Result<Netns> {
        let netns = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            Netns::current()
        })?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Netns> {
        let file = File::open("/proc/thread-self/ns/net")?;
        Ok(Netns(Arc::new(file)))
    }

    /// Runs `job` in the namespace: its sockets, its child processes and what it
    /// reads under `/proc/sys/net` are the namespace's.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            setns(&*self.0, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            job()
        })
    }

    /// Runs `command` in the namespace to its end and returns what it printed.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.run(|| process::output(command))
    }

    /// Runs ip(8) with `arguments`, split at spaces.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.output(Command::new("ip").args(arguments.split_whitespace()))
    }

    /// Path by which this process and its children, and with the outer process id
    /// in place of theirs anyone outside, can name the namespace.
    pub fn path(&self) -> PathBuf {
        self.path_of(&std::process::id().to_string())
    }

    /// As [`path`](Self::path), for those who know this process as `pid`.
    pub fn path_of(&self, pid: &str) -> PathBuf {
        format!("/proc/{pid}/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Runs `job` in a thread of its own, whose namespace nobody else shares.
fn in_thread<T: Send>(job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(job).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
