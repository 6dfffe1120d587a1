//! Hypervisors with libvirt, two of them, and a real guest: each event of TABLE I is
//! caused by what an operator does with virsh(1), arrives in the form of TABLE II, and
//! has its effect on forwarding.
//!
//! The guest's peers, `a1` and `b1`, are VMs of the lab's own manager, one on each
//! hypervisor: the shim follows both managers.

mod chaos;
mod deliveries;
pub(super) mod migration;
mod pings;
mod port_groups;
mod stage;
mod table_ii;
mod timeline;
mod transfers;

use std::time::Instant;

use anyhow::{Result, ensure};

use super::Context;
use stage::{Place, Stage};

/// What is shown of an event: its name, and how.
type Scene = (&'static str, fn(&mut Stage) -> Result<()>);

/// In this order, for the guest has one life: each begins with what the one before left.
const SCENES: &[Scene] = &[
    ("port groups", port_groups::made),
    ("half a port group", port_groups::halves),
    ("port groups while all else is killed", chaos::port_groups),
    ("vmcreated", vmcreated),
    ("vmpoweron", vmpoweron),
    ("a port group in use", port_groups::kept_while_used),
    ("vifdetach", vifdetach),
    ("vifattach", vifattach),
    ("livemigratetestart", livemigratetestart),
    ("livemigratefinish", livemigratefinish),
    ("vmpoweroff", vmpoweroff),
    ("coldmigrateteststart", coldmigrateteststart),
    ("coldmigratetestfinish", coldmigratetestfinish),
    ("hafinish", hafinish),
    ("a lost host that comes back", comes_back),
    ("a libvirtd that was away", libvirtd_was_away),
    ("a guest that moves while it is off", moves_while_off),
    ("vmdeleted", vmdeleted),
    ("a manager that was away", manager_was_away),
    ("port groups deleted", port_groups::deleted),
];

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut stage = Stage::set(context)?;
    for (name, scene) in SCENES {
        let start = Instant::now();
        scene(&mut stage).map_err(|error| error.context((*name).to_owned()))?;
        let seconds = start.elapsed().as_secs_f32();
        println!("  test libvirt, {name}: ok ({seconds:.1} s)");
    }
    stage.expect_silence()
}

/// `virsh define`: the port has a place, and nothing is forwarded to it.
fn vmcreated(stage: &mut Stage) -> Result<()> {
    stage.define(0)?;
    stage.expect("vmcreated", "stop", 0)?;
    stage.await_place(Place::Stopped(0))?;
    stage.await_reach(false)
}

/// `virsh start`: the guest boots, and the NVE configures it.
fn vmpoweron(stage: &mut Stage) -> Result<()> {
    stage.start(0)?;
    stage.expect("vmpoweron", "running", 0)?;
    stage.await_place(Place::InForce(0))?;
    stage.await_reach(true)
}

/// `virsh detach-device`: the NVE forgets the port, though the guest runs on.
fn vifdetach(stage: &mut Stage) -> Result<()> {
    stage.change_nic(0, "detach-device")?;
    stage.expect_without_vnic("vifdetach", "running", 0)?;
    stage.await_place(Place::None)?;
    stage.await_reach(false)
}

/// `virsh attach-device`: the guest finds a new NIC, which is configured as the old one.
fn vifattach(stage: &mut Stage) -> Result<()> {
    stage.change_nic(0, "attach-device")?;
    stage.expect("vifattach", "running", 0)?;
    stage.await_place(Place::InForce(0))?;
    stage.await_reach(true)
}

/// `virsh migrate --live`, slow enough to be watched, and aborted: forwarding goes on
/// where the guest is, and goes on there.
fn livemigratetestart(stage: &mut Stage) -> Result<()> {
    let migration = stage.migrate_slowly(0, 1)?;
    stage.expect("livemigratetestart", "running", 0)?;
    stage.await_place(Place::Migrating(0))?;
    stage.await_reach(true)?;
    ensure!(stage.peek()?.is_none(), "it finished before it was aborted");
    stage.host(0)?.virsh(&["domjobabort", stage::GUEST])?;
    migration.fails()?;
    // What puts it back.
    stage.expect("livemigratefinish", "running", 0)?;
    stage.await_place(Place::InForce(0))?;
    stage.await_reach(true)
}

