//! Open vSwitch with its DPDK datapath (ovs-vswitchd(8), ovs-vsctl(8),
//! dpif-netdev-unixctl).
//!
//! The VMs' bridge has the trunk and a VXLAN port. The tunnel's packets go by a
//! second bridge that has the uplink, and whose own port has the VTEP's address:
//! Open vSwitch finds the way there by the kernel's routes, and its next hop in its
//! own table of neighbors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use sluice_lab::netns::Netns;
use sluice_lab::process::{self, Daemon};
use sluice_lab::wait;

use super::{DEVICE_CPU, Device, GENERATOR_CPU, Setup, file, virtio_user};
use crate::traffic::{PEER, PEER_MAC, Port, Scenario, UPLINK_MAC, VTEP, meters, openflow};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Debian's build with DPDK, which is beside the one without.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// The VMs' bridge.
const BRIDGE: &str = "br-int";
/// The tunnel's bridge.
const UNDERLAY: &str = "br-ul";

const START: Duration = Duration::from_secs(20);

/// A running Open vSwitch.
#[derive(Debug)]
pub(super) struct Ovs {
    // Dropped in this order: the switch before its database.
    switch: Daemon,
    _database: Daemon,
    /// Its own: the bridges' devices outlive the switch, but not their namespace.
    netns: Netns,
    dir: PathBuf,
    /// Per packet, of the intervals since the mark.
    cycles: Vec<f64>,
}

impl Ovs {
    pub(super) fn start(setup: &Setup<'_>) -> Result<Ovs> {
        let netns = Netns::create()?;
        let dir = setup.dir;
        let database = start_database(&netns, dir)?;
        vsctl(dir, &format!("--no-wait set Open_vSwitch . {}", settings()))?;
        let mut command = program(SWITCH, dir);
        command
            .arg(format!("--unixctl={}", control(dir).display()))
            .arg(format!("unix:{}", socket(dir).display()));
        let log = file(setup, "vswitchd.log");
        let switch = Daemon::spawn("ovs-vswitchd", &netns, &mut command, &log)?;
        let mut ovs = Ovs {
            switch,
            _database: database,
            netns,
            dir: dir.to_owned(),
            cycles: Vec::new(),
        };
        wait::until_true("ovs-vswitchd", START, || {
            ovs.check()?;
            Ok(control(dir).exists())
        })?;
        ovs.add_bridges(setup)?;
        ovs.add_flows(setup)?;
        Ok(ovs)
    }

    fn add_bridges(&self, setup: &Setup<'_>) -> Result<()> {
        let (trunk, tunnel) = (Port::Trunk as u16, Port::Tunnel as u16);
        self.vsctl(&format!(
            "add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev fail_mode=secure \
             protocols=OpenFlow13"
        ))?;
        self.vsctl(&format!(
            "add-port {BRIDGE} trunk -- set interface trunk type=dpdk ofport_request={trunk} \
             options:dpdk-devargs={}",
            devargs(&virtio_user(0, setup.trunk))
        ))?;
        let uplink = format!(
            "type=dpdk mtu_request=1600 options:dpdk-devargs={}",
            devargs(&virtio_user(1, setup.uplink))
        );
        if setup.scenario == Scenario::Io {
            return self.vsctl(&format!(
                "add-port {BRIDGE} uplink -- set interface uplink ofport_request={tunnel} {uplink}"
            ));
        }
        self.vsctl(&format!(
            "add-port {BRIDGE} tunnel -- set interface tunnel type=vxlan \
             ofport_request={tunnel} options:remote_ip={PEER} options:key=flow"
        ))?;
        self.vsctl(&format!(
            "add-br {UNDERLAY} -- set bridge {UNDERLAY} datapath_type=netdev \
             other_config:hwaddr=\"{UPLINK_MAC}\" -- add-port {UNDERLAY} uplink -- \
             set interface uplink {uplink}"
        ))?;
        self.add_address()
    }

    /// Gives the tunnel's bridge the VTEP's address, and tells it the next hop.
    fn add_address(&self) -> Result<()> {
        let netns = &self.netns;
        netns.ip(&format!("address add {VTEP}/24 dev {UNDERLAY}"))?;
        netns.ip(&format!("link set {UNDERLAY} up"))?;
        wait::until_true("a route to the other VTEP", START, || {
            Ok(self.ask(&["ovs/route/show"])?.contains(UNDERLAY))
        })?;
        self.ask(&[
            "tnl/neigh/set",
            UNDERLAY,
            &PEER.to_string(),
            &PEER_MAC.to_string(),
        ])?;
        Ok(())
    }

    fn add_flows(&self, setup: &Setup<'_>) -> Result<()> {
        for meter in meters(setup.scenario) {
            self.ofctl(&["add-meter", BRIDGE, &meter])?;
        }
        let flows = file(setup, "flows.txt");
        fs::write(&flows, openflow(setup.scenario).join("\n") + "\n")?;
        self.ofctl(&["add-flows", BRIDGE, &flows.display().to_string()])
    }

