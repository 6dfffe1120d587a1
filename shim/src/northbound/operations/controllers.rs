//! `POST /v1/controllers/{controller_id}/events`: the paper's
//! `Boolean notify(controllerId, event)`, TABLE III and IV.
//!
//! For an OpenStack that receives a hypervisor manager's events itself. The one
//! route that asks for authentication: HTTP digest, as a user of the
//! configuration's `[[users]]`.

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, object_id, read_json, reference};
use crate::auth::digest::User;
use crate::events::Notification;
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};
use crate::placement::Outcome;

/// The answer's body.
#[derive(Debug, Serialize)]
struct Notified {
    /// The method's Boolean: whether the VM is now known to be as the event says.
    /// False if something newer is known of it; to send the event again is no use.
    result: bool,
    /// `applied`, `unchanged` or `late`.
    outcome: &'static str,
}

pub(super) fn routes(routes: Routes) -> Routes {
    let about = Operation::new("events", "Notify of a VM lifecycle event (HTTP digest)")
        .body(reference("Notification"))
        .answer(200, reference("Notified"))
        .problems(&[400, 401, 404, 503]);
    routes.add(
        Verb::Post,
        "/v1/controllers/{controller_id}/events",
        about,
        notify,
    )
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let text = json!({"type": "string"});
    let uuid = json!({"type": "string", "format": "uuid"});
    let maybe = json!({"type": ["string", "null"]});
    let integer = json!({"type": "integer"});
    let address = |name: &str| json!({"type": "object", "properties": {name: text}});
    let vnic = json!({"type": "object", "properties": {
        "vnic_name": text, "vnic_uuid": uuid, "pg_name": text, "pg_uuid": uuid,
        "port_name": maybe, "port_uuid": maybe, "network_name": maybe, "network_uuid": maybe,
        "mac": text, "port_segmentation_id": integer,
        "ip_list": {"type": "array", "items": address("ip")},
        "ipv6_list": {"type": "array", "items": address("ipv6")},
    }, "required": [
        "vnic_name", "vnic_uuid", "pg_name", "pg_uuid", "mac", "port_segmentation_id",
    ]});
    let notification = json!({"type": "object", "description": "TABLE IV of the paper.",
    "properties": {
        "event_id": uuid, "timestamp": {"type": "string", "format": "date-time"},
        "event_type": {"type": "string", "description":
            "As in TABLE I or TABLE IV, in any case of letters.",
            "examples": ["vmpoweron", "livemigratetest/start"]},
        "vm_name": text, "vm_uuid": uuid,
        "vm_status": {"enum": ["stop", "running", "paused"]},
        "instance_name": maybe, "instance_uuid": maybe,
        "host_name": text, "host_uuid": uuid,
        "destination_host_name": {"type": ["string", "null"], "description":
            "The host that a live migration which starts leads to; not in the paper."},
        "vnic_list": {"type": "array", "items": vnic},
    }, "required": [
        "event_id", "timestamp", "event_type", "vm_name", "vm_uuid", "vm_status",
        "host_name", "host_uuid", "vnic_list",
    ]});
    let notified = json!({"type": "object", "properties": {
        "result": {"type": "boolean"},
        "outcome": {"enum": ["applied", "unchanged", "late"]},
    }});
    let problem = json!({"type": "object", "description": "RFC 9457.", "properties": {
        "type": text, "title": text, "status": integer, "detail": text,
        "code": {"enum": super::error::CODES}, "field": text,
    }, "required": ["type", "title", "status", "detail"]});
    vec![
        ("Problem".to_owned(), problem),
        ("Notification".to_owned(), notification),
        ("Notified".to_owned(), notified),
    ]
}

async fn notify(
    State(api): State<Api>,
    Poster(user): Poster,
    Params(id): Params<String>,
    request: Request,
) -> Response {
    match take(&api, &user, id, request).await {
        Ok(outcome) => Json(Notified {
            result: outcome != Outcome::Late,
            outcome: outcome.name(),
        })
        .into_response(),
        Err(failure) => failure.into_problem(),
    }
}

async fn take(
    api: &Api,
    user: &str,
    id: Option<String>,
    request: Request,
) -> Result<Outcome, Failure> {
    // There is one controller behind this address, so any id of the right form is its.
    object_id("controller", id)?;
    let notification = read_json(request).await?;
    check_networks(api, &notification)?;
    Ok(api.fabric.take_event(user, notification.event).await?)
}

/// Refuses an event that puts a port into another network than it is in.
fn check_networks(api: &Api, notification: &Notification) -> Result<(), Failure> {
    let state = api.controller.snapshot();
    let vnics = notification.event.vm.vnic_list.iter();
    for (number, (vnic, told)) in vnics.zip(&notification.networks).enumerate() {
        let port = vnic.port_id().and_then(|port| state.port(port));
        if let (Some(port), Some(told)) = (port, told)
            && port.network_id != *told
        {
            let (id, network) = (port.common.id, port.network_id);
            let reason = format!("port {id} is in network {network}, not in {told}");
            return Err(Failure::invalid(
                format!("vnic_list[{number}].network_uuid"),
                reason,
            ));
        }
    }
    Ok(())
}

