//! A router is one: it answers, counts hops, says what it cannot reach, and takes
//! routes by way of a VM.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Context;
use super::table_v::{communicate, routed_site};
use crate::netns::Netns;
use crate::neutron;
use crate::probe::Probe;
use crate::site::Site;
use crate::tenant::obeys;

/// Prefixes behind a VM, and an address in each.
const BEHIND: [(&str, &str); 2] = [
    ("10.50.0.0/24", "10.50.0.1"),
    ("fd00:50::/64", "fd00:50::1"),
];

/// Addresses that no router knows.
const NOWHERE: [&str; 2] = ["10.99.0.1", "fd00:99::1"];

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let site = routed_site(context)?;
    communicate(&site, "a1", "b2")?;
    gateways(&site)?;
    hops(&site)?;
    unreachable(&site)?;
    by_a_vm(&site)
}

/// Every interface of the router answers ping, and the near one ARP.
fn gateways(site: &Site) -> Result<()> {
    let vm = &site.guest("b1")?.vm;
    for network in ["red", "green"] {
        for subnet in &site.network(network)?.subnets {
            let gateway = subnet.gateway.context("no gateway")?;
            obeys(&format!("ping of gateway {gateway}"), || {
                Probe::Ping.passes(&vm.netns, &vm.netns, gateway)
            })?;
        }
    }
    let near = vm.interface.gateways.first().context("no gateway")?;
    let mut arping = Command::new("arping");
    arping.args(["-c", "1", "-w", "3", "-I", "eth0", &near.to_string()]);
    let answer = vm.netns.output(&mut arping)?;
    ensure!(answer.contains("Unicast reply from"), "arping: {answer}");
    println!("  arping of gateway {near}: answered");
    Ok(())
}

/// What ping(8) prints, whether it was answered or not.
fn ping(netns: &Netns, at: IpAddr, hops: &str) -> Result<String> {
    netns.run(|| {
        let mut ping = Command::new("ping");
        ping.args(["-n", "-c", "1", "-W", "2", "-t", hops, &at.to_string()]);
        Ok(String::from_utf8_lossy(&ping.output()?.stdout).into_owned())
    })
}

/// The router is one hop: what may go no further is told, and tracepath shows it.
fn hops(site: &Site) -> Result<()> {
    let vm = &site.guest("a1")?.vm;
    let targets = site.guest("b2")?.vm.interface.addresses();
    for (target, gateway) in targets.into_iter().zip(&vm.interface.gateways) {
        let text = ping(&vm.netns, target, "1")?;
        let told = format!("From {gateway} icmp_seq=1 Time");
        ensure!(text.contains(&told), "no \"{told}\" in {text}");
        let text = ping(&vm.netns, target, "2")?;
        ensure!(text.contains("ttl=63"), "not one hop: {text}");
        let mut tracepath = Command::new("tracepath");
        tracepath.args(["-n", "-m", "4", &target.to_string()]);
        let trace = vm.netns.output(&mut tracepath)?;
        ensure!(trace.contains(&gateway.to_string()), "tracepath: {trace}");
        ensure!(trace.contains("hops 2"), "tracepath: {trace}");
        println!("  {target} is one hop behind {gateway}");
    }
    Ok(())
}

/// What no route leads to is said to be unreachable by the gateway.
fn unreachable(site: &Site) -> Result<()> {
    let vm = &site.guest("a1")?.vm;
    for (nowhere, gateway) in NOWHERE.into_iter().zip(&vm.interface.gateways) {
        let text = ping(&vm.netns, nowhere.parse()?, "64")?;
        let told = format!("From {gateway} icmp_seq=1 Destination");
        let no_route = text.contains(&told) && text.contains("nreachable");
        ensure!(no_route || text.contains("No route"), "{nowhere}: {text}");
        println!("  {nowhere}: {gateway} tells that it is unreachable");
    }
    Ok(())
}

/// Routes of the router lead to prefixes behind a VM, until they are taken away.
fn by_a_vm(site: &Site) -> Result<()> {
    let hop = &site.guest("a2")?.vm;
    let off = json!({"security_groups": [], "port_security_enabled": false});
    site.change_port("a2", &off)?;
    let mut routes = Vec::new();
    for ((prefix, address), next) in BEHIND.into_iter().zip(hop.interface.addresses()) {
        hop.netns.ip(&format!("addr add {address} dev lo"))?;
        routes.push(json!({"destination": prefix, "nexthop": next}));
    }
    let (router, api) = (site.router("between")?, &site.control.api);
    for (wanted, routes) in [(true, routes), (false, Vec::new())] {
        neutron::update(api, "routers", &router, &json!({ "routes": routes }))?;
        for (prefix, address) in BEHIND {
            for name in ["a3", "b2"] {
                let source = &site.guest(name)?.vm.netns;
                let word = if wanted { "leads to" } else { "is gone from" };
                obeys(&format!("the route {word} {prefix}, for {name}"), || {
                    Ok(Probe::Ping.passes(source, &hop.netns, address.parse()?)? == wanted)
                })?;
            }
        }
    }
    Ok(())
}
