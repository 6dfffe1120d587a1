//! Port groups of Neutron ports, and the trunk's, as `<portgroup>`s of an Open vSwitch
//! network of libvirt, the same on every host.
//!
//! Invariants: which port groups are wanted is on the disk before it is answered, and a
//! host that lacks one gets it when it is next listed; only what has a name of ours is
//! ever added or deleted, and nothing is changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nve_protocol::Vlan;
use serde::Serialize;
use uuid::Uuid;

use super::domain::{self, Malformed};
use super::host::{Link, Up};
use crate::notice::config::LibvirtConfig;
use crate::notice::ledger::derived_uuid;
use crate::notice::store::{Store, StoreError};

/// Why a request is not met.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    /// It is none that may be asked for.
    #[error("{0}")]
    Invalid(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// A host did not do it; it may be asked for again.
    #[error("{0}")]
    Unavailable(String),
    /// It cannot be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A port group of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// `[port ID]_[segmentation_id]`, or the trunk's name.
    pub name: String,
    /// The port; none for the trunk.
    pub port: Option<Uuid>,
    /// The port's VLAN tag; none for the trunk, which carries all.
    pub tag: Option<u16>,
}

/// A port group as it is answered.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pg_name: String,
    pg_uuid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    port_id: Option<Uuid>,
    port_segmentation_id: u16,
    /// Names of the hosts that have it.
    hosts: Vec<String>,
}

/// The port groups.
#[derive(Debug)]
pub(super) struct PortGroups {
    network: String,
    trunk: String,
    store: Arc<Store>,
    /// Names of those that are wanted. Held over every change, on all hosts.
    wanted: Mutex<Vec<String>>,
}

impl PortGroups {
    pub(super) fn open(config: &LibvirtConfig, store: Arc<Store>) -> Result<Self, StoreError> {
        Ok(PortGroups {
            network: config.network.clone(),
            trunk: config.trunk.clone(),
            wanted: Mutex::new(store.port_groups()?),
            store,
        })
    }

    /// Name of the network that they are in.
    pub(super) fn network(&self) -> &str {
        &self.network
    }

    /// The port group of a port.
    pub(super) fn of_port(port: Uuid, tag: Vlan) -> Group {
        Group {
            name: format!("{port}_{}", tag.get()),
            port: Some(port),
            tag: Some(tag.get()),
        }
    }

    /// The trunk port group.
    pub(super) fn trunk(&self) -> Group {
        Group {
            name: self.trunk.clone(),
            port: None,
            tag: None,
        }
    }

    /// The port group of that name, if it is one of ours.
    pub(super) fn parse(&self, name: &str) -> Result<Group, GroupError> {
        if name == self.trunk {
            return Ok(self.trunk());
        }
        let parse = || {
            let (port, tag) = name.rsplit_once('_')?;
            let tag = Vlan::new(tag.parse().ok()?)?;
            let group = PortGroups::of_port(Uuid::try_parse(port).ok()?, tag);
            // In the one spelling that it has.
            (group.name == name).then_some(group)
        };
        parse().ok_or_else(|| {
            GroupError::Invalid(format!(
                "{name:?} is neither [port ID]_[segmentation_id] nor {:?}: not ours",
                self.trunk
            ))
        })
    }

    /// Makes a port group on all hosts; on those that are not connected, when they are.
    /// Returns it, and whether it is new. Blocks.
    pub(super) fn create(
        &self,
        links: &[Link],
        group: &Group,
    ) -> Result<(Shown, bool), GroupError> {
        let mut wanted = self.lock();
        let is_new = !wanted.contains(&group.name);
        if is_new {
            self.store.put_port_group(&group.name)?;
            wanted.push(group.name.clone());
        }
        let mut hosts = Vec::new();
        for up in links.iter().filter_map(Link::up) {
            self.ensure(&up, group)?;
            hosts.push(up.host.name);
        }
        Ok((group.shown(hosts), is_new))
    }

    /// Deletes a port group from all hosts, unless a VM has it. Blocks.
    pub(super) fn delete(&self, links: &[Link], group: &Group) -> Result<(), GroupError> {
        let mut wanted = self.lock();
        let mut ups = Vec::new();
        for link in links {
            let up = link.up().ok_or_else(|| {
                let uri = &link.config.uri;
                GroupError::Unavailable(format!("not connected to {uri}: try again"))
            })?;
            self.refuse_used(&up, group)?;
            ups.push(up);
        }
        self.store.delete_port_group(&group.name)?;
        wanted.retain(|name| *name != group.name);
        for up in ups {
            if self.groups(&up)?.contains_key(&group.name) {
                let done = up.connection.delete_port_group(&self.network, &group.xml());
                done.map_err(|error| failed(&up, &error))?;
            }
        }
        Ok(())
    }

