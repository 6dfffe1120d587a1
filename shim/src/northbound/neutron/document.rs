//! Bodies of requests: `{"network": {…}}` or `{"networks": [{…}, …]}`.

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::resource::Resource;
use crate::northbound::extract::{BodyError, json_body};

/// A JSON object as a client sent it.
pub struct Document(pub Map<String, Value>);

/// The attributes in a creator's document.
pub enum Given {
    /// Of one resource.
    One(Map<String, Value>),
    /// Of several, all to be created or none.
    Many(Vec<Map<String, Value>>),
}

impl Document {
    /// The attributes of one resource or several.
    pub fn given<R: Resource>(mut self) -> Result<Given, ApiError> {
        let Some(many) = self.0.remove(R::COLLECTION) else {
            return self.one(R::MEMBER).map(Given::One);
        };
        let Value::Array(items) = many else {
            return Err(missing(R::COLLECTION));
        };
        if items.is_empty() {
            return Err(ApiError::bad_request("Resources required"));
        }
        items
            .into_iter()
            .map(|item| match item {
                Value::Object(attributes) => Ok(attributes),
                _ => Err(missing(R::MEMBER)),
            })
            .collect::<Result<_, _>>()
            .map(Given::Many)
    }

    /// The object under `name`.
    pub fn one(mut self, name: &str) -> Result<Map<String, Value>, ApiError> {
        match self.0.remove(name) {
            Some(Value::Object(attributes)) => Ok(attributes),
            _ => Err(missing(name)),
        }
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::bad_request(format!("Unable to find '{name}' in request body"))
}

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = json_body(request, state).await?;
        let malformed = |reason: &dyn std::fmt::Display| {
            ApiError::http(
                StatusCode::BAD_REQUEST,
                "MalformedRequestBody",
                format!("Malformed request body: {reason}."),
            )
        };
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Document(fields)),
            Ok(_) => Err(malformed(&"it is no JSON object")),
            Err(error) => Err(malformed(&error)),
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> ApiError {
        let kind = match error {
            BodyError::TooLarge => "HTTPRequestEntityTooLarge",
            BodyError::NotJson(_) => "HTTPUnsupportedMediaType",
            BodyError::Broken(_) => "MalformedRequestBody",
        };
        ApiError::http(error.status(), kind, error.to_string())
    }
}
