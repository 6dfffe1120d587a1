//! QEMU as a hypervisor runs it: boots the image, and boots it again when it ends.
//!
//! Invariant: a [`Machine`] that was not stopped has a QEMU, or gets a new one
//! [`RESTART_DELAY`] after the last one ended, unless the image itself powered the
//! machine off because it cannot work (image/README.md, exit statuses).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::netns::Netns;
use crate::process::{Daemon, append, tail};
use crate::wait;

/// Says how guest code is executed: `kvm` or `tcg`.
pub const ACCEL: &str = "SLUICE_ACCEL";

/// How long the hypervisor takes to notice that a VM ended.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// How long an image may take to its first word on the console when probing.
const PROBE: Duration = Duration::from_secs(3);

/// How guest code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation.
    Tcg,
}

impl Accelerator {
    /// KVM where it boots `image`, else TCG: that `/dev/kvm` exists says little.
    /// [`ACCEL`] overrides. With the reason. Tried once per process.
    pub fn choose(image: &Path, dir: &Path) -> Result<(Accelerator, &'static str)> {
        static CHOICE: OnceLock<(Accelerator, &str)> = OnceLock::new();
        if let Some(choice) = CHOICE.get() {
            return Ok(*choice);
        }
        let choice = match std::env::var(ACCEL).as_deref() {
            Ok("kvm") => (Accelerator::Kvm, "as SLUICE_ACCEL says"),
            Ok("tcg") => (Accelerator::Tcg, "as SLUICE_ACCEL says"),
            Ok(other) => bail!("{ACCEL} is {other:?}; it can be kvm or tcg"),
            Err(_) if !Path::new("/dev/kvm").exists() => (Accelerator::Tcg, "there is no /dev/kvm"),
            Err(_) if kvm_boots(image, dir)? => (Accelerator::Kvm, "it boots the image"),
            Err(_) => (Accelerator::Tcg, "/dev/kvm does not boot the image"),
        };
        Ok(*CHOICE.get_or_init(|| choice))
    }

    /// QEMU's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }

    /// Processor model that has what the image needs. TCG's default model lacks
    /// it, and the image would hang without a word.
    const fn cpu(self) -> &'static str {
        match self {
            Accelerator::Kvm => "host",
            Accelerator::Tcg => "max",
        }
    }
}

