//! Security groups: who is in one, and what protocols its rules let in.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Context, addresses, passes, routed_site};
use crate::probe::Probe;
use crate::site::Site;
use crate::tenant::{all_obey, obeys};

/// The senders that each rule is tried from: on the target's NVE and on the other,
/// in its subnet and, by the router, in another one.
const SENDERS: [&str; 4] = ["a1", "b1", "a3", "b2"];

/// The VM whose port is in the groups.
const TARGET: &str = "a2";

/// A port is added to a security group and removed from it.
pub(in super::super) fn membership(context: &Context) -> Result<()> {
    let site = routed_site(context)?;
    let (closed, open) = (site.add_group("closed")?, site.add_group("open")?);
    for ethertype in ["IPv4", "IPv6"] {
        site.allow(&open, &json!({"ethertype": ethertype}))?;
    }
    for (groups, wanted, what) in [
        (vec![&closed], false, "in a group without rules"),
        (vec![&closed, &open], true, "added to a group that allows"),
        (vec![&closed], false, "removed from it"),
        (vec![&open], true, "in the group that allows alone"),
        (vec![], false, "in no group"),
    ] {
        site.change_port(TARGET, &json!({"security_groups": groups}))?;
        let targets = addresses(site.guest(TARGET)?)?;
        let pairs = SENDERS.into_iter();
        let pairs = pairs.flat_map(|sender| targets.map(|at| (sender, at)));
        let site = &site;
        all_obey(pairs.map(|(sender, at)| {
            let what = format!("{TARGET} {what}: {sender} to {at}");
            let attempt = move || Ok(passes(site, sender, TARGET, at, Probe::Tcp(80))? == wanted);
            (what, attempt)
        }))?;
    }
    site.change_port(TARGET, &json!({"port_security_enabled": false}))?;
    let at = addresses(site.guest(TARGET)?)?[0];
    obeys("without port security: everything", || {
        passes(&site, "b2", TARGET, at, Probe::Tcp(80))
    })
}

/// A rule that lets one protocol in, for each family, and what that is.
fn rules() -> [(Probe, Value, Value); 5] {
    let ports =
        |protocol| json!({"protocol": protocol, "port_range_min": 80, "port_range_max": 81});
    let any = |protocol| json!({ "protocol": protocol });
    [
        (Probe::Tcp(80), ports("tcp"), ports("tcp")),
        (Probe::Udp(81), ports("udp"), ports("udp")),
        (Probe::Ping, any("icmp"), any("ipv6-icmp")),
        (Probe::Raw(132), any("sctp"), any("sctp")),
        (Probe::Raw(47), any("gre"), any("gre")),
    ]
}

/// Rules let in TCP, UDP, ICMP and others, each alone.
pub(in super::super) fn protocols(context: &Context) -> Result<()> {
    let site = routed_site(context)?;
    let group = site.add_group("by protocol")?;
    site.change_port(TARGET, &json!({"security_groups": [group]}))?;
    for (index, (probe, rule4, rule6)) in rules().into_iter().enumerate() {
        let mut made = Vec::new();
        for (ethertype, mut rule) in [("IPv4", rule4), ("IPv6", rule6)] {
            rule["ethertype"] = ethertype.into();
            made.push(site.allow(&group, &rule)?);
        }
        for sender in SENDERS {
            for at in addresses(site.guest(TARGET)?)? {
                obeys(&format!("{probe} allowed: {sender} to {at}"), || {
                    passes(&site, sender, TARGET, at, probe)
                })?;
            }
        }
        only_that(&site, index)?;
        for rule in &made {
            site.disallow(rule)?;
        }
    }
    scan(&site, &group)
}

/// Nothing but the probe of that index passes, nor another port of it.
fn only_that(site: &Site, allowed: usize) -> Result<()> {
    let others = rules().into_iter().enumerate();
    let others = others.filter_map(|(index, (probe, ..))| (index != allowed).then_some(probe));
    let outside = [Probe::Tcp(79), Probe::Udp(82), Probe::Raw(50)];
    let targets = addresses(site.guest(TARGET)?)?;
    // From the target's NVE and from the other.
    for sender in ["a1", "b1"] {
        let pairs = others.clone().chain(outside);
        let pairs = pairs.flat_map(|probe| targets.map(|at| (probe, at)));
        all_obey(pairs.map(|(probe, at)| {
            let what = format!("{probe} refused: {sender} to {at}");
            let attempt = move || Ok(!passes(site, sender, TARGET, at, probe)?);
            (what, attempt)
        }))?;
    }
    Ok(())
}

/// nmap sees the allowed ports closed, as nobody listens, and all others filtered.
fn scan(site: &Site, group: &str) -> Result<()> {
    for ethertype in ["IPv4", "IPv6"] {
        let rule = json!({"ethertype": ethertype, "protocol": "tcp",
            "port_range_min": 1000, "port_range_max": 1001});
        site.allow(group, &rule)?;
    }
    for at in addresses(site.guest(TARGET)?)? {
        let mut nmap = std::process::Command::new("nmap");
        nmap.args(["-Pn", "-n", "-sS", "-p", "998-1003", "-oG", "-"]);
        nmap.args(["--host-timeout", "60s"]);
        if at.is_ipv6() {
            nmap.arg("-6");
        }
        let netns = &site.guest("b2")?.vm.netns;
        let found = netns.output(nmap.arg(at.to_string()))?;
        for port in 998..=1003 {
            let state = if (1000..=1001).contains(&port) {
                "closed"
            } else {
                "filtered"
            };
            ensure!(found.contains(&format!("{port}/{state}/tcp")), "{found}");
        }
        println!("  nmap from b2 to {at}: 1000 and 1001 closed, their neighbours filtered");
    }
    Ok(())
}
