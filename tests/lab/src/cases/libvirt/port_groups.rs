//! Port groups of ports, and the trunk's: made on all hosts by the manager's REST
//! interface, kept while a guest has one, and only ever ours.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::stage::Stage;
use crate::libvirt::{FOREIGN, NETWORK, TRUNK};
use crate::site::list;
use crate::wait;

/// How long a host that is back may take to have what is wanted.
const BACK: Duration = Duration::from_secs(20);

pub(super) const PATH: &str = "/v1/port-groups";

/// Made on all hosts, twice asked or once; the trunk's, too.
pub(super) fn made(stage: &mut Stage) -> Result<()> {
    let (port, tag, name) = stage.port();
    let of_port = json!({"port_id": port, "segmentation_id": tag});
    for status in [201, 200] {
        let made = ask(stage, "POST", PATH, Some(&of_port), status)?;
        ensure!(made["pg_name"] == json!(name), "{made}");
        ensure!(made["port_segmentation_id"] == json!(tag), "{made}");
        ensure!(made["hosts"] == json!(["hv-a", "hv-b"]), "{made}");
    }
    ask(stage, "POST", PATH, Some(&json!({"trunk": true})), 201)?;
    let listed = list(stage.notice().get(PATH)?, "port_groups")?;
    let has = |name: &str| listed.iter().any(|group| group["pg_name"] == name);
    let all_ours = listed.len() == 2 && has(&name) && has(TRUNK);
    ensure!(all_ours, "listed are {listed:?}");
    stage.name_port_group(&listed)?;
    for host in [0, 1] {
        for flags in [&[][..], &["--inactive"]] {
            let network = network(stage, host, flags)?;
            ensure!(network.contains(&name), "not on host {host}: {network}");
            ensure!(network.contains(&format!("<tag id='{tag}'/>")), "{network}");
            ensure!(network.contains(TRUNK), "no trunk on {host}: {network}");
        }
    }
    refused(stage)
}

/// What is no port group of ours.
fn refused(stage: &Stage) -> Result<()> {
    let port = stage.port().0;
    for wrong in [
        json!({"port_id": "x", "segmentation_id": 1}),
        json!({"port_id": port, "segmentation_id": 4095}),
        json!({"trunk": false}),
        json!({}),
    ] {
        ask(stage, "POST", PATH, Some(&wrong), 400)?;
    }
    for wrong in [
        "foreign",
        "default",
        &format!("{port}_0"),
        &format!("{port}_01"),
    ] {
        ask(stage, "DELETE", &format!("{PATH}/{wrong}"), None, 400)?;
    }
    foreign_is_intact(stage)
}

/// Of a host that has it in one part of its network only, as a libvirtd leaves it that is
/// killed between the two: it is made whole by the next request, or when the host is followed
/// again, and a deletion leaves nothing of it.
pub(super) fn halves(stage: &mut Stage) -> Result<()> {
    let (port, tag, name) = stage.port();
    let of_port = json!({"port_id": port, "segmentation_id": tag});
    let path = format!("{PATH}/{name}");
    for lost in ["--live", "--config"] {
        lose_half(stage, &name, lost)?;
        ask(stage, "POST", PATH, Some(&of_port), 200)?;
        ensure!(halves_with(stage, &name)? == 2, "{lost}: not made whole");

        lose_half(stage, &name, lost)?;
        stage.host(0)?.kill()?;
        stage.host_mut(0)?.revive()?;
        let what = format!("{name} to be whole after {lost}");
        wait::until_true(&what, BACK, || Ok(halves_with(stage, &name)? == 2))?;

        lose_half(stage, &name, lost)?;
        ask(stage, "DELETE", &path, None, 204)?;
        ensure!(halves_with(stage, &name)? == 0, "{lost}: a half is left");
        ask(stage, "POST", PATH, Some(&of_port), 201)?;
    }
    foreign_is_intact(stage)
}

/// Deletes the port group from one part of the first host's network, past the manager, which
/// may mend that at once when it lists the host.
fn lose_half(stage: &Stage, name: &str, part: &str) -> Result<()> {
    let group = format!("<portgroup name='{name}'/>");
    let arguments = ["net-update", NETWORK, "delete", "portgroup", part, "--xml"];
    for _ in 0..3 {
        stage.host(0)?.virsh_with(&group, &arguments)?;
        if halves_with(stage, name)? == 1 {
            return Ok(());
        }
    }
    bail!("{name} does not lose its half {part}")
}

/// How many parts of the first host's network have it.
fn halves_with(stage: &Stage, name: &str) -> Result<usize> {
    let live = network(stage, 0, &[])?;
    let config = network(stage, 0, &["--inactive"])?;
    let parts = [live, config];
    Ok(parts.iter().filter(|part| part.contains(name)).count())
}

/// While a guest has a NIC in it, running or defined.
pub(super) fn kept_while_used(stage: &mut Stage) -> Result<()> {
    let path = format!("{PATH}/{}", stage.port().2);
    let refused = ask(stage, "DELETE", &path, None, 409)?;
    let reason = refused["error"].as_str().unwrap_or_default();
    ensure!(reason.contains(super::stage::GUEST), "{refused}");
    Ok(())
}

/// From all hosts; once or twice.
pub(super) fn deleted(stage: &mut Stage) -> Result<()> {
    let name = stage.port().2;
    let path = format!("{PATH}/{name}");
    for _ in 0..2 {
        ask(stage, "DELETE", &path, None, 204)?;
    }
    for host in [0, 1] {
        for flags in [&[][..], &["--inactive"]] {
            let network = network(stage, host, flags)?;
            ensure!(!network.contains(&name), "still on {host}: {network}");
            ensure!(network.contains(TRUNK), "no trunk on {host}: {network}");
        }
    }
    foreign_is_intact(stage)
}

pub(super) fn foreign_is_intact(stage: &Stage) -> Result<()> {
    let squeezed = |text: &str| -> String { text.split_whitespace().collect() };
    for host in [0, 1] {
        let network = network(stage, host, &[])?;
        let there = squeezed(&network).contains(&squeezed(FOREIGN));
        ensure!(there, "the foreign port group is another one: {network}");
    }
    Ok(())
}

pub(super) fn network(stage: &Stage, host: usize, flags: &[&str]) -> Result<String> {
    let arguments = [&["net-dumpxml", NETWORK], flags].concat();
    stage.host(host)?.virsh(&arguments)
}

/// Sends a request that has to be answered with `status`; the body of the answer.
fn ask(
    stage: &Stage,
    method: &str,
    path: &str,
    body: Option<&Value>,
    status: u16,
) -> Result<Value> {
    let text = body.map(serde_json::to_vec).transpose()?;
    let answer = stage.notice().send(method, path, text.as_deref())?;
    let what = format!("{method} {path} {}", body.unwrap_or(&Value::Null));
    ensure!(answer.status == status, "{what}: {answer:?}");
    Ok(answer.body)
}
