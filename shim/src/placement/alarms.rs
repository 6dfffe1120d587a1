//! What contradicts the VLAN leases: found in the state, named for operators.
//!
//! The shim gives no tag out twice on a host; but managers, and who configures their
//! port groups, may tell of one that has been.

use std::collections::{BTreeMap, BTreeSet};

use nve_protocol::Vlan;
use serde::Serialize;
use uuid::Uuid;

use crate::intent::{Occupants, State, Who};

/// Kinds of alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Several are on one tag of one host. Ports that are there do not forward; one
    /// port forwards if the others are no ports.
    TagCollision,
    /// A vNIC has a tag of which its port has no lease, or another port has one in the
    /// cluster.
    TagNotLeased,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 2] = [Kind::TagCollision, Kind::TagNotLeased];

    /// Name in the API and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::TagCollision => "tag_collision",
            Kind::TagNotLeased => "tag_not_leased",
        }
    }
}

/// Something that an operator has to put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Its kind.
    pub kind: Kind,
    /// Name of the host.
    pub host: String,
    /// Name of the host's cluster.
    pub cluster: String,
    /// The VLAN tag.
    pub segmentation_id: Vlan,
    /// The ports concerned, ascending.
    pub ports: BTreeSet<Uuid>,
    /// The VMs concerned, ascending.
    pub vms: BTreeSet<Uuid>,
    /// What is wrong, and what helps.
    pub message: String,
}

/// All alarms, by cluster and tag.
pub fn all(state: &State) -> Vec<Alarm> {
    let clusters = state.clusters().map(|cluster| cluster.id);
    let clusters: Vec<Uuid> = [Uuid::nil()].into_iter().chain(clusters).collect();
    let tags = clusters.iter().flat_map(|cluster| {
        let occupied = state.occupied(*cluster);
        occupied.map(|(tag, occupants)| on_tag(state, *cluster, tag, occupants))
    });
    tags.flatten().collect()
}

/// The alarms about one tag of one host.
pub fn on(state: &State, host: &str, tag: Vlan) -> Vec<Alarm> {
    let cluster = state.cluster_of(host);
    let mut alarms = on_tag(state, cluster, tag, &state.occupants(cluster, tag));
    alarms.retain(|alarm| alarm.host == host);
    alarms
}

fn on_tag(state: &State, cluster: Uuid, tag: Vlan, occupants: &Occupants) -> Vec<Alarm> {
    let mut hosts: BTreeMap<&str, Vec<Who>> = BTreeMap::new();
    for occupant in occupants {
        hosts.entry(&occupant.host).or_default().push(occupant.who);
    }
    let leases: Vec<(Uuid, &str)> = occupants
        .iter()
        .filter_map(|on| match on.who {
            Who::Port(port) => Some((port, &*on.host)),
            _ => None,
        })
        .collect();
    let hosts = hosts.into_iter().filter_map(|(host, here)| {
        let (kind, message) = match collision(&here) {
            Some(message) => (Kind::TagCollision, message),
            None => (
                Kind::TagNotLeased,
                misfit(state, host, tag, &here, &leases)?,
            ),
        };
        Some(Alarm {
            kind,
            host: host.to_owned(),
            cluster: state.cluster_name(cluster).to_owned(),
            segmentation_id: tag,
            ports: here.iter().filter_map(port_of).collect(),
            vms: here.iter().filter_map(vm_of).collect(),
            message: format!("VLAN {tag} on host {host}: {message}"),
        })
    });
    hosts.collect()
}

fn port_of(who: &Who) -> Option<Uuid> {
    match *who {
        Who::Port(port) => Some(port),
        Who::Vnic(_, port) => port,
        Who::Quarantine(..) => None,
    }
}

fn vm_of(who: &Who) -> Option<Uuid> {
    match *who {
        Who::Vnic(vm, _) => Some(vm),
        Who::Port(_) | Who::Quarantine(..) => None,
    }
}

/// Why these cannot be on one tag of one host, if so: they are more than one port, or
/// a port and somebody else's port group. Somebody else's among themselves are not
/// ours to judge.
fn collision(here: &[Who]) -> Option<String> {
    let ports: BTreeSet<Uuid> = here.iter().filter_map(port_of).collect();
    let foreign = here.iter().any(|who| matches!(who, Who::Vnic(_, None)));
    let seen = here.iter().any(|who| matches!(who, Who::Vnic(..)));
    if !seen || ports.len() + usize::from(foreign) < 2 || ports.is_empty() {
        return None;
    }
    Some(match ports.len() {
        1 => "a port group that is no port's has a port's tag; give that port group, or the \
              port, another"
            .to_owned(),
        several => format!(
            "{several} ports have it; those with a VM that runs there do not forward until \
             only one is left"
        ),
    })
}

/// Why a port's vNIC should not have the tag, though nobody else on the host has.
fn misfit(
    state: &State,
    host: &str,
    tag: Vlan,
    here: &[Who],
    leases: &[(Uuid, &str)],
) -> Option<String> {
    here.iter().find_map(|who| {
        let Who::Vnic(vm, Some(id)) = who else {
            return None;
        };
        if let Some(port) = state.port(*id)
            && port.binding_host_id == host
            && let Some(leased) = port.segmentation_id.filter(|leased| *leased != tag)
        {
            return Some(format!(
                "VM {vm} is there with port {id}, whose segmentation_id is {leased}; move its \
                 vNIC to port group {id}_{leased}"
            ));
        }
        // One that is being moved has left its tag already, and is still there.
        let leaves = |who: &Who| matches!(who, Who::Quarantine(port, _) if port == id);
        let is_own = leases.iter().any(|(port, _)| port == id) || here.iter().any(leaves);
        let (other, at) = leases.iter().find(|_| !is_own)?;
        Some(format!(
            "VM {vm} is there with port {id}, and port {other} has the lease of the tag on \
             host {at} of the same cluster; give one of them another segmentation_id"
        ))
    })
}
