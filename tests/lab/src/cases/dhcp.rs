//! Guests' own clients are configured by the NVE: DHCPv4, DHCPv6 and router
//! advertisements.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Context;
use super::table_v::communicate;
use crate::clients::{self, Dhcpv6, Told};
use crate::probe::Probe;
use crate::site::Site;
use crate::vm::Setting;
use crate::wait;

/// How long the kernel may take to believe a router advertisement.
const SETTLE: Duration = Duration::from_secs(20);

/// Networks by how ports get their IPv6 addresses, with their numbers.
const MODES: [(&str, u8); 3] = [
    ("dhcpv6-stateful", 1),
    ("dhcpv6-stateless", 2),
    ("slaac", 3),
];

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    for (mode, number) in MODES {
        site.add_network_with(mode, &json!({}), &subnets(mode, number), true)?;
    }
    site.add_router("gateway", &MODES.map(|(mode, _)| mode))?;
    for ((mode, number), host) in MODES.into_iter().zip([0, 1, 0]) {
        let name = format!("v{number}");
        let more = json!({"dns_name": format!("guest{number}")});
        site.add_vm_with((&name, mode, host, 11), Setting::Automatic, &more)?;
    }
    site.await_active()?;
    for (mode, number) in MODES {
        let name = format!("v{number}");
        dhcpv4(context, &site, &name, number)?;
        advertised(&site, &name, mode, number)?;
        dhcpv6(context, &site, &name, mode)?;
    }
    for (from, to) in [("v1", "v2"), ("v2", "v3"), ("v3", "v1")] {
        communicate(&site, from, to)?;
    }
    Ok(())
}

fn subnets(mode: &str, number: u8) -> [Value; 2] {
    [
        json!({
            "ip_version": 4,
            "cidr": format!("10.0.{number}.0/24"),
            "enable_dhcp": true,
            "dns_nameservers": ["192.0.2.53", "192.0.2.54"],
            "host_routes": [
                {"destination": "10.9.0.0/16", "nexthop": format!("10.0.{number}.9")},
            ],
        }),
        json!({
            "ip_version": 6,
            "cidr": format!("fd00:{number}::/64"),
            "enable_dhcp": true,
            "ipv6_ra_mode": mode,
            "ipv6_address_mode": mode,
            "dns_nameservers": ["fd00:53::53"],
        }),
    ]
}

/// Holds what a client was told, in the words of its script.
fn hold(told: &Told, name: &str, wanted: &str) -> Result<()> {
    let found = told.get(name).map_or("nothing", String::as_str);
    ensure!(found == wanted, "{name} is {found:?}, not {wanted:?}");
    Ok(())
}

/// udhcpc gets everything, and gets it again when it renews.
fn dhcpv4(context: &Context, site: &Site, name: &str, number: u8) -> Result<()> {
    let vm = &site.guest(name)?.vm;
    let gateway = format!("10.0.{number}.1");
    let (mut client, told) = clients::udhcpc(&vm.netns, &context.dir.join(name))?;
    let check = |told: &Told| {
        hold(told, "ip", &vm.interface.ip.to_string())?;
        hold(told, "mask", "24")?;
        hold(told, "router", &gateway)?;
        hold(told, "dns", "192.0.2.53 192.0.2.54")?;
        hold(told, "mtu", &vm.interface.mtu.to_string())?;
        hold(told, "hostname", &format!("guest{number}"))?;
        let routes = told.get("staticroutes").context("no classless routes")?;
        for route in [
            format!("10.9.0.0/16 10.0.{number}.9"),
            format!("0.0.0.0/0 {gateway}"),
        ] {
            ensure!(routes.contains(&route), "{route} is not in {routes}");
        }
        Ok(())
    };
    check(&told)?;
    check(&client.renew()?)?;
    vm.netns
        .ip(&format!("route replace default via {gateway}"))?;
    wait::until_true("the gateway to answer", SETTLE, || {
        Probe::Ping.passes(&vm.netns, &vm.netns, gateway.parse()?)
    })?;
    println!("  {name}: udhcpc has {}, renewed", vm.interface.ip);
    Ok(())
}

/// rdisc6 prints what the mode says, and the kernel makes an address of it.
fn advertised(site: &Site, name: &str, mode: &str, number: u8) -> Result<()> {
    let vm = &site.guest(name)?.vm;
    let printed = clients::rdisc6(&vm.netns)?;
    let words = |wanted: bool| if wanted { "Yes" } else { "No" };
    let by_dhcp = mode == "dhcpv6-stateful";
    let lines = [
        ("Stateful address conf.", words(by_dhcp).to_owned()),
        (
            "Stateful other conf.",
            words(mode == "dhcpv6-stateless").to_owned(),
        ),
        ("Prefix", format!("fd00:{number}::/64")),
        ("Autonomous address conf.", words(!by_dhcp).to_owned()),
        ("MTU", vm.interface.mtu.to_string()),
    ];
    for (what, wanted) in lines {
        let found = printed.lines().any(|line| {
            let pair = line.split_once(':');
            pair.is_some_and(|(key, value)| key.trim() == what && value.trim().starts_with(&wanted))
        });
        ensure!(found, "no \"{what}: {wanted}\" in:\n{printed}");
    }
    if mode == "slaac" {
        ensure!(
            printed.contains("fd00:53::53"),
            "no DNS server in:\n{printed}"
        );
    }
    wait::until_true("a default route by advertisement", SETTLE, || {
        Ok(vm.netns.ip("-6 route show default")?.contains("proto ra"))
    })?;
    if !by_dhcp {
        let address = ip6(site, name)?.to_string();
        wait::until_true("an automatic address", SETTLE, || {
            Ok(vm.netns.ip("-6 addr show dev eth0")?.contains(&address))
        })?;
        println!("  {name}: {mode} by rdisc6; the kernel has {address}");
    }
    Ok(())
}

/// dhclient gets an address, or the DNS server alone, or it is not needed.
fn dhcpv6(context: &Context, site: &Site, name: &str, mode: &str) -> Result<()> {
    let how = match mode {
        "dhcpv6-stateful" => Dhcpv6::Stateful,
        "dhcpv6-stateless" => Dhcpv6::Stateless,
        _ => return Ok(()),
    };
    let vm = &site.guest(name)?.vm;
    let (_client, told) = clients::dhclient(&vm.netns, how, &context.dir.join(name))?;
    hold(&told, "new_dhcp6_name_servers", "fd00:53::53")?;
    if how == Dhcpv6::Stateful {
        hold(&told, "new_ip6_address", &ip6(site, name)?.to_string())?;
    }
    println!("  {name}: dhclient -6, {mode}");
    Ok(())
}

fn ip6(site: &Site, name: &str) -> Result<IpAddr> {
    let ip6 = site.guest(name)?.vm.interface.ip6;
    Ok(ip6.context("the port has no IPv6 address")?.into())
}
