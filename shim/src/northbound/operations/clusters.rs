//! `/v1/clusters`: sets of hosts that VMs move between, and the VLAN tags of each.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use nve_protocol::Vlan;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Failure, JsonBody, object_id, reference};
use crate::intent::cluster::{self, ClusterChange, NewCluster};
use crate::intent::{self, Settings, Who};
use crate::model::Cluster;
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

const PATH: &str = "/v1/clusters";
const PATH_OF_ONE: &str = "/v1/clusters/{id}";

pub(super) fn routes(routes: Routes) -> Routes {
    let about = |summary: &str| Operation::new("clusters", summary);
    let all = json!({"type": "object", "properties": {"clusters": {"type": "array", "items": reference("Cluster")}}});
    let list_about = about("List clusters, the default one first").answer(200, all);
    let create_about = about("Make a cluster of hosts")
        .body(reference("NewCluster"))
        .answer(201, reference("Cluster"))
        .errors(&[400, 409]);
    let show_about = about("Show a cluster")
        .answer(200, reference("Cluster"))
        .errors(&[404]);
    let update_about = about("Change a cluster; its ports keep their tags, which must not meet")
        .body(reference("ChangedCluster"))
        .answer(200, reference("Cluster"))
        .errors(&[400, 404, 409]);
    let delete_about =
        about("Remove a cluster; its hosts are in the default one then").errors(&[400, 404, 409]);
    let leases_about = about("List the VLAN tags of a cluster that are not free, and why")
        .answer(200, reference("Leases"))
        .errors(&[404]);
    routes
        .add(Verb::Get, PATH, list_about, list)
        .add(Verb::Post, PATH, create_about, create)
        .add(Verb::Get, PATH_OF_ONE, show_about, show)
        .add(Verb::Put, PATH_OF_ONE, update_about, update)
        .add(Verb::Delete, PATH_OF_ONE, delete_about, delete)
        .add(
            Verb::Get,
            "/v1/clusters/{id}/leases",
            leases_about,
            list_leases,
        )
}

pub(super) fn schemas() -> Vec<(String, Value)> {
    let text = json!({"type": "string"});
    let uuid = json!({"type": "string", "format": "uuid"});
    let count = json!({"type": "integer"});
    let mut properties = json!({
        "name": {"type": "string", "minLength": 1, "maxLength": 255},
        "hosts": {"type": "array", "items": text},
    });
    let changed =
        json!({"type": "object", "properties": properties, "additionalProperties": false});
    let mut new = changed.clone();
    new["required"] = json!(["name"]);
    properties["id"] = uuid.clone();
    properties["tags"] = json!({"type": "object", "properties": {
        "leased": count, "seen": count, "quarantined": count, "reserved": count, "free": count,
    }});
    let lease = json!({"type": "object", "properties": {
        "segmentation_id": count, "host": text,
        "state": {"enum": ["leased", "seen", "quarantined"]},
        "port_id": {"type": ["string", "null"], "format": "uuid"},
        "vm_uuid": {"type": ["string", "null"], "format": "uuid"},
        "until": {"type": ["string", "null"], "format": "date-time"},
    }});
    let leases = json!({"type": "object", "properties": {
        "leases": {"type": "array", "items": lease},
    }});
    let cluster = json!({"type": "object", "properties": properties});
    [
        ("Cluster", cluster),
        ("NewCluster", new),
        ("ChangedCluster", changed),
        ("Leases", leases),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
    .into()
}

/// How many of a cluster's 4094 tags are what; each is counted once, as the first of
/// these that it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tags {
    /// Tags of ports that are bound to its hosts.
    pub(super) leased: usize,
    /// Other tags that vNICs on its hosts have.
    pub(super) seen: usize,
    /// Tags that a port has left and no other gets yet.
    pub(super) quarantined: usize,
    /// Tags that the configuration keeps from ports.
    pub(super) reserved: usize,
    /// All others.
    pub(super) free: usize,
}

impl Tags {
    /// Those of a cluster.
    pub(super) fn of(state: &intent::State, settings: &Settings, cluster: Uuid) -> Tags {
        let now = OffsetDateTime::now_utc();
        let mut tags = Tags::default();
        let mut taken = BTreeSet::new();
        for (tag, occupants) in state.occupied(cluster) {
            let has = |is: fn(&Who) -> bool| occupants.iter().any(|on| is(&on.who));
            let quarantined =
                |on: &intent::Occupant| matches!(on.who, Who::Quarantine(_, until) if until > now);
            let count = if has(|who| matches!(who, Who::Port(_))) {
                &mut tags.leased
            } else if has(|who| matches!(who, Who::Vnic(..))) {
                &mut tags.seen
            } else if occupants.iter().any(quarantined) {
                &mut tags.quarantined
            } else {
                continue;
            };
            *count += 1;
            taken.insert(tag);
        }
        let all = (1..=Vlan::MAX).filter_map(Vlan::new);
        for tag in all.filter(|tag| !taken.contains(tag)) {
            match settings.tags.is_reserved(tag) {
                true => tags.reserved += 1,
                false => tags.free += 1,
            }
        }
        tags
    }
}