/// The user that a request is from. Comes before the body, so that nothing of a
/// stranger's body is read.
struct Poster(String);

impl FromRequestParts<Api> for Poster {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Response> {
        match api.posters.admit(parts) {
            Ok(User(name)) => Ok(Poster(name)),
            Err(refused) => {
                let mut response = Failure::refused(&refused).into_problem();
                refused.challenge(&mut response);
                Err(response)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::*;
    use crate::auth::{Credentials, Secret};
    use crate::controller::Controller;
    use crate::fabric::Fabric;
    use crate::http::{Client, ClientError, server};
    use crate::intent::Settings;
    use crate::northbound;
    use crate::store::MemoryStore;

    fn credentials(password: &str) -> Credentials {
        Credentials::new("openstack", Secret::new(password)).unwrap()
    }

    /// The API on the loopback: what it binds, and its address.
    async fn serve() -> (Fabric, String) {
        let store = Box::new(MemoryStore::default());
        let controller = Controller::open(store, Settings::default()).unwrap();
        let fabric = Fabric::new(controller, Default::default());
        let api = Api::new(fabric.clone()).with_posters([credentials("x")]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = northbound::router(api);
        tokio::spawn(server::serve(listener, app, std::future::pending()));
        (fabric, url)
    }

    fn event(second: u8) -> Value {
        json!({
            "event_id": Uuid::new_v4(), "timestamp": format!("2026-01-01T00:00:{second:02}Z"),
            "event_type": "vmpoweron", "vm_name": "vm1", "vm_uuid": Uuid::nil(),
            "vm_status": "running", "instance_name": "web", "instance_uuid": Uuid::nil(),
            "host_name": format!("hv{second}"), "host_uuid": Uuid::nil(), "vnic_list": [],
        })
    }

    fn status<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, String) {
        match answer {
            Err(ClientError::Status { status, reason, .. }) => (status.as_u16(), reason),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_event_is_taken_and_the_answer_is_the_methods_boolean() {
        let (fabric, url) = serve().await;
        let client = Client::new(&url, Some(credentials("x"))).unwrap();
        let target = format!("/v1/controllers/{}/events", Uuid::new_v4());
        for (second, result, outcome) in [
            (2, true, "applied"),
            (2, true, "unchanged"),
            (1, false, "late"),
        ] {
            let answer: Value = client.post_json(&target, &event(second)).await.unwrap();
            assert_eq!(answer, json!({"result": result, "outcome": outcome}));
        }
        let hosts = |state: &crate::intent::State| {
            let vms = state.vms().map(|vm| vm.vm.host_name.clone());
            vms.collect::<Vec<_>>()
        };
        assert_eq!(fabric.controller().read(hosts), ["hv2"]);
        let seen: Value = client.get("/v1/events").await.unwrap();
        assert_eq!(seen["events"][0]["manager"], "openstack");
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_and_changes_nothing() {
        let (fabric, url) = serve().await;
        let target = format!("/v1/controllers/{}/events", Uuid::new_v4());
        for stranger in [None, Some(credentials("wrong"))] {
            let client = Client::new(&url, stranger).unwrap();
            let answer = client.post(&target, &event(1)).await;
            assert!(matches!(answer, Err(ClientError::Unauthorized(_))));
        }
        let client = Client::new(&url, Some(credentials("x"))).unwrap();
        let mut unknown = event(1);
        unknown["event_type"] = json!("vmexploded");
        let (code, reason) = status(client.post(&target, &unknown).await);
        assert!(code == 400 && reason.contains("vmexploded"), "{reason}");
        let (code, reason) = status(client.post(&target, &json!({"event_id": 1})).await);
        assert!(code == 400 && reason.contains("malformed body"), "{reason}");
        let nowhere = "/v1/controllers/first/events";
        assert_eq!(status(client.post(nowhere, &event(1)).await).0, 404);
        // Contradictions with what is known are told with their place.
        let made: Value = client
            .post_json("/v2.0/networks", &json!({"network": {}}))
            .await
            .unwrap();
        let port = json!({"port": {"network_id": made["network"]["id"]}});
        let made: Value = client.post_json("/v2.0/ports", &port).await.unwrap();
        let (port, tag) = (&made["port"]["id"], &made["port"]["segmentation_id"]);
        let mut elsewhere = event(1);
        elsewhere["vnic_list"] = json!([{
            "vnic_name": "", "vnic_uuid": Uuid::nil(), "pg_uuid": Uuid::nil(),
            "pg_name": format!("{}_{tag}", port.as_str().unwrap()), "port_uuid": port,
            "network_uuid": Uuid::nil(), "mac": "02:00:00:00:00:01",
            "port_segmentation_id": tag,
        }]);
        let (code, reason) = status(client.post(&target, &elsewhere).await);
        assert!(code == 400 && reason.contains("is in network"), "{reason}");
        assert_eq!(fabric.controller().read(|state| state.vms().count()), 0);
    }
}
