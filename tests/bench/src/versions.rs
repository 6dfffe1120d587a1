//! What was measured, and on what.

use std::fs;

use anyhow::Result;
use sluice_lab::process;

use crate::booted;
use crate::dut::Kind;

/// Date and machine, which figures mean nothing without.
pub fn machine() -> Result<String> {
    let date = process::run("date", ["+%F %R %Z"])?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = cpus.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_once(':'));
        value
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let is_core = |line: &&str| line.starts_with("processor");
    let cores = cpus.lines().filter(is_core).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{}, {}, {} MHz, {cores} cores, Linux {}",
        date.trim(),
        field("model name"),
        field("cpu MHz"),
        kernel.trim()
    ))
}

/// Name and version of a device under test.
pub fn of(kind: Kind) -> String {
    let package = match kind {
        Kind::Ours => return format!("ours: Sluice {}", env!("CARGO_PKG_VERSION")),
        Kind::Ovs => "openvswitch-switch-dpdk",
        Kind::Testpmd => "dpdk",
    };
    format!("{kind}: {}", package_version(package))
}

/// QEMU's and the booted guests' names and versions.
pub fn of_booted(plan: &booted::Plan) -> Vec<String> {
    let linux = fs::read_to_string(plan.linux.join("version"));
    let linux = linux.unwrap_or_else(|_| "of an unknown version".to_owned());
    vec![
        package_version("qemu-system-x86"),
        format!("image: Sluice {}", env!("CARGO_PKG_VERSION")),
        format!("linux: {}", linux.trim()),
    ]
}

fn package_version(package: &str) -> String {
    let query = ["-W", "-f=${Package} ${Version}", package];
    let version = process::run("dpkg-query", query);
    version.unwrap_or_else(|_| package.to_owned())
}
