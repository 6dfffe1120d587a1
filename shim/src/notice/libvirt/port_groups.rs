//! Port groups of Neutron ports, and the trunk's, as `<portgroup>`s of an Open vSwitch
//! network of libvirt, the same on every host.
//!
//! Invariants: which port groups are wanted is on the disk before it is answered, and a
//! host that lacks one gets it when it is next listed; only what has a name of ours is
//! ever added or deleted, and nothing is changed. What is done on a host is done by whoever
//! has its [`Turn`], who asks then whether it is still wanted: so the last request counts.
//! No lock but that is held while a host is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nve_protocol::Vlan;
use serde::Serialize;
use uuid::Uuid;

use super::domain::{self, Malformed};
use super::link::{Link, Turn, Up};
use crate::notice::config::LibvirtConfig;
use crate::notice::ledger::derived_uuid;
use crate::notice::store::{Store, StoreError};

/// How long a request waits for another one that changes the same host.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a host's thread may be busy with adding what the host lacks.
const ADDING: Duration = Duration::from_secs(5);
/// Failures of that which are logged one by one.
const LOGGED: usize = 3;

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
    /// Names of those that are wanted. Held while that is written down.
    wanted: Mutex<BTreeSet<String>>,
}

impl PortGroups {
    pub(super) fn open(config: &LibvirtConfig, store: Arc<Store>) -> Result<Self, StoreError> {
        Ok(PortGroups {
            network: config.network.clone(),
            trunk: config.trunk.clone(),
            wanted: Mutex::new(store.port_groups()?.into_iter().collect()),
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
    /// Returns it, and whether it is new. What contradicts what a host has is not wanted;
    /// what a host does not do keeps the others from nothing. Blocks.
    pub(super) fn create(
        &self,
        links: &[Link],
        group: &Group,
    ) -> Result<(Shown, bool), GroupError> {
        let mut result = Ok(());
        let mut ready = Vec::new();
        for (link, up) in ups(links) {
            match self.at(link, &up, || self.lacks(&up, group)) {
                Ok(lacks) => ready.push((link, up, lacks)),
                Err(error @ GroupError::Conflict(_)) => return Err(error),
                Err(error) => result = result.and(Err(error)),
            }
        }
        let is_new = self.want(group)?;
        let mut hosts = Vec::new();
        for (link, up, lacks) in ready {
            if lacks {
                result = result.and(self.at(link, &up, || self.add(&up, group)));
            }
            hosts.push(up.host.name);
        }
        result.map(|()| (group.shown(hosts), is_new))
    }

    /// Deletes a port group from all hosts, unless a VM has it. Blocks.
    pub(super) fn delete(&self, links: &[Link], group: &Group) -> Result<(), GroupError> {
        let mut all = Vec::new();
        for link in links {
            let up = link.up().ok_or_else(|| {
                let uri = &link.config.uri;
                GroupError::Unavailable(format!("not connected to {uri}: try again"))
            })?;
            self.at(link, &up, || self.refuse_used(&up, group))?;
            all.push((link, up));
        }
        {
            let mut wanted = self.wanted();
            self.store.delete_port_group(&group.name)?;
            wanted.remove(&group.name);
        }
        let each = all
            .iter()
            .map(|(link, up)| self.at(link, up, || self.remove(up, group)));
        // All of them, though one fails.
        each.fold(Ok(()), Result::and)
    }

    /// Those that are wanted or are on a connected host. Blocks.
    pub(super) fn list(&self, links: &[Link]) -> Result<Vec<Shown>, GroupError> {
        let wanted = self.wanted().clone();
        let mut all: BTreeMap<String, Vec<String>> =
            wanted.into_iter().map(|name| (name, Vec::new())).collect();
        for (link, up) in ups(links) {
            for name in self.at(link, &up, || self.groups(&up))?.into_keys() {
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

    /// Adds what a host lacks, by the host's own thread, which has more to do: some of it,
    /// if it takes long, and nothing that a request is busy with. Returns whether that was
    /// all that it can do now. Blocks.
    pub(super) fn reconcile(&self, link: &Link, up: &Up) -> bool {
        let wanted = self.wanted().clone();
        if wanted.is_empty() {
            return true;
        }
        let there = match link.call(|| self.groups(up)) {
            Ok(there) => there,
            Err(error) => {
                tracing::warn!("port groups: {error}");
                return true;
            }
        };
        let begun = Instant::now();
        let (mut added, mut failed) = (0, 0);
        for name in wanted.iter().filter(|name| !there.contains_key(*name)) {
            if begun.elapsed() > ADDING {
                return added == 0;
            }
            let add = || match link.turn(Duration::ZERO) {
                Some(_turn) => self.add(up, &self.parse(name)?),
                None => Ok(()),
            };
            match link.call(add) {
                Ok(()) => added += 1,
                Err(error) if failed < LOGGED => {
                    failed += 1;
                    tracing::warn!("port group {name}: {error}");
                }
                Err(_) => failed += 1,
            }
        }
        if failed > LOGGED {
            tracing::warn!(host = up.host.name, "{failed} port groups failed");
        }
        true
    }

    /// Writes down that it is wanted. Returns whether that is new.
    fn want(&self, group: &Group) -> Result<bool, GroupError> {
        let mut wanted = self.wanted();
        if wanted.contains(&group.name) {
            return Ok(false);
        }
        self.store.put_port_group(&group.name)?;
        Ok(wanted.insert(group.name.clone()))
    }

    /// Does something on a host when it is our turn, which it soon has to be.
    fn at<T>(
        &self,
        link: &Link,
        up: &Up,
        work: impl FnOnce() -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        let turn: Option<Turn> = link.turn(PATIENCE);
        let _turn = turn.ok_or_else(|| {
            let host = &up.host.name;
            GroupError::Unavailable(format!(
                "host {host} is busy with another request: try again"
            ))
        })?;
        work()
    }

    /// Whether a host does not have it yet.
    fn lacks(&self, up: &Up, group: &Group) -> Result<bool, GroupError> {
        match self.groups(up)?.get(&group.name) {
            None => Ok(true),
            Some(tag) if *tag == group.tag => Ok(false),
            Some(_) => Err(GroupError::Conflict(format!(
                "on host {}, port group {:?} of network {:?} has another VLAN tag",
                up.host.name, group.name, self.network
            ))),
        }
    }

    /// Adds it to a host, if it is still wanted.
    fn add(&self, up: &Up, group: &Group) -> Result<(), GroupError> {
        if !self.wanted().contains(&group.name) {
            return Ok(());
        }
        let done = up.connection.add_port_group(&self.network, &group.xml());
        match done {
            // Somebody else did.
            Err(_) if matches!(self.lacks(up, group), Ok(false)) => Ok(()),
            done => done.map_err(|error| failed(up, &error)),
        }
    }

    /// Removes it from a host, if it is still not wanted.
    fn remove(&self, up: &Up, group: &Group) -> Result<(), GroupError> {
        if self.wanted().contains(&group.name) || !self.groups(up)?.contains_key(&group.name) {
            return Ok(());
        }
        let done = up.connection.delete_port_group(&self.network, &group.xml());
        done.map_err(|error| failed(up, &error))
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

    fn wanted(&self) -> MutexGuard<'_, BTreeSet<String>> {
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

/// The hosts that are connected.
fn ups(links: &[Link]) -> impl Iterator<Item = (&Link, Up)> {
    links.iter().filter_map(|link| Some((link, link.up()?)))
}

fn failed(up: &Up, error: &sluice_libvirt::Error) -> GroupError {
    GroupError::Unavailable(format!("host {}: {error}", up.host.name))
}