    fn vsctl(&self, arguments: &str) -> Result<()> {
        vsctl(&self.dir, arguments)
    }

    fn ofctl(&self, arguments: &[&str]) -> Result<()> {
        let mut ofctl = program("ovs-ofctl", &self.dir);
        ofctl.args(["-O", "OpenFlow13"]).args(arguments);
        process::output(&mut ofctl)?;
        Ok(())
    }

    /// Has the switch do something that is no matter of configuration.
    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut appctl = program("ovs-appctl", &self.dir);
        appctl.arg("-t").arg(control(&self.dir)).args(arguments);
        process::output(&mut appctl)
    }
}

impl Device for Ovs {
    fn pid(&self) -> u32 {
        self.switch.pid()
    }

    fn check(&mut self) -> Result<()> {
        self.switch.check()
    }

    fn forget(&mut self) -> Result<()> {
        self.ask(&["revalidator/purge"])?;
        self.ask(&["dpctl/flush-conntrack"])?;
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        self.cycles.clear();
        self.ask(&["dpif-netdev/pmd-stats-clear"])?;
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        let text = self.ask(&["dpif-netdev/pmd-stats-show"])?;
        let cycles = cycles_per_packet(&text).with_context(|| format!("no cycles in:\n{text}"))?;
        self.cycles.push(cycles);
        self.ask(&["dpif-netdev/pmd-stats-clear"])?;
        Ok(())
    }

    fn cycles(&mut self) -> Result<Vec<f64>> {
        Ok(self.cycles.clone())
    }
}

/// Processing cycles by packets received, of the one thread that polls.
fn cycles_per_packet(text: &str) -> Option<f64> {
    let (_, thread) = text.split_once("pmd thread")?;
    let value = |name: &str| -> Option<f64> {
        let mut lines = thread.lines().map(str::trim);
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_whitespace().next()?.parse().ok()
    };
    let packets = value("packets received")?;
    (packets > 0.0).then_some(value("processing cycles")? / packets)
}

fn settings() -> String {
    format!(
        "other_config:dpdk-init=true other_config:pmd-cpu-mask={:#x} \
         other_config:dpdk-lcore-mask={:#x} \
         other_config:dpdk-extra=\"--in-memory\\ --single-file-segments\\ --no-pci\"",
        1 << DEVICE_CPU,
        1 << GENERATOR_CPU
    )
}

/// Quotes a value that has commas in it.
fn devargs(text: &str) -> String {
    format!("\"{text}\"")
}

fn start_database(netns: &Netns, dir: &Path) -> Result<Daemon> {
    let conf = dir.join("conf.db");
    let mut create = Command::new("ovsdb-tool");
    process::output(create.arg("create").arg(&conf).arg(SCHEMA))
        .context("cannot make the database of Open vSwitch")?;
    let mut command = program("ovsdb-server", dir);
    command
        .arg(&conf)
        .arg(format!("--remote=punix:{}", socket(dir).display()))
        .arg(format!("--unixctl={}", dir.join("ovsdb.ctl").display()));
    let log = dir.join("ovsdb.log");
    let database = Daemon::spawn("ovsdb-server", netns, &mut command, &log)?;
    wait::until_true("ovsdb-server", START, || Ok(socket(dir).exists()))?;
    vsctl(dir, "--no-wait init")?;
    Ok(database)
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("db.sock")
}

fn control(dir: &Path) -> PathBuf {
    dir.join("vswitchd.ctl")
}

/// Runs ovs-vsctl(8) with `arguments`, split at spaces that are not behind a
/// backslash, and waits until the switch has done it.
fn vsctl(dir: &Path, arguments: &str) -> Result<()> {
    let mut vsctl = program("ovs-vsctl", dir);
    vsctl
        .arg(format!("--db=unix:{}", socket(dir).display()))
        .arg("--timeout=30");
    let words = arguments.replace("\\ ", "\0");
    vsctl.args(words.split_whitespace().map(|word| word.replace('\0', " ")));
    process::output(&mut vsctl)?;
    Ok(())
}

/// One of the switch's programs, told to keep its files in `dir`.
fn program(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
        command.env(variable, dir);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_those_of_the_polling_thread() {
        let text = "\
pmd thread numa_id 0 core_id 1:
  packets received: 2000
  packet recirculations: 1000
  idle cycles: 99000 (9.00%)
  processing cycles: 1000000 (91.00%)
  avg cycles per packet: 549.50 (1099000/2000)
main thread:
  packets received: 7
  processing cycles: 70 (1.00%)
";
        assert_eq!(cycles_per_packet(text), Some(500.0));
        assert_eq!(
            cycles_per_packet("main thread:\n  packets received: 7\n"),
            None
        );
    }
}
