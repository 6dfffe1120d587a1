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
use crate::model::PlacedVm;
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
    let vnic = json!({"type": "object", "properties": {
        "manager": text, "vm_name": text, "vm_uuid": uuid, "vm_status": text,
        "host_name": text, "vnic_name": text, "mac": text, "port_id": uuid,
        "segmentation_id": {"type": "integer"}, "nve_id": uuid, "progress": progress,
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
                host_name: vm.host_name.clone(),
                vnic_name: vnic.vnic_name.clone(),
                mac: vnic.mac.to_string(),
                port_id: vnic.port_id(),
                segmentation_id: vnic.port_segmentation_id,
                nve_id: state.nve_by_host(&vm.host_name).map(|nve| nve.id),
                progress: progress(&state, placed, vnic, port, attachment),
            }
        })
    });
    Json(Placement {
        placement: placement.collect(),
    })
}

fn progress(
    state: &State,
    placed: &PlacedVm,
    vnic: &Vnic,
    port: Option<Uuid>,
    attachment: Option<Attachment>,
) -> Progress {
    let vm = &placed.vm;
    let Some(nve) = state.nve_by_host(&vm.host_name) else {
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
        _ if collides(state, &vm.host_name, vnic) => Progress::TagCollision,
        _ => Progress::NotAttached,
    }
}

fn collides(state: &State, host: &str, vnic: &Vnic) -> bool {
    let tag = Vlan::new(vnic.port_segmentation_id);
    let alarms = tag.map(|tag| alarms::on(state, host, tag));
    let mut alarms = alarms.into_iter().flatten();
    alarms.any(|alarm| alarm.kind == Kind::TagCollision)
}
