//! The sandbox: a process tree in namespaces of its own.
//!
//! The program runs twice. The first process ([`supervise`]) stays outside: it
//! makes the run directory, starts the program again as the first process of a
//! new PID namespace, answers signals, and removes the directory. The second
//! ([`enter`]) takes private mount and network namespaces and does the work.
//!
//! Invariant: when the inner process ends, by itself, by a signal or because the
//! outer one died, the kernel kills all that it started (pid_namespaces(7)) and
//! frees their network namespaces with every device in them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::netns::Netns;
use crate::{process, rundir};

/// Names the run directory to the inner process, and so tells the two apart.
const RUN_DIR: &str = "SLUICE_LAB_RUN_DIR";

/// When set, run directories stay for reading.
const KEEP: &str = "SLUICE_KEEP";

/// Exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// What the inner process knows of its surroundings.
#[derive(Debug)]
pub struct Sandbox {
    /// The run directory, empty at first.
    pub run_dir: PathBuf,
    /// The network namespace of the outer process, for what the user must reach.
    pub host: Netns,
    /// The inner process's id as the outer one sees it, for hints to the user.
    pub pid: String,
}

/// Whether the calling process is the inner one.
pub fn is_inside() -> bool {
    std::env::var_os(RUN_DIR).is_some()
}

/// The run directory, for the inner process and those that it starts.
pub fn run_dir() -> Result<PathBuf> {
    let dir = std::env::var_os(RUN_DIR).context("not started by the outer process")?;
    Ok(dir.into())
}

/// Runs this program again inside a sandbox and returns its status.
pub fn supervise() -> Result<ExitCode> {
    ensure!(
        geteuid().is_root(),
        "the lab makes network namespaces: run it as root, or by sudo"
    );
    for dir in rundir::sweep()? {
        println!("removed {}, left by a lab that was killed", dir.display());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD])?;
    let dir = rundir::create()?;
    let outcome = start_inner(&dir).and_then(|mut child| wait(&mut child, &mut signals));
    if std::env::var_os(KEEP).is_some() {
        rundir::keep(&dir)?;
    }
    if !rundir::remove(&dir)? {
        println!("kept {}", dir.display());
    }
    outcome
}

fn start_inner(dir: &Path) -> Result<Child> {
    unshare(CloneFlags::CLONE_NEWPID).context("cannot make a PID namespace")?;
    Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(RUN_DIR, dir)
        // Ctrl-C at the terminal must reach the outer process alone.
        .process_group(0)
        .spawn()
        .context("cannot start the inner process")
}

/// Waits for the inner process; any signal to end ends it at once, and with it
/// everything inside.
fn wait(child: &mut Child, signals: &mut Signals) -> Result<ExitCode> {
    for signal in signals.forever() {
        if signal == SIGCHLD {
            if let Some(status) = child.try_wait()? {
                return Ok(exit_code(status));
            }
        } else {
            println!("\nstopping the lab");
            child.kill()?;
            child.wait()?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    bail!("the stream of signals ended")
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => ExitCode::from(code),
        None => ExitCode::FAILURE,
    }
}

/// Takes the namespaces. Call first in the inner process, before any thread.
pub fn enter() -> Result<Sandbox> {
    die_with_outer()?;
    let host = Netns::current()?;
    // The host's /proc is still mounted: it knows us by our outer id.
    let pid = fs::read_link("/proc/self")?.display().to_string();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("cannot make mount and network namespaces")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("cannot make mounts private")?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("cannot mount /proc")?;
    process::run("ip", ["link", "set", "lo", "up"])?;
    Ok(Sandbox {
        run_dir: run_dir()?,
        host,
        pid,
    })
}

/// Makes the kernel kill this process when the outer one ends.
fn die_with_outer() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before that: then the run directory has no owner.
    ensure!(rundir::is_owned(&run_dir()?), "the outer process ended");
    Ok(())
}
