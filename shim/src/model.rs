//! What the shim knows durably: intent, placement, NVEs and managers.
//!
//! Every change is a list of [`Mutation`]s. It is validated first, written to the
//! store in one transaction second, and applied in memory third; so what is
//! acknowledged survives, and what fails changes nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use nve_protocol::{Mac, Vlan, Vni};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::events::types::VmState;

/// Attributes that every Neutron resource has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// The resource's UUID.
    pub id: Uuid,
    /// Name; need not be unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Owner.
    pub project_id: String,
    /// Counts the resource's changes, from 0.
    pub revision_number: u64,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// A Neutron network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Identity.
    pub common: Common,
    /// Whether it forwards.
    pub admin_state_up: bool,
    /// Whether other projects may use it.
    pub shared: bool,
    /// Bytes of an IP packet that fit.
    pub mtu: u16,
    /// VXLAN network identifier (`provider:segmentation_id`).
    pub vni: Vni,
}

/// A range of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationPool {
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
}

/// A route that DHCP announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Where to.
    pub destination: IpNet,
    /// By way of.
    pub nexthop: IpAddr,
}

/// A Neutron subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Identity.
    pub common: Common,
    /// Its network.
    pub network_id: Uuid,
    /// Its prefix.
    pub cidr: IpNet,
    /// Its router's address.
    pub gateway_ip: Option<IpAddr>,
    /// Whether addresses are handed out by DHCP.
    pub enable_dhcp: bool,
    /// Where ports get their addresses from.
    pub allocation_pools: Vec<AllocationPool>,
    /// DNS servers for DHCP.
    pub dns_nameservers: Vec<IpAddr>,
    /// Routes for DHCP.
    pub host_routes: Vec<HostRoute>,
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// Subnet that the address is from.
    pub subnet_id: Uuid,
    /// The address.
    pub ip_address: IpAddr,
}

/// A Neutron port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Identity.
    pub common: Common,
    /// Its network.
    pub network_id: Uuid,
    /// Whether it forwards.
    pub admin_state_up: bool,
    /// The VM's address on it.
    pub mac_address: Mac,
    /// Its addresses.
    pub fixed_ips: Vec<FixedIp>,
    /// Who uses it, usually the VM's UUID.
    pub device_id: String,
    /// For what, such as `compute:nova`.
    pub device_owner: String,
    /// Host that Nova binds it to (`binding:host_id`), a host's name; empty if none.
    pub binding_host_id: String,
    /// VLAN tag of its port group (the paper, section II.B.3), unique on a host.
    pub segmentation_id: Vlan,
}

/// An NVE that may connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nve {
    /// The NVE's UUID, as in its boot configuration.
    pub id: Uuid,
    /// Name for people; unique.
    pub name: String,
    /// Name of the host that it serves, as in events; unique.
    pub host_name: String,
    /// UUID of that host, if known.
    pub host_uuid: Option<Uuid>,
    /// Its VTEP address; unique.
    pub vtep: IpAddr,
    /// Its static X25519 public key, 64 hexadecimal digits; unique.
    pub public_key: String,
}

/// A station behind a VTEP that is not an NVE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its network.
    pub network_id: Uuid,
    /// Its MAC address.
    pub mac_address: Mac,
    /// Its IP address, to answer ARP for it.
    pub ip_address: Option<IpAddr>,
}

/// A VTEP that is not an NVE: a hardware switch, a Linux host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vtep {
    /// Its UUID.
    pub id: Uuid,
    /// Name for people.
    pub name: String,
    /// Its VTEP address; unique.
    pub address: IpAddr,
    /// Networks whose broadcast, unknown and multicast frames it gets.
    pub networks: Vec<Uuid>,
    /// Stations known to be behind it.
    pub endpoints: Vec<Endpoint>,
}

/// A VM and where it is, from events and inventories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedVm {
    /// Name of the hypervisor manager that told.
    pub manager: String,
    /// Timestamp of the newest event or inventory about it; older ones are late.
    #[serde(with = "time::serde::rfc3339")]
    pub as_of: OffsetDateTime,
    /// The VM as last told.
    pub vm: VmState,
}

/// One change of one object. `Put` creates or replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Network.
    PutNetwork(Network),
    /// Network, by id.
    DeleteNetwork(Uuid),
    /// Subnet.
    PutSubnet(Subnet),
    /// Subnet, by id.
    DeleteSubnet(Uuid),
    /// Port.
    PutPort(Port),
    /// Port, by id.
    DeletePort(Uuid),
    /// NVE.
    PutNve(Nve),
    /// NVE, by id.
    DeleteNve(Uuid),
    /// VTEP.
    PutVtep(Vtep),
    /// VTEP, by id.
    DeleteVtep(Uuid),
    /// VM, by manager's name and VM UUID.
    PutVm(PlacedVm),
    /// VM, by UUID.
    DeleteVm(Uuid),
    /// Where to resume a manager's events: manager's name and last event.
    PutCursor(String, Uuid),
}