/// `virsh migrate --live`: forwarding follows the guest.
fn livemigratefinish(stage: &mut Stage) -> Result<()> {
    stage.migrate(0, 1, &["--live"])?;
    stage.expect("livemigratetestart", "running", 0)?;
    stage.expect("livemigratefinish", "running", 1)?;
    stage.await_place(Place::InForce(1))?;
    stage.await_reach(true)
}

/// `virsh save`: the NVE forgets the port.
fn vmpoweroff(stage: &mut Stage) -> Result<()> {
    stage.save(1)?;
    stage.expect("vmpoweroff", "stop", 1)?;
    stage.await_place(Place::Stopped(1))?;
    stage.await_reach(false)
}

/// `virsh restore` on the other host tells that the guest left the one where it was
/// saved, for which nothing is forwarded.
fn coldmigrateteststart(stage: &mut Stage) -> Result<()> {
    stage.restore(0)?;
    stage.expect("coldmigrateteststart", "stop", 1)
}

/// And that it came to the other one, where it runs on with what it knew.
fn coldmigratetestfinish(stage: &mut Stage) -> Result<()> {
    stage.expect("coldmigratetestfinish", "stop", 0)?;
    stage.expect("vmpoweron", "running", 0)?;
    stage.await_place(Place::InForce(0))?;
    stage.await_reach(true)?;
    // It is configured there, and no more where it came from.
    stage.define_silently(0)?;
    stage.host(1)?.virsh(&["undefine", stage::GUEST])?;
    stage.expect_silence()
}

/// The host dies with its guests; `virsh define` and `start` on the other one.
fn hafinish(stage: &mut Stage) -> Result<()> {
    stage.host_mut(0)?.lose()?;
    stage.await_reach(false)?;
    stage.define_silently(1)?;
    stage.start(1)?;
    stage.expect("hafinish", "running", 1)?;
    stage.await_place(Place::InForce(1))?;
    stage.await_reach(true)
}

/// The lost host still has the guest's definition, and that is no reason to say anything.
fn comes_back(stage: &mut Stage) -> Result<()> {
    stage.host_mut(0)?.run()?;
    stage.await_followed(0)?;
    stage.expect_silence()?;
    stage.host(0)?.virsh(&["undefine", stage::GUEST])?;
    stage.expect_silence()?;
    stage.await_reach(true)
}

/// libvirtd tells nothing of what happened while it was away, nothing at first and then
/// that the guest died.
fn libvirtd_was_away(stage: &mut Stage) -> Result<()> {
    stage.host(1)?.kill()?;
    stage.await_reach(true)?;
    stage.host_mut(1)?.revive()?;
    stage.await_followed(1)?;
    stage.expect_silence()?;
    stage.host(1)?.kill()?;
    stage.host(1)?.kill_guests()?;
    stage.host_mut(1)?.revive()?;
    stage.expect("vmpoweroff", "stop", 1)?;
    stage.await_place(Place::Stopped(1))
}

/// `virsh migrate --offline`, of whose end libvirt tells nothing at the source.
fn moves_while_off(stage: &mut Stage) -> Result<()> {
    stage.migrate(1, 0, &["--offline"])?;
    stage.expect("coldmigrateteststart", "stop", 1)?;
    stage.expect("coldmigratetestfinish", "stop", 0)?;
    stage.await_place(Place::Stopped(0))
}

/// `virsh undefine`: the port has no place.
fn vmdeleted(stage: &mut Stage) -> Result<()> {
    stage.host(0)?.virsh(&["undefine", stage::GUEST])?;
    stage.expect("vmdeleted", "stop", 0)?;
    stage.await_place(Place::None)?;
    stage.await_reach(false)
}

/// What happens while the manager itself is away is told when it is back.
fn manager_was_away(stage: &mut Stage) -> Result<()> {
    stage.define(0)?;
    stage.expect("vmcreated", "stop", 0)?;
    stage.restart_manager(|stage| stage.migrate(0, 1, &["--offline"]))?;
    stage.expect("coldmigrateteststart", "stop", 0)?;
    stage.expect("coldmigratetestfinish", "stop", 1)?;
    stage.host(1)?.virsh(&["undefine", stage::GUEST])?;
    stage.expect("vmdeleted", "stop", 1)?;
    stage.await_place(Place::None)
}
