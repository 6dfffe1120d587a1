//! A VM sends as itself only: what else it sends is dropped and counted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Context;
use crate::capture::Capture;
use crate::frames;
use crate::probe::Probe;
use crate::reach;
use crate::site::Site;
use crate::tenant::obeys;
use crate::vm::Interface;
use crate::wait;

/// How long counters may take to be reported.
const REPORT: Duration = Duration::from_secs(20);

/// A MAC address and IP addresses that nobody has.
const MAC: &str = "02:00:5e:00:00:99";
const IP: &str = "10.0.1.99";
const IP6: &str = "fd00:1::99";

/// A frame that must not pass, and the reason that is counted.
type Spoof = (&'static str, String, &'static str);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_dual_network("red", 1)?;
    for plan in [
        ("a1", "red", 0, 11),
        ("a2", "red", 0, 12),
        ("b1", "red", 1, 13),
    ] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    refused(context, &site)?;
    address_pair(&site)?;
    unchecked(context, &site)
}

/// Everything that is spoofed is counted, and none of it arrives.
fn refused(context: &Context, site: &Site) -> Result<()> {
    let (own, target) = (&site.guest("a1")?.vm, &site.guest("a2")?.vm);
    let spoofs = spoofs(&own.interface, &target.interface);
    let mut wanted = BTreeMap::new();
    for (what, _, reason) in &spoofs {
        println!("  {what}: to be counted as {reason}");
        *wanted.entry(*reason).or_insert(0) += 1;
    }
    let before = counts(site, &wanted)?;
    let captures = [("a2", "same NVE"), ("b1", "other NVE")].map(|(name, where_)| {
        let netns = &site.guest(name)?.vm.netns;
        let dir = context.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok::<_, anyhow::Error>((where_, Capture::start(netns, "eth0", &dir)?))
    });
    let frames: Vec<String> = spoofs.iter().map(|(_, frame, _)| frame.clone()).collect();
    frames::send(&context.artifacts, &own.netns, &frames)?;
    wait::until_true("the drops to be counted", REPORT, || {
        let now = counts(site, &wanted)?;
        let rose = |(reason, by): (&&str, &u64)| {
            now.get(reason) >= before.get(reason).map(|n| n + by).as_ref()
        };
        Ok(wanted.iter().all(rose))
    })?;
    for capture in captures {
        let (place, capture) = capture?;
        let filter = format!(
            "eth.src == {MAC} || ip.addr == {IP} || ipv6.addr == {IP6} \
             || arp.src.proto_ipv4 == {IP} || icmpv6.nd.na.target_address == {IP6} \
             || icmpv6.type == 134 || dhcp.type == 2"
        );
        let arrived = capture.stop()?.count(&filter)?;
        ensure!(arrived == 0, "{arrived} spoofed frames arrived ({place})");
    }
    println!("  all counted, none arrived");
    Ok(())
}

