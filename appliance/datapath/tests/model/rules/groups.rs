//! Security groups, of those that keep no state: what a VAP with port security may
//! send and get.

use std::net::IpAddr;

use nve_protocol::*;

use super::Model;
use crate::packet::{Frame, Ip, Transport};

impl Model {
    /// Whether a VAP's groups let a frame pass.
    pub(super) fn admit(
        &self,
        vap: &Vap,
        direction: Direction,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        let Some(ip) = frame.ip().filter(|_| vap.port_security) else {
            return Ok(());
        };
        // Fragments follow their first one; none that comes later has the identifier
        // of a first one here.
        if ip.is_later_fragment() {
            return Err(DropReason::Fragment);
        }
        if is_discovery(ip) || is_for_dhcp_client(ip, direction) {
            return Ok(());
        }
        let remote = match direction {
            Direction::Egress => ip.destination,
            Direction::Ingress => ip.source,
        };
        let allows = |rule: &Rule| {
            let of_vap = self.has(Key::Binding {
                vlan: vap.vlan,
                group: rule.group,
            });
            let family = if ip.is_v4() {
                Family::Ipv4
            } else {
                Family::Ipv6
            };
            of_vap
                && self.has(Key::Group { group: rule.group })
                && (rule.direction, rule.family) == (direction, family)
                && rule.protocol.is_none_or(|number| number == ip.protocol())
                && (rule.low..=rule.high).contains(&service(ip))
                && self.is_remote(rule.remote, remote)
        };
        let allowed = self.records().any(|record| match record {
            Record::Rule(rule) => allows(rule),
            _ => false,
        });
        allowed.then_some(()).ok_or(DropReason::SecurityGroup)
    }

    fn has(&self, key: Key) -> bool {
        self.records.contains_key(&key)
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

/// What rules compare with their ports: the destination port, or type and code.
fn service(ip: &Ip) -> u16 {
    match ip.transport {
        Transport::Tcp { destination, .. } | Transport::Ports { destination, .. } => destination,
        Transport::Icmp { kind, code, .. } => u16::from(kind) << 8 | u16::from(code),
        Transport::Neighbor { advertisement, .. } => 256 * if advertisement { 136 } else { 135 },
        Transport::Other(_) => 0,
    }
}

/// Neighbor and multicast listener discovery, which is never routed.
fn is_discovery(ip: &Ip) -> bool {
    match ip.transport {
        Transport::Neighbor { .. } => ip.hop_limit == 255,
        Transport::Icmp { kind, code: 0, .. } if !ip.is_v4() => {
            matches!(kind, 130..=132 | 143) && ip.hop_limit == 1
        }
        _ => false,
    }
}

/// What a DHCP server tells a VM; what a VM asks it is answered before.
fn is_for_dhcp_client(ip: &Ip, direction: Direction) -> bool {
    let ports = if ip.is_v4() { (67, 68) } else { (547, 546) };
    matches!(ip.transport, Transport::Ports { protocol: 17, source, destination }
        if (source, destination) == ports)
        && direction == Direction::Ingress
        && ip.fragment.is_none()
}
