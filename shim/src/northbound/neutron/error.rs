//! Errors as Neutron answers them:
//! `{"NeutronError": {"type": …, "message": …, "detail": ""}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::controller::TransactError;
use crate::intent::{IntentError, QosError, RouterError, SecurityError};
use crate::store::StoreError;

const BAD: StatusCode = StatusCode::BAD_REQUEST;
const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;
const CONFLICT: StatusCode = StatusCode::CONFLICT;

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
            format!("{} {id} {}.", words(kind), absence(kind)),
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

/// A kind of resource as Neutron's messages have it.
fn words(kind: &str) -> &str {
    match kind {
        "SecurityGroup" => "Security group",
        "SecurityGroupRule" => "Security group rule",
        "AddressGroup" => "Address group",
        "QosPolicy" => "QoS policy",
        other => other,
    }
}

/// How Neutron's messages say that it is not there.
fn absence(kind: &str) -> &'static str {
    match kind {
        "SecurityGroup" | "SecurityGroupRule" => "does not exist",
        _ => "could not be found",
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
            TransactError::Store(StoreError::InDoubt(_)) => ApiError::http(
                StatusCode::SERVICE_UNAVAILABLE,
                "HTTPServiceUnavailable",
                "The change could not be stored, and whether it was made is not known before \
                 the store can be opened again; the shim's log says why.",
            ),
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
    match error {
        E::InvalidInput(_) | E::InvalidField { .. } | E::MtuTooBig { .. } => (BAD, "InvalidInput"),
        E::SubnetOverlap { .. } => (BAD, "InvalidInput"),
        E::InvalidPool(_) => (BAD, "InvalidAllocationPool"),
        E::PoolOutOfBounds { .. } => (BAD, "OutOfBoundsAllocationPool"),
        E::AddressNotOfSubnet(_) => (BAD, "InvalidIpForSubnet"),
        E::AddressNotOfNetwork(_) => (BAD, "InvalidIpForNetwork"),
        E::NotFound { .. } => (NOT_FOUND, "HTTPNotFound"),
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
        E::TagInUse { .. } | E::TagsMeet { .. } => (CONFLICT, "SegmentationIdInUse"),
        E::TagReserved(_) => (BAD, "InvalidInput"),
        E::NoTagLeft { .. } => (CONFLICT, "NoSegmentationIdAvailable"),
        E::Taken { .. } => (CONFLICT, "Conflict"),
        E::AutomaticAddress { .. } => (BAD, "AllocationOnAutoAddressSubnet"),
        E::Security(error) => security_name(error),
        E::Router(error) => router_name(error),
        E::Qos(error) => qos_name(error),
    }
}

const fn security_name(error: &SecurityError) -> (StatusCode, &'static str) {
    use SecurityError as E;
    match error {
        E::InvalidProtocol(_) => (BAD, "SecurityGroupRuleInvalidProtocol"),
        E::InvalidEthertype(_) => (BAD, "SecurityGroupRuleInvalidEtherType"),
        E::ProtocolRequired => (BAD, "SecurityGroupProtocolRequiredWithPorts"),
        E::InvalidPort(_) => (BAD, "SecurityGroupInvalidPortValue"),
        E::InvalidRange => (BAD, "SecurityGroupInvalidPortRange"),
        E::NoPorts(_) => (BAD, "SecurityGroupInvalidProtocolForPort"),
        E::InvalidIcmp { .. } => (BAD, "SecurityGroupInvalidIcmpValue"),
        E::MissingIcmpType(_) => (BAD, "SecurityGroupMissingIcmpType"),
        E::EthertypeOfProtocol { .. } => (BAD, "SecurityGroupEthertypeConflictWithProtocol"),
        E::EthertypeOfPrefix { .. } => (BAD, "SecurityGroupRuleParameterConflict"),
        E::InvalidPrefix(_) => (BAD, "InvalidCIDR"),
        E::MultipleRemotes => (BAD, "SecurityGroupMultipleRemoteEntites"),
        E::RuleExists(_) => (CONFLICT, "SecurityGroupRuleExists"),
        E::GroupInUse(_) => (CONFLICT, "SecurityGroupInUse"),
        E::DefaultRemoved => (CONFLICT, "SecurityGroupCannotRemoveDefault"),
        E::DefaultRenamed => (CONFLICT, "SecurityGroupCannotUpdateDefault"),
        E::DefaultExists => (CONFLICT, "SecurityGroupDefaultAlreadyExists"),
        E::MixedStatefulness => (CONFLICT, "SecurityGroupConflict"),
        E::GroupsNeedPortSecurity => (BAD, "PortSecurityAndIPRequiredForSecurityGroups"),
        E::PortHasGroups => (CONFLICT, "PortSecurityPortHasSecurityGroup"),
        E::PairsNeedPortSecurity => (CONFLICT, "AddressPairAndPortSecurityRequired"),
        E::DuplicatePair { .. } => (BAD, "DuplicateAddressPairInRequest"),
        E::AddressGroupInUse(_) => (CONFLICT, "AddressGroupInUse"),
        E::AddressesExist { .. } => (BAD, "AddressesAlreadyExist"),
        E::AddressesNotFound { .. } => (NOT_FOUND, "AddressesNotFound"),
    }
}

const fn router_name(error: &RouterError) -> (StatusCode, &'static str) {
    use RouterError as E;
    match error {
        E::BadRequest(_) => (BAD, "BadRequest"),
        E::InUse { .. } => (CONFLICT, "RouterInUse"),
        E::NoInterface { .. } => (NOT_FOUND, "RouterInterfaceNotFound"),
        E::NoInterfaceOnSubnet { .. } => (NOT_FOUND, "RouterInterfaceNotFoundForSubnet"),
        E::SubnetMismatch { .. } => (BAD, "SubnetMismatchForPort"),
        E::InterfaceInUseByRoute { .. } => (CONFLICT, "RouterInterfaceInUseByRoute"),
        E::InvalidRoute { .. } => (BAD, "InvalidRoutes"),
        E::TooManyRoutes { .. } => (BAD, "RoutesExhausted"),
        E::PortInUse { .. } => (CONFLICT, "PortInUse"),
        E::InterfaceDeleted(_) => (CONFLICT, "ServicePortInUse"),
    }
}

const fn qos_name(error: &QosError) -> (StatusCode, &'static str) {
    use QosError as E;
    match error {
        E::RuleNotFound { .. } => (NOT_FOUND, "QosRuleNotFound"),
        E::RulesConflict { .. } => (CONFLICT, "QoSRulesConflict"),
        E::InUse { .. } => (CONFLICT, "QosPolicyInUse"),
        E::DefaultExists(_) => (CONFLICT, "QoSPolicyDefaultAlreadyExists"),
    }
}
