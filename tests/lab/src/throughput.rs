//! Rates between VMs, as iperf3(1) measures them.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::wait;

/// Seconds that do not count: slow start, and the burst that is allowed at first.
const WARM_UP: u32 = 2;

/// Bytes of payload of a datagram.
pub const DATAGRAM: u16 = 1200;

/// What carries the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// One TCP connection, as fast as it goes.
    Tcp,
    /// UDP at this rate, in kbit/s of payload.
    Udp(u64),
}

/// Rate at which payload of `source` arrives at `to` in `target`, in kbit/s, over so
/// many seconds after [`WARM_UP`], with the server's log in `dir`.
pub fn measure(
    (source, target): (&Netns, &Netns),
    to: IpAddr,
    load: Load,
    seconds: u32,
    dir: &Path,
) -> Result<f64> {
    fs::create_dir_all(dir)?;
    let log = dir.join("iperf3.log");
    let before = process::tail(&log, usize::MAX).matches(LISTENS).count();
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--forceflush"]);
    let mut server = Daemon::spawn("iperf3", target, &mut server, &log)?;
    wait::until_true("iperf3", Duration::from_secs(10), || {
        server.check()?;
        Ok(process::tail(&log, usize::MAX).matches(LISTENS).count() > before)
    })?;
    let mut client = Command::new("iperf3");
    client
        .args(["--json", "--client", &to.to_string()])
        .args(["--time", &seconds.to_string()])
        .args(["--omit", &WARM_UP.to_string()]);
    if let Load::Udp(rate) = load {
        client.args(["--udp", "--bitrate", &format!("{rate}K")]);
        client.args(["--length", &DATAGRAM.to_string()]);
    }
    let report: Value = serde_json::from_str(&source.output(&mut client)?)?;
    received(&report).with_context(|| format!("no rate in {report}"))
}

/// What the server prints once it is ready.
const LISTENS: &str = "Server listening";

/// What the receiver counted.
fn received(report: &Value) -> Option<f64> {
    let bits = &report["end"]["sum_received"]["bits_per_second"];
    Some(bits.as_f64()? / 1000.0)
}
