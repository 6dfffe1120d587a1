//! A Linux guest for libvirt: Debian's cloud kernel and an initial root file system with
//! busybox, configured by DHCP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

use crate::process;
use crate::qemu::Accelerator;

/// Memory in MiB.
const MEMORY: u32 = 96;

/// Quick to boot under translation.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable \
    no_timer_check noreplace-smp rcupdate.rcu_expedited=1 cryptomgr.notests i8042.noaux=1 \
    i8042.nomux=1 i8042.nopnp=1 i8042.dumbkbd=1 8250.nr_uarts=1 random.trust_cpu=on audit=0 \
    apparmor=0 selinux=0 pci=noaer";

/// Kernel modules for a NIC, each behind those that it needs.
pub const NIC_MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

const INIT: &str = include_str!("../../guest-init.sh");
/// What the DHCP client runs.
const LEASED: &str = "#!/bin/busybox sh\n\
    [ \"$1\" = bound ] || [ \"$1\" = renew ] || exit 0\n\
    /bin/busybox ip addr replace \"$ip/$mask\" dev \"$interface\"\n\
    echo \"leased $interface $ip\" >/dev/ttyS0\n";

/// What guests boot.
#[derive(Debug, Clone)]
pub struct Boot {
    kernel: PathBuf,
    root: PathBuf,
    accelerator: Accelerator,
}

impl Boot {
    /// Makes the root file system in `dir`, of the `parts` that tests/guest.sh unpacks.
    /// The guest runs the shell script `task`, if there is one, beside all else.
    pub fn make(
        parts: &Path,
        dir: &Path,
        accelerator: Accelerator,
        task: Option<&str>,
    ) -> Result<Boot> {
        let kernel = parts.join("vmlinuz");
        let missing = || format!("{} is missing: run `make guest`", kernel.display());
        ensure!(kernel.exists(), missing());
        let root = dir.join("guest");
        for folder in ["bin", "dev", "modules", "proc", "seen", "sys"] {
            fs::create_dir_all(root.join(folder))?;
        }
        for module in NIC_MODULES {
            let name = format!("modules/{module}.ko");
            fs::copy(parts.join(&name), root.join(&name)).context(name)?;
        }
        fs::write(root.join("modules/order"), NIC_MODULES.join("\n") + "\n")?;
        program(&root.join("bin/busybox"), &fs::read(parts.join("busybox"))?)?;
        program(&root.join("bin/leased"), LEASED.as_bytes())?;
        program(&root.join("init"), INIT.as_bytes())?;
        if let Some(task) = task {
            fs::write(root.join("task"), task)?;
        }
        for applet in [
            "insmod", "ip", "mount", "nc", "ping", "rm", "sh", "sleep", "touch", "udhcpc",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
        }
        let archive = dir.join("guest.cpio");
        let script = "find . | busybox cpio -o -H newc > \"$0\"";
        let mut pack = Command::new("sh");
        pack.current_dir(&root).args(["-c", script]).arg(&archive);
        process::output(&mut pack).context("cannot pack the guest's root file system")?;
        Ok(Boot {
            kernel: fs::canonicalize(kernel)?,
            root: archive,
            accelerator,
        })
    }

    /// libvirt's description of such a guest, with these `interfaces`; what it prints is
    /// appended to `console`.
    pub fn domain(&self, name: &str, uuid: Uuid, interfaces: &str, console: &Path) -> String {
        let (kind, processor) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "<cpu mode='host-passthrough' migratable='on'/>"),
            Accelerator::Tcg => (
                "qemu",
                "<cpu mode='custom' match='exact'><model>qemu64</model></cpu>",
            ),
        };
        let (kernel, root) = (self.kernel.display(), self.root.display());
        let console = console.display();
        format!(
            "<domain type='{kind}'>
              <name>{name}</name>
              <uuid>{uuid}</uuid>
              <memory unit='MiB'>{MEMORY}</memory>
              <vcpu>1</vcpu>
              <os>
                <type arch='x86_64' machine='pc'>hvm</type>
                <kernel>{kernel}</kernel>
                <initrd>{root}</initrd>
                <cmdline>{COMMAND_LINE}</cmdline>
              </os>
              <features><acpi/></features>
              {processor}
              <on_crash>destroy</on_crash>
              <devices>
                <emulator>/usr/bin/qemu-system-x86_64</emulator>
                <controller type='usb' model='none'/>
                <serial type='file'><source path='{console}' append='on'/></serial>
                {interfaces}
                <memballoon model='none'/>
              </devices>
            </domain>"
        )
    }
}

/// libvirt's description of a NIC in that port group.
///
/// The switch copies frames as they are, so the guest's checksums must be complete.
pub fn interface(mac: &str, mtu: u16, network: &str, port_group: &str) -> String {
    format!(
        "<interface type='network'>
          <mac address='{mac}'/>
          <source network='{network}' portgroup='{port_group}'/>
          <mtu size='{mtu}'/>
          <model type='virtio'/>
          <driver name='qemu'>
            <host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/>
            <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>
          </driver>
          <rom enabled='no'/>
        </interface>"
    )
}

fn program(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
