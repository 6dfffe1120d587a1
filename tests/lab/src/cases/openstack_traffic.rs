//! The OpenStack community's client changes a tenant's network under traffic.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Context;
use super::table_v::{addresses, passes};
use crate::probe::Probe;
use crate::site::Site;
use crate::tenant::obeys;
use crate::throughput::{self, Load};
use crate::wait;

/// Limits each way, in kbit/s.
const RATE: u64 = 4_000;

/// How long a port may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_dual_network("red", 1)?;
    site.add_dual_network("green", 2)?;
    site.add_vm(("a1", "red", 0, 11))?;
    site.add_vm(("a3", "green", 0, 21))?;
    site.await_active()?;
    acknowledged(&mut site)?;
    router(context, &site)?;
    groups(context, &site)?;
    limits(context, &site)
}

/// Runs a step of the script, which prints an id.
fn sdk(context: &Context, site: &Site, step: &[&str]) -> Result<String> {
    let mut script = Command::new(&context.artifacts.python);
    script
        .arg(context.artifacts.openstack.join("tenant.py"))
        .args(["--url", site.control.api.base()])
        .args(step);
    let printed = site.lab.fabric.netns().output(&mut script)?;
    Ok(printed.trim().to_owned())
}

/// A port is ACTIVE only once its NVE, which was stopped meanwhile, has said so.
fn acknowledged(site: &mut Site) -> Result<()> {
    let pid = site.nve(1)?.machine.pid().context("no QEMU")?;
    let signal =
        |signal| kill(Pid::from_raw(i32::try_from(pid)?), signal).map_err(anyhow::Error::from);
    signal(Signal::SIGSTOP)?;
    site.add_vm(("b2", "green", 1, 22))?;
    let guest = site.guest("b2")?;
    wait::until_true("the event to be taken", PATIENCE, || {
        let placement = site.control.api.get("/v1/placement")?.to_string();
        Ok(placement.contains(&guest.port))
    })?;
    let status = site.port("b2")?["status"].clone();
    ensure!(status != "ACTIVE", "ACTIVE before its NVE had it");
    println!("  with its NVE stopped, the port is {status}");
    signal(Signal::SIGCONT)?;
    site.await_active()?;
    println!("  acknowledged, it is \"ACTIVE\"");
    Ok(())
}

/// Holds `wanted` of a probe from `a1` to `b2`, for both families.
fn hold(site: &Site, what: &str, probe: Probe, wanted: bool) -> Result<()> {
    for at in addresses(site.guest("b2")?)? {
        obeys(&format!("{what}: {probe} to {at}"), || {
            Ok(passes(site, "a1", "b2", at, probe)? == wanted)
        })?;
    }
    Ok(())
}

/// A router and its interfaces.
fn router(context: &Context, site: &Site) -> Result<()> {
    let mut subnets = Vec::new();
    for network in ["red", "green"] {
        let network = site.network(network)?;
        subnets.extend(network.subnets.iter().map(|subnet| subnet.id.as_str()));
    }
    hold(site, "no router", Probe::Ping, false)?;
    let step = [&["route"], subnets.as_slice()].concat();
    sdk(context, site, &step)?;
    hold(site, "a router with interfaces", Probe::Ping, true)
}

/// A security group and its rules.
fn groups(context: &Context, site: &Site) -> Result<()> {
    let port = site.guest("b2")?.port.clone();
    let group = sdk(context, site, &["protect", &port])?;
    hold(site, "a group without rules", Probe::Tcp(80), false)?;
    sdk(context, site, &["allow", &group, "tcp", "80"])?;
    hold(site, "a rule for TCP 80", Probe::Tcp(80), true)?;
    hold(site, "a rule for TCP 80", Probe::Udp(80), false)?;
    sdk(context, site, &["forbid", &group])?;
    hold(site, "the rule is gone", Probe::Tcp(80), false)?;
    sdk(context, site, &["allow", &group, "udp", "5201"])?;
    sdk(context, site, &["allow", &group, "tcp", "5201"])?;
    hold(site, "rules for iperf3", Probe::Tcp(5201), true)
}

/// A QoS policy.
fn limits(context: &Context, site: &Site) -> Result<()> {
    let port = site.guest("b2")?.port.clone();
    sdk(context, site, &["limit", &port, &RATE.to_string()])?;
    let (from, to) = (&site.guest("a1")?.vm, &site.guest("b2")?.vm);
    let at: IpAddr = to.interface.ip.into();
    let load = Load::Udp(2 * RATE);
    let got = throughput::measure((&from.netns, &to.netns), at, load, 5, &context.dir)?;
    #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
    let limit = RATE as f64 * 1.01;
    ensure!(got < limit, "{got:.0} kbit/s instead of {RATE}");
    println!("  a limit of {RATE} kbit/s: {got:.0} kbit/s of payload");
    Ok(())
}
