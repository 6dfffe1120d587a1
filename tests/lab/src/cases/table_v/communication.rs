//! VMs communicate in a subnet and across subnets, on one NVE and across NVEs.

use anyhow::Result;

use super::{Context, addresses, communicate, passes, routed_site};
use crate::probe::Probe;
use crate::site::Site;
use crate::tenant::obeys;

/// In the same subnet.
pub(in super::super) fn in_a_subnet(context: &Context) -> Result<()> {
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
    both_ways(&site, &[("a1", "a2"), ("a1", "b1")])
}

/// Across subnets, until the router leaves one of them.
pub(in super::super) fn across_subnets(context: &Context) -> Result<()> {
    let site = routed_site(context)?;
    both_ways(&site, &[("a1", "a3"), ("a1", "b2"), ("b1", "a3")])?;
    let router = site.router("between")?;
    for subnet in &site.network("green")?.subnets {
        site.leave_subnet(&router, &subnet.id)?;
    }
    for at in addresses(site.guest("b2")?)? {
        let what = format!("no way to {at} without the router's interface");
        obeys(&what, || Ok(!passes(&site, "a1", "b2", at, Probe::Ping)?))?;
    }
    both_ways(&site, &[("a1", "b1"), ("a3", "b2")])
}

fn both_ways(site: &Site, pairs: &[(&str, &str)]) -> Result<()> {
    for (one, other) in pairs {
        communicate(site, one, other)?;
        communicate(site, other, one)?;
    }
    Ok(())
}