/// Whether the image says anything under KVM. It gets no configuration, so it
/// complains and powers off.
fn kvm_boots(image: &Path, dir: &Path) -> Result<bool> {
    let console = dir.join("kvm-probe.console");
    let mut qemu = base_command(Accelerator::Kvm, image, (64, 1), &console);
    let log = dir.join("kvm-probe.log");
    let mut probe = Daemon::spawn("kvm probe", &Netns::current()?, &mut qemu, &log)?;
    let start = Instant::now();
    while start.elapsed() < PROBE {
        if std::fs::metadata(&console).is_ok_and(|meta| meta.len() > 0) {
            return Ok(true);
        }
        if probe.ended()?.is_some() {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// What a [`Machine`] boots.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Name, for people and for file names.
    pub name: String,
    /// How guest code is executed.
    pub accelerator: Accelerator,
    /// The image (ELF with a PVH note).
    pub image: PathBuf,
    /// The boot configuration, handed over as a boot module.
    pub config: PathBuf,
    /// Memory, in MiB.
    pub memory: u32,
    /// How many processors it has, and pairs of queues each NIC.
    pub processors: u8,
    /// The NICs, in the order of their PCI slots.
    pub nics: Vec<Nic>,
}

/// A virtio NIC on a tap.
#[derive(Debug, Clone)]
pub struct Nic {
    /// The tap.
    pub tap: String,
    /// Its MAC address.
    pub mac: String,
    /// Its MTU, which the guest is told.
    pub mtu: u16,
}

fn base_command(
    accelerator: Accelerator,
    image: &Path,
    (memory, processors): (u32, u8),
    console: &Path,
) -> Command {
    let processors = format!("{processors},maxcpus={}", processors.max(2));
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none"])
        // With one processor at most, QEMU 7.2 translates no memory barriers, though
        // its devices run in another thread: it loses notifications.
        .args(["-machine", "q35", "-smp", &processors])
        .args(["-m", &format!("{memory}M")])
        .args(["-accel", accelerator.name(), "-cpu", accelerator.cpu()])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-chardev")
        .arg(format!(
            "file,id=console,append=on,path={}",
            console.display()
        ))
        .args(["-serial", "chardev:console"])
        .arg("-kernel")
        .arg(image);
    qemu
}

impl Profile {
    fn command(&self, console: &Path) -> Command {
        let size = (self.memory, self.processors);
        let mut qemu = base_command(self.accelerator, &self.image, size, console);
        let (tap_queues, nic_queues) = match self.processors {
            1 => (String::new(), String::new()),
            // An interrupt for each queue, one for the control queue, one for the rest.
            count => (
                format!(",queues={count}"),
                format!(",mq=on,vectors={}", 2 * count + 2),
            ),
        };
        qemu.args(["-name", &self.name])
            .arg("-initrd")
            .arg(&self.config);
        for (slot, nic) in self.nics.iter().enumerate() {
            let Nic { tap, mac, mtu } = nic;
            qemu.arg("-netdev")
                .arg(format!(
                    "tap,id=n{slot},ifname={tap},script=no,downscript=no{tap_queues}"
                ))
                .arg("-device")
                .arg(format!(
                    "virtio-net-pci,netdev=n{slot},mac={mac},host_mtu={mtu},\
                     disable-legacy=on,romfile={nic_queues}"
                ));
        }
        qemu
    }
}

/// A VM that is kept running until it is stopped or dropped.
#[derive(Debug)]
pub struct Machine {
    profile: Profile,
    netns: Netns,
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// The running QEMU.
    qemu: Option<Daemon>,
    /// When each was started.
    boots: Vec<Instant>,
    /// No more are started.
    stopped: bool,
    /// What kept one from being started.
    failure: Option<anyhow::Error>,
}

impl Machine {
    /// Boots `profile` with its taps in `netns`; console and log go to `dir`.
    pub fn start(profile: Profile, netns: &Netns, dir: &Path) -> Result<Machine> {
        let mut machine = Machine {
            profile,
            netns: netns.clone(),
            dir: dir.to_owned(),
            state: Arc::default(),
            keeper: None,
        };
        machine.resume()?;
        Ok(machine)
    }

    /// Boots it again after [`stop`](Self::stop).
    pub fn resume(&mut self) -> Result<()> {
        self.stop()?;
        let (profile, netns) = (self.profile.clone(), self.netns.clone());
        let (console, log) = (self.console(), self.log());
        let state = Arc::clone(&self.state);
        lock(&state).stopped = false;
        boot(&profile, &netns, &console, &log, &mut lock(&state))?;
        self.keeper = Some(thread::spawn(move || {
            keep_running(&state, |state| {
                boot(&profile, &netns, &console, &log, state)
            });
        }));
        Ok(())
    }

    /// Powers it off for good.
    pub fn stop(&mut self) -> Result<()> {
        {
            let mut state = lock(&self.state);
            state.stopped = true;
            state.qemu = None;
        }
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            bail!("the keeper of {} panicked", self.profile.name);
        }
        Ok(())
    }

    /// Kills QEMU as `kill -9` does. The hypervisor will notice.
    pub fn kill(&self) -> Result<()> {
        let mut state = lock(&self.state);
        state.qemu.as_mut().context("QEMU is not running")?.kill()
    }

    /// Waits for the QEMU after the first `boots` ones and returns its start.
    pub fn booted_again(&self, boots: usize) -> Result<Instant> {
        let what = format!("the hypervisor to boot {} again", self.profile.name);
        wait::until(&what, Duration::from_secs(10), || {
            let mut state = lock(&self.state);
            match state.failure.take() {
                Some(failure) => Err(failure),
                None => Ok(state.boots.get(boots).copied()),
            }
        })
    }

    /// How many times it was booted.
    pub fn boots(&self) -> usize {
        lock(&self.state).boots.len()
    }

    /// When the current QEMU was started.
    pub fn booted(&self) -> Option<Instant> {
        lock(&self.state).boots.last().copied()
    }

    /// Process id of the current QEMU, inside the sandbox.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.state).qemu.as_ref().map(Daemon::pid)
    }

    /// What it boots.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// File with what it wrote to its serial console, over all boots.
    pub fn console(&self) -> PathBuf {
        self.dir.join(format!("{}.console", self.profile.name))
    }

    /// File with what QEMU itself wrote.
    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.qemu.log", self.profile.name))
    }

    /// The end of the console and of QEMU's own log, for reports.
    pub fn tail(&self) -> String {
        format!("{}{}", tail(&self.console(), 30), tail(&self.log(), 5))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails only by a panic in the keeper, which was printed.
        let _ = self.stop();
    }
}

fn boot(
    profile: &Profile,
    netns: &Netns,
    console: &Path,
    log: &Path,
    state: &mut State,
) -> Result<()> {
    // The file must be there for readers before QEMU makes it.
    append(console)?;
    state.boots.push(Instant::now());
    state.qemu = Some(Daemon::spawn(
        &profile.name,
        netns,
        &mut profile.command(console),
        log,
    )?);
    Ok(())
}

fn keep_running(state: &Mutex<State>, mut boot: impl FnMut(&mut State) -> Result<()>) {
    loop {
        thread::sleep(RESTART_DELAY);
        let mut state = lock(state);
        if state.stopped {
            return;
        }
        let ended = match state.qemu.as_mut().map(Daemon::ended) {
            Some(Ok(ended)) => ended,
            Some(Err(failure)) => return state.failure = Some(failure),
            None => return,
        };
        match ended {
            None => {}
            Some(status) if status.code().is_some_and(|code| code != 0) => {
                let failure = anyhow!("the NVE powered itself off ({status})");
                return state.failure = Some(failure);
            }
            Some(_) => {
                if let Err(failure) = boot(&mut state) {
                    return state.failure = Some(failure);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("holders of the lock do not panic")
}
