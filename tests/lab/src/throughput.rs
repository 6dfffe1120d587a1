//! Rates between VMs, as iperf3(1) measures them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::wait;

/// Seconds that do not count: slow start, and the burst that is allowed at first.
const WARM_UP: u32 = 2;

/// How often it is tried to begin.
const ATTEMPTS: u32 = 3;

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
    for _ in 1..ATTEMPTS {
        let report = run((source, target), to, load, seconds, dir)?;
        match received(&report) {
            Some(rate) => return Ok(rate),
            // It begins with one datagram, which is not repeated if it is lost.
            None => println!("  iperf3 did not begin: {}", report["error"]),
        }
    }
    let report = run((source, target), to, load, seconds, dir)?;
    received(&report).with_context(|| format!("no rate in {report}"))
}

/// What the client reports.
fn run(
    (source, target): (&Netns, &Netns),
    to: IpAddr,
    load: Load,
    seconds: u32,
    dir: &Path,
) -> Result<Value> {
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
    Ok(serde_json::from_str(&source.output(&mut client)?)?)
}

/// What the server prints once it is ready.
const LISTENS: &str = "Server listening";

/// What the receiver counted.
fn received(report: &Value) -> Option<f64> {
    let bits = &report["end"]["sum_received"]["bits_per_second"];
    Some(bits.as_f64()? / 1000.0)
}

/// Between two bursts of a [`Stream`].
const PACE: Duration = Duration::from_millis(2);

/// Datagrams at a steady rate, until it is dropped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    /// What takes them, so that no answer says that nobody does.
    _receiver: UdpSocket,
}

impl Stream {
    /// Sends `kbps` kbit/s of payload from `source` to `to` in `target`.
    pub fn start(source: &Netns, target: &Netns, to: SocketAddr, kbps: u64) -> Result<Stream> {
        let receiver = target.run(|| Ok(UdpSocket::bind(to)?))?;
        let any: IpAddr = match to.is_ipv4() {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        let sender = source.run(|| Ok(UdpSocket::bind((any, 0))?))?;
        sender.connect(to)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let (start, mut sent) = (Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let due = start.elapsed().as_millis() * u128::from(kbps) / 8;
                while sent < due {
                    // What is lost is what is measured.
                    let _ = sender.send(&[0; DATAGRAM as usize]);
                    sent += u128::from(DATAGRAM);
                }
                thread::sleep(PACE);
            }
        });
        Ok(Stream {
            stop,
            _receiver: receiver,
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Rate at which Ethernet frames arrive at `eth0` of a VM, in kbit/s, over that time
/// from now on.
pub fn arriving(vm: &Netns, window: Duration) -> Result<f64> {
    let (start, before) = (Instant::now(), arrived(vm)?);
    thread::sleep(window);
    let (elapsed, bytes) = (start.elapsed(), arrived(vm)? - before);
    Ok(f64::from(u32::try_from(bytes)?) * 8.0 / 1000.0 / elapsed.as_secs_f64())
}

/// Bytes that have arrived at `eth0` (proc(5), `net/dev`).
fn arrived(vm: &Netns) -> Result<u64> {
    let text = vm.run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let bytes = line.and_then(|line| line.split_whitespace().next());
    Ok(bytes.context("no eth0")?.parse()?)
}
