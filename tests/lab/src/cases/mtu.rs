//! Senders learn the largest packet of a way, and what may be fragmented is.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Context;
use crate::netns::Netns;
use crate::reach;
use crate::site::Site;
use crate::tenant::dual_subnets;
use crate::wait;

/// MTU of the network behind the router.
const NARROW: u16 = 1300;

/// How long the first packet of all may take to get through.
const SETTLE: Duration = Duration::from_secs(10);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_dual_network("red", 1)?;
    let mtu = json!({ "mtu": NARROW });
    site.add_network_with("narrow", &mtu, &dual_subnets(2), true)?;
    site.add_router("between", &["red", "narrow"])?;
    for plan in [
        ("a1", "red", 0, 11),
        ("a3", "narrow", 0, 21),
        ("b2", "narrow", 1, 22),
    ] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    let source = &site.guest("a1")?.vm.netns;
    for name in ["a3", "b2"] {
        for at in site.guest(name)?.vm.interface.addresses() {
            wait::until_true("the router", SETTLE, || reach::ping(source, at, 1))?;
            fragmented(source, at)?;
            refused(source, at)?;
            discovered(source, at)?;
            println!("  a1 to {name} at {at}: {NARROW} bytes found, larger ones fragmented");
        }
    }
    Ok(())
}

/// What ping(8) prints for one packet of so many bytes, and whether it was answered.
fn ping(source: &Netns, at: IpAddr, size: u16, discovery: &str) -> Result<(bool, String)> {
    let headers = if at.is_ipv6() { 48 } else { 28 };
    source.run(|| {
        let done = Command::new("ping")
            .args(["-n", "-c", "1", "-W", "2", "-M", discovery])
            .args(["-s", &(size - headers).to_string()])
            .arg(at.to_string())
            .output()?;
        let text = [done.stdout, done.stderr].concat();
        Ok((
            done.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    })
}

/// By the router in IPv4; in IPv6 by the sender, once it was told.
fn fragmented(source: &Netns, at: IpAddr) -> Result<()> {
    if at.is_ipv6() {
        // Lost, but for the answer that it is too big.
        ping(source, at, NARROW + 100, "want")?;
    }
    let discovery = if at.is_ipv6() { "want" } else { "dont" };
    let (answered, text) = ping(source, at, NARROW + 100, discovery)?;
    ensure!(answered, "fragments to {at} are lost: {text}");
    forget(source)
}

/// What must not be fragmented and does not fit is refused with the size that does.
fn refused(source: &Netns, at: IpAddr) -> Result<()> {
    let (answered, text) = ping(source, at, NARROW, "do")?;
    ensure!(answered, "{NARROW} bytes to {at} do not fit: {text}");
    let (answered, text) = ping(source, at, NARROW + 1, "do")?;
    ensure!(!answered, "more than {NARROW} bytes to {at} fit");
    ensure!(
        text.contains(&format!("mtu={NARROW}")) || text.contains(&format!("mtu = {NARROW}")),
        "{text}"
    );
    forget(source)
}

/// tracepath(8) finds out.
fn discovered(source: &Netns, at: IpAddr) -> Result<()> {
    let mut tracepath = Command::new("tracepath");
    tracepath.args(["-n", "-m", "4", &at.to_string()]);
    let found = source.output(&mut tracepath)?;
    ensure!(
        found.contains(&format!("pmtu {NARROW}")),
        "tracepath: {found}"
    );
    forget(source)
}

/// Makes the kernel forget what it has learned.
fn forget(source: &Netns) -> Result<()> {
    source.ip("-4 route flush cache")?;
    source.ip("-6 route flush cache").map(drop)
}
