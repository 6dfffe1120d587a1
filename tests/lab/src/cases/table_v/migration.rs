//! A VM moves to another hypervisor: its network stays what it was.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::bandwidth::{self, DOWNSTREAM, Direction, Lane, UPSTREAM};
use super::{Context, addresses, communicate, passes, routed_site};
use crate::probe::Probe;
use crate::site::{Site, list};
use crate::tenant::all_obey;

/// The VM that moves.
const MOVED: &str = "a1";

/// VMs that move with their policies, each with one that stays where they begin; by
/// UDP or TCP, which ways their rates are measured between them.
const PAIRS: [(&str, &str, bool, &[Direction]); 4] = [
    (MOVED, "a2", false, &[Direction::Upstream]),
    ("a4", "a5", false, &[Direction::Downstream]),
    ("a6", "a7", true, &[Direction::Upstream]),
    ("a8", "a9", true, &[Direction::Downstream]),
];

/// Largest error of a bandwidth limit, as TABLE V has it: rates are measured for a
/// few seconds only.
const TOLERANCE: f64 = 0.10;
const SECONDS: u32 = 5;

/// What of a port follows its VM, or tells that something happened to it.
const PLACE: [&str; 5] = [
    "binding:host_id",
    "binding:vif_details",
    "revision_number",
    "status",
    "updated_at",
];

/// Ports, subnets and networks are the same after the move.
pub(in super::super) fn properties(context: &Context) -> Result<()> {
    let mut site = routed_site(context)?;
    let before = properties_of(&site)?;
    communicate(&site, "b1", MOVED)?;
    for host in [1, 0] {
        move_to(&mut site, MOVED, host)?;
        ensure!(properties_of(&site)? == before, "a property has changed");
        println!(
            "  on {}: ports, subnets and networks as before",
            host_name(&site)?
        );
        for peer in ["a2", "b1", "a3", "b2"] {
            communicate(&site, MOVED, peer)?;
            communicate(&site, peer, MOVED)?;
        }
    }
    Ok(())
}

/// Security groups and QoS are the same after the move, and in force.
pub(in super::super) fn policies(context: &Context) -> Result<()> {
    let mut site = routed_site(context)?;
    let group = site.add_group("web")?;
    for ethertype in ["IPv4", "IPv6"] {
        let rule = json!({"ethertype": ethertype, "protocol": "tcp",
            "port_range_min": 80, "port_range_max": 80});
        site.allow(&group, &rule)?;
        // What the measurement below needs.
        for protocol in ["tcp", "udp"] {
            let rule = json!({"ethertype": ethertype, "protocol": protocol,
                "port_range_min": 5201, "port_range_max": 5201});
            site.allow(&group, &rule)?;
        }
    }
    let policy = site.add_limits("limits", UPSTREAM, DOWNSTREAM)?;
    let change = json!({"security_groups": [group], "qos_policy_id": policy});
    for (number, (moved, peer, ..)) in (0..).zip(PAIRS) {
        for (name, last) in [(moved, 30 + number), (peer, 40 + number)] {
            if site.guest(name).is_err() {
                site.add_vm((name, "red", 0, last))?;
            }
        }
        site.change_port(moved, &change)?;
        site.open(peer)?;
    }
    site.await_active()?;
    let before = policies_of(&site)?;
    for (host, place) in [(0, "on one NVE"), (1, "across NVEs"), (0, "on one NVE")] {
        for (moved, ..) in PAIRS {
            move_to(&mut site, moved, host)?;
        }
        ensure!(policies_of(&site)? == before, "a policy has changed");
        in_force(&site)?;
        let lanes = PAIRS.map(|(moved, peer, udp, directions)| Lane {
            place,
            limited: moved.to_owned(),
            peer: peer.to_owned(),
            ip6: host == 1,
            udp,
            seconds: SECONDS,
            directions,
        });
        let measured = bandwidth::measure(context, &site, &lanes, TOLERANCE)?;
        bandwidth::hold(&measured, TOLERANCE)?;
        println!(
            "  on {}: security group and QoS as before",
            host_name(&site)?
        );
    }
    Ok(())
}

/// Moves the VM unless it is there.
fn move_to(site: &mut Site, vm: &str, host: usize) -> Result<()> {
    if site.guest(vm)?.host != host {
        site.move_vm(vm, host)?;
    }
    site.await_placed(vm)
}

fn host_name(site: &Site) -> Result<String> {
    let host = site.guest(MOVED)?.host;
    let hypervisor = site.lab.hypervisors.get(host);
    Ok(hypervisor.map(|host| host.name.clone()).unwrap_or_default())
}

/// TCP to port 80 passes, TCP to its neighbour and ping do not.
fn in_force(site: &Site) -> Result<()> {
    let mut attempts = Vec::new();
    for (moved, ..) in PAIRS {
        let targets = addresses(site.guest(moved)?)?;
        for peer in ["a3", "b1", "b2"] {
            for at in targets {
                for (probe, wanted) in [
                    (Probe::Tcp(80), true),
                    (Probe::Tcp(81), false),
                    (Probe::Ping, false),
                ] {
                    let word = if wanted { "allowed" } else { "refused" };
                    let what = format!("{probe} from {peer} to {at} {word}");
                    let attempt = move || Ok(passes(site, peer, moved, at, probe)? == wanted);
                    attempts.push((what, attempt));
                }
            }
        }
    }
    all_obey(attempts)
}

fn properties_of(site: &Site) -> Result<Vec<Value>> {
    let api = &site.control.api;
    let mut ports = list(api.get("/v2.0/ports")?, "ports")?;
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        for name in PLACE {
            port.remove(name);
        }
    }
    Ok(vec![
        ports.into(),
        api.get("/v2.0/networks")?,
        api.get("/v2.0/subnets")?,
        api.get("/v2.0/routers")?,
    ])
}

fn policies_of(site: &Site) -> Result<Vec<Value>> {
    let api = &site.control.api;
    let mut policies = vec![
        api.get("/v2.0/security-groups")?,
        api.get("/v2.0/qos/policies")?,
    ];
    for (moved, ..) in PAIRS {
        let port = site.port(moved)?;
        policies.push(port["security_groups"].clone());
        policies.push(port["qos_policy_id"].clone());
    }
    Ok(policies)
}