/// A cluster and its tags.
#[derive(Debug, Serialize)]
struct View {
    #[serde(flatten)]
    cluster: Cluster,
    tags: Tags,
}

/// A tag that somebody is on.
#[derive(Debug, Serialize)]
struct Lease {
    segmentation_id: Vlan,
    host: String,
    state: &'static str,
    port_id: Option<Uuid>,
    vm_uuid: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
}

/// Which hosts are in the default cluster is not written down anywhere.
pub(super) fn default_cluster() -> Cluster {
    Cluster {
        id: Uuid::nil(),
        name: cluster::DEFAULT.to_owned(),
        hosts: Vec::new(),
    }
}

fn view(api: &Api, state: &intent::State, cluster: Cluster) -> View {
    let tags = Tags::of(state, api.controller.settings(), cluster.id);
    View { cluster, tags }
}

/// The cluster, the default one included.
fn find(state: &intent::State, id: Uuid) -> Result<Cluster, Failure> {
    match id.is_nil() {
        true => Ok(default_cluster()),
        false => Ok(cluster::find(state, id)?.clone()),
    }
}

async fn list(State(api): State<Api>) -> Json<Value> {
    let state = api.controller.snapshot();
    let all = [default_cluster()].into_iter();
    let all = all.chain(state.clusters().cloned());
    let views: Vec<View> = all.map(|cluster| view(&api, &state, cluster)).collect();
    Json(json!({"clusters": views}))
}

async fn show(State(api): State<Api>, Params(id): Params<String>) -> Result<Json<View>, Failure> {
    let id = object_id("cluster", id)?;
    let state = api.controller.snapshot();
    Ok(Json(view(&api, &state, find(&state, id)?)))
}

async fn create(
    State(api): State<Api>,
    JsonBody(request): JsonBody<NewCluster>,
) -> Result<(StatusCode, Json<View>), Failure> {
    let planner = api.controller.clone();
    let plan =
        move |state: &_| cluster::create(state, planner.context(), request).map_err(Failure::from);
    let made = api.controller.transact(plan).await?;
    let state = api.controller.snapshot();
    Ok((StatusCode::CREATED, Json(view(&api, &state, made))))
}

async fn update(
    State(api): State<Api>,
    Params(id): Params<String>,
    JsonBody(change): JsonBody<ClusterChange>,
) -> Result<Json<View>, Failure> {
    let id = object_id("cluster", id)?;
    let planner = api.controller.clone();
    let plan = move |state: &_| {
        cluster::update(state, planner.context(), id, change).map_err(Failure::from)
    };
    let changed = api.controller.transact(plan).await?;
    let state = api.controller.snapshot();
    Ok(Json(view(&api, &state, changed)))
}

async fn delete(State(api): State<Api>, Params(id): Params<String>) -> Result<StatusCode, Failure> {
    let id = object_id("cluster", id)?;
    let planner = api.controller.clone();
    let plan =
        move |state: &_| cluster::delete(state, planner.context(), id).map_err(Failure::from);
    api.controller.transact(plan).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_leases(
    State(api): State<Api>,
    Params(id): Params<String>,
) -> Result<Json<Value>, Failure> {
    let id = object_id("cluster", id)?;
    let state = api.controller.snapshot();
    find(&state, id)?;
    let now = OffsetDateTime::now_utc();
    let leases = state.occupied(id).flat_map(|(tag, occupants)| {
        occupants.iter().filter_map(move |on| {
            let (state, port_id, vm_uuid, until) = match on.who {
                Who::Port(port) => ("leased", Some(port), None, None),
                Who::Vnic(vm, port) => ("seen", port, Some(vm), None),
                Who::Quarantine(_, until) if until <= now => return None,
                Who::Quarantine(port, until) => ("quarantined", Some(port), None, Some(until)),
            };
            Some(Lease {
                segmentation_id: tag,
                host: on.host.to_string(),
                state,
                port_id,
                vm_uuid,
                until,
            })
        })
    });
    Ok(Json(json!({"leases": leases.collect::<Vec<_>>()})))
}
