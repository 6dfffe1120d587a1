//! Clients that guests run to be configured: udhcpc of busybox, dhclient(8) and
//! rdisc6(8). Each has its lease file for itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::process::Daemon;
use crate::wait;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program that a client runs at each event.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/told.sh");

/// What a client was told, by the names that it gives to its script.
pub type Told = BTreeMap<String, String>;

/// A client that runs, and where its script writes.
#[derive(Debug)]
pub struct Client {
    daemon: Daemon,
    lease: PathBuf,
}

/// How dhclient asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dhcpv6 {
    /// For an address and options.
    Stateful,
    /// For options only.
    Stateless,
}

/// Starts a DHCPv4 client on `eth0` and waits for a lease, with its files in `dir`.
pub fn udhcpc(netns: &Netns, dir: &Path) -> Result<(Client, Told)> {
    let lease = lease_file(dir, "udhcpc")?;
    let mut busybox = Command::new("busybox");
    busybox
        .args(["udhcpc", "-i", "eth0", "-f", "-t", "5", "-T", "1"])
        .args(["-O", "staticroutes", "-O", "mtu", "-O", "hostname"])
        .args(["-O", "dns", "-O", "router", "-O", "lease"])
        .args(["-s", SCRIPT])
        .env("LEASE", &lease);
    Client::start("udhcpc", netns, &mut busybox, lease)
}

/// Starts a DHCPv6 client on `eth0` and waits for an answer, with its files in `dir`.
pub fn dhclient(netns: &Netns, how: Dhcpv6, dir: &Path) -> Result<(Client, Told)> {
    let lease = lease_file(dir, &format!("dhclient-{how:?}"))?;
    let mut dhclient = Command::new("dhclient");
    dhclient.args(["-6", "-d", "-1", "-v"]);
    if how == Dhcpv6::Stateless {
        dhclient.arg("-S");
    }
    dhclient
        .arg("-lf")
        .arg(lease.with_extension("leases"))
        .arg("-pf")
        .arg(lease.with_extension("pid"))
        .args(["-sf", SCRIPT])
        .arg("-e")
        .arg(format!("LEASE={}", lease.display()))
        .arg("eth0");
    Client::start("dhclient", netns, &mut dhclient, lease)
}

/// What routers on `eth0` advertise, as rdisc6 prints it.
pub fn rdisc6(netns: &Netns) -> Result<String> {
    netns.output(Command::new("rdisc6").args(["-1", "-r", "5", "-w", "1000", "eth0"]))
}

impl Client {
    fn start(
        name: &str,
        netns: &Netns,
        command: &mut Command,
        lease: PathBuf,
    ) -> Result<(Client, Told)> {
        let log = lease.with_extension("log");
        let daemon = Daemon::spawn(name, netns, command, &log)?;
        let mut client = Client { daemon, lease };
        let told = client.await_answer()?;
        Ok((client, told))
    }

    /// Makes udhcpc renew its lease (its manual: SIGUSR1), and waits for the answer.
    pub fn renew(&mut self) -> Result<Told> {
        fs::remove_file(&self.lease)?;
        let pid = Pid::from_raw(i32::try_from(self.daemon.pid())?);
        kill(pid, Signal::SIGUSR1)?;
        self.await_answer()
    }

    fn await_answer(&mut self) -> Result<Told> {
        let what = format!("an answer to {}", self.daemon.name());
        wait::until_true(&what, PATIENCE, || {
            let answered = self.lease.exists();
            if !answered {
                self.daemon.check()?;
            }
            Ok(answered)
        })?;
        let text = fs::read_to_string(&self.lease)?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

/// The file for what the client of that name is told.
fn lease_file(dir: &Path, name: &str) -> Result<PathBuf> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.join("told"))
}
