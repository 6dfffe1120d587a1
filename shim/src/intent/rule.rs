//! Plans changes of security group rules. A rule does not change: it is made and
//! goes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    Context, IntentError, NewCommon, Plan, SecurityError, State, address_group, group, protocol,
    revise,
};
use crate::model::{Direction, Ethertype, IpProtocol, Mutation, SecurityGroupRule};

/// A security group rule to be created, with values as the user gave them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewRule {
    /// Identity; the owner is the group's if absent.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Its group.
    pub security_group_id: Uuid,
    /// Which way.
    pub direction: Direction,
    /// `IPv4` or `IPv6`, in any case.
    pub ethertype: String,
    /// Name or number; any if absent.
    pub protocol: Option<String>,
    /// First port, or ICMP type.
    pub port_range_min: Option<i64>,
    /// Last port, or ICMP code.
    pub port_range_max: Option<i64>,
    /// Address or prefix of the other side.
    pub remote_ip_prefix: Option<String>,
    /// Group whose ports the other side is among.
    pub remote_group_id: Option<Uuid>,
    /// Address group that the other side is in.
    pub remote_address_group_id: Option<Uuid>,
}

/// First and last port, or ICMP type and code.
type Range = (Option<u16>, Option<u16>);

/// Plans a new rule, which is a change of its group.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewRule,
) -> Result<Plan<SecurityGroupRule>, IntentError> {
    let mut group = group::find(state, request.security_group_id)?.clone();
    let rule = checked(context, request, &group.common.project_id)?;
    if let Some(remote) = rule.remote_group_id {
        group::find(state, remote)?;
    }
    if let Some(remote) = rule.remote_address_group_id {
        address_group::find(state, remote)?;
    }
    let same = |other: &&SecurityGroupRule| meaning(other) == meaning(&rule);
    if let Some(other) = state.rules_of(group.common.id).find(same) {
        return Err(SecurityError::RuleExists(other.common.id).into());
    }
    revise(&mut group.common, context.now);
    Ok(Plan {
        mutations: vec![
            Mutation::PutSecurityGroup(group),
            Mutation::PutSecurityGroupRule(rule.clone()),
        ],
        result: rule,
    })
}

/// Plans the end of a rule, which is a change of its group.
pub fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
    let rule = state
        .rule(id)
        .ok_or(IntentError::not_found("SecurityGroupRule", id))?;
    let mut mutations = vec![Mutation::DeleteSecurityGroupRule(id)];
    if let Some(group) = state.security_group(rule.security_group_id) {
        let mut group = group.clone();
        revise(&mut group.common, context.now);
        mutations.push(Mutation::PutSecurityGroup(group));
    }
    Ok(Plan {
        mutations,
        result: (),
    })
}

/// The rule that is asked for, if it makes sense by itself.
fn checked(
    context: Context<'_>,
    request: NewRule,
    project: &str,
) -> Result<SecurityGroupRule, SecurityError> {
    let ethertype = ethertype(&request.ethertype)?;
    let protocol = match &request.protocol {
        Some(given) => protocol::parse(given, ethertype)?,
        None => None,
    };
    let range = (port(request.port_range_min)?, port(request.port_range_max)?);
    let (port_range_min, port_range_max) = checked_range(range, protocol.as_ref())?;
    let remote_ip_prefix = match request.remote_ip_prefix.as_deref() {
        None | Some("") => None,
        Some(text) => Some(prefix(text, ethertype)?),
    };
    let remotes = [
        remote_ip_prefix.is_some(),
        request.remote_group_id.is_some(),
        request.remote_address_group_id.is_some(),
    ];
    if remotes.into_iter().filter(|given| *given).count() > 1 {
        return Err(SecurityError::MultipleRemotes);
    }
    let mut common = request.common;
    if common.project_id.is_empty() {
        project.clone_into(&mut common.project_id);
    }
    Ok(SecurityGroupRule {
        common: common.create(context.now),
        security_group_id: request.security_group_id,
        direction: request.direction,
        ethertype,
        protocol,
        port_range_min,
        port_range_max,
        remote_ip_prefix,
        remote_group_id: request.remote_group_id,
        remote_address_group_id: request.remote_address_group_id,
    })
}

/// What two rules of a group must not both allow.
fn meaning(rule: &SecurityGroupRule) -> impl PartialEq + use<> {
    (
        (rule.direction, rule.ethertype),
        rule.protocol.as_ref().map(|protocol| protocol.number),
        (rule.port_range_min, rule.port_range_max),
        rule.remote_ip_prefix.filter(|cidr| cidr.prefix_len() > 0),
        (rule.remote_group_id, rule.remote_address_group_id),
    )
}

fn ethertype(given: &str) -> Result<Ethertype, SecurityError> {
    match given.to_ascii_lowercase().as_str() {
        "ipv4" => Ok(Ethertype::Ipv4),
        "ipv6" => Ok(Ethertype::Ipv6),
        _ => {
            let start = given.chars().take(40).collect();
            Err(SecurityError::InvalidEthertype(start))
        }
    }
}

fn port(given: Option<i64>) -> Result<Option<u16>, SecurityError> {
    let Some(number) = given else {
        return Ok(None);
    };
    let port = u16::try_from(number).map_err(|_| SecurityError::InvalidPort(number))?;
    Ok(Some(port))
}

/// The range, if the protocol has one like that; all ports are none in particular.
fn checked_range(range: Range, protocol: Option<&IpProtocol>) -> Result<Range, SecurityError> {
    if matches!(range, (None, None) | (Some(1), Some(u16::MAX))) {
        return Ok((None, None));
    }
    let number = protocol.ok_or(SecurityError::ProtocolRequired)?.number;
    match (number, range) {
        (protocol::ICMP | protocol::ICMPV6, (kind, code)) => {
            check_icmp("type", "port_range_min", kind)?;
            check_icmp("code", "port_range_max", code)?;
            match (kind, code) {
                (None, Some(code)) => Err(SecurityError::MissingIcmpType(code)),
                _ => Ok(range),
            }
        }
        (number, _) if !protocol::has_ports(number) => Err(SecurityError::NoPorts(number)),
        (_, (Some(0), _) | (_, Some(0))) => Err(SecurityError::InvalidPort(0)),
        (_, (Some(min), Some(max))) if min <= max => Ok(range),
        _ => Err(SecurityError::InvalidRange),
    }
}

fn check_icmp(
    field: &'static str,
    attribute: &'static str,
    value: Option<u16>,
) -> Result<(), SecurityError> {
    match value {
        Some(value @ 256..) => Err(SecurityError::InvalidIcmp {
            field,
            attribute,
            value,
        }),
        _ => Ok(()),
    }
}

/// A prefix of that IP version; an address is one of full length.
fn prefix(text: &str, ethertype: Ethertype) -> Result<IpNet, SecurityError> {
    let cidr = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| SecurityError::InvalidPrefix(text.chars().take(40).collect()))?;
    match ethertype.is(cidr.addr().is_ipv4()) {
        true => Ok(cidr.trunc()),
        false => Err(SecurityError::EthertypeOfPrefix { ethertype, cidr }),
    }
}
