//! The operators' API, `/v1`.
//!
//! One file per kind of object. Errors are
//! `{"error": {"code": …, "message": …, "field": …}}`.

mod alarms;
mod clusters;
mod controllers;
mod error;
mod events;
mod health;
mod inspect;
mod managers;
mod metrics;
mod nves;
mod placement;
mod vteps;

pub use error::Failure;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::extract::json_body;
use super::routes::Routes;

/// All routes of the API.
pub fn routes(routes: Routes) -> Routes {
    let routes = vteps::routes(inspect::routes(nves::routes(routes)));
    let routes = alarms::routes(clusters::routes(routes));
    let routes = events::routes(placement::routes(routes));
    let routes = controllers::routes(managers::routes(routes));
    metrics::routes(health::routes(routes))
}

/// JSON schemas of the API, by name.
pub fn schemas() -> Vec<(String, Value)> {
    let mut schemas = nves::schemas();
    schemas.extend(inspect::schemas());
    schemas.extend(vteps::schemas());
    schemas.extend(clusters::schemas());
    schemas.extend(alarms::schemas());
    schemas.extend(placement::schemas());
    schemas.extend(events::schemas());
    schemas.extend(controllers::schemas());
    schemas.extend(managers::schemas());
    let text = json!({"type": "string"});
    let error = json!({"type": "object", "properties": {
        "code": {"enum": error::CODES}, "message": text, "field": text,
    }, "required": ["code", "message"]});
    schemas.push((
        "Error".to_owned(),
        json!({"type": "object", "properties": {"error": error}, "required": ["error"]}),
    ));
    schemas
}

/// A query, with failures in this API's form.
type Asked<T> = Result<Query<T>, QueryRejection>;

/// A JSON body of that type.
struct JsonBody<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        read_json(request).await.map(JsonBody)
    }
}

/// Reads a JSON body of that type.
async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let bytes = json_body(request, &()).await?;
    let mut input = serde_json::Deserializer::from_slice(&bytes);
    let value = serde_path_to_error::deserialize(&mut input)?;
    input.end().map_err(|error| Failure::malformed(&error))?;
    Ok(value)
}

/// The id in a path; a text that is none names nothing.
fn object_id(kind: &str, text: Option<String>) -> Result<Uuid, Failure> {
    let text = text.ok_or_else(Failure::no_such_path)?;
    text.parse().map_err(|_| Failure::not_found(kind, &text))
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}
