//! Names of what NVEs know by identifiers, and rules in words.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use nve_protocol::inspect::{Tuple, Via};
use nve_protocol::{Limit, PortId, RouterId, RuleId, Vni};
use serde::Serialize;
use uuid::Uuid;

use crate::intent::{State, protocol};
use crate::model::{Direction, IpProtocol, SecurityGroupRule};

/// An object and its name, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its UUID.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.is_empty() {
            true => self.id.fmt(f),
            false => self.name.fmt(f),
        }
    }
}

/// A port and the VM that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortName {
    /// Identity.
    #[serde(flatten)]
    pub port: Named,
    /// The VM's name, if a VM has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vm {
            Some(vm) => write!(f, "{} (vm {vm})", self.port),
            None => self.port.fmt(f),
        }
    }
}

/// A security group rule in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// Its UUID.
    pub id: Uuid,
    /// Direction, ethertype, protocol, ports, remote; without the group.
    pub words: String,
    /// Its group; `None` if the rule is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Named>,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{} ({}, group {group})", self.id, self.words),
            None => write!(f, "{} ({})", self.id, self.words),
        }
    }
}

/// Finds names in one moment's intent.
#[derive(Debug)]
pub struct Names<'a> {
    state: &'a State,
    /// VMs by port, as hypervisor managers tell.
    vms: HashMap<Uuid, Uuid>,
}

impl<'a> Names<'a> {
    /// The names that `state` has.
    pub fn new(state: &'a State) -> Self {
        let vnics = state.vms().flat_map(|placed| {
            let vnics = placed.vm.vnic_list.iter();
            vnics.filter_map(|vnic| Some((vnic.port_id()?, placed.vm.vm_uuid)))
        });
        Names {
            state,
            vms: vnics.collect(),
        }
    }

    /// A port.
    pub fn port(&self, id: Uuid) -> PortName {
        let port = self.state.port(id);
        let owner = || self.state.vm(port?.device_id.parse().ok()?);
        let vm = self.vms.get(&id).and_then(|vm| self.state.vm(*vm));
        let vm = vm.or_else(owner).map(|placed| placed.vm.vm_name.clone());
        PortName {
            port: Named {
                id,
                name: port.map_or_else(String::new, |port| port.common.name.clone()),
            },
            vm: vm.filter(|name| !name.is_empty()),
        }
    }

    /// A port as NVEs know it.
    pub fn port_of(&self, id: PortId) -> PortName {
        self.port(Uuid::from_bytes(id.0))
    }

    /// A router.
    pub fn router(&self, id: RouterId) -> Named {
        let id = Uuid::from_bytes(id.0);
        let router = self.state.router(id);
        Named {
            id,
            name: router.map_or_else(String::new, |router| router.common.name.clone()),
        }
    }

    /// The network with that VNI.
    pub fn network(&self, vni: Vni) -> Option<Named> {
        let network = self.state.network_by_vni(vni)?;
        Some(Named {
            id: network.common.id,
            name: network.common.name.clone(),
        })
    }

    /// The network with that VNI, in words.
    pub fn network_words(&self, vni: Vni) -> String {
        match self.network(vni) {
            Some(network) => format!("network {network} (VNI {vni})"),
            None => format!("VNI {vni}, which no network has any more"),
        }
    }

    /// Who has a VTEP address, in words.
    pub fn vtep_words(&self, vtep: IpAddr) -> String {
        let nve = self.state.nves().find(|nve| nve.vtep == vtep);
        let other = || self.state.vteps().find(|other| other.address == vtep);
        match nve {
            Some(nve) => format!("VTEP {vtep} (NVE {})", nve.name),
            None => match other() {
                Some(other) => format!("VTEP {vtep} ({}, no NVE)", other.name),
                None => format!("VTEP {vtep}, which nobody has any more"),
            },
        }
    }

    /// Where a frame comes from or goes to, in words.
    pub fn via_words(&self, via: &Via) -> String {
        match via {
            Via::Vap(place) => {
                format!("port {}, VLAN {}", self.port_of(place.port), place.vlan)
            }
            Via::Tunnel(tunnel) => format!(
                "{}, {}",
                self.vtep_words(tunnel.vtep),
                self.network_words(tunnel.vni)
            ),
        }
    }

    /// A security group rule.
    pub fn rule(&self, id: RuleId) -> RuleName {
        let id = Uuid::from_bytes(id.0);
        match self.state.rule(id) {
            Some(rule) => RuleName {
                id,
                words: self.words(rule),
                group: Some(self.group(rule.security_group_id)),
            },
            None => RuleName {
                id,
                words: "a rule that is no more".to_owned(),
                group: None,
            },
        }
    }

