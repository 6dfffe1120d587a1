//! Who is not known is refused, and costs no more than the connection.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::fabric::CONTROL_ADDRESS;
use crate::netns::Netns;
use crate::nve::{Identity, KeyPair, Nve};
use crate::reach;
use crate::site::Site;
use crate::wait;

/// How long an appliance may take to boot and be refused.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that say nothing.
const SILENT: usize = 500;

/// KiB that the shim may keep of all that.
const MEMORY: u64 = 16 * 1024;

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_network("red")?;
    for plan in [("b1", "red", 1, 13), ("b2", "red", 1, 14)] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    let connected = connected_since(&site, "nve-b")?;
    refuse_garbage(&site)?;
    refuse_appliance(context, &mut site, Wrong::OwnKey)?;
    refuse_appliance(context, &mut site, Wrong::ShimKey)?;
    ensure!(
        connected_since(&site, "nve-b")? == connected,
        "nve-b lost its session"
    );
    let (b1, b2) = (&site.guest("b1")?.vm, &site.guest("b2")?.vm);
    ensure!(
        reach::ping(&b1.netns, b2.interface.ip, 1)?,
        "nve-b does not forward"
    );
    Ok(())
}

fn connected_since(site: &Site, name: &str) -> Result<Option<String>> {
    let since = &site.nve_state(name)?["connection"]["since"];
    Ok(since.as_str().map(str::to_owned))
}

/// What of a boot configuration is wrong.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    /// The NVE has a key that is not registered.
    OwnKey,
    /// The NVE expects another shim.
    ShimKey,
}

/// Boots an NVE that has to be refused on the first hypervisor.
fn refuse_appliance(context: &Context, site: &mut Site, wrong: Wrong) -> Result<()> {
    let hypervisor = site.lab.hypervisors.first_mut().context("no host")?;
    hypervisor.nve = None;
    let name = hypervisor.identity.name.clone();
    let other = KeyPair::generate()?;
    let mut identity = Identity {
        name: format!("{wrong:?}"),
        ..hypervisor.identity.clone()
    };
    let mut shim_key = site.control.keys.public.clone();
    let reason = match wrong {
        Wrong::OwnKey => {
            identity.keys = other;
            "no NVE is registered with this key"
        }
        Wrong::ShimKey => {
            shim_key = other.public;
            "not a handshake for this shim's key"
        }
    };
    let before = site.control.shim_log()?.matches(reason).count();
    let (netns, dir) = (site.lab.fabric.netns(), &site.lab.dir);
    let image = (
        context.artifacts.image.as_path(),
        context.artifacts.processors,
    );
    let ports = &hypervisor.ports;
    let stranger = Nve::boot(identity, &shim_key, image, ports, netns, dir)?;
    wait::until_true("the NVE to be refused twice", PATIENCE, || {
        Ok(site.control.shim_log()?.matches(reason).count() >= before + 2)
    })?;
    wait::until_true("the shim to miss the NVE", PATIENCE, || {
        Ok(connected_since(site, &name)?.is_none())
    })?;
    println!("  {wrong:?}: refused and logged, \"{reason}\"; its console says:");
    println!(
        "{}",
        last_line(&fs::read_to_string(stranger.machine.console())?)
    );
    Ok(())
}

fn last_line(text: &str) -> String {
    format!("    {}", text.lines().last().unwrap_or_default().trim())
}

fn refuse_garbage(site: &Site) -> Result<()> {
    let station = site.lab.fabric.add_station("stranger", "192.0.2.66/24")?;
    let before = memory(site)?;
    let http = b"GET / HTTP/1.1\r\nHost: shim\r\n\r\n".to_vec();
    for garbage in [http, vec![0xff; 65_537], vec![0; 2], b"\x00\x60".repeat(49)] {
        ensure!(
            is_closed(&station, &garbage)?,
            "the shim went on after garbage"
        );
    }
    let silent = (0..SILENT)
        .map(|_| connect(&station))
        .collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_secs(1));
    let health = site.control.api.get("/healthz");
    ensure!(
        health.is_ok(),
        "the shim does not answer beside silent connections"
    );
    drop(silent);
    let grown = memory(site)?.saturating_sub(before);
    ensure!(grown < MEMORY, "the shim grew by {grown} KiB");
    let refused = site.control.shim_log()?.matches("refused: ").count();
    ensure!(refused > 0, "nothing of it is in the log");
    println!("  garbage and {SILENT} silent connections: {grown} KiB, {refused} refusals logged");
    Ok(())
}

fn connect(station: &Netns) -> Result<TcpStream> {
    let at: SocketAddr = format!("{CONTROL_ADDRESS}:{}", nve_protocol::DEFAULT_PORT).parse()?;
    station.run(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))
}

/// Whether the shim ends a connection on which `garbage` comes.
fn is_closed(station: &Netns, garbage: &[u8]) -> Result<bool> {
    let mut stream = connect(station)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The shim may close before it has read all.
    let _ = stream.write_all(garbage);
    let mut answer = [0; 64];
    Ok(match stream.read(&mut answer) {
        Ok(length) => length == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    })
}

/// Resident memory of the shim in KiB (proc(5), `status`).
fn memory(site: &Site) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", site.control.shim_pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse()?)
}
