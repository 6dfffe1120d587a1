//! Serves a kind of resource: list, create, show, update, delete.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Post, for_create, for_update};
use super::document::{Document, Given};
use super::error::ApiError;
use super::query::Query;
use super::resource::{Changeable, Resource, View, a, show, table};
use super::tags;
use crate::intent::{self, IntentError, Plan};
use crate::northbound::Api;
use crate::northbound::extract::{Params, base_url};
use crate::northbound::routes::{Operation, Routes, Verb};

/// All routes of a kind of resource.
pub fn routes<R: Changeable>(routes: Routes) -> Routes {
    let about = about::<R>("Change")
        .body(wrapped::<R>("Changed"))
        .answer(200, wrapped::<R>(""))
        .errors(&[400, 404, 409, 412]);
    let one = format!("/v2.0/{}/{{id}}", R::PATH);
    fixed_routes::<R>(routes).add(Verb::Put, &one, about, update::<R>)
}

/// All routes of a kind of resource that cannot change.
pub fn fixed_routes<R: Resource>(routes: Routes) -> Routes {
    let (all, one) = (
        format!("/v2.0/{}", R::PATH),
        format!("/v2.0/{}/{{id}}", R::PATH),
    );
    let many = |of: &str| {
        json!({"type": "object", "properties":
            {(R::COLLECTION): {"type": "array", "items": reference::<R>(of)}}})
    };
    let summary = format!("List {}", R::COLLECTION.replace('_', " "));
    let list_about = Operation::new(R::COLLECTION, summary)
        .query("fields", "Attribute to show; may be repeated.")
        .query("limit", "Most items of a page.")
        .query("marker", "Id of the last item of the page before.")
        .query("page_reverse", "True for the page before the marker.")
        .query("sort_key", "Attribute to sort by; may be repeated.")
        .query("sort_dir", "asc or desc, one per sort_key.")
        .answer(200, many(""));
    let either = |of: &str| json!({"anyOf": [wrapped::<R>(of), many(of)]});
    let routes = routes
        .add(Verb::Get, &all, list_about.errors(&[400, 404]), list::<R>)
        .add(
            Verb::Post,
            &all,
            about::<R>("Create")
                .body(either("New"))
                .answer(201, either(""))
                .errors(&[400, 404, 409]),
            create::<R>,
        )
        .add(
            Verb::Get,
            &one,
            about::<R>("Show")
                .answer(200, wrapped::<R>(""))
                .errors(&[404]),
            show_one::<R>,
        )
        .add(
            Verb::Delete,
            &one,
            about::<R>("Delete").errors(&[404, 409, 412]),
            delete::<R>,
        );
    tags::routes::<R>(routes)
}

fn about<R: Resource>(what: &str) -> Operation {
    Operation::new(R::COLLECTION, format!("{what} {}", a(R::MEMBER)))
}

fn reference<R: Resource>(of: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{of}{}", R::KIND)})
}

fn wrapped<R: Resource>(of: &str) -> Value {
    json!({"type": "object", "properties": {(R::MEMBER): reference::<R>(of)},
        "required": [R::MEMBER]})
}

/// JSON schemas of a kind of resource, by name: as shown, as created, as changed.
pub fn schemas<R: Changeable>() -> Vec<(String, Value)> {
    let changed = schema(&table::<R>(), |a| a.put, |_| false);
    let mut schemas = fixed_schemas::<R>();
    schemas.push((format!("Changed{}", R::KIND), changed));
    schemas
}

/// JSON schemas of a kind of resource that cannot change: as shown, as created.
pub fn fixed_schemas<R: Resource>() -> Vec<(String, Value)> {
    let table = table::<R>();
    let is_given = |a: &Attribute| !matches!(a.post, Post::Refused);
    let is_required = |a: &Attribute| matches!(a.post, Post::Required);
    vec![
        (R::KIND.to_owned(), schema(&table, |_| true, |_| false)),
        (
            format!("New{}", R::KIND),
            schema(&table, is_given, is_required),
        ),
    ]
}

