//! A QEMU whose NICs are the generator's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use nve_protocol::Mac;
use sluice_lab::netns::Netns;
use sluice_lab::process::{Daemon, tail};

use crate::dut::{DEVICE_CPU, GENERATOR_CPU};
use crate::realtime::Exclusive;
use crate::traffic::{TRUNK_MAC, UPLINK_MAC};

const PROGRAM: &str = "qemu-system-x86_64";
/// What QEMU calls the thread that runs the guest's code.
const GUEST_THREAD: &str = "CPU 0/";

/// What is booted.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    /// The kernel, as QEMU loads it.
    pub(super) kernel: PathBuf,
    /// Its first boot module.
    pub(super) initrd: PathBuf,
    /// Its command line, if it reads one.
    pub(super) command_line: Option<&'static str>,
    /// Memory in MiB.
    pub(super) memory: u32,
    /// Socket of the generator's NIC that is the trunk.
    pub(super) trunk: PathBuf,
    /// Socket of the one that is the uplink.
    pub(super) uplink: PathBuf,
}

impl Boot {
    /// The same for every guest but for what it is; as image/run.sh does it, and the
    /// lab. Translated code, since not every machine has KVM.
    fn command(&self, console: &Path) -> Command {
        let memory = self.memory;
        // During the boot both processors are the guest's; the generator mostly sleeps.
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", &format!("{GENERATOR_CPU},{DEVICE_CPU}")])
            .args([PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-name", "booted,debug-threads=on"])
            // With one processor at most, QEMU 7.2 translates no memory barriers.
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1,maxcpus=2"])
            .args(["-machine", "q35,memory-backend=memory"])
            .args(["-m", &format!("{memory}M"), "-object"])
            .arg(format!(
                "memory-backend-memfd,id=memory,size={memory}M,share=on"
            ))
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd);
        if let Some(command_line) = self.command_line {
            command.args(["-append", command_line]);
        }
        for (id, socket, mac) in [
            ("trunk", &self.trunk, TRUNK_MAC),
            ("uplink", &self.uplink, UPLINK_MAC),
        ] {
            command.args(nic(id, socket, mac));
        }
        command
    }
}

/// A virtio NIC on a socket of the generator. It has no offloads, since the generator
/// offers none, and no merging: a frame fits one buffer. And no MSI-X, which QEMU 7.2
/// cannot have on vhost-user without KVM: it dies when the driver starts
/// (`kvm_virtio_pci_irqfd_use` of hw/virtio/virtio-pci.c). So Linux has interrupts by
/// the pin, and the image polls.
fn nic(id: &str, socket: &Path, mac: Mac) -> [String; 6] {
    [
        "-chardev".to_owned(),
        format!("socket,id={id},path={}", socket.display()),
        "-netdev".to_owned(),
        format!("vhost-user,id={id},chardev={id}"),
        "-device".to_owned(),
        format!(
            "virtio-net-pci,netdev={id},mac={mac},disable-legacy=on,mrg_rxbuf=off,vectors=0,romfile="
        ),
    ]
}

/// How much memory a QEMU takes, in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// Of the guest's memory.
    pub(super) touched: f64,
    /// All that is resident.
    pub(super) resident: f64,
}

/// A running QEMU. It ends when dropped.
#[derive(Debug)]
pub(super) struct Machine {
    daemon: Daemon,
    started: Instant,
    console: PathBuf,
}

impl Machine {
    /// Starts QEMU; its console and log go to `dir`.
    pub(super) fn start(boot: &Boot, dir: &Path) -> Result<Machine> {
        let console = dir.join("console.log");
        let mut command = boot.command(&console);
        let netns = Netns::current()?;
        let started = Instant::now();
        let daemon = Daemon::spawn(PROGRAM, &netns, &mut command, &dir.join("qemu.log"))?;
        Ok(Machine {
            daemon,
            started,
            console,
        })
    }

    /// How long ago it was started.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Fails if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    /// The end of its console.
    pub(super) fn tail(&self) -> String {
        format!("its console:\n{}", tail(&self.console, 30))
    }

    /// Gives the guest's code the device's processor, and all else the generator's.
    pub(super) fn pin(&self) -> Result<()> {
        for (thread, name) in self.threads()? {
            let is_guest = name.starts_with(GUEST_THREAD);
            let cpu = if is_guest { DEVICE_CPU } else { GENERATOR_CPU };
            let mut cpus = CpuSet::new();
            cpus.set(cpu)?;
            sched_setaffinity(Pid::from_raw(thread), &cpus)
                .with_context(|| format!("cannot move {name} to processor {cpu}"))?;
        }
        Ok(())
    }

    /// Gives the guest's code and the calling thread their processors alone, once they
    /// are pinned. QEMU's main loop, which delivers timers and interrupts and sleeps
    /// otherwise, goes before the generator.
    pub(super) fn take_processors(&self) -> Result<Exclusive> {
        let mut exclusive = Exclusive::take(self.daemon.pid(), DEVICE_CPU)?;
        exclusive.serve(&self.daemon.pid().to_string())?;
        Ok(exclusive)
    }

    /// Its threads by their ids, and what they are called.
    fn threads(&self) -> Result<Vec<(i32, String)>> {
        let dir = format!("/proc/{}/task", self.daemon.pid());
        let mut threads = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))? {
            let entry = entry?;
            let name = fs::read_to_string(entry.path().join("comm"))?;
            let id = entry.file_name().to_string_lossy().parse()?;
            threads.push((id, name.trim().to_owned()));
        }
        Ok(threads)
    }

    /// What memory it takes by now.
    pub(super) fn usage(&self) -> Result<Usage> {
        let path = format!("/proc/{}/status", self.daemon.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        usage(&status).with_context(|| format!("{path} does not say what is resident"))
    }
}

/// Reads a process's status (proc(5)). Only the guest's memory is shared.
fn usage(status: &str) -> Option<Usage> {
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib = line.strip_prefix(':')?.trim().strip_suffix("kB")?;
        Some(kib.trim().parse::<f64>().ok()? / 1024.0)
    };
    Some(Usage {
        touched: mib("RssShmem")?,
        resident: mib("VmRSS")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        let status = "Name:\tqemu\nVmRSS:\t   10240 kB\nRssAnon:\t 4096 kB\nRssShmem:\t  512 kB\n";
        let expected = Usage {
            touched: 0.5,
            resident: 10.0,
        };
        assert_eq!(usage(status), Some(expected));
        assert_eq!(usage("VmRSS:\t10240 kB\n"), None);
        assert_eq!(usage("VmRSS:\tmany kB\nRssShmem:\t1 kB\n"), None);
    }
}
