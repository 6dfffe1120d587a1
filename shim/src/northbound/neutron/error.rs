//! Errors as Neutron answers them:
//! `{"NeutronError": {"type": …, "message": …, "detail": ""}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::controller::TransactError;
use crate::intent::IntentError;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Name of Neutron's exception.
    pub kind: String,
    /// What is wrong, in words that help.
    pub message: String,
}

impl ApiError {
    /// An error that is HTTP's more than Neutron's.
    pub fn http(status: StatusCode, kind: &str, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            kind: kind.to_owned(),
            message: message.into(),
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::http(StatusCode::BAD_REQUEST, "HTTPBadRequest", message)
    }

    /// 404 for a resource of that kind (`Network`).
    pub fn not_found(kind: &str, id: &str) -> ApiError {
        ApiError::http(
            StatusCode::NOT_FOUND,
            &format!("{kind}NotFound"),
            format!("{kind} {id} could not be found."),
        )
    }

    /// 404 for a path.
    pub fn no_such_path() -> ApiError {
        ApiError::http(
            StatusCode::NOT_FOUND,
            "HTTPNotFound",
            "The resource could not be found.",
        )
    }

    /// 405.
    pub fn method_not_allowed() -> ApiError {
        ApiError::http(
            StatusCode::METHOD_NOT_ALLOWED,
            "HTTPMethodNotAllowed",
            "The method is not allowed for this resource.",
        )
    }

    /// 500, for what cannot happen; the cause is logged, not told.
    pub fn internal(cause: &dyn std::fmt::Display) -> ApiError {
        tracing::error!(%cause, "a request failed");
        ApiError::http(
            StatusCode::INTERNAL_SERVER_ERROR,
            "HTTPInternalServerError",
            "The shim failed on this request; its log says why.",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"NeutronError": {
            "type": self.kind, "message": self.message, "detail": "",
        }});
        (self.status, Json(body)).into_response()
    }
}

impl From<IntentError> for ApiError {
    fn from(error: IntentError) -> ApiError {
        let (status, kind) = neutron_name(&error);
        match error {
            IntentError::NotFound { kind, id } => ApiError::not_found(kind, &id.to_string()),
            error => ApiError::http(status, kind, error.to_string()),
        }
    }
}

impl From<TransactError> for ApiError {
    fn from(error: TransactError) -> ApiError {
        match error {
            TransactError::Refused(refusal) => refusal.into(),
            TransactError::Store(_) => ApiError::http(
                StatusCode::SERVICE_UNAVAILABLE,
                "HTTPServiceUnavailable",
                "The change could not be stored and was not made; the shim's log says why.",
            ),
            error @ TransactError::Interrupted => ApiError::internal(&error),
        }
    }
}

/// Status and exception name that Neutron has for a refusal.
const fn neutron_name(error: &IntentError) -> (StatusCode, &'static str) {
    use IntentError as E;
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    const CONFLICT: StatusCode = StatusCode::CONFLICT;
    match error {
        E::InvalidInput(_) | E::InvalidField { .. } | E::MtuTooBig { .. } => (BAD, "InvalidInput"),
        E::SubnetOverlap { .. } => (BAD, "InvalidInput"),
        E::InvalidPool(_) => (BAD, "InvalidAllocationPool"),
        E::PoolOutOfBounds { .. } => (BAD, "OutOfBoundsAllocationPool"),
        E::AddressNotOfSubnet(_) => (BAD, "InvalidIpForSubnet"),
        E::AddressNotOfNetwork(_) => (BAD, "InvalidIpForNetwork"),
        E::NotFound { .. } => (StatusCode::NOT_FOUND, "HTTPNotFound"),
        E::RevisionMismatch { .. } => (
            StatusCode::PRECONDITION_FAILED,
            "RevisionNumberConstraintFailed",
        ),
        E::NetworkInUse { .. } | E::NetworkOfVtep { .. } => (CONFLICT, "NetworkInUse"),
        E::SubnetInUse(_) => (CONFLICT, "SubnetInUse"),
        E::VniInUse(_) => (CONFLICT, "TunnelIdInUse"),
        E::NoVniLeft => (StatusCode::SERVICE_UNAVAILABLE, "NoNetworkAvailable"),
        E::PoolsOverlap { .. } => (CONFLICT, "OverlappingAllocationPools"),
        E::GatewayInPool { .. } => (CONFLICT, "GatewayConflictWithAllocationPools"),
        E::GatewayInUse { .. } => (CONFLICT, "GatewayIpInUse"),
        E::MacInUse { .. } => (CONFLICT, "MacAddressInUse"),
        E::MacGeneration(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "MacAddressGenerationFailure",
        ),
        E::PortBound { .. } => (CONFLICT, "PortBound"),
        E::AddressAllocated { .. } => (CONFLICT, "IpAddressAlreadyAllocated"),
        E::NoAddressLeft(_) => (CONFLICT, "IpAddressGenerationFailure"),
        E::TagInUse { .. } => (CONFLICT, "SegmentationIdInUse"),
        E::NoTagLeft(_) => (CONFLICT, "NoSegmentationIdAvailable"),
        E::Taken { .. } => (CONFLICT, "Conflict"),
    }
}
