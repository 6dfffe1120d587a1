//! Port groups of Neutron ports, and the trunk's, as `<portgroup>`s of an Open vSwitch
//! network of libvirt, the same on every host.
//!
//! Invariants: which port groups are wanted is on the disk before it is answered, and a
//! host that lacks one gets it when it is next listed. A deletion is on the disk before it
//! begins, and goes on when a host is next listed until all are rid of the port group. By
//! then, too, both parts of a network have a port group or neither has. Only what has a name of ours is ever added or deleted, and nothing is changed. What is
//! done on a host is done by whoever has its [`Turn`], who asks then whether it is still
//! wanted: so the last request counts. No lock but that is held while a host is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nve_protocol::Vlan;
use serde::Serialize;
use sluice_libvirt::Part;
use uuid::Uuid;

use super::domain::{self, Malformed};
use super::link::{Link, Turn, Up};
use crate::notice::config::LibvirtConfig;
use crate::notice::ledger::derived_uuid;
use crate::notice::store::{Store, StoreError};

/// How long a request waits for another one that changes the same host.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a host's thread may be busy with what the host lacks or is to lose.
const BUSY: Duration = Duration::from_secs(5);
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
    /// URIs of all hosts.
    hosts: BTreeSet<String>,
    store: Arc<Store>,
    /// Held while it is written down.
    intent: Mutex<Intent>,
}

/// What is to become of port groups, by their names.
#[derive(Debug)]
struct Intent {
    /// Those that every host is to have.
    wanted: BTreeSet<String>,
    /// Those that no host is to have, with the URIs of the hosts that may have them still;
    /// none of those that are wanted.
    leaving: BTreeMap<String, BTreeSet<String>>,
    /// How many times one was deleted from a host.
    deletions: u64,
}

/// What a host's own thread does about a port group.
#[derive(Clone, Copy)]
enum Amend {
    /// Adds it to the parts of the network that lack it.
    Add,
    /// Goes on with its deletion.
    Remove,
}

/// Port groups that a host has, by their names, with their tags, in each part of the network.
#[derive(Default)]
struct There(Vec<(Part, BTreeMap<String, Option<u16>>)>);

