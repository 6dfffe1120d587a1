//! What records belong together.

use nve_protocol::Vlan;
use uuid::Uuid;

/// What a set of records is about. An NVE gets all records of a scope or none;
/// those of a scope that several NVEs have are the same on each of them, except
/// that none is told of itself (see [`NveTables`](super::NveTables)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// What one VAP has to itself: its addresses, groups, options and limits; by
    /// NVE and tag.
    Vap(Uuid, Vlan),
    /// A network that VAPs here are in or reach by routers: its stations, MTU and
    /// gateways.
    Network(Uuid),
    /// A network that VAPs here are in: who else takes part in it, its subnets.
    Segment(Uuid),
    /// A router that VAPs here reach: its routes.
    Router(Uuid),
    /// A security group that VAPs here are in, and its rules.
    Group(Uuid),
    /// The members of a group that rules here name.
    Members(Uuid),
}
