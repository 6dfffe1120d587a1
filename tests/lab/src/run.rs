//! `sluice-lab run`: the product in operation, to look at and to try.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::artifacts::Artifacts;
use crate::control::{API_PORT, Control};
use crate::fabric::CONTROL_ADDRESS;
use crate::forward;
use crate::qemu::Accelerator;
use crate::sandbox::Sandbox;
use crate::site::{Site, text};

/// Starts the lab, shows it, and stays unless `once`. Whether all is as it should be.
pub fn run(sandbox: &Sandbox, once: bool) -> Result<bool> {
    let artifacts = Artifacts::find()?;
    let (accelerator, why) = Accelerator::choose(&artifacts.image, &sandbox.run_dir)?;
    println!("accelerator: {} ({why})", accelerator.name());
    println!("starting two hypervisors, their NVEs and the control plane");
    let site = start(&sandbox.run_dir, &artifacts)?;
    let target = format!("{CONTROL_ADDRESS}:{API_PORT}").parse()?;
    let api = forward::start(&sandbox.host, site.lab.fabric.netns(), target)?;
    println!("finding out who reaches whom\n");
    let matrix = site.matrix()?;
    println!("{matrix}\n");
    show_nves(&site)?;
    show_hints(sandbox, &site, &artifacts, &format!("http://{api}"))?;
    let faults = matrix.faults();
    if !faults.is_empty() {
        println!("NOT as it should be: {}", faults.join(", "));
    }
    if !once {
        println!("\nThe lab stays until Ctrl-C.");
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    Ok(faults.is_empty())
}

/// The lab in operation; when that fails, what the parts had to say.
fn start(dir: &Path, artifacts: &Artifacts) -> Result<Site> {
    Site::with_six_vms(dir, artifacts).inspect_err(|_| println!("{}", Control::tail(dir)))
}

fn show_nves(site: &Site) -> Result<()> {
    println!(
        "{:8}{:14}{:14}{:12}boot",
        "NVE", "VTEP", "state", "generation"
    );
    for nve in site.nves()? {
        let boot = nve["image"]["boot_us"].as_u64().unwrap_or_default();
        println!(
            "{:8}{:14}{:14}{:12}{} ms",
            text(&nve, "name")?,
            text(&nve, "vtep")?,
            text(&nve, "state")?,
            nve["generation"].to_string(),
            boot / 1000
        );
    }
    println!();
    Ok(())
}

fn show_hints(sandbox: &Sandbox, site: &Site, artifacts: &Artifacts, api: &str) -> Result<()> {
    let nvectl = artifacts.nvectl.display();
    println!("REST API   {api}, for example: curl {api}/v2.0/networks");
    println!("operate    {nvectl} --url {api} nve list");
    println!("logs       {}", sandbox.run_dir.display());
    let (source, target) = (&site.guest("a1")?.vm, &site.guest("b1")?.vm);
    println!(
        "a VM       sudo nsenter --net={} ping {}",
        source.netns.path_of(&sandbox.pid).display(),
        target.interface.ip
    );
    Ok(())
}
