//! What objects put into the tables.
//!
//! Each object gives records to scopes, and facts about what needs what; the
//! tables are what all objects give together. So an object that changes costs
//! the work of its own records, however many others there are.

use std::collections::BTreeMap;

use nve_protocol::{GroupId, Key, Prefix, Record};
use uuid::Uuid;

use super::Scope;
use crate::intent::State;
use crate::placement::Claims;

/// An object that gives. Of two that give a record with the same key to the same
/// scope, the lesser one's is taken: ports go before endpoints of VTEPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Port(Uuid),
    Network(Uuid),
    Subnet(Uuid),
    Router(Uuid),
    SecurityGroup(Uuid),
    Rule(Uuid),
    AddressGroup(Uuid),
    Vtep(Uuid),
    /// An NVE's part in a network: the network, the NVE.
    Presence(Uuid, Uuid),
}

impl Source {
    /// No source is less.
    pub(super) const FIRST: Source = Source::Port(Uuid::nil());
}

/// What needs what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// An NVE has a VAP in a network.
    Local(Uuid, Uuid),
    /// A VAP of an NVE is in a security group.
    Bound(Uuid, Uuid),
    /// A network has an interface of a router that forwards.
    Routed(Uuid, Uuid),
    /// A router that forwards has an interface in a network.
    Serves(Uuid, Uuid),
    /// A rule of a security group names a group as its remote.
    Names(Uuid, Uuid),
}

/// What an object gives.
#[derive(Debug, Default)]
pub(super) struct Gift {
    pub(super) records: BTreeMap<(Scope, Key), Record>,
    pub(super) facts: Vec<Fact>,
}

impl Gift {
    /// Gives a record; the first with a key stays.
    pub(super) fn add(&mut self, scope: Scope, record: Record) {
        self.records.entry((scope, record.key())).or_insert(record);
    }
}

/// What the objects are looked up in.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) state: &'a State,
    pub(super) claims: &'a Claims,
}

/// A group's id in records.
pub(super) fn group_id(id: Uuid) -> GroupId {
    GroupId(id.into_bytes())
}

/// A prefix as records have it.
pub(super) fn prefix(net: ipnet::IpNet) -> Option<Prefix> {
    Prefix::around(net.network(), net.prefix_len())
}
