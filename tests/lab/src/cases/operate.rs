//! What operators see: nvectl, health, metrics, the API's description.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Context;
use crate::process::{Daemon, tail};
use crate::site::Site;
use crate::wait;

/// How long an event may take to be shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for an event before there is another one: `event watch` shows
/// those that come once it is connected.
const PAUSE: Duration = Duration::from_millis(300);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_network("red")?;
    site.add_vm(("a1", "red", 0, 11))?;
    site.await_active()?;
    for (arguments, words) in [
        ("nve list", ["nve-a", "nve-b", "connected"]),
        ("nve show nve-a", ["nve-a", "192.0.2.11", "connected"]),
        ("port list", ["a1", "10.0.0.11", "ACTIVE"]),
        ("placement list", ["a1", "hv-a", "running"]),
    ] {
        let printed = nvectl(context, &site, arguments)?;
        for word in words {
            ensure!(
                printed.contains(word),
                "nvectl {arguments} lacks {word}:\n{printed}"
            );
        }
        let json = nvectl(context, &site, &format!("-o json {arguments}"))?;
        serde_json::from_str::<Value>(&json)?;
        print!("{printed}");
    }
    watch(context, &mut site)?;
    describe(&site)
}

fn command(context: &Context, site: &Site, arguments: &str) -> Command {
    let mut nvectl = Command::new(&context.artifacts.nvectl);
    nvectl.args(["--url", site.control.api.base()]);
    nvectl.args(arguments.split_whitespace());
    nvectl
}

fn nvectl(context: &Context, site: &Site, arguments: &str) -> Result<String> {
    let netns = site.lab.fabric.netns();
    netns.output(&mut command(context, site, arguments))
}

/// `nvectl event watch` shows an event while it is watching.
fn watch(context: &Context, site: &mut Site) -> Result<()> {
    let log = context.dir.join("watch.log");
    let mut watch = command(context, site, "event watch");
    let netns = site.lab.fabric.netns();
    let mut watch = Daemon::spawn("nvectl event watch", netns, &mut watch, &log)?;
    wait::until_true("nvectl to show the event", PATIENCE, || {
        watch.check()?;
        site.power_on("a1")?;
        site.power_off("a1")?;
        thread::sleep(PAUSE);
        Ok(tail(&log, 10).contains("vmpoweroff"))
    })
}

fn describe(site: &Site) -> Result<()> {
    let api = &site.control.api;
    let paths = &api.get("/v1/openapi.json")?["paths"];
    for path in [
        "/v2.0/networks",
        "/v1/nves",
        "/v1/events",
        "/v1/placement",
        "/metrics",
    ] {
        ensure!(!paths[path].is_null(), "the OpenAPI document lacks {path}");
    }
    let metrics = api.get("/metrics")?;
    let metrics = metrics.as_str().unwrap_or_default();
    for sample in [
        "sluice_nve_connected{nve=\"nve-a\"} 1",
        "sluice_objects{kind=\"vm\"} 1",
    ] {
        ensure!(metrics.contains(sample), "no {sample} in:\n{metrics}");
    }
    Ok(())
}
