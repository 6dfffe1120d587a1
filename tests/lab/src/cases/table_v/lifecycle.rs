//! Cloud management, SDN and computing virtualization agree on the VMs' lifecycle.

use anyhow::Result;

use super::Context;
use crate::cases::{events, openstack};

/// The cloud manager's own client is served; then the hypervisor manager's events
/// change forwarding.
pub(in super::super) fn run(context: &Context) -> Result<()> {
    openstack::run(&context.part("openstack"))?;
    events::run(&context.part("events"))
}