    /// Those that are wanted or are on a connected host. Blocks.
    pub(super) fn list(&self, links: &[Link]) -> Result<Vec<Shown>, GroupError> {
        let mut all: BTreeMap<String, Vec<String>> = self
            .lock()
            .iter()
            .map(|name| (name.clone(), Vec::new()))
            .collect();
        for up in links.iter().filter_map(Link::up) {
            for name in self.groups(&up)?.into_keys() {
                all.entry(name).or_default().push(up.host.name.clone());
            }
        }
        // Foreign ones are nobody's business.
        let ours = all.into_iter().filter_map(|(name, hosts)| {
            let group = self.parse(&name).ok()?;
            Some(group.shown(hosts))
        });
        Ok(ours.collect())
    }

    /// Adds what a host lacks, unless a change is under way, which may wait for another
    /// host: then when it is next listed. Blocks.
    pub(super) fn reconcile(&self, up: &Up) {
        let Ok(wanted) = self.wanted.try_lock() else {
            return;
        };
        if wanted.is_empty() {
            return;
        }
        let there = match self.groups(up) {
            Ok(there) => there,
            Err(error) => return tracing::warn!("port groups: {error}"),
        };
        for name in wanted.iter().filter(|name| !there.contains_key(*name)) {
            let added = self.parse(name).and_then(|group| self.ensure(up, &group));
            if let Err(error) = added {
                tracing::warn!("port group {name}: {error}");
            }
        }
    }

    fn ensure(&self, up: &Up, group: &Group) -> Result<(), GroupError> {
        match self.groups(up)?.get(&group.name) {
            Some(tag) if *tag == group.tag => Ok(()),
            Some(_) => Err(GroupError::Conflict(format!(
                "on host {}, port group {:?} of network {:?} has another VLAN tag",
                up.host.name, group.name, self.network
            ))),
            None => {
                let done = up.connection.add_port_group(&self.network, &group.xml());
                done.map_err(|error| failed(up, &error))
            }
        }
    }

    /// All port groups of a host's network, with their tags.
    fn groups(&self, up: &Up) -> Result<BTreeMap<String, Option<u16>>, GroupError> {
        let network = &self.network;
        let xml = up.connection.network(network);
        let xml = xml.map_err(|error| failed(up, &error))?.ok_or_else(|| {
            let host = &up.host.name;
            GroupError::Unavailable(format!(
                "host {host} has no network {network:?}: define it with virsh net-define"
            ))
        })?;
        let groups = domain::port_groups(network, &xml);
        Ok(groups
            .map_err(|error: Malformed| GroupError::Unavailable(error.to_string()))?
            .tags)
    }

    fn refuse_used(&self, up: &Up, group: &Group) -> Result<(), GroupError> {
        let descriptions = up.connection.descriptions();
        for description in descriptions.map_err(|error| failed(up, &error))? {
            let (vm, xml) = description.map_err(|error| failed(up, &error))?;
            let is_in = domain::is_in(&xml, &self.network, &group.name);
            let host = &up.host.name;
            // What cannot be read may have it.
            if is_in.map_err(|error| GroupError::Unavailable(format!("host {host}: {error}")))? {
                return Err(GroupError::Conflict(format!(
                    "VM {vm:?} on host {host} has a vNIC in port group {:?}",
                    group.name
                )));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Without a VLAN, a port of Open vSwitch is a trunk of all. No name of ours has
    /// what XML would have escaped.
    fn xml(&self) -> String {
        let name = &self.name;
        match self.tag {
            None => format!("<portgroup name='{name}'/>"),
            Some(tag) => {
                format!("<portgroup name='{name}'><vlan><tag id='{tag}'/></vlan></portgroup>")
            }
        }
    }

    fn shown(&self, hosts: Vec<String>) -> Shown {
        Shown {
            pg_name: self.name.clone(),
            pg_uuid: derived_uuid("port-group", &self.name),
            port_id: self.port,
            port_segmentation_id: self.tag.unwrap_or_default(),
            hosts,
        }
    }
}

fn failed(up: &Up, error: &sluice_libvirt::Error) -> GroupError {
    GroupError::Unavailable(format!("host {}: {error}", up.host.name))
}
