//! Lifecycle events change forwarding, and only those of a known user and form.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Context;
use crate::control::{netrc, write_secret};
use crate::reach;
use crate::site::Site;
use crate::wait;

/// How long an event may take to change forwarding.
const EFFECT: Duration = Duration::from_secs(10);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_dual_network("red", 1)?;
    site.add_vm(("a1", "red", 0, 11))?;
    site.add_vm(("b2", "red", 1, 14))?;
    // vmcreated and vmpoweron: the VM appears.
    site.add_vm(("b1", "red", 1, 13))?;
    await_reach(&site, true, "vmcreated and vmpoweron")?;
    site.power_off("b1")?;
    await_reach(&site, false, "vmpoweroff")?;
    site.power_on("b1")?;
    await_reach(&site, true, "vmpoweron")?;
    site.detach("b1")?;
    await_reach(&site, false, "vifdetach")?;
    site.attach("b1")?;
    await_reach(&site, true, "vifattach")?;
    refuse(context, &site)?;
    site.delete_vm("b1")?;
    await_reach(&site, false, "vmdeleted")
}

/// Waits until `b1` is reached from its NVE and from the other, by IPv4 and by IPv6,
/// or is not by any of that.
fn await_reach(site: &Site, wanted: bool, event: &str) -> Result<()> {
    let targets = site.guest("b1")?.vm.interface.addresses();
    thread::scope(|scope| {
        let mut waits = Vec::new();
        for source in ["a1", "b2"] {
            let netns = &site.guest(source)?.vm.netns;
            for at in targets.clone() {
                waits.push(scope.spawn(move || {
                    let what = format!("the effect of {event} on {source} to {at}");
                    wait::until_true(&what, EFFECT, || Ok(reach::ping(netns, at, 1)? == wanted))
                }));
            }
        }
        waits.into_iter().try_for_each(|wait| match wait.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    println!(
        "  {event}: {}",
        if wanted { "reachable" } else { "unreachable" }
    );
    Ok(())
}

/// Requests that have to be refused, each with a reason.
fn refuse(context: &Context, site: &Site) -> Result<()> {
    let manager = &site.control.manager;
    let before = manager.get("/v1/registrations")?;
    let placement = site.control.api.get("/v1/placement")?;
    let wrong = context.dir.join("wrong.netrc");
    write_secret(&wrong, &netrc("wrong"))?;
    let stranger = manager.clone().with_netrc(&wrong);
    let unknown_type = json!({"eventType": "vmexploded"}).to_string();
    let attempts = [
        (
            "wrong password",
            stranger.send("GET", "/v1/inventory", None)?,
            401,
        ),
        (
            "wrong password",
            stranger.send("POST", "/v1/registrations", Some(b"{}"))?,
            401,
        ),
        (
            "unknown type",
            manager.send("POST", "/v1/registrations", Some(unknown_type.as_bytes()))?,
            400,
        ),
        (
            "no JSON",
            manager.send("POST", "/v1/registrations", Some(b"{\"eventType\""))?,
            400,
        ),
        (
            "no VM",
            manager.send("POST", "/v1/lab/vms", Some(b"{\"vm_name\": 7}"))?,
            400,
        ),
    ];
    for (what, answer, status) in attempts {
        ensure!(
            answer.status == status,
            "{what}: {answer:?} instead of {status}"
        );
        ensure!(!answer.body.is_null(), "{what}: refused without a reason");
        println!("  {what}: {status}, {}", answer.body);
    }
    ensure!(
        manager.get("/v1/registrations")? == before,
        "registrations changed"
    );
    ensure!(
        site.control.api.get("/v1/placement")? == placement,
        "placement changed"
    );
    await_reach(site, true, "refused requests")
}
