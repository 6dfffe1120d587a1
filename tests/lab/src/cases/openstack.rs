//! The OpenStack community's own client.

use std::process::Command;

use anyhow::Result;

use super::Context;
use crate::control::Control;
use crate::fabric::Underlay;
use crate::lab::Lab;

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let lab = Lab::two_hypervisors(&context.dir, Underlay::Ipv4, 1)?;
    let control = Control::start(&lab, &context.artifacts)?;
    let mut script = Command::new(&context.artifacts.python);
    script
        .arg(context.artifacts.openstack.join("neutron_crud.py"))
        .args(["--url", control.api.base()]);
    let printed = lab.fabric.netns().output(&mut script)?;
    for line in printed.lines() {
        println!("  {line}");
    }
    Ok(())
}
