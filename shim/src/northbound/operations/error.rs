//! Errors of the operators' API.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::auth::digest::Refused;
use crate::controller::TransactError;
use crate::inspect::InspectError;
use crate::intent::IntentError;
use crate::northbound::extract::BodyError;
use crate::store::StoreError;

/// All error codes.
pub const CODES: [&str; 9] = [
    "malformed",
    "invalid",
    "unauthorized",
    "not_found",
    "method_not_allowed",
    "conflict",
    "body",
    "unavailable",
    "internal",
];

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<String>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            status,
            code,
            message: message.into(),
            field: None,
        }
    }

    fn of_field(mut self, field: impl Into<String>) -> Failure {
        self.field = Some(field.into());
        self
    }

    /// 400 for a body that is no JSON.
    pub fn malformed(reason: &dyn std::fmt::Display) -> Failure {
        let message = format!("malformed body: {reason}");
        Failure::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// 401, or 400 for an `Authorization` header that cannot be read.
    pub fn refused(refused: &Refused) -> Failure {
        let code = match refused.status {
            StatusCode::UNAUTHORIZED => "unauthorized",
            _ => "malformed",
        };
        Failure::new(refused.status, code, &refused.reason)
    }

    /// 404 for an object.
    pub fn not_found(kind: &str, id: &str) -> Failure {
        let message = format!("there is no {kind} {id}");
        Failure::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 404 for a path.
    pub fn no_such_path() -> Failure {
        Failure::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such path; GET /v1/openapi.json lists all",
        )
    }

    /// 405.
    pub fn method_not_allowed() -> Failure {
        Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "the path does not have this method; GET /v1/openapi.json lists all",
        )
    }
}

impl Failure {
    /// The same as problem details (RFC 9457).
    pub fn into_problem(self) -> Response {
        let mut problem = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.message,
            "code": self.code,
        });
        if let Some(field) = self.field {
            problem["field"] = json!(field);
        }
        let kind = [(CONTENT_TYPE, "application/problem+json")];
        (self.status, kind, problem.to_string()).into_response()
    }

    /// 400 for a value that cannot be.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "invalid", reason).of_field(field)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(field) = self.field {
            error["field"] = json!(field);
        }
        (self.status, Json(json!({"error": error}))).into_response()
    }
}

impl From<IntentError> for Failure {
    fn from(error: IntentError) -> Failure {
        let message = error.to_string();
        match error {
            IntentError::NotFound { kind, id } => Failure::not_found(kind, &id.to_string()),
            IntentError::InvalidField { field, reason } => {
                Failure::new(StatusCode::BAD_REQUEST, "invalid", reason).of_field(field)
            }
            IntentError::Taken { field, .. } => {
                Failure::new(StatusCode::CONFLICT, "conflict", message).of_field(field)
            }
            IntentError::TagsMeet { .. } => {
                Failure::new(StatusCode::CONFLICT, "conflict", message).of_field("hosts")
            }
            _ => Failure::new(StatusCode::BAD_REQUEST, "invalid", message),
        }
    }
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Failure {
        let message = error.to_string();
        match error {
            InspectError::NoNve(id) => Failure::not_found("NVE", &id.to_string()),
            InspectError::Invalid { field, reason } => {
                Failure::new(StatusCode::BAD_REQUEST, "invalid", reason).of_field(field)
            }
            InspectError::Conflict(_) => Failure::new(StatusCode::CONFLICT, "conflict", message),
            InspectError::Unavailable(_) => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
            }
        }
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "invalid", rejection.body_text())
    }
}

impl From<TransactError> for Failure {
    fn from(error: TransactError) -> Failure {
        match error {
            TransactError::Refused(refusal) => refusal.into(),
            TransactError::Store(StoreError::InDoubt(_)) => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the change could not be stored, and whether it was made is not known before \
                 the store can be opened again; the shim's log says why",
            ),
            TransactError::Store(_) => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the change could not be stored and was not made; the shim's log says why",
            ),
            error @ TransactError::Interrupted => Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                error.to_string(),
            ),
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Failure {
        Failure::new(error.status(), "body", error.to_string())
    }
}

impl From<serde_path_to_error::Error<serde_json::Error>> for Failure {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Failure {
        let field = error.path().to_string();
        let failure = Failure::malformed(error.inner());
        // The whole body, or a place without a name.
        if matches!(field.as_str(), "." | "?") {
            return failure;
        }
        failure.of_field(field)
    }
}
