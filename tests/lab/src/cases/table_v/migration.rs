//! A VM moves to another hypervisor: its network stays what it was.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::bandwidth::{DOWNSTREAM, UPSTREAM, directions};
use super::{Context, addresses, communicate, passes, routed_site};
use crate::probe::Probe;
use crate::site::{Site, list};
use crate::tenant::obeys;

/// The VM that moves.
const MOVED: &str = "a1";

/// What of a port follows its VM, or tells that something happened to it.
const PLACE: [&str; 5] = [
    "binding:host_id",
    "binding:vif_details",
    "revision_number",
    "status",
    "updated_at",
];

/// Largest error of a bandwidth limit.
const TOLERANCE: f64 = 0.10;

/// Ports, subnets and networks are the same after the move.
pub(in super::super) fn properties(context: &Context) -> Result<()> {
    let mut site = routed_site(context)?;
    let before = properties_of(&site)?;
    communicate(&site, "b1", MOVED)?;
    for host in [1, 0] {
        move_to(&mut site, host)?;
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
    site.open("a2")?;
    let policy = site.add_limits("limits", UPSTREAM, DOWNSTREAM)?;
    let change = json!({"security_groups": [group], "qos_policy_id": policy});
    site.change_port(MOVED, &change)?;
    let before = policies_of(&site)?;
    for host in [0, 1, 0] {
        move_to(&mut site, host)?;
        ensure!(policies_of(&site)? == before, "a policy has changed");
        in_force(&site)?;
        for error in directions(context, &site, "a2", 0)? {
            ensure!(error <= TOLERANCE, "an error of {:.1} %", error * 100.0);
        }
        println!(
            "  on {}: security group and QoS as before",
            host_name(&site)?
        );
    }
    Ok(())
}

/// Moves the VM unless it is there.
fn move_to(site: &mut Site, host: usize) -> Result<()> {
    if site.guest(MOVED)?.host != host {
        site.move_vm(MOVED, host)?;
    }
    site.await_placed(MOVED)
}

fn host_name(site: &Site) -> Result<String> {
    let host = site.guest(MOVED)?.host;
    let hypervisor = site.lab.hypervisors.get(host);
    Ok(hypervisor.map(|host| host.name.clone()).unwrap_or_default())
}

/// TCP to port 80 passes, TCP to its neighbour and ping do not.
fn in_force(site: &Site) -> Result<()> {
    for peer in ["a2", "b1", "b2"] {
        for at in addresses(site.guest(MOVED)?)? {
            for (probe, wanted) in [
                (Probe::Tcp(80), true),
                (Probe::Tcp(81), false),
                (Probe::Ping, false),
            ] {
                let word = if wanted { "allowed" } else { "refused" };
                obeys(&format!("{probe} from {peer} to {at} {word}"), || {
                    Ok(passes(site, peer, MOVED, at, probe)? == wanted)
                })?;
            }
        }
    }
    Ok(())
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
    let port = site.port(MOVED)?;
    let api = &site.control.api;
    Ok(vec![
        port["security_groups"].clone(),
        port["qos_policy_id"].clone(),
        api.get("/v2.0/security-groups")?,
        api.get("/v2.0/qos/policies")?,
    ])
}
