//! Bandwidth limits of a port, upstream and downstream.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Context, addresses, routed_site};
use crate::site::Site;
use crate::throughput::{self, Load};

/// The port whose rate is limited.
const LIMITED: &str = "a1";

/// Its limits upstream (from the VM) and downstream, in kbit/s of Ethernet frames.
pub(super) const UPSTREAM: u64 = 8_000;
pub(super) const DOWNSTREAM: u64 = 4_000;

/// Largest error that TABLE V allows.
const TOLERANCE: f64 = 0.10;

/// Bytes of an Ethernet header without a VLAN tag.
const ETHERNET: u16 = 14;

/// See [`super::super::CASES`].
pub(in super::super) fn run(context: &Context) -> Result<()> {
    let site = routed_site(context)?;
    let policy = site.add_limits("limits", UPSTREAM, DOWNSTREAM)?;
    site.change_port(LIMITED, &json!({"qos_policy_id": policy}))?;
    println!("  of {LIMITED}       with  by         load  asked kbit/s  got kbit/s    error");
    let mut errors = Vec::new();
    for (peer, family) in [("a2", 0), ("b1", 1), ("b2", 0)] {
        errors.extend(directions(context, &site, peer, family)?);
    }
    let worst = errors.iter().copied().fold(0.0, f64::max);
    println!("  largest error: {:.1} %", worst * 100.0);
    ensure!(worst <= TOLERANCE, "an error of {:.1} %", worst * 100.0);
    Ok(())
}

/// Errors of the rates from and to the limited port, with TCP and with UDP.
pub(super) fn directions(
    context: &Context,
    site: &Site,
    peer: &str,
    family: usize,
) -> Result<Vec<f64>> {
    let mut errors = Vec::new();
    for (direction, source, target, asked) in [
        ("upstream", LIMITED, peer, UPSTREAM),
        ("downstream", peer, LIMITED, DOWNSTREAM),
    ] {
        let at = addresses(site.guest(target)?)?;
        let at = at.get(family).copied().unwrap_or(at[0]);
        for load in [Load::Tcp, Load::Udp(asked * 3 / 2)] {
            let (from, to) = (&site.guest(source)?.vm, &site.guest(target)?.vm);
            let payload = throughput::measure(&from.netns, &to.netns, at, load, &context.dir)?;
            let got = payload * overhead(at, load, from.interface.mtu);
            #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
            let asked = asked as f64;
            let error = (got - asked).abs() / asked;
            let name = if load == Load::Tcp { "TCP" } else { "UDP" };
            let version = if at.is_ipv6() { "IPv6" } else { "IPv4" };
            println!(
                "  {direction:10}  {peer:4}  {version} {name:>10}  {asked:12.0}  {got:10.0}  {:5.1} %",
                error * 100.0
            );
            errors.push(error);
        }
    }
    Ok(errors)
}

/// Bytes of Ethernet frames for one byte of payload.
fn overhead(at: IpAddr, load: Load, mtu: u16) -> f64 {
    let ip = if at.is_ipv6() { 40 } else { 20 };
    let (payload, headers) = match load {
        // With timestamps (RFC 7323), as Linux has it; segments are full.
        Load::Tcp => (mtu - ip - 32, ip + 32),
        Load::Udp(_) => (throughput::DATAGRAM, ip + 8),
    };
    f64::from(payload + headers + ETHERNET) / f64::from(payload)
}
