//! Plans changes of security groups.
//!
//! Every project has a default group from its first need on: its ports that name
//! none are members. Semantics are those of Neutron's extension `security-group`.

use serde::Deserialize;
use uuid::Uuid;

use super::{CommonChange, Context, IntentError, NewCommon, Plan, SecurityError, State, set};
use crate::model::{Direction, Ethertype, Mutation, SecurityGroup, SecurityGroupRule};

/// Name of every default group.
const DEFAULT: &str = "default";

/// A security group to be created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewGroup {
    /// Identity.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Whether answers to what is allowed are allowed.
    pub stateful: bool,
}

/// A change of a security group; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct GroupChange {
    /// Identity.
    #[serde(flatten)]
    pub common: CommonChange,
    /// Whether answers to what is allowed are allowed.
    pub stateful: Option<bool>,
}

/// Plans a new security group, from which everything may be sent.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewGroup,
) -> Result<Plan<SecurityGroup>, IntentError> {
    if is_default_name(&request.common.name) {
        return Err(SecurityError::DefaultExists.into());
    }
    let (_, mut mutations) = default_of(state, context, &request.common.project_id);
    let group = SecurityGroup {
        common: request.common.create(context.now),
        stateful: request.stateful,
        is_default: false,
    };
    mutations.push(Mutation::PutSecurityGroup(group.clone()));
    mutations.extend(initial_rules(context, &group));
    Ok(Plan {
        mutations,
        result: group,
    })
}

/// Plans a change of a security group.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: GroupChange,
) -> Result<Plan<SecurityGroup>, IntentError> {
    let old = find(state, id)?;
    let mut group = old.clone();
    if let Some(name) = &change.common.name
        && *name != old.common.name
    {
        if old.is_default {
            return Err(SecurityError::DefaultRenamed.into());
        }
        if is_default_name(name) {
            return Err(SecurityError::DefaultExists.into());
        }
    }
    set(&mut group.stateful, change.stateful);
    if group.stateful != old.stateful && state.ports_of_group(id).next().is_some() {
        return Err(SecurityError::GroupInUse(id).into());
    }
    change.common.apply(&mut group.common, context.now);
    Ok(Plan::one(Mutation::PutSecurityGroup(group.clone()), group))
}

/// Plans the end of a security group; its rules, and rules about it, go with it.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    let group = find(state, id)?;
    if state.ports_of_group(id).next().is_some() {
        return Err(SecurityError::GroupInUse(id).into());
    }
    if group.is_default {
        return Err(SecurityError::DefaultRemoved.into());
    }
    let of_another = |rule: &&SecurityGroupRule| rule.security_group_id != id;
    let rules = state
        .rules_of(id)
        .chain(state.rules_about(id).filter(of_another));
    let mut mutations: Vec<Mutation> = rules
        .map(|rule| Mutation::DeleteSecurityGroupRule(rule.common.id))
        .collect();
    mutations.push(Mutation::DeleteSecurityGroup(id));
    Ok(Plan {
        mutations,
        result: (),
    })
}

/// The security group, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&SecurityGroup, IntentError> {
    state
        .security_group(id)
        .ok_or(IntentError::not_found("SecurityGroup", id))
}

/// The default group of a project, and what makes it if there is none yet.
pub(super) fn default_of(
    state: &State,
    context: Context<'_>,
    project: &str,
) -> (Uuid, Vec<Mutation>) {
    if let Some(group) = state.default_group(project) {
        return (group.common.id, Vec::new());
    }
    let common = NewCommon {
        name: DEFAULT.to_owned(),
        description: "Default security group".to_owned(),
        project_id: project.to_owned(),
    };
    let group = SecurityGroup {
        common: common.create(context.now),
        stateful: true,
        is_default: true,
    };
    let id = group.common.id;
    let rules = initial_rules(context, &group);
    let mutations = std::iter::once(Mutation::PutSecurityGroup(group)).chain(rules);
    (id, mutations.collect())
}

/// The groups that a port is to be a member of, ascending and each once.
pub(super) fn members_of(state: &State, groups: Vec<Uuid>) -> Result<Vec<Uuid>, IntentError> {
    let mut groups = groups;
    groups.sort_unstable();
    groups.dedup();
    let mut stateful = None;
    for id in &groups {
        let group = find(state, *id)?;
        if *stateful.get_or_insert(group.stateful) != group.stateful {
            return Err(SecurityError::MixedStatefulness.into());
        }
    }
    Ok(groups)
}

fn is_default_name(name: &str) -> bool {
    name.eq_ignore_ascii_case(DEFAULT)
}

/// Everything may be sent; what other members of a default group send may come in.
fn initial_rules(context: Context<'_>, group: &SecurityGroup) -> Vec<Mutation> {
    let id = group.common.id;
    let mut ways = vec![(Direction::Egress, None)];
    if group.is_default {
        ways.push((Direction::Ingress, Some(id)));
    }
    let rule = |(direction, remote_group_id), ethertype| {
        let common = NewCommon {
            project_id: group.common.project_id.clone(),
            ..NewCommon::default()
        };
        Mutation::PutSecurityGroupRule(SecurityGroupRule {
            common: common.create(context.now),
            security_group_id: id,
            direction,
            ethertype,
            protocol: None,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id,
            remote_address_group_id: None,
        })
    };
    ways.into_iter()
        .flat_map(|way| [Ethertype::Ipv4, Ethertype::Ipv6].map(|version| rule(way, version)))
        .collect()
}