    /// `", groups such and such"` of a port.
    pub fn groups_of(&self, port: PortId) -> String {
        let port = self.state.port(Uuid::from_bytes(port.0));
        let groups = port.map_or(&[][..], |port| &port.security_groups);
        let named = groups.iter().map(|group| self.group(*group).to_string());
        match named.collect::<Vec<_>>().as_slice() {
            [] if port.is_none() => String::new(),
            [] => ", which is in no group".to_owned(),
            [group] => format!(", group {group}"),
            groups => format!(", groups {}", groups.join(", ")),
        }
    }

    /// A security group.
    pub fn group(&self, id: Uuid) -> Named {
        let group = self.state.security_group(id);
        Named {
            id,
            name: group.map_or_else(String::new, |group| group.common.name.clone()),
        }
    }

    fn words(&self, rule: &SecurityGroupRule) -> String {
        let (direction, side) = match rule.direction {
            Direction::Ingress => ("ingress", "from"),
            Direction::Egress => ("egress", "to"),
        };
        let protocol = rule.protocol.as_ref();
        let mut text = format!("{direction} {} ", rule.ethertype);
        text.push_str(protocol.map_or("any", |protocol| &protocol.text));
        text.push_str(&range(rule, protocol));
        let remote = match (
            rule.remote_group_id,
            rule.remote_address_group_id,
            rule.remote_ip_prefix,
        ) {
            (Some(group), _, _) => format!("group {}", self.group(group)),
            (_, Some(id), _) => {
                let group = self.state.address_group(id);
                let name = group.map_or_else(String::new, |group| group.common.name.clone());
                format!("address group {}", Named { id, name })
            }
            (_, _, Some(prefix)) => prefix.to_string(),
            _ => "anyone".to_owned(),
        };
        format!("{text} {side} {remote}")
    }

    /// A limit in words, with its policy if a port has it.
    pub fn limit_words(&self, limit: &Limit, port: Option<PortId>) -> String {
        let mut parts = Vec::new();
        if limit.kbps > 0 {
            parts.push(format!("{} kbit/s", limit.kbps));
        }
        if limit.kbps > 0 && limit.burst_kbit > 0 {
            parts.push(format!("burst {} kbit", limit.burst_kbit));
        }
        if limit.pps > 0 {
            parts.push(format!("{} packets/s", limit.pps));
        }
        if limit.pps > 0 && limit.burst_packets > 0 {
            parts.push(format!("burst {} packets", limit.burst_packets));
        }
        let port = port.and_then(|id| self.state.port(Uuid::from_bytes(id.0)));
        let policy = port.and_then(|port| self.state.policy_in_force(port));
        let policy = policy.map(|policy| Named {
            id: policy.common.id,
            name: policy.common.name.clone(),
        });
        match policy {
            Some(policy) => format!("{} by QoS policy {policy}", parts.join(", ")),
            None => parts.join(", "),
        }
    }
}

fn range(rule: &SecurityGroupRule, of: Option<&IpProtocol>) -> String {
    let is_icmp = of.is_some_and(|of| matches!(of.number, protocol::ICMP | protocol::ICMPV6));
    match (is_icmp, rule.port_range_min, rule.port_range_max) {
        (_, None, _) => String::new(),
        (true, Some(kind), None) => format!(" type {kind}"),
        (true, Some(kind), Some(code)) => format!(" type {kind} code {code}"),
        (false, Some(min), Some(max)) if min != max => format!(" {min}-{max}"),
        (false, Some(min), _) => format!(" {min}"),
    }
}

/// Protocol, addresses and ports in words.
pub fn tuple_words(tuple: &Tuple) -> String {
    let name = protocol_name(tuple.protocol);
    let (source, destination) = (tuple.source, tuple.destination);
    match tuple.protocol {
        protocol::ICMP | protocol::ICMPV6 => format!(
            "{name} {source} > {destination}, type {} code {}",
            tuple.source_port, tuple.destination_port
        ),
        number if protocol::has_ports(number) => format!(
            "{name} {} > {}",
            std::net::SocketAddr::new(source, tuple.source_port),
            std::net::SocketAddr::new(destination, tuple.destination_port)
        ),
        _ => format!("{name} {source} > {destination}"),
    }
}

/// A protocol's usual name, or its number.
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        _ => format!("protocol {number}"),
    }
}
