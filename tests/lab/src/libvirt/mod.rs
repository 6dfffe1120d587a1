//! Hypervisors with libvirt: a libvirtd for each of the lab's, side by side on this
//! machine, and real guests.
//!
//! Each libvirtd has mount, UTS and PID namespaces of its own (`libvirtd.sh`), in which
//! its guests are, and the lab's network namespace, where the bridge of its hypervisor is.

pub mod guest;
pub mod recorder;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

use crate::lab::{Hypervisor, Lab};
use crate::netns::Netns;
use crate::process::{Daemon, output};
use crate::wait;

/// The network whose port groups ports are in.
pub const NETWORK: &str = "sluice";
/// The trunk's port group.
pub const TRUNK: &str = "PG_Trunk";
/// A port group that somebody else made in that network.
pub const FOREIGN: &str = "<portgroup name='foreign'><vlan><tag id='4000'/></vlan></portgroup>";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/libvirtd.sh");

/// Seconds that virsh(1) may take.
const LIMIT: &str = "60";

/// How long libvirtd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The libvirtd of one hypervisor, and its guests. All of it ends when it is dropped.
#[derive(Debug)]
pub struct Libvirtd {
    /// Name of its host.
    pub name: String,
    uuid: Uuid,
    /// The first process of the host; all others of it end with it.
    host: Option<Daemon>,
    netns: Netns,
    dir: PathBuf,
    log: PathBuf,
    ovs: PathBuf,
}

/// Starts one for each hypervisor of `lab`, with [`NETWORK`] on its bridge.
pub fn start_all(lab: &Lab) -> Result<Vec<Libvirtd>> {
    let daemons = lab.hypervisors.iter().map(|host| {
        let libvirtd = Libvirtd::start(lab, host)?;
        libvirtd.define_network(&host.ports.bridge)?;
        Ok(libvirtd)
    });
    daemons.collect()
}

impl Libvirtd {
    fn start(lab: &Lab, host: &Hypervisor) -> Result<Libvirtd> {
        let mut libvirtd = Libvirtd {
            name: host.name.clone(),
            uuid: host.uuid,
            host: None,
            netns: lab.fabric.netns().clone(),
            dir: lab.dir.join("libvirt").join(&host.name),
            log: lab.dir.join(format!("libvirtd-{}.log", host.name)),
            ovs: lab.dir.join("ovs"),
        };
        fs::create_dir_all(&libvirtd.dir)?;
        libvirtd.run()?;
        Ok(libvirtd)
    }

    /// Starts the host, also after [`lose`](Self::lose), and waits until libvirtd answers.
    pub fn run(&mut self) -> Result<()> {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--uts", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", SCRIPT, &self.name])
            .arg(self.uuid.to_string())
            .args([&self.dir, &self.ovs]);
        let name = format!("the host {}", self.name);
        self.host = Some(Daemon::spawn(&name, &self.netns, &mut command, &self.log)?);
        self.await_answer()
    }

    fn await_answer(&mut self) -> Result<()> {
        let host = self.host.as_mut().context("the host is lost")?;
        let mut probe = virsh(&self.dir);
        probe.arg("version");
        let what = format!("libvirtd of {}", self.name);
        wait::until_true(&what, PATIENCE, || {
            host.check()?;
            Ok(output(&mut probe).is_ok())
        })
    }

    /// How libvirt's clients name it.
    pub fn uri(&self) -> String {
        uri(&self.dir)
    }

    /// Runs virsh(1) with these arguments.
    pub fn virsh(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }

    /// virsh(1) with these arguments, to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut virsh = virsh(&self.dir);
        virsh.args(arguments);
        virsh
    }

    /// Has virsh(1) read `xml`: it is the command's last argument.
    pub fn virsh_with(&self, xml: &str, arguments: &[&str]) -> Result<String> {
        let file = self.dir.join("argument.xml");
        fs::write(&file, xml)?;
        output(self.command(arguments).arg(&file))
    }

    fn define_network(&self, bridge: &str) -> Result<()> {
        let network = format!(
            "<network>
              <name>{NETWORK}</name>
              <forward mode='bridge'/>
              <bridge name='{bridge}'/>
              <virtualport type='openvswitch'/>
              {FOREIGN}
            </network>"
        );
        self.virsh_with(&network, &["net-define"])?;
        self.virsh(&["net-autostart", NETWORK])?;
        self.virsh(&["net-start", NETWORK])?;
        Ok(())
    }

    /// Kills all of the host at once.
    pub fn lose(&mut self) -> Result<()> {
        self.host.take().context("the host is lost already")?.kill()
    }

    /// Kills libvirtd as `kill -9` does; its guests run on.
    pub fn kill(&self) -> Result<()> {
        fs::write(self.dir.join("down"), "")?;
        self.kill_programs("libvirtd")
    }

    /// Starts libvirtd again after [`kill`](Self::kill).
    pub fn revive(&mut self) -> Result<()> {
        fs::remove_file(self.dir.join("down"))?;
        self.await_answer()
    }

    /// Kills its guests as `kill -9` does.
    pub fn kill_guests(&self) -> Result<()> {
        self.kill_programs("qemu-system")
    }

    /// Kills the host's programs whose names begin like that.
    fn kill_programs(&self, name: &str) -> Result<()> {
        let host = self.host.as_ref().context("the host is lost")?.pid();
        for init in children(host)? {
            for pid in children(init)? {
                let called = fs::read_to_string(format!("/proc/{pid}/comm"));
                if called.is_ok_and(|called| called.starts_with(name)) {
                    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
                }
            }
        }
        Ok(())
    }
}

/// The children of a process.
fn children(pid: u32) -> Result<Vec<u32>> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let pids = list.split_whitespace().map(|pid| Ok(pid.parse()?));
    pids.collect()
}

fn uri(dir: &Path) -> String {
    let socket = dir.join("run/libvirt/libvirt-sock");
    format!("qemu+unix:///system?socket={}", socket.display())
}

/// virsh(1), which would wait for ever for a libvirtd that hangs.
fn virsh(dir: &Path) -> Command {
    let mut virsh = Command::new("timeout");
    virsh.args([LIMIT, "virsh", "--quiet", "--connect", &uri(dir)]);
    virsh
}
