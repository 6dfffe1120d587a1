//! What security groups, their rules and members, and address groups give.

use nve_protocol::{Direction, Family, Group, Member, Prefix, Record, Remote, Rule, RuleId};
use uuid::Uuid;

use super::Scope;
use super::source::{Fact, Gift, View, group_id, prefix};
use crate::model::{self, Port, SecurityGroupRule};

/// IP protocol numbers of ICMP and ICMPv6 (IANA).
const ICMP: [u8; 2] = [1, 58];

/// What the security group with that id gives.
pub(super) fn group(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    if let Some(group) = view.state.security_group(id) {
        let record = Group {
            group: group_id(id),
            stateful: group.stateful,
        };
        gift.add(Scope::Group(id), Record::Group(record));
    }
    gift
}

/// What the security group rule with that id gives.
pub(super) fn rule(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    let Some(rule) = view.state.rule(id) else {
        return gift;
    };
    let group = rule.security_group_id;
    let named = [rule.remote_group_id, rule.remote_address_group_id];
    gift.facts
        .extend(named.into_iter().flatten().map(|to| Fact::Names(group, to)));
    if let Some(record) = rule_record(rule) {
        gift.add(Scope::Group(group), Record::Rule(record));
    }
    gift
}

/// `None` if nothing can match it: its prefix is of the other IP version.
fn rule_record(rule: &SecurityGroupRule) -> Option<Rule> {
    let (low, high) = destination(rule);
    let family = match rule.ethertype {
        model::Ethertype::Ipv4 => Family::Ipv4,
        model::Ethertype::Ipv6 => Family::Ipv6,
    };
    Some(Rule {
        id: RuleId(rule.common.id.into_bytes()),
        group: group_id(rule.security_group_id),
        direction: match rule.direction {
            model::Direction::Ingress => Direction::Ingress,
            model::Direction::Egress => Direction::Egress,
        },
        family,
        protocol: rule.protocol.as_ref().map(|protocol| protocol.number),
        low,
        high,
        remote: remote(rule, family)?,
    })
}

/// Destination ports, or 256 * type + code: a type without a code is all its
/// codes, and nothing at all is everything.
fn destination(rule: &SecurityGroupRule) -> (u16, u16) {
    let is_icmp = rule
        .protocol
        .as_ref()
        .is_some_and(|protocol| ICMP.contains(&protocol.number));
    match (is_icmp, rule.port_range_min, rule.port_range_max) {
        (_, None, None) => (0, u16::MAX),
        (false, low, high) => (low.unwrap_or(0), high.or(low).unwrap_or(u16::MAX)),
        (true, kind, code) => {
            let first = kind.unwrap_or(0).saturating_mul(256);
            match code {
                Some(code) => (first.saturating_add(code), first.saturating_add(code)),
                None => (first, first.saturating_add(255)),
            }
        }
    }
}

fn remote(rule: &SecurityGroupRule, family: Family) -> Option<Remote> {
    let named = rule.remote_group_id.or(rule.remote_address_group_id);
    if let Some(group) = named {
        return Some(Remote::Group(group_id(group)));
    }
    let Some(net) = rule.remote_ip_prefix else {
        return Some(Remote::Any);
    };
    let prefix = prefix(net)?;
    match prefix.address().is_ipv4() == (family == Family::Ipv4) {
        true if prefix.length() == 0 => Some(Remote::Any),
        true => Some(Remote::Prefix(prefix)),
        false => None,
    }
}

/// What a port gives to the groups that it is in, wherever it is and whatever its
/// state: what Neutron takes for the remote addresses of such a group.
pub(super) fn membership(port: &Port, gift: &mut Gift) {
    let fixed = port.fixed_ips.iter().map(|ip| Prefix::host(ip.ip_address));
    let pairs = &port.allowed_address_pairs;
    let pairs = pairs.iter().filter_map(|pair| prefix(pair.ip_address));
    let addresses: Vec<Prefix> = fixed.chain(pairs).collect();
    for group in &port.security_groups {
        members(*group, addresses.iter().copied(), gift);
    }
}

/// What the address group with that id gives.
pub(super) fn address_group(view: View<'_>, id: Uuid) -> Gift {
    let mut gift = Gift::default();
    if let Some(group) = view.state.address_group(id) {
        let prefixes = group.addresses.iter().filter_map(|net| prefix(*net));
        members(id, prefixes, &mut gift);
    }
    gift
}

fn members(group: Uuid, prefixes: impl Iterator<Item = Prefix>, gift: &mut Gift) {
    let scope = Scope::Members(group);
    let group = group_id(group);
    for prefix in prefixes {
        gift.add(scope, Record::Member(Member { group, prefix }));
    }
}
