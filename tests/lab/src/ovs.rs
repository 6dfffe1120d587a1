//! Open vSwitch with its userspace datapath, one instance per lab, without
//! systemd and without the host's instance (ovs-vswitchd(8)).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::fabric::Offloads;
use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::wait;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A running vSwitch. Ends when dropped.
#[derive(Debug)]
pub struct Ovs {
    // Dropped in this order: the switch before its database.
    _vswitchd: Daemon,
    _database: Daemon,
    dir: PathBuf,
    netns: Netns,
}

impl Ovs {
    /// Starts a vSwitch in `netns` with all its files in `dir`.
    pub fn start(netns: &Netns, dir: &Path, offloads: Offloads) -> Result<Ovs> {
        std::fs::create_dir_all(dir)?;
        let conf = dir.join("conf.db");
        process::output(
            Command::new("ovsdb-tool")
                .arg("create")
                .arg(&conf)
                .arg(SCHEMA),
        )
        .context("cannot make the database of Open vSwitch")?;
        let remote = format!("unix:{}", dir.join("db.sock").display());
        let mut database = command("ovsdb-server", dir);
        database.arg(&conf).arg(format!("--remote=p{remote}"));
        let database = Daemon::spawn("ovsdb-server", netns, &mut database, &dir.join("ovsdb.log"))?;
        wait::until_true("ovsdb-server", Duration::from_secs(10), || {
            Ok(dir.join("db.sock").exists())
        })?;
        // It reads this once, when it starts.
        let tso = format!("userspace-tso-enable={}", offloads == Offloads::On);
        let mut vsctl = command("ovs-vsctl", dir);
        vsctl.args(["--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."]);
        netns.output(vsctl.arg(format!("other_config:{tso}")))?;
        let mut vswitchd = command("ovs-vswitchd", dir);
        vswitchd.arg(&remote);
        let log = dir.join("vswitchd.log");
        let vswitchd = Daemon::spawn("ovs-vswitchd", netns, &mut vswitchd, &log)?;
        Ok(Ovs {
            _vswitchd: vswitchd,
            _database: database,
            dir: dir.to_owned(),
            netns: netns.clone(),
        })
    }

    /// Adds a bridge with the userspace datapath. Bridges are isolated.
    pub fn add_bridge(&self, bridge: &str) -> Result<()> {
        self.vsctl(&format!(
            "add-br {bridge} -- set bridge {bridge} datapath_type=netdev"
        ))
    }

    /// Adds `device` as a trunk port of all VLANs.
    pub fn add_trunk(&self, bridge: &str, device: &str) -> Result<()> {
        self.vsctl(&format!(
            "add-port {bridge} {device} -- set port {device} vlan_mode=trunk"
        ))
    }

    /// Adds `device` as an access port of VLAN `tag`.
    pub fn add_access(&self, bridge: &str, device: &str, tag: u16) -> Result<()> {
        self.vsctl(&format!(
            "add-port {bridge} {device} tag={tag} -- set port {device} vlan_mode=access"
        ))
    }

    /// Takes `device` off its bridge.
    pub fn remove(&self, device: &str) -> Result<()> {
        self.vsctl(&format!("del-port {device}"))
    }

    /// Runs ovs-vsctl(8) with `arguments`, split at spaces, and waits until the
    /// switch has done it.
    fn vsctl(&self, arguments: &str) -> Result<()> {
        let mut vsctl = command("ovs-vsctl", &self.dir);
        vsctl.arg("--timeout=20").args(arguments.split_whitespace());
        self.netns.output(&mut vsctl)?;
        Ok(())
    }
}

/// One of the switch's programs, told to keep its files in `dir`.
fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
        command.env(variable, dir);
    }
    command
}
