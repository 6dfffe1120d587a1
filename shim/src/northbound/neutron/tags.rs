//! Tags of a resource (extension `standard-attr-tag`).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::collection::resource_id;
use super::document::Document;
use super::error::ApiError;
use super::resource::{MAX_TAG, MAX_TAGS, Resource, a};
use crate::intent::{IntentError, Plan, revise};
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

/// All routes of the tags of a kind of resource.
pub fn routes<R: Resource>(routes: Routes) -> Routes {
    R::TAG_PATHS.iter().fold(routes, below::<R>)
}

fn below<R: Resource>(routes: Routes, path: &&str) -> Routes {
    let all = format!("/v2.0/{path}/{{id}}/tags");
    let one = format!("/v2.0/{path}/{{id}}/tags/{{tag}}");
    let about = |what: &str| Operation::new(R::COLLECTION, format!("{what} of {}", a(R::MEMBER)));
    let tags = || {
        let item = json!({"type": "string", "maxLength": MAX_TAG});
        json!({"type": "object", "properties":
            {"tags": {"type": "array", "items": item, "maxItems": MAX_TAGS}}})
    };
    routes
        .add(
            Verb::Get,
            &all,
            about("List the tags").answer(200, tags()).errors(&[404]),
            list::<R>,
        )
        .add(
            Verb::Put,
            &all,
            about("Replace the tags")
                .body(tags())
                .answer(200, tags())
                .errors(&[400, 404]),
            replace::<R>,
        )
        .add(
            Verb::Delete,
            &all,
            about("Remove the tags").errors(&[404]),
            clear::<R>,
        )
        .add(
            Verb::Get,
            &one,
            about("Look for a tag").errors(&[404]),
            check::<R>,
        )
        .add(
            Verb::Put,
            &one,
            about("Add a tag").empty(201).errors(&[400, 404]),
            add::<R>,
        )
        .add(
            Verb::Delete,
            &one,
            about("Remove a tag").errors(&[404]),
            remove::<R>,
        )
}

async fn list<R: Resource>(
    State(api): State<Api>,
    Params(id): Params<String>,
) -> Result<Json<Value>, ApiError> {
    let tags = tags_of::<R>(&api, resource_id::<R>(id)?)?;
    Ok(Json(json!({"tags": tags})))
}

async fn check<R: Resource>(
    State(api): State<Api>,
    Params(path): Params<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (id, tag) = split::<R>(path)?;
    match tags_of::<R>(&api, id)?.contains(&tag) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(tag_not_found(&tag)),
    }
}

async fn replace<R: Resource>(
    State(api): State<Api>,
    Params(id): Params<String>,
    Document(mut body): Document,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<R>(id)?;
    let given = body.remove("tags").unwrap_or_default();
    let mut wanted: Vec<String> = serde_json::from_value(given).map_err(|_| {
        ApiError::bad_request("Invalid input for tags. Reason: not a list of texts.")
    })?;
    wanted.sort();
    wanted.dedup();
    let tags = change::<R>(&api, id, move |tags| {
        *tags = wanted;
        Ok(())
    })
    .await?;
    Ok(Json(json!({"tags": tags})))
}

async fn clear<R: Resource>(
    State(api): State<Api>,
    Params(id): Params<String>,
) -> Result<StatusCode, ApiError> {
    change::<R>(&api, resource_id::<R>(id)?, |tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add<R: Resource>(
    State(api): State<Api>,
    Params(path): Params<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (id, tag) = split::<R>(path)?;
    change::<R>(&api, id, move |tags| {
        if let Err(at) = tags.binary_search(&tag) {
            tags.insert(at, tag);
        }
        Ok(())
    })
    .await?;
    Ok(StatusCode::CREATED)
}

async fn remove<R: Resource>(
    State(api): State<Api>,
    Params(path): Params<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (id, tag) = split::<R>(path)?;
    change::<R>(&api, id, move |tags| {
        let at = tags.binary_search(&tag).map_err(|_| tag_not_found(&tag))?;
        tags.remove(at);
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn split<R: Resource>(path: Option<(String, String)>) -> Result<(Uuid, String), ApiError> {
    let (id, tag) = path.ok_or_else(ApiError::no_such_path)?;
    Ok((resource_id::<R>(Some(id))?, tag))
}

fn tag_not_found(tag: &str) -> ApiError {
    ApiError::http(
        StatusCode::NOT_FOUND,
        "TagNotFound",
        format!("Tag {tag} could not be found."),
    )
}

fn tags_of<R: Resource>(api: &Api, id: Uuid) -> Result<Vec<String>, ApiError> {
    let state = api.controller.snapshot();
    let resource = R::find(&state, id).ok_or(IntentError::not_found(R::KIND, id))?;
    Ok(resource.common().tags.clone())
}

/// Changes the tags, which are sorted and each there once.
async fn change<R: Resource>(
    api: &Api,
    id: Uuid,
    edit: impl FnOnce(&mut Vec<String>) -> Result<(), ApiError> + Send + 'static,
) -> Result<Vec<String>, ApiError> {
    let controller = api.controller.clone();
    api.controller
        .transact(move |state| {
            let old = R::find(state, id).ok_or(IntentError::not_found(R::KIND, id))?;
            let mut resource = old.clone();
            let common = resource.common_mut();
            edit(&mut common.tags)?;
            let tags = common.tags.clone();
            check_tags(&tags)?;
            if tags == old.common().tags {
                return Ok(Plan {
                    mutations: Vec::new(),
                    result: tags,
                });
            }
            revise(common, controller.context().now);
            Ok(Plan::one(resource.put(), tags))
        })
        .await
}

fn check_tags(tags: &[String]) -> Result<(), ApiError> {
    let fits = |tag: &String| {
        let length = tag.chars().count();
        (1..=MAX_TAG).contains(&length) && !tag.contains([',', '/'])
    };
    if tags.len() > MAX_TAGS || !tags.iter().all(fits) {
        return Err(ApiError::bad_request(format!(
            "Invalid input for tags. Reason: at most {MAX_TAGS} tags of 1 to {MAX_TAG} \
             characters without commas and slashes."
        )));
    }
    Ok(())
}
