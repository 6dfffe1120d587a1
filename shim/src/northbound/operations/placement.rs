//! `GET /v1/placement`: where each port is, and what keeps it from forwarding.

use axum::Json;
use axum::extract::State as Shared;
use nve_protocol::Vlan;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::events::types::{VmStatus, Vnic};
use crate::fabric::Attachment;
use crate::intent::State;
use crate::model::{Migration, PlacedVm};
use crate::northbound::Api;
use crate::northbound::routes::{Operation, Routes, Verb};
use crate::placement::alarms::{self, Kind};

/// How far a port has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Progress {
    /// Its NVE has acknowledged tables with it.
    InForce,
    /// Its NVE has not acknowledged them yet, or is not connected.
    Pending,
    /// The VM does not run.
    Stopped,
    /// No NVE serves the host.
    NoNve,
    /// The port group's name carries no port that exists.
    UnknownPort,
    /// The VM is deleted, which an inventory has to confirm.
    Deleted,
    /// Another port has the tag on that host too.
    TagCollision,
    /// Another place is newer, or the port or its network is administratively down.
    NotAttached,
}

/// One vNIC of a VM.
#[derive(Debug, Serialize)]
struct Placed {
    manager: String,
    vm_name: String,
    vm_uuid: Uuid,
    vm_status: VmStatus,
    host_name: String,
    vnic_name: String,
    mac: String,
    port_id: Option<Uuid>,
    segmentation_id: u16,
    nve_id: Option<Uuid>,
    progress: Progress,
    migration: Option<Migration>,
    departed_from: Option<String>,
}

/// The answer's body.
#[derive(Debug, Serialize)]
struct Placement {
    placement: Vec<Placed>,
}

pub(super) fn routes(routes: Routes) -> Routes {
    let about = Operation::new("placement", "Where each port is")
        .answer(200, super::reference("Placement"));
    routes.add(Verb::Get, "/v1/placement", about, list)
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let text = json!({"type": "string"});
    let uuid = json!({"type": ["string", "null"], "format": "uuid"});
    let progress = json!({"enum": [
        "in_force", "pending", "stopped", "no_nve", "unknown_port", "deleted",
        "tag_collision", "not_attached",
    ]});
    let migration = json!({"type": ["object", "null"], "description":
        "The VM's live migration, while one is under way.", "properties": {
        "since": {"type": "string", "format": "date-time"},
        "to": {"type": "array", "items": text, "description":
            "The hosts where it may come up."},
        "awake": {"type": ["string", "null"], "description":
            "The one of them where an NVE has heard it; host_name is that one then."},
        "awake_since": {"type": ["string", "null"], "format": "date-time"},
    }});
    let departed = json!({"type": ["string", "null"], "description":
        "The host that the VM left, while what is still sent there is sent on."});
    let vnic = json!({"type": "object", "properties": {
        "manager": text, "vm_name": text, "vm_uuid": uuid, "vm_status": text,
        "host_name": text, "vnic_name": text, "mac": text, "port_id": uuid,
        "segmentation_id": {"type": "integer"}, "nve_id": uuid, "progress": progress,
        "migration": migration, "departed_from": departed,
    }});
    let list = json!({"type": "object", "properties": {
        "placement": {"type": "array", "items": vnic},
    }});
    vec![("Placement".to_owned(), list)]
}

/// Lists the vNICs of all VMs.
async fn list(Shared(api): Shared<Api>) -> Json<Placement> {
    let fabric = &api.fabric;
    let state = api.controller.snapshot();
    let placement = state.vms().flat_map(|placed| {
        let vm = &placed.vm;
        vm.vnic_list.iter().map(|vnic| {
            let port = vnic.port_id().filter(|port| state.port(*port).is_some());
            let attachment = port.and_then(|port| fabric.attachment(port));
            Placed {
                manager: placed.manager.clone(),
                vm_name: vm.vm_name.clone(),
                vm_uuid: vm.vm_uuid,
                vm_status: vm.vm_status,
                host_name: placed.host_name().to_owned(),
                vnic_name: vnic.vnic_name.clone(),
                mac: vnic.mac.to_string(),
                port_id: vnic.port_id(),
                segmentation_id: vnic.port_segmentation_id,
                nve_id: state.nve_by_host(placed.host_name()).map(|nve| nve.id),
                progress: progress(&state, placed, vnic, port, attachment),
                migration: placed.migration.clone(),
                departed_from: departed_from(placed, port),
            }
        })
    });
    Json(Placement {
        placement: placement.collect(),
    })
}

/// The host that the port has left, if that is known of it.
fn departed_from(placed: &PlacedVm, port: Option<Uuid>) -> Option<String> {
    let departed = placed.departed.as_ref()?;
    let has_left = departed.vaps.iter().any(|(left, _)| Some(*left) == port);
    has_left.then(|| departed.host.clone())
}

fn progress(
    state: &State,
    placed: &PlacedVm,
    vnic: &Vnic,
    port: Option<Uuid>,
    attachment: Option<Attachment>,
) -> Progress {
    let (vm, host) = (&placed.vm, placed.host_name());
    let Some(nve) = state.nve_by_host(host) else {
        return Progress::NoNve;
    };
    match attachment {
        _ if port.is_none() => Progress::UnknownPort,
        _ if placed.deleted => Progress::Deleted,
        _ if !vm.vm_status.forwards() => Progress::Stopped,
        Some(Attachment { nve: at, in_force }) if at == nve.id => match in_force {
            true => Progress::InForce,
            false => Progress::Pending,
        },
        _ if collides(state, host, vnic) => Progress::TagCollision,
        _ => Progress::NotAttached,
    }
}

fn collides(state: &State, host: &str, vnic: &Vnic) -> bool {
    let tag = Vlan::new(vnic.port_segmentation_id);
    let alarms = tag.map(|tag| alarms::on(state, host, tag));
    let mut alarms = alarms.into_iter().flatten();
    alarms.any(|alarm| alarm.kind == Kind::TagCollision)
}
