//! Bodies in and errors out, for the interfaces that are not Neutron's.
//!
//! Every error is answered as `{"error": "text that says what to do"}`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Failure {
    /// Its status.
    pub status: StatusCode,
    /// What is wrong, in words that help.
    pub reason: String,
}

impl Failure {
    /// 400.
    pub fn bad_request(reason: impl ToString) -> Self {
        Failure {
            status: StatusCode::BAD_REQUEST,
            reason: reason.to_string(),
        }
    }

    /// 404.
    pub fn not_found(reason: impl ToString) -> Self {
        Failure {
            status: StatusCode::NOT_FOUND,
            reason: reason.to_string(),
        }
    }

    /// 503.
    pub fn unavailable(reason: impl ToString) -> Self {
        Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: reason.to_string(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.reason }))).into_response()
    }
}

/// A JSON body. Whatever is wrong with it is answered with 400 and the place; the
/// content type is not asked for.
#[derive(Debug, Clone)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Failure {
                status: rejection.status(),
                reason: rejection.body_text(),
            })?;
        serde_json::from_slice(&bytes)
            .map(JsonBody)
            .map_err(|error| Failure::bad_request(format!("malformed body: {error}")))
    }
}
