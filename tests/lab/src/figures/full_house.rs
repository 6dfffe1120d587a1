//! An NVE with as many records as the product promises: a trunk full of VAPs and
//! 100,000 remote MAC addresses, in 64 MiB.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nve_protocol::{DEFAULT_PORT, Vlan};
use serde_json::{Value, json};
use shim::southbound::testing::{NativeConfig, NativeNve};
use shim::southbound::{KeyPair, parse_public_key};
use uuid::Uuid;

use super::Figure;
use crate::artifacts::Artifacts;
use crate::cases::linux_vtep;
use crate::fabric::CONTROL_ADDRESS;
use crate::nve::MEMORY;
use crate::reach;
use crate::site::{Site, list, text};
use crate::wait;

/// Remote MAC addresses.
const REMOTE: usize = 100_000;

/// VAPs, as many as there are VLAN tags.
const VAPS: usize = Vlan::MAX as usize;

/// Ports in one request.
const PORTS_AT_ONCE: usize = 500;

/// vNICs of a VM.
const VNICS: usize = 32;

/// Remote MAC addresses behind one VTEP.
const ENDPOINTS: usize = 6250;

/// Most time that a native NVE takes from connecting to the whole state.
const SYNC_GOAL: Duration = Duration::from_secs(2);

/// How long it may take until the NVE has everything.
const PATIENCE: Duration = Duration::from_secs(300);

/// Fills an NVE and measures what that takes.
pub(crate) fn measure(dir: &Path, artifacts: &Artifacts) -> Result<Vec<Figure>> {
    let mut site = Site::start(dir, artifacts)?;
    site.add_network("red")?;
    site.add_vm(("a1", "red", 0, 11))?;
    site.add_vm(("a2", "red", 0, 12))?;
    let start = Instant::now();
    let station = linux_vtep::create(&site)?;
    linux_vtep::register(&site)?;
    add_remotes(&site, REMOTE - 1)?;
    add_vaps(&site, VAPS - site.guests.len())?;
    await_full(&site, 1)?;
    println!("filled by the APIs in {} s", start.elapsed().as_secs());

    let nve = site.nve(0)?;
    let accelerator = nve.machine.profile().accelerator.name();
    let boots = nve.machine.boots();
    nve.machine.kill()?;
    let started = nve.machine.booted_again(boots)?;
    await_full(&site, 2)?;
    println!("booted and full after {} ms", started.elapsed().as_millis());
    let (a1, a2) = (&site.guest("a1")?.vm, &site.guest("a2")?.vm);
    let forwards = reach::transfer(&a1.netns, &a2.netns, a2.interface.ip)?
        && reach::transfer(&a1.netns, &station, linux_vtep::ADDRESS)?;
    let translated = sync_time(&site)?;
    let heap = heap(&site)?;
    let native = native(&mut site)?;
    let load = format!("{VAPS} VAPs + {REMOTE} remote MACs");
    Ok(vec![
        Figure::new(
            &format!("{load} in {MEMORY} MiB"),
            if forwards {
                "forwards"
            } else {
                "does not forward"
            }
            .to_owned(),
            "boots, forwards",
            forwards,
        ),
        Figure::new(&format!("{load}, heap"), heap, "", true),
        Figure::new(
            "full sync of them, native",
            format!("{} ms", native.as_millis()),
            "under 2 s",
            native < SYNC_GOAL,
        ),
        Figure::new(
            &format!("full sync of them, {accelerator}"),
            format!("{} ms", translated.as_millis()),
            "",
            true,
        ),
    ])
}

/// Enters VTEPs that do not exist, with `count` stations behind them.
fn add_remotes(site: &Site, count: usize) -> Result<()> {
    let network = &site.network("red")?.id;
    let stations: Vec<Value> = (0..count)
        .map(|number| {
            let [.., a, b, c] = number.to_be_bytes();
            let mac = format!("02:00:ee:{a:02x}:{b:02x}:{c:02x}");
            json!({"network_id": network, "mac_address": mac})
        })
        .collect();
    for (number, endpoints) in stations.chunks(ENDPOINTS).enumerate() {
        let address = Ipv4Addr::new(192, 0, 2, u8::try_from(100 + number)?);
        let vtep = json!({
            "name": format!("remote-{number}"),
            "address": address,
            "networks": [network],
            "endpoints": endpoints,
        });
        site.control.api.post("/v1/vteps", &vtep)?;
    }
    Ok(())
}

