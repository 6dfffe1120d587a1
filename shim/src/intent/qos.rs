//! Plans changes of QoS policies and their rules.
//!
//! Semantics are those of Neutron's extensions `qos`, `qos-bw-limit-direction`,
//! `qos-pps` and `qos-default`.

use serde::Deserialize;
use uuid::Uuid;

use super::{CommonChange, Context, IntentError, NewCommon, Plan, QosError, State, revise, set};
use crate::model::{Mutation, QosAction, QosPolicy, QosRule};

/// A QoS policy to be created; rules are added to it later.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewPolicy {
    /// Identity.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Whether other projects may use it.
    pub shared: bool,
    /// Whether it is its project's policy for networks that name none.
    pub is_default: bool,
}

/// A change of a QoS policy; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PolicyChange {
    /// Identity.
    #[serde(flatten)]
    pub common: CommonChange,
    /// Whether other projects may use it.
    pub shared: Option<bool>,
    /// Whether it is its project's policy for networks that name none.
    pub is_default: Option<bool>,
}

/// Plans a new policy.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewPolicy,
) -> Result<Plan<QosPolicy>, IntentError> {
    let policy = QosPolicy {
        common: request.common.create(context.now),
        shared: request.shared,
        is_default: request.is_default,
        rules: Vec::new(),
    };
    check_default(state, &policy)?;
    Ok(Plan::one(Mutation::PutQosPolicy(policy.clone()), policy))
}

/// Plans a change of a policy.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: PolicyChange,
) -> Result<Plan<QosPolicy>, IntentError> {
    let mut policy = find(state, id)?.clone();
    set(&mut policy.shared, change.shared);
    set(&mut policy.is_default, change.is_default);
    check_default(state, &policy)?;
    change.common.apply(&mut policy.common, context.now);
    Ok(Plan::one(Mutation::PutQosPolicy(policy.clone()), policy))
}

/// Plans the end of a policy that nothing has.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    find(state, id)?;
    let network = state.networks_of_policy(id).next();
    let port = state.ports_of_policy(id).next();
    let user = network
        .map(|network| ("network", network.common.id))
        .or_else(|| Some(("port", port?.common.id)));
    match user {
        Some((user, holder)) => Err(QosError::InUse {
            policy: id,
            user,
            id: holder,
        }
        .into()),
        None => Ok(Plan::one(Mutation::DeleteQosPolicy(id), ())),
    }
}

/// The policy, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&QosPolicy, IntentError> {
    state
        .qos_policy(id)
        .ok_or(IntentError::not_found("QosPolicy", id))
}

/// The policy that a user wants, if there is one like that.
pub(super) fn existing(state: &State, id: Option<Uuid>) -> Result<Option<Uuid>, IntentError> {
    id.map(|id| find(state, id).map(|_| id)).transpose()
}

/// The policy of a project's networks that name none.
pub(super) fn default_of(state: &State, project: &str) -> Option<Uuid> {
    state
        .qos_policies()
        .find(|policy| policy.is_default && policy.common.project_id == project)
        .map(|policy| policy.common.id)
}

fn check_default(state: &State, policy: &QosPolicy) -> Result<(), IntentError> {
    let project = &policy.common.project_id;
    match default_of(state, project) {
        Some(id) if policy.is_default && id != policy.common.id => {
            Err(QosError::DefaultExists(project.clone()).into())
        }
        _ => Ok(()),
    }
}

/// Plans a new rule of a policy.
pub fn add_rule(
    state: &State,
    context: Context<'_>,
    policy: Uuid,
    action: QosAction,
) -> Result<Plan<QosRule>, IntentError> {
    let rule = QosRule {
        id: Uuid::new_v4(),
        action,
    };
    put_rule(state, context, policy, rule)
}

/// Plans that a rule of the same kind does this instead.
pub fn change_rule(
    state: &State,
    context: Context<'_>,
    policy: Uuid,
    rule: QosRule,
) -> Result<Plan<QosRule>, IntentError> {
    let old = find_rule(state, policy, rule.id)?;
    if *old == rule {
        return Ok(Plan {
            mutations: Vec::new(),
            result: rule,
        });
    }
    put_rule(state, context, policy, rule)
}

/// Plans the end of a rule.
pub fn remove_rule(
    state: &State,
    context: Context<'_>,
    policy: Uuid,
    rule: Uuid,
) -> Result<Plan<()>, IntentError> {
    find_rule(state, policy, rule)?;
    let mut policy = find(state, policy)?.clone();
    policy.rules.retain(|other| other.id != rule);
    revise(&mut policy.common, context.now);
    Ok(Plan::one(Mutation::PutQosPolicy(policy), ()))
}

/// The rule of the policy, or the refusal that names both.
pub fn find_rule(state: &State, policy: Uuid, rule: Uuid) -> Result<&QosRule, IntentError> {
    let missing = || QosError::RuleNotFound {
        rule: rule.to_string(),
        policy: policy.to_string(),
    };
    let found = find(state, policy)?.rules.iter().find(|r| r.id == rule);
    Ok(found.ok_or_else(missing)?)
}

/// The policy that has the rule.
pub fn policy_of_rule(state: &State, rule: Uuid) -> Result<&QosPolicy, IntentError> {
    let missing = || QosError::RuleNotFound {
        rule: rule.to_string(),
        policy: String::new(),
    };
    let mut policies = state.qos_policies();
    let found = policies.find(|policy| policy.rules.iter().any(|r| r.id == rule));
    Ok(found.ok_or_else(missing)?)
}

/// A policy has one rule of a kind and direction.
fn put_rule(
    state: &State,
    context: Context<'_>,
    policy: Uuid,
    rule: QosRule,
) -> Result<Plan<QosRule>, IntentError> {
    let mut policy = find(state, policy)?.clone();
    let same = |other: &&QosRule| other.id != rule.id && other.action.way() == rule.action.way();
    if let Some(other) = policy.rules.iter().find(same) {
        return Err(QosError::RulesConflict {
            kind: rule.action.kind(),
            existing: other.id,
            policy: policy.common.id,
        }
        .into());
    }
    match policy.rules.iter_mut().find(|other| other.id == rule.id) {
        Some(place) => *place = rule,
        None => policy.rules.push(rule),
    }
    revise(&mut policy.common, context.now);
    Ok(Plan::one(Mutation::PutQosPolicy(policy), rule))
}
