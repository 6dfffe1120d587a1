//! What handlers take from requests, with failures in the interface's own form.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::BODY_LIMIT;

/// Why a request's body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than [`BODY_LIMIT`].
    #[error("The request body has more than {BODY_LIMIT} bytes.")]
    TooLarge,
    /// It is declared to be something else than JSON.
    #[error("Unsupported content type {0:?}; send application/json.")]
    NotJson(String),
    /// It ended early.
    #[error("The request body could not be read: {0}.")]
    Broken(String),
}

impl BodyError {
    /// The HTTP status that says so.
    pub const fn status(&self) -> StatusCode {
        match self {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::NotJson(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads the body of a request that should have JSON.
pub async fn json_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, BodyError> {
    if let Some(value) = request.headers().get(CONTENT_TYPE) {
        let text = value.to_str().unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(BodyError::NotJson(essence.chars().take(80).collect()));
        }
    }
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                BodyError::TooLarge
            } else {
                BodyError::Broken(rejection.body_text())
            }
        })
}

/// Parameters of the path; `None` where they are no valid text.
pub struct Params<T>(pub Option<T>);

impl<S, T> FromRequestParts<S> for Params<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let found = Path::<T>::from_request_parts(parts, state).await;
        Ok(Params(found.ok().map(|Path(found)| found)))
    }
}

/// The URL of this server as the client knows it, without a slash at the end.
pub fn base_url(headers: &HeaderMap) -> String {
    let authority = headers
        .get(header::HOST)
        .and_then(|host| Authority::try_from(host.as_bytes()).ok());
    match authority {
        Some(authority) => format!("http://{authority}"),
        None => "http://localhost".to_owned(),
    }
}
