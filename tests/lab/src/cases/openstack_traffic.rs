//! The OpenStack community's client changes a tenant's network under traffic.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Context;
use super::table_v::{addresses, passes};
use crate::netns::Netns;
use crate::probe::Probe;
use crate::site::Site;
use crate::tenant::{OBEDIENCE, all_obey_since};
use crate::throughput::{self, Stream};
use crate::wait;

/// Limits each way, in kbit/s of Ethernet frames.
const RATE: u32 = 4_000;

/// How much faster than that is sent.
const EXCESS: u32 = 4;

/// How long the rate is measured that has to be obeyed.
const WINDOW: Duration = Duration::from_secs(3);

/// Port on which VMs take datagrams.
const PORT: u16 = 5201;

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
    let mut sdk = Sdk::start(context, &site)?;
    router(&mut sdk, &site)?;
    groups(&mut sdk, &site)?;
    limits(&mut sdk, &site)
}

/// The script that calls the client.
struct Sdk {
    script: Child,
    steps: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sdk {
    fn start(context: &Context, site: &Site) -> Result<Sdk> {
        let mut script = Command::new(&context.artifacts.python);
        script
            .arg(context.artifacts.openstack.join("tenant.py"))
            .args(["--url", site.control.api.base()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut script = site.lab.fabric.netns().run(|| Ok(script.spawn()?))?;
        let steps = script.stdin.take().context("no standard input")?;
        let answers = script.stdout.take().context("no standard output")?;
        Ok(Sdk {
            script,
            steps,
            answers: BufReader::new(answers),
        })
    }

    /// Runs a step; the id that it prints, and when its last call had returned.
    fn run(&mut self, step: &[&str]) -> Result<(String, Instant)> {
        writeln!(self.steps, "{}", step.join(" "))?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let now = (Instant::now(), UNIX_EPOCH.elapsed()?);
        let (id, returned) = line
            .trim()
            .split_once(' ')
            .with_context(|| format!("{step:?} failed; the script's complaint is above"))?;
        let ago = now
            .1
            .saturating_sub(Duration::try_from_secs_f64(returned.parse()?)?);
        Ok((id.to_owned(), now.0.checked_sub(ago).unwrap_or(now.0)))
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
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

/// Holds `wanted` of a probe from `a1` to `b2`, for both families, within a second of
/// a call's return.
fn hold(site: &Site, returned: Instant, what: &str, probe: Probe, wanted: bool) -> Result<()> {
    let targets = addresses(site.guest("b2")?)?;
    all_obey_since(
        returned,
        targets.map(|at| {
            let what = format!("{what}: {probe} to {at}");
            let attempt = move || Ok(passes(site, "a1", "b2", at, probe)? == wanted);
            (what, attempt)
        }),
    )
}

/// A router and its interfaces.
fn router(sdk: &mut Sdk, site: &Site) -> Result<()> {
    let mut subnets = Vec::new();
    for network in ["red", "green"] {
        let network = site.network(network)?;
        subnets.extend(network.subnets.iter().map(|subnet| subnet.id.as_str()));
    }
    hold(site, Instant::now(), "no router", Probe::Ping, false)?;
    let step = [&["route"], subnets.as_slice()].concat();
    let (_, returned) = sdk.run(&step)?;
    hold(
        site,
        returned,
        "a router with interfaces",
        Probe::Ping,
        true,
    )
}

/// A security group and its rules.
fn groups(sdk: &mut Sdk, site: &Site) -> Result<()> {
    let port = site.guest("b2")?.port.clone();
    let (group, returned) = sdk.run(&["protect", &port])?;
    hold(
        site,
        returned,
        "a group without rules",
        Probe::Tcp(80),
        false,
    )?;
    let (_, returned) = sdk.run(&["allow", &group, "tcp", "80"])?;
    hold(site, returned, "a rule for TCP 80", Probe::Tcp(80), true)?;
    hold(site, returned, "a rule for TCP 80", Probe::Udp(80), false)?;
    let (_, returned) = sdk.run(&["forbid", &group])?;
    hold(site, returned, "the rule is gone", Probe::Tcp(80), false)?;
    let (_, returned) = sdk.run(&["allow", &group, "udp", &PORT.to_string()])?;
    hold(site, returned, "a rule for UDP", Probe::Udp(PORT), true)
}

/// A QoS policy, under traffic both ways: a second after the call's return the rate
/// is what it says.
fn limits(sdk: &mut Sdk, site: &Site) -> Result<()> {
    site.open("a1")?;
    let (a1, b2) = (site.guest("a1")?, site.guest("b2")?);
    let ([_, at_a1], [at_b2, _]) = (addresses(a1)?, addresses(b2)?);
    let (a1, b2) = (&a1.vm.netns, &b2.vm.netns);
    let load = u64::from(RATE * EXCESS);
    let _streams = [
        Stream::start(a1, b2, (at_b2, PORT).into(), load)?,
        Stream::start(b2, a1, (at_a1, PORT).into(), load)?,
    ];
    thread::sleep(OBEDIENCE);
    for (way, rate) in rates(a1, b2, OBEDIENCE)? {
        println!("  no limit {way}: {rate:.0} kbit/s");
        ensure!(
            rate > f64::from(RATE * EXCESS / 2),
            "{way}: {rate:.0} kbit/s"
        );
    }
    let (_, returned) = sdk.run(&["limit", &b2_port(site)?, &RATE.to_string()])?;
    thread::sleep(OBEDIENCE.saturating_sub(returned.elapsed()));
    for (way, rate) in rates(a1, b2, WINDOW)? {
        println!("  a limit of {RATE} kbit/s {way}: {rate:.0} kbit/s from the second after");
        let error = (rate - f64::from(RATE)).abs() / f64::from(RATE);
        ensure!(error < 0.02, "{way}: {rate:.0} kbit/s instead of {RATE}");
    }
    Ok(())
}

fn b2_port(site: &Site) -> Result<String> {
    Ok(site.guest("b2")?.port.clone())
}

/// What arrives at both, at the same time.
fn rates(a1: &Netns, b2: &Netns, window: Duration) -> Result<[(&'static str, f64); 2]> {
    thread::scope(|scope| {
        let up = scope.spawn(|| throughput::arriving(a1, window));
        let down = throughput::arriving(b2, window)?;
        let up = up
            .join()
            .map_err(|_| anyhow::anyhow!("measuring panicked"))??;
        Ok([("downstream", down), ("upstream", up)])
    })
}