impl PortGroups {
    pub(super) fn open(config: &LibvirtConfig, store: Arc<Store>) -> Result<Self, StoreError> {
        let intent = Intent {
            wanted: store.port_groups()?.into_iter().collect(),
            leaving: BTreeMap::new(),
            deletions: 0,
        };
        let groups = PortGroups {
            network: config.network.clone(),
            trunk: config.trunk.clone(),
            hosts: config.hosts.iter().map(|host| host.uri.clone()).collect(),
            intent: Mutex::new(intent),
            store,
        };
        for name in groups.store.leaving_port_groups()? {
            if let Err(error) = groups.parse(&name) {
                // The trunk had another name.
                tracing::warn!("a port group is not deleted: {error}");
                groups.store.forget_port_group(&name)?;
                continue;
            }
            let hosts = groups.hosts.clone();
            groups.intent().leaving.insert(name, hosts);
        }
        Ok(groups)
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
        let deletions = self.intent().deletions;
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
            let add = || {
                let is_same = self.intent().deletions == deletions;
                // One of them may have been of this port group.
                let lacks = if is_same {
                    lacks
                } else {
                    self.lacks(&up, group)?
                };
                self.add(&up, group, &lacks)
            };
            result = result.and(self.at(link, &up, add));
            hosts.push(up.host.name);
        }
        result.map(|()| (group.shown(hosts), is_new))
    }

    /// Deletes a port group from all hosts, unless a VM has it. If one of them fails, the
    /// deletion goes on when that one is listed. Blocks.
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
        self.let_go(group)?;
        let each = all
            .iter()
            .map(|(link, up)| self.at(link, up, || self.remove(link, up, group)));
        // All of them, though one fails.
        each.fold(Ok(()), Result::and)
    }

    /// Those that are wanted or are on a connected host. Blocks.
    pub(super) fn list(&self, links: &[Link]) -> Result<Vec<Shown>, GroupError> {
        let wanted = self.intent().wanted.clone();
        let mut all: BTreeMap<String, Vec<String>> =
            wanted.into_iter().map(|name| (name, Vec::new())).collect();
        for (link, up) in ups(links) {
            for name in self.at(link, &up, || self.there(&up))?.names() {
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

    /// Adds what a host lacks and deletes what is to leave it, by the host's own thread,
    /// which has more to do: some of it, if it takes long, and nothing that a request is busy
    /// with. Returns whether that was all that it can do now. Blocks.
    pub(super) fn reconcile(&self, link: &Link, up: &Up) -> bool {
        let (wanted, leaving) = self.intent().of(&link.config.uri);
        if wanted.is_empty() && leaving.is_empty() {
            return true;
        }
        let there = match link.call(|| self.find(up)) {
            Ok(Some(there)) => there,
            Ok(None) if wanted.is_empty() => There::default(),
            Ok(None) => {
                tracing::warn!("port groups: {}", self.no_network(up));
                return true;
            }
            Err(error) => {
                tracing::warn!("port groups: {error}");
                return true;
            }
        };
        let begun = Instant::now();
        let (mut done, mut failed) = (0, 0);
        // VMs wait for what is added.
        let lacking = wanted.iter().filter(|name| !there.without(name).is_empty());
        let lacking = lacking.map(|name| (name, Amend::Add));
        let leaving = self.unused(link, up, &there, leaving);
        let leaving = leaving.iter().map(|name| (name, Amend::Remove));
        for (name, what) in lacking.chain(leaving) {
            if begun.elapsed() > BUSY {
                return done == 0;
            }
            match link.call(|| self.amend(link, up, &there, name, what)) {
                Ok(()) => done += 1,
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

    /// Those of them that a host can be rid of now: no VM has a vNIC in them.
    fn unused(&self, link: &Link, up: &Up, there: &There, leaving: Vec<String>) -> Vec<String> {
        let (has, mut rid): (Vec<_>, Vec<_>) = leaving
            .into_iter()
            .partition(|name| !there.with(name).is_empty());
        if has.is_empty() {
            return rid;
        }
        match self.used(link, up) {
            Ok(used) => {
                let (stay, go): (Vec<_>, Vec<_>) =
                    has.into_iter().partition(|name| used.contains(name));
                if let Some(name) = stay.first() {
                    let (host, number) = (&up.host.name, stay.len());
                    tracing::warn!(host, name, number, "a VM keeps what is to be deleted");
                }
                rid.extend(go);
            }
            Err(error) => tracing::warn!("port groups are not deleted: {error}"),
        }
        rid
    }

    /// Port groups that VMs of a host have vNICs in.
    fn used(&self, link: &Link, up: &Up) -> Result<BTreeSet<String>, GroupError> {
        let mut used = BTreeSet::new();
        let descriptions = link.call(|| up.connection.descriptions());
        let mut descriptions = descriptions.map_err(|error| failed(up, &error))?;
        while let Some(description) = link.call(|| descriptions.next()) {
            let (_, xml) = description.map_err(|error| failed(up, &error))?;
            used.extend(self.groups_of(up, &xml)?);
        }
        Ok(used)
    }

    /// Amends what a host has, if that is still to be done, and no request changes the host.
    fn amend(
        &self,
        link: &Link,
        up: &Up,
        there: &There,
        name: &str,
        what: Amend,
    ) -> Result<(), GroupError> {
        let Some(_turn) = link.turn(Duration::ZERO) else {
            return Ok(());
        };
        let group = self.parse(name)?;
        match what {
            Amend::Add => self.add(up, &group, &self.without(up, there, &group)?),
            Amend::Remove => self.remove(link, up, &group),
        }
    }

    /// Writes down that it is wanted. Returns whether that is new.
    fn want(&self, group: &Group) -> Result<bool, GroupError> {
        let mut intent = self.intent();
        if intent.wanted.contains(&group.name) {
            return Ok(false);
        }
        self.store.put_port_group(&group.name)?;
        intent.leaving.remove(&group.name);
        Ok(intent.wanted.insert(group.name.clone()))
    }

    /// Writes down that no host is to have it.
    fn let_go(&self, group: &Group) -> Result<(), GroupError> {
        let mut intent = self.intent();
        self.store.delete_port_group(&group.name)?;
        intent.wanted.remove(&group.name);
        intent
            .leaving
            .insert(group.name.clone(), self.hosts.clone());
        Ok(())
    }

    /// Notes that a host is rid of it. Of what all are rid of nothing is kept.
    fn gone(&self, link: &Link, group: &Group) -> Result<(), GroupError> {
        let mut intent = self.intent();
        let uri = &link.config.uri;
        let Some(hosts) = intent.leaving.get_mut(&group.name) else {
            return Ok(());
        };
        if hosts.iter().any(|host| host != uri) {
            hosts.remove(uri);
            return Ok(());
        }
        self.store.forget_port_group(&group.name)?;
        intent.leaving.remove(&group.name);
        Ok(())
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

    /// The parts of a host's network that do not have it yet.
    fn lacks(&self, up: &Up, group: &Group) -> Result<Vec<Part>, GroupError> {
        self.without(up, &self.there(up)?, group)
    }

    /// The parts of it that do not have it, unless the other part has another one.
    fn without(&self, up: &Up, there: &There, group: &Group) -> Result<Vec<Part>, GroupError> {
        if there.has_other_than(group) {
            return Err(GroupError::Conflict(format!(
                "on host {}, port group {:?} of network {:?} has another VLAN tag",
                up.host.name, group.name, self.network
            )));
        }
        Ok(there.without(&group.name))
    }

    /// Adds it to those parts of a host's network, if it is still wanted.
    fn add(&self, up: &Up, group: &Group, lacks: &[Part]) -> Result<(), GroupError> {
        if !self.intent().wanted.contains(&group.name) {
            return Ok(());
        }
        let has = |part| {
            self.lacks(up, group)
                .is_ok_and(|lacks| !lacks.contains(&part))
        };
        let each = lacks.iter().map(|part| {
            let to = &up.connection;
            match to.add_port_group(&self.network, *part, &group.xml()) {
                // Somebody else did.
                Err(_) if has(*part) => Ok(()),
                done => done.map_err(|error| failed(up, &error)),
            }
        });
        each.fold(Ok(()), Result::and)
    }

    /// Removes it from a host, if that is still to be rid of it.
    fn remove(&self, link: &Link, up: &Up, group: &Group) -> Result<(), GroupError> {
        if !self.intent().is_leaving(&group.name, &link.config.uri) {
            return Ok(());
        }
        // Without the network, nothing is in it.
        let parts = self.find(up)?.unwrap_or_default().with(&group.name);
        if !parts.is_empty() {
            self.intent().deletions += 1;
        }
        let each = parts.into_iter().map(|part| {
            let from = &up.connection;
            let done = from.delete_port_group(&self.network, part, &group.xml());
            done.map_err(|error| failed(up, &error))
        });
        each.fold(Ok(()), Result::and)?;
        self.gone(link, group)
    }

    /// All port groups of a host's network.
    fn there(&self, up: &Up) -> Result<There, GroupError> {
        self.find(up)?.ok_or_else(|| self.no_network(up))
    }

    fn no_network(&self, up: &Up) -> GroupError {
        let (host, network) = (&up.host.name, &self.network);
        GroupError::Unavailable(format!(
            "host {host} has no network {network:?}: define it with virsh net-define"
        ))
    }

    /// All port groups of a host's network, if it has the network.
    fn find(&self, up: &Up) -> Result<Option<There>, GroupError> {
        let network = &self.network;
        let parts = up.connection.network_parts(network);
        let Some(parts) = parts.map_err(|error| failed(up, &error))? else {
            return Ok(None);
        };
        let parse = |(part, xml): (Part, String)| {
            let groups = domain::port_groups(network, &xml);
            Ok((part, groups?.tags))
        };
        let groups: Result<_, Malformed> = parts.into_iter().map(parse).collect();
        groups
            .map(|groups| Some(There(groups)))
            .map_err(|error| GroupError::Unavailable(error.to_string()))
    }

    fn refuse_used(&self, up: &Up, group: &Group) -> Result<(), GroupError> {
        let descriptions = up.connection.descriptions();
        for description in descriptions.map_err(|error| failed(up, &error))? {
            let (vm, xml) = description.map_err(|error| failed(up, &error))?;
            if self.groups_of(up, &xml)?.contains(&group.name) {
                let (host, name) = (&up.host.name, &group.name);
                return Err(GroupError::Conflict(format!(
                    "VM {vm:?} on host {host} has a vNIC in port group {name:?}"
                )));
            }
        }
        Ok(())
    }

    /// Port groups that a VM has vNICs in. What cannot be read may have any.
    fn groups_of(&self, up: &Up, vm: &str) -> Result<Vec<String>, GroupError> {
        let host = &up.host.name;
        domain::groups_of(vm, &self.network)
            .map_err(|error| GroupError::Unavailable(format!("host {host}: {error}")))
    }

    fn intent(&self) -> MutexGuard<'_, Intent> {
        self.intent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intent {
    /// Whether the host with that URI may still have what no host is to have.
    fn is_leaving(&self, name: &str, uri: &str) -> bool {
        let hosts = self.leaving.get(name);
        hosts.is_some_and(|hosts| hosts.contains(uri))
    }

    /// What is wanted of the host with that URI, and what may be there still and is not.
    fn of(&self, uri: &str) -> (BTreeSet<String>, Vec<String>) {
        let leaving = self.leaving.keys();
        let leaving = leaving.filter(|name| self.is_leaving(name, uri));
        (self.wanted.clone(), leaving.cloned().collect())
    }
}

impl There {
    /// The names of all, of each once.
    fn names(self) -> BTreeSet<String> {
        let parts = self.0.into_iter();
        parts.flat_map(|(_, groups)| groups.into_keys()).collect()
    }

    /// The parts that have one of that name.
    fn with(&self, name: &str) -> Vec<Part> {
        self.parts(|groups| groups.contains_key(name))
    }

    /// The parts that have none of that name.
    fn without(&self, name: &str) -> Vec<Part> {
        self.parts(|groups| !groups.contains_key(name))
    }

    /// Whether one of that name has another tag.
    fn has_other_than(&self, group: &Group) -> bool {
        let is_other = |tag: &Option<u16>| *tag != group.tag;
        let others = self.parts(|groups| groups.get(&group.name).is_some_and(is_other));
        !others.is_empty()
    }

    fn parts(&self, is_one: impl Fn(&BTreeMap<String, Option<u16>>) -> bool) -> Vec<Part> {
        let parts = self.0.iter().filter(|(_, groups)| is_one(groups));
        parts.map(|(part, _)| *part).collect()
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
