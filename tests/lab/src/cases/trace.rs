//! Why does it not get through? A trace says what becomes of a packet on every NVE
//! of its way, and traffic fares the same; drops, flows and captures show what did.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::table_v::{addresses, communicate, routed_site};
use crate::capture::Frames;
use crate::probe::Probe;
use crate::process::{Daemon, tail};
use crate::reach;
use crate::site::Site;
use crate::wait;

/// How long what is in force may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames that are captured: two echo requests and their replies.
const FRAMES: usize = 4;

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let site = routed_site(context)?;
    communicate(&site, "a1", "b2")?;
    let tool = Tool {
        context,
        site: &site,
    };
    for (to, nowhere) in addresses(site.guest("b2")?)?
        .into_iter()
        .zip(["10.99.0.1", "fd00:99::1"])
    {
        passes(&tool, to)?;
        goes_nowhere(&tool, nowhere)?;
        spoofs(&tool, to)?;
    }
    is_refused(&tool)?;
    flows(&tool)?;
    captures(&tool)
}

/// `nvectl` against the lab's shim.
struct Tool<'a> {
    context: &'a Context,
    site: &'a Site,
}

impl Tool<'_> {
    fn command(&self, arguments: &str) -> Command {
        let mut nvectl = Command::new(&self.context.artifacts.nvectl);
        nvectl.args(["--url", self.site.control.api.base()]);
        nvectl.args(arguments.split_whitespace());
        nvectl
    }

    /// What it prints, and whether its exit status is 0.
    fn run(&self, arguments: &str) -> Result<(String, bool)> {
        let netns = self.site.lab.fabric.netns();
        let output = netns.run(|| Ok(self.command(arguments).output()?))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(error.is_empty(), "nvectl {arguments}: {error}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((text, output.status.success()))
    }

    /// Runs a trace that must end so, with each of these in what it prints.
    fn trace(&self, arguments: &str, delivered: bool, words: &[&str]) -> Result<()> {
        let (text, success) = self.run(&format!("trace {arguments}"))?;
        println!("{text}");
        ensure!(success == delivered, "trace {arguments}: status {success}");
        for word in words {
            ensure!(text.contains(word), "trace {arguments} lacks {word:?}");
        }
        Ok(())
    }
}

/// `at:port` as the command line wants it.
fn socket(at: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(at, port).to_string()
}

/// A packet that is routed to another NVE is followed to its port.
fn passes(tool: &Tool<'_>, to: IpAddr) -> Result<()> {
    let arguments = format!("nve-a --port a1 --tcp {}", socket(to, 443));
    let words = [
        "nve-a\n",
        "allowed by rule",
        "router between",
        "nve-b, from nve-a",
        "delivered",
        "b2",
    ];
    tool.trace(&arguments, true, &words)
}

/// Without a route the gateway tells the sender so.
fn goes_nowhere(tool: &Tool<'_>, nowhere: &str) -> Result<()> {
    let arguments = format!("nve-a --port a1 --icmp {nowhere}");
    tool.trace(&arguments, false, &["no_route", "dropped on nve-a"])
}

/// Nobody sends from another's address.
fn spoofs(tool: &Tool<'_>, to: IpAddr) -> Result<()> {
    let other = match to {
        IpAddr::V4(_) => "10.0.1.99",
        IpAddr::V6(_) => "fd00:1::99",
    };
    let arguments = format!("nve-a --port a1 --icmp {to} --from {other}");
    tool.trace(&arguments, false, &["source_ip", "dropped on nve-a"])
}