/// JSON schema of an object with some of the attributes.
pub fn schema(
    table: &[&'static Attribute],
    take: impl Fn(&Attribute) -> bool,
    required: impl Fn(&Attribute) -> bool,
) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for attribute in table.iter().filter(|a| take(a)) {
        let mut schema = attribute.kind.schema();
        schema["description"] = json!(attribute.doc);
        properties.insert(attribute.name.to_owned(), schema);
        if required(attribute) {
            needed.push(attribute.name);
        }
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    schema
}

async fn list<R: Resource>(
    State(api): State<Api>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::parse::<R>(query.as_deref().unwrap_or_default())?;
    let base = base_url(&headers);
    // A long list takes long to write: not on a thread that serves others.
    let write = move || list_body::<R>(&api, &query, &base);
    let body = tokio::task::spawn_blocking(write)
        .await
        .map_err(|error| ApiError::internal(&error))??;
    Ok(([(CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}

fn list_body<R: Resource>(api: &Api, query: &Query, base: &str) -> Result<Vec<u8>, ApiError> {
    let state = api.controller.snapshot();
    let view = View {
        state: &state,
        ports: &*api.ports,
    };
    let page = query.run(R::all(&state), view)?;
    let mut links = Vec::new();
    for (rel, query) in [("next", &page.next), ("previous", &page.previous)] {
        if let Some(query) = query {
            let href = format!("{base}/v2.0/{}?{query}", R::PATH);
            links.push(json!({"rel": rel, "href": href}));
        }
    }
    let items: Vec<Value> = page
        .items
        .into_iter()
        .map(|item| show(item, &query.fields, view))
        .collect();
    let mut body = Map::from_iter([(R::COLLECTION.to_owned(), Value::Array(items))]);
    if !links.is_empty() {
        body.insert(format!("{}_links", R::COLLECTION), Value::Array(links));
    }
    serde_json::to_vec(&body).map_err(|error| ApiError::internal(&error))
}

async fn create<R: Resource>(
    State(api): State<Api>,
    document: Document,
) -> Result<Response, ApiError> {
    let (requests, is_bulk) = match document.given::<R>()? {
        Given::One(attributes) => (vec![new_request::<R>(attributes)?], false),
        Given::Many(all) => {
            let requests = all.into_iter().map(new_request::<R>);
            (requests.collect::<Result<_, _>>()?, true)
        }
    };
    let controller = api.controller.clone();
    let made: Vec<R> = api
        .controller
        .transact(move |state| {
            intent::plan_each(state, requests, |state, request| {
                R::create(state, controller.context(), request)
            })
            .map_err(ApiError::from)
        })
        .await?;
    let mut shown: Vec<Value> = made.iter().map(|one| shown(&api, one)).collect();
    let body = match shown.pop() {
        Some(only) if !is_bulk => json!({(R::MEMBER): only}),
        last => {
            shown.extend(last);
            json!({(R::COLLECTION): shown})
        }
    };
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

async fn show_one<R: Resource>(
    State(api): State<Api>,
    Params(id): Params<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let id = resource_id::<R>(id)?;
    let query = Query::parse::<R>(query.as_deref().unwrap_or_default())?;
    let state = api.controller.snapshot();
    let resource = R::find(&state, id).ok_or_else(|| IntentError::not_found(R::KIND, id))?;
    let view = View {
        state: &state,
        ports: &*api.ports,
    };
    let body = json!({(R::MEMBER): show(resource, &query.fields, view)});
    Ok(axum::Json(body).into_response())
}

async fn update<R: Changeable>(
    State(api): State<Api>,
    Params(id): Params<String>,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let id = resource_id::<R>(id)?;
    let expected = expected_revision(&headers)?;
    let change = for_update(&table::<R>(), document.one(R::MEMBER)?)?;
    let change: R::Change = typed(change)?;
    let controller = api.controller.clone();
    let changed: R = api
        .controller
        .transact(move |state| {
            let old = check_revision::<R>(state, id, expected)?;
            let plan = R::update(state, controller.context(), id, change)?;
            Ok::<_, ApiError>(unless_same(old, plan))
        })
        .await?;
    Ok(axum::Json(json!({(R::MEMBER): shown(&api, &changed)})).into_response())
}

async fn delete<R: Resource>(
    State(api): State<Api>,
    Params(id): Params<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let id = resource_id::<R>(id)?;
    let expected = expected_revision(&headers)?;
    let controller = api.controller.clone();
    api.controller
        .transact(move |state| {
            check_revision::<R>(state, id, expected)?;
            R::delete(state, controller.context(), id).map_err(ApiError::from)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The id in a path; a text that is none names nothing.
pub fn resource_id<R: Resource>(text: Option<String>) -> Result<Uuid, ApiError> {
    let text = text.ok_or_else(ApiError::no_such_path)?;
    text.parse()
        .map_err(|_| ApiError::not_found(R::KIND, &text))
}

/// The resource as it is now.
pub fn shown<R: Resource>(api: &Api, resource: &R) -> Value {
    let state = api.controller.snapshot();
    let view = View {
        state: &state,
        ports: &*api.ports,
    };
    show(resource, &[], view)
}

fn new_request<R: Resource>(given: Map<String, Value>) -> Result<R::New, ApiError> {
    let mut attributes = for_create(&table::<R>(), given)?;
    if let Some(tenant) = attributes.remove("tenant_id") {
        let project = attributes
            .entry("project_id")
            .or_insert_with(|| tenant.clone());
        if *project != tenant {
            return Err(ApiError::bad_request(
                "'project_id' and 'tenant_id' do not match",
            ));
        }
    }
    typed(attributes)
}

/// The request that the planner takes. What the table lets pass the planner's types
/// take as well; a difference is a mistake of ours, told as what it looks like.
pub fn typed<T: DeserializeOwned>(attributes: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(attributes))
        .map_err(|error| ApiError::bad_request(format!("Invalid input: {error}.")))
}

/// The revision that the client wants to change (extension `revision-if-match`).
fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix("revision_number=")?.parse().ok())
        .map(Some)
        .ok_or_else(|| ApiError::bad_request("If-Match takes revision_number=N and nothing else"))
}

fn check_revision<R: Resource>(
    state: &intent::State,
    id: Uuid,
    expected: Option<u64>,
) -> Result<&R, IntentError> {
    let resource = R::find(state, id).ok_or(IntentError::not_found(R::KIND, id))?;
    let current = resource.common().revision_number;
    match expected.filter(|expected| *expected != current) {
        Some(expected) => Err(IntentError::RevisionMismatch { expected, current }),
        None => Ok(resource),
    }
}

/// Drops a change that changes nothing: it is no revision.
fn unless_same<R: Resource>(old: &R, plan: Plan<R>) -> Plan<R> {
    let mut new = plan.result.clone();
    new.common_mut().revision_number = old.common().revision_number;
    new.common_mut().updated_at = old.common().updated_at;
    if new != *old {
        return plan;
    }
    Plan {
        mutations: Vec::new(),
        result: new,
    }
}
