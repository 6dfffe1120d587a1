//! An NVE that dies is booted by its hypervisor and finds its way back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Context;
use crate::reach;
use crate::site::Site;

/// How long a reboot may take under translation.
const PATIENCE: Duration = Duration::from_secs(60);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_network("red")?;
    for plan in [
        ("a1", "red", 0, 11),
        ("a2", "red", 0, 12),
        ("b1", "red", 1, 13),
    ] {
        site.add_vm(plan)?;
    }
    site.await_active()?;
    let (a1, a2, b1) = (
        &site.guest("a1")?.vm,
        &site.guest("a2")?.vm,
        &site.guest("b1")?.vm,
    );
    ensure!(
        reach::ping(&a1.netns, a2.interface.ip, 3)?,
        "no ping before"
    );
    let machine = &site.nve(0)?.machine;
    let boots = machine.boots();
    machine.kill()?;
    let started = machine.booted_again(boots)?;
    let first_frame = first_answer(&site, started)?;
    println!(
        "  QEMU start to first forwarded frame: {} ms",
        first_frame.as_millis()
    );
    site.await_connected()?;
    let status = &site.nve_state("nve-a")?;
    println!(
        "  connect to applied: {} us; of it on the NVE, from begin to the end of commit: {} us",
        status["connect_to_applied_us"], status["last_applied"]["total_us"]
    );
    for target in [a2, b1] {
        ensure!(
            reach::transfer(&a1.netns, &target.netns, target.interface.ip)?,
            "no TCP to {} after the reboot",
            target.name
        );
    }
    Ok(())
}

/// Time from `started` until `a2` has answered `a1`.
fn first_answer(site: &Site, started: Instant) -> Result<Duration> {
    let (a1, a2) = (&site.guest("a1")?.vm, &site.guest("a2")?.vm);
    thread::scope(|scope| {
        while started.elapsed() < PATIENCE {
            // A ping of its own every 20 ms, so that none waits for a lost one.
            let attempt = scope.spawn(|| reach::ping(&a1.netns, a2.interface.ip, 1));
            thread::sleep(Duration::from_millis(20));
            if attempt.is_finished() && attempt.join().unwrap_or(Ok(false))? {
                return Ok(started.elapsed());
            }
        }
        anyhow::bail!("no frame was forwarded within {} s", PATIENCE.as_secs())
    })
}