/// What a security group refuses is told by the trace, by the log of drops while it
/// happens, and to a VM by silence.
fn is_refused(tool: &Tool<'_>) -> Result<()> {
    let site = tool.site;
    let closed = site.add_group("closed")?;
    site.change_port("b2", &json!({"security_groups": [closed]}))?;
    let (from, to) = (site.guest("a1")?, site.guest("b2")?);
    let at = IpAddr::from(to.vm.interface.ip);
    wait::until_true("the ping to be refused", PATIENCE, || {
        let passes = Probe::Ping.passes(&from.vm.netns, &to.vm.netns, at)?;
        Ok(!passes)
    })?;
    let arguments = format!("nve-a --port a1 --icmp {at}");
    let words = ["security_group", "dropped on nve-b", "ingress of port b2"];
    tool.trace(&arguments, false, &words)?;
    let log = tool.context.dir.join("drops.log");
    let netns = site.lab.fabric.netns();
    let mut follow = tool.command("drops nve-b --port b2 --follow");
    let mut follow = Daemon::spawn("nvectl drops", netns, &mut follow, &log)?;
    let flow = format!("10.0.1.11:5000 > {at}:7777");
    wait::until_true("the drops to be followed", PATIENCE, || {
        follow.check()?;
        send(tool, at, 7777)?;
        let shown = tail(&log, 50);
        Ok(shown.contains("security_group") && shown.contains(&flow))
    })?;
    println!("{}", tail(&log, 3));
    let open = site.add_group("open again")?;
    site.allow(&open, &json!({}))?;
    site.change_port("b2", &json!({"security_groups": [open]}))?;
    wait::until_true("the ping to pass again", PATIENCE, || {
        Probe::Ping.passes(&from.vm.netns, &to.vm.netns, at)
    })?;
    tool.trace(&arguments, true, &["delivered"])
}

/// Sends a datagram from port 5000 of a1.
fn send(tool: &Tool<'_>, at: IpAddr, port: u16) -> Result<()> {
    tool.site.guest("a1")?.vm.netns.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:5000")?;
        socket.send_to(b"x", (at, port)).map(drop)?;
        Ok(())
    })
}

/// The flows of a connection, both ways, with its state.
fn flows(tool: &Tool<'_>) -> Result<()> {
    let (from, to) = (tool.site.guest("a1")?, tool.site.guest("b2")?);
    let at = IpAddr::from(to.vm.interface.ip);
    ensure!(reach::transfer(&from.vm.netns, &to.vm.netns, at)?, "no TCP");
    let (text, _) = tool.run("flows nve-a --port a1")?;
    println!("{text}");
    ensure!(text.contains("tcp") && text.contains(&at.to_string()));
    let (text, _) = tool.run("-o json flows nve-a --port a1")?;
    let flows: Value = serde_json::from_str(&text)?;
    let count = flows["flows"].as_array().map_or(0, Vec::len);
    ensure!(count >= 2, "flows of both directions, not {count}");
    Ok(())
}

/// A capture of one port's frames, which a third party reads.
fn captures(tool: &Tool<'_>) -> Result<()> {
    let site = tool.site;
    let (from, to) = (site.guest("a1")?, site.guest("b2")?);
    let at = IpAddr::from(to.vm.interface.ip);
    let file = tool.context.dir.join("a1.pcapng");
    let log = tool.context.dir.join("capture.log");
    let arguments = format!("capture nve-a --port a1 -w {} --count 40", file.display());
    let netns = site.lab.fabric.netns();
    let mut capture = tool.command(&arguments);
    let mut capture = Daemon::spawn("nvectl capture", netns, &mut capture, &log)?;
    wait::until_true("40 captured frames", PATIENCE, || {
        Probe::Ping.passes(&from.vm.netns, &to.vm.netns, at)?;
        Ok(capture.ended()?.is_some())
    })?;
    let status = capture.wait()?;
    ensure!(status.success(), "capture: {}", tail(&log, 5));
    both_ways(&file, from.vm.interface.ip.into(), at)
}

/// Requests go out and replies come in, as the frames' own direction says too.
fn both_ways(file: &Path, own: IpAddr, other: IpAddr) -> Result<()> {
    let size = fs::metadata(file).context("no capture")?.len();
    let frames = Frames::read(file);
    let requests = frames.count(&format!(
        "icmp.type == 8 && ip.src == {own} && frame.packet_flags_direction == 2"
    ))?;
    let replies = frames.count(&format!(
        "icmp.type == 0 && ip.src == {other} && frame.packet_flags_direction == 1"
    ))?;
    ensure!(
        requests + replies >= FRAMES && requests > 0 && replies > 0,
        "{requests} requests and {replies} replies in {size} bytes"
    );
    println!("  captured: {requests} requests out, {replies} replies in; {size} bytes");
    Ok(())
}