fn spoofs(own: &Interface, target: &Interface) -> [Spoof; 8] {
    let ether = format!("Ether(src='{}', dst='{}')", own.mac, target.mac);
    let all = format!("Ether(src='{}', dst='ff:ff:ff:ff:ff:ff')", own.mac);
    let routers = format!("Ether(src='{}', dst='33:33:00:00:00:01')", own.mac);
    let own6 = own.ip6.map(|ip| ip.to_string()).unwrap_or_default();
    let target6 = target.ip6.map(|ip| ip.to_string()).unwrap_or_default();
    let (ip, to) = (own.ip, target.ip);
    let mac = &own.mac;
    [
        (
            "another's MAC address",
            format!(
                "Ether(src='{MAC}', dst='{}')/IP(src='{ip}', dst='{to}')/ICMP()",
                target.mac
            ),
            "source_mac",
        ),
        (
            "another's IPv4 address",
            format!("{ether}/IP(src='{IP}', dst='{to}')/ICMP()"),
            "source_ip",
        ),
        (
            "another's IPv6 address",
            format!("{ether}/IPv6(src='{IP6}', dst='{target6}')/ICMPv6EchoRequest()"),
            "source_ip",
        ),
        (
            "ARP for another's address",
            format!(
                "{all}/ARP(op=2, hwsrc='{mac}', psrc='{IP}', hwdst='{}', pdst='{to}')",
                target.mac
            ),
            "arp",
        ),
        (
            "neighbor advertisement of another's address",
            format!(
                "{ether}/IPv6(src='{own6}', dst='{target6}', hlim=255)\
                 /ICMPv6ND_NA(tgt='{IP6}', R=0, S=0, O=1)/ICMPv6NDOptDstLLAddr(lladdr='{mac}')"
            ),
            "neighbor_discovery",
        ),
        (
            "router advertisement",
            format!(
                "{routers}/IPv6(src='{}', dst='ff02::1', hlim=255)/ICMPv6ND_RA()",
                link_local(mac)
            ),
            "router_advertisement",
        ),
        (
            "DHCP offer",
            format!(
                "{all}/IP(src='{ip}', dst='255.255.255.255')/UDP(sport=67, dport=68)\
                 /BOOTP(op=2, yiaddr='{IP}')/DHCP(options=[('message-type', 'offer'), 'end'])"
            ),
            "dhcp_server",
        ),
        (
            "DHCPv6 advertisement",
            format!(
                "{ether}/IPv6(src='{own6}', dst='{target6}')/UDP(sport=547, dport=546)\
                 /DHCP6_Advertise()"
            ),
            "dhcp_server",
        ),
    ]
}

/// The link-local address that Linux makes of a MAC address (RFC 4291, appendix A).
fn link_local(mac: &str) -> String {
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_default())
        .collect();
    match bytes.as_slice() {
        [a, b, c, d, e, f] => format!(
            "fe80::{:02x}{b:02x}:{c:02x}ff:fe{d:02x}:{e:02x}{f:02x}",
            a ^ 2
        ),
        _ => String::new(),
    }
}

fn counts(
    site: &Site,
    reasons: &BTreeMap<&'static str, u64>,
) -> Result<BTreeMap<&'static str, u64>> {
    reasons
        .keys()
        .map(|reason| Ok((*reason, site.drops(reason)?)))
        .collect()
}

/// An allowed address pair is an address of the VM, until it is taken back.
fn address_pair(site: &Site) -> Result<()> {
    let (own, target) = (&site.guest("a1")?.vm, &site.guest("b1")?.vm);
    own.netns.ip(&format!("addr add {IP}/32 dev eth0"))?;
    let answered = || Probe::Ping.passes(&target.netns, &own.netns, IP.parse()?);
    ensure!(!answered()?, "{IP} answers without being allowed");
    let pairs = json!({"allowed_address_pairs": [{"ip_address": IP}]});
    site.change_port("a1", &pairs)?;
    obeys("an allowed address pair is used", answered)?;
    site.change_port("a1", &json!({"allowed_address_pairs": []}))?;
    obeys("taken back, it is not", || Ok(!answered()?))
}

/// Without port security, a VM sends as whom it likes.
fn unchecked(context: &Context, site: &Site) -> Result<()> {
    let (own, target) = (&site.guest("a1")?.vm, &site.guest("a2")?.vm);
    for name in ["a1", "a2"] {
        let off = json!({"security_groups": [], "port_security_enabled": false});
        site.change_port(name, &off)?;
    }
    ensure!(
        reach::ping(&own.netns, target.interface.ip, 3)?,
        "no ping without port security"
    );
    let capture = Capture::start(&target.netns, "eth0", &context.dir)?;
    let (from, to) = (MAC, &target.interface.mac);
    let frame = format!(
        "Ether(src='{from}', dst='{to}')/IP(src='{IP}', dst='{}')/ICMP()",
        target.interface.ip
    );
    frames::send(&context.artifacts, &own.netns, &[frame])?;
    let arrived = capture
        .stop()?
        .count(&format!("eth.src == {MAC} && ip.src == {IP}"))?;
    ensure!(
        arrived == 1,
        "{arrived} frames arrived without port security"
    );
    println!("  without port security: anything passes");
    Ok(())
}
