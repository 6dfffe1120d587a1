//! Security groups: which of a VAP's rules allow something.

use std::net::IpAddr;

use nve_protocol::*;

use super::Model;
use crate::packet::Ip;

/// What rules are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) vlan: Vlan,
    pub(super) direction: Direction,
    pub(super) remote: IpAddr,
    pub(super) protocol: u8,
    pub(super) service: u16,
}

impl Question {
    /// About a packet that passes a VAP.
    pub(super) fn of(vlan: Vlan, direction: Direction, ip: &Ip) -> Question {
        Question {
            vlan,
            direction,
            remote: match direction {
                Direction::Egress => ip.destination,
                Direction::Ingress => ip.source,
            },
            protocol: ip.protocol(),
            service: service(ip),
        }
    }
}

/// What rules compare with their ports: the destination port, or type and code.
pub(super) fn service(ip: &Ip) -> u16 {
    let kind = ip
        .icmp()
        .map(|(kind, code)| 256 * u16::from(kind) + u16::from(code));
    let port = ip.ports().map(|(_, destination)| destination);
    kind.or(port).unwrap_or(0)
}

impl Model {
    /// Whether a rule of a stateful group allows it, or one of another group.
    pub(super) fn is_allowed(&self, question: &Question, stateful: bool) -> bool {
        let family = match question.remote {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        };
        let allows = |rule: &Rule| {
            (rule.direction, rule.family) == (question.direction, family)
                && self.is_in(question.vlan, rule.group, stateful)
                && rule.protocol.is_none_or(|number| {
                    number == question.protocol
                        && (rule.low..=rule.high).contains(&question.service)
                })
                && self.is_remote(rule.remote, question.remote)
        };
        self.records().any(|record| match record {
            Record::Rule(rule) => allows(rule),
            _ => false,
        })
    }

    /// Whether the VAP is in the group, and that is a group of this kind.
    fn is_in(&self, vlan: Vlan, group: GroupId, stateful: bool) -> bool {
        let bound = self.records.contains_key(&Key::Binding { vlan, group });
        let known = self.records.get(&Key::Group { group });
        bound && known == Some(&Record::Group(Group { group, stateful }))
    }

    fn is_remote(&self, remote: Remote, ip: IpAddr) -> bool {
        match remote {
            Remote::Any => true,
            Remote::Prefix(prefix) => prefix.contains(ip),
            Remote::Group(group) => self.records().any(|record| match record {
                Record::Member(member) => member.group == group && member.prefix.contains(ip),
                _ => false,
            }),
        }
    }
}
