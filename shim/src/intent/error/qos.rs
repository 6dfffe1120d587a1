//! Refusals about QoS policies.

use uuid::Uuid;

/// Why a request about QoS is refused. Each is an exception of Neutron.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QosError {
    /// The policy has no such rule.
    #[error("QoS rule {rule} for policy {policy} could not be found.")]
    RuleNotFound {
        /// The rule.
        rule: String,
        /// The policy; empty if any.
        policy: String,
    },
    /// The policy has a rule of that kind and direction.
    #[error(
        "Rule {kind} conflicts with rule {existing} which already exists in QoS Policy {policy}."
    )]
    RulesConflict {
        /// Kind of the rule asked for.
        kind: &'static str,
        /// The rule that is there.
        existing: Uuid,
        /// The policy.
        policy: Uuid,
    },
    /// A port or network has the policy.
    #[error("QoS Policy {policy} is used by {user} {id}.")]
    InUse {
        /// The policy.
        policy: Uuid,
        /// `port` or `network`.
        user: &'static str,
        /// Which one.
        id: Uuid,
    },
    /// The project has a default policy.
    #[error("A default QoS policy exists for project {0}.")]
    DefaultExists(String),
}