/// Creates `count` ports on the first hypervisor and running VMs for them.
fn add_vaps(site: &Site, count: usize) -> Result<()> {
    let network = &site.network("red")?.id;
    let host = &site.lab.hypervisors.first().context("no host")?.name;
    let mut ports = Vec::new();
    while ports.len() < count {
        let batch = (count - ports.len()).min(PORTS_AT_ONCE);
        let port = json!({"network_id": network, "binding:host_id": host, "fixed_ips": []});
        let answer = site
            .control
            .api
            .post("/v2.0/ports", &json!({"ports": vec![port; batch]}))?;
        ports.extend(list(answer, "ports")?);
    }
    for (number, ports) in ports.chunks(VNICS).enumerate() {
        let vnics = ports.iter().map(vnic).collect::<Result<Vec<_>>>()?;
        let vm = json!({
            "vm_name": format!("filler-{number}"),
            "host_name": host,
            "power_on": true,
            "vnic_list": vnics,
        });
        site.control.manager.post("/v1/lab/vms", &vm)?;
    }
    Ok(())
}

fn vnic(port: &Value) -> Result<Value> {
    let (id, tag) = (text(port, "id")?, &port["segmentation_id"]);
    Ok(json!({
        "vnic_uuid": Uuid::new_v4(),
        "pg_name": format!("{id}_{tag}"),
        "mac": text(port, "mac_address")?,
        "port_segmentation_id": tag,
    }))
}

/// Waits until the first NVE has every record, in its session number `session`.
fn await_full(site: &Site, session: u32) -> Result<()> {
    wait::until_true("the NVE to have every record", PATIENCE, || {
        let nve = site.nve_state("nve-a")?;
        let desired = &nve["desired"];
        Ok(nve["state"] == "connected"
            && nve["counts"]["sessions"] == session
            && nve["in_sync"] == true
            && desired["vaps"] == VAPS
            && desired["fdb"] == REMOTE)
    })
}

/// From connecting to the whole state in force, as the shim saw it last.
fn sync_time(site: &Site) -> Result<Duration> {
    let nve = site.nve_state("nve-a")?;
    ensure!(
        nve["last_applied"]["full"] == true,
        "that was no full state: {nve}"
    );
    let micros = nve["connect_to_applied_us"].as_u64();
    Ok(Duration::from_micros(micros.context("it was not timed")?))
}

/// Heap of the first NVE, as it reports it with every record in force.
fn heap(site: &Site) -> Result<String> {
    wait::until("the NVE to report", PATIENCE, || {
        let nve = site.nve_state("nve-a")?;
        let stats = &nve["last_stats"]["stats"];
        let mib = |name: &str| stats[name].as_u64().unwrap_or_default() >> 20;
        let is_full = stats["tables"]["fdb"] == REMOTE;
        Ok(is_full.then(|| format!("{} of {} MiB", mib("heap_used"), mib("heap_size"))))
    })
}

/// The same for the appliance's control session without image and QEMU.
fn native(site: &mut Site) -> Result<Duration> {
    let hypervisor = site.lab.hypervisors.first_mut().context("no host")?;
    hypervisor.nve = None;
    let identity = &hypervisor.identity;
    let config = NativeConfig::new(
        identity.id,
        KeyPair::from_hex(&identity.keys.private)?,
        parse_public_key(&site.control.keys.public)?,
        format!("{CONTROL_ADDRESS}:{DEFAULT_PORT}").parse()?,
    );
    let netns = site.lab.fabric.netns();
    let nve = netns.run(|| Ok(NativeNve::start(&config)?))?;
    let state = nve.wait(PATIENCE, |state| state.commits > 0);
    ensure!(state.is_ok(), "the native NVE got nothing: {state:?}");
    await_full(site, 3)?;
    sync_time(site)
}
