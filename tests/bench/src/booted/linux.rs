//! The Linux guest: Debian's cloud kernel, and an initial root file system that makes
//! an NVE of it with what the kernel has: a VLAN device per VM, a bridge per network,
//! a VXLAN device in the bridge.
//!
//! It is set up as generously as can be: nothing is learned or flooded, no table is
//! long, no address has to be resolved, there is no IPv6 and no mitigation, nothing is
//! filtered, and nothing else runs.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sluice_lab::libvirt::guest::NIC_MODULES;
use sluice_lab::process;

use crate::traffic::{MAX_PAIRS, PEER, PEER_MAC, Place, RED, Scenario, VTEP, pair};

/// Quick to boot under translation; and without what slows packets down: mitigations,
/// pages that are cleared when they are allocated, preemption.
pub(super) const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0 \
    preempt=none ipv6.disable=1 \
    tsc=reliable no_timer_check noreplace-smp rcupdate.rcu_expedited=1 cryptomgr.notests \
    i8042.noaux=1 i8042.nomux=1 i8042.nopnp=1 i8042.dumbkbd=1 8250.nr_uarts=1 \
    random.trust_cpu=on audit=0 apparmor=0 selinux=0 pci=noaer";

/// Kernel modules for what it does, beyond those of NICs; each behind those that it needs.
const MODULES: [&str; 9] = [
    "llc",
    "stp",
    "mrp",
    "garp",
    "8021q",
    "bridge",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "vxlan",
];

/// All kernel modules, in order.
fn modules() -> impl Iterator<Item = &'static str> {
    NIC_MODULES.into_iter().chain(MODULES)
}

/// This machine's programs that the guest has, too.
const PROGRAMS: [&str; 2] = ["/sbin/ip", "/sbin/bridge"];

/// Whether the guest is set up for this work: switching, stateless.
pub(super) fn can(scenario: Scenario) -> bool {
    matches!(
        scenario,
        Scenario::Nve {
            place: Place::Across,
            stateful: false,
        }
    )
}

/// The kernel among `parts`.
pub(super) fn kernel(parts: &Path) -> PathBuf {
    parts.join("vmlinuz")
}

/// Makes the initial root file system `archive` of `parts` in the directory `root`.
pub(super) fn make_root(parts: &Path, root: &Path, archive: &Path) -> Result<()> {
    for dir in ["bin", "modules", "dev", "proc"] {
        fs::create_dir_all(root.join(dir))?;
    }
    copy(&parts.join("busybox"), &root.join("bin/busybox"))?;
    for module in modules() {
        let name = format!("modules/{module}.ko");
        copy(&parts.join(&name), &root.join(&name))?;
    }
    for program in PROGRAMS {
        let name = program.rsplit('/').next().unwrap_or(program);
        copy(Path::new(program), &root.join("bin").join(name))?;
        let listed = process::run("ldd", [program])?;
        for library in libraries(&listed) {
            copy(
                Path::new(library),
                &root.join(library.trim_start_matches('/')),
            )?;
        }
    }
    let init = root.join("init");
    fs::write(&init, init_script())?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("links"), links())?;
    fs::write(root.join("stations"), stations())?;
    let script = "find . | busybox cpio -o -H newc > \"$0\"";
    let mut pack = Command::new("sh");
    pack.current_dir(root).args(["-c", script]).arg(archive);
    process::output(&mut pack).context("cannot pack the guest's root file system")?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    if !from.exists() {
        bail!("{} is missing: run tests/bench/deps.sh", from.display());
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Paths of the libraries that ldd(1) lists, with that of the loader.
fn libraries(listed: &str) -> Vec<&str> {
    let words = listed.split_whitespace();
    words.filter(|word| word.starts_with('/')).collect()
}

/// The guest's first and only program.
fn init_script() -> String {
    let mut script = "#!/bin/busybox sh\n".to_owned();
    for module in modules() {
        // Without interrupts for what was sent, which would be one per burst.
        let options = if module == "virtio_net" {
            " napi_tx=0"
        } else {
            ""
        };
        let _ = writeln!(script, "/bin/busybox insmod /modules/{module}.ko{options}");
    }
    script += "/bin/ip -batch /links\n/bin/bridge -batch /stations\n\
               echo ready\nexec /bin/busybox sleep 1000000\n";
    script
}

/// What ip(8) is to do. The NICs are in the order of their slots. The uplink comes up
/// last: what arrives before there is a tunnel would be answered by ICMP.
fn links() -> String {
    let vni = RED.vni;
    let mut lines = format!(
        "link set eth0 up\n\
         link add br0 type bridge stp_state 0 mcast_snooping 0\n\
         link add vx0 type vxlan id {vni} local {VTEP} dstport 4789 nolearning noudpcsum\n\
         link set vx0 master br0 up\n\
         link set vx0 type bridge_slave learning off flood off mcast_flood off\n"
    );
    for (vlan, _) in locals() {
        let _ = write!(
            lines,
            "link add link eth0 name v{vlan} type vlan id {vlan}\n\
             link set v{vlan} master br0 up\n\
             link set v{vlan} type bridge_slave learning off flood off mcast_flood off\n"
        );
    }
    let _ = write!(
        lines,
        "link set br0 up\n\
         addr add {VTEP}/24 dev eth1\n\
         link set eth1 up\n\
         neigh replace {PEER} lladdr {PEER_MAC} dev eth1 nud permanent\n"
    );
    lines
}

/// What bridge(8) is to do: where each VM is.
fn stations() -> String {
    let mut lines = String::new();
    for (vlan, mac) in locals() {
        let _ = writeln!(lines, "fdb add {mac} dev v{vlan} master static");
    }
    for number in 0..MAX_PAIRS {
        let mac = pair(Place::Across, number).second.mac;
        let _ = write!(
            lines,
            "fdb add {mac} dev vx0 master static\n\
             fdb add {mac} dev vx0 dst {PEER} self permanent\n"
        );
    }
    lines
}

/// Tags and MAC addresses of the VMs on the measured NVE.
fn locals() -> impl Iterator<Item = (u16, nve_protocol::Mac)> {
    (0..MAX_PAIRS).filter_map(|number| {
        let first = pair(Place::Across, number).first;
        Some((first.vlan?, first.mac))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let listed = "\tlinux-vdso.so.1 (0x7f07)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f07)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x7f07)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(libraries(listed), expected);
    }

    #[test]
    fn every_vm_has_its_place() {
        let (links, stations) = (links(), stations());
        for number in 0..MAX_PAIRS {
            let pair = pair(Place::Across, number);
            let (vlan, mac) = (pair.first.vlan.unwrap(), pair.first.mac);
            assert!(links.contains(&format!("name v{vlan} type vlan id {vlan}\n")));
            assert!(stations.contains(&format!("fdb add {mac} dev v{vlan} master static\n")));
            let mac = pair.second.mac;
            assert!(stations.contains(&format!("fdb add {mac} dev vx0 dst {PEER} self")));
        }
        assert!("S2a".parse().is_ok_and(can));
        for other in ["S1a", "S2b", "S4a", "io"] {
            assert!(!other.parse().is_ok_and(can), "{other}");
        }
    }
}
