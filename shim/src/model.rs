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
    /// What `port_security_enabled` is for its ports unless they say otherwise.
    #[serde(default = "yes")]
    pub port_security_enabled: bool,
    /// QoS policy of its ports that have none of their own.
    #[serde(default)]
    pub qos_policy_id: Option<Uuid>,
    /// Domain of its ports' names, with a dot at its end; empty if none.
    #[serde(default)]
    pub dns_domain: String,
}

/// For what an object's older form has no value and its present one has true.
const fn yes() -> bool {
    true
}

/// A range of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationPool {
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
}

/// A static route, of a router or announced by DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Where to.
    pub destination: IpNet,
    /// By way of.
    pub nexthop: IpAddr,
}

/// How stations of an IPv6 subnet get addresses (Neutron's `ipv6_ra_mode` and
/// `ipv6_address_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6Mode {
    /// From router advertisements alone (RFC 4862).
    Slaac,
    /// From DHCPv6 (RFC 8415).
    Dhcpv6Stateful,
    /// The address from router advertisements, the rest from DHCPv6.
    Dhcpv6Stateless,
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
    /// What router advertisements say; none are sent if absent.
    #[serde(default)]
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How its ports get their addresses; by no protocol if absent.
    #[serde(default)]
    pub ipv6_address_mode: Option<Ipv6Mode>,
}

impl Subnet {
    /// Whether stations make addresses of its prefix themselves (RFC 4862).
    pub fn is_automatic(&self) -> bool {
        let by_station =
            |mode: Ipv6Mode| matches!(mode, Ipv6Mode::Slaac | Ipv6Mode::Dhcpv6Stateless);
        self.ipv6_ra_mode.is_some_and(by_station) || self.ipv6_address_mode.is_some_and(by_station)
    }
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// Subnet that the address is from.
    pub subnet_id: Uuid,
    /// The address.
    pub ip_address: IpAddr,
}

/// Addresses that a port may use besides its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// The addresses; host bits are zero.
    pub ip_address: IpNet,
    /// With that MAC address.
    pub mac_address: Mac,
}

/// A DHCP option of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    /// Its name as dnsmasq has it, or its number.
    pub opt_name: String,
    /// Its value as dnsmasq takes it.
    pub opt_value: String,
    /// 4 or 6.
    pub ip_version: u8,
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
    /// VLAN tag of its port group (the paper, section II.B.3), unique on a host; a
    /// router's interface has none, for it is in no port group.
    pub segmentation_id: Option<Vlan>,
    /// Whether a user named the tag, so that the shim does not change it.
    #[serde(default)]
    pub segmentation_id_named: bool,
    /// Whether it may send from its own addresses only, and security groups apply.
    /// A port from before there were security groups keeps sending and receiving.
    #[serde(default)]
    pub port_security_enabled: bool,
    /// Its security groups, ascending.
    #[serde(default)]
    pub security_groups: Vec<Uuid>,
    /// Addresses that it may use besides its own.
    #[serde(default)]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// DHCP options of its own, which win over those of its subnets.
    #[serde(default)]
    pub extra_dhcp_opts: Vec<DhcpOption>,
    /// QoS policy of its own.
    #[serde(default)]
    pub qos_policy_id: Option<Uuid>,
    /// Host name for DHCP; empty if none.
    #[serde(default)]
    pub dns_name: String,
}

/// `device_owner` of a router's interface.
pub const ROUTER_INTERFACE: &str = "network:router_interface";

impl Port {
    /// The router whose interface it is.
    pub fn router(&self) -> Option<Uuid> {
        match self.device_owner == ROUTER_INTERFACE {
            true => self.device_id.parse().ok(),
            false => None,
        }
    }
}

/// A Neutron router. Its interfaces are ports, see [`Port::router`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Identity.
    pub common: Common,
    /// Whether it forwards.
    pub admin_state_up: bool,
    /// Static routes.
    pub routes: Vec<HostRoute>,
    /// Asked for as distributed; every router is.
    pub distributed: bool,
    /// Asked for as highly available; every router is.
    pub ha: bool,
}

/// A Neutron security group: what ports may send and receive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Identity.
    pub common: Common,
    /// Whether answers to what is allowed are allowed.
    pub stateful: bool,
    /// Whether it is its project's group for ports that name none.
    pub is_default: bool,
}

/// Which way packets go, seen from the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the VM.
    Ingress,
    /// From the VM.
    Egress,
}

/// Version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ethertype {
    /// IPv4.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    Ipv6,
}

impl Ethertype {
    /// Whether an address or prefix whose `is_ipv4` is that is of this version.
    pub const fn is(self, ipv4: bool) -> bool {
        matches!(self, Ethertype::Ipv4) == ipv4
    }
}

impl std::fmt::Display for Ethertype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ethertype::Ipv4 => "IPv4",
            Ethertype::Ipv6 => "IPv6",
        })
    }
}

/// An IP protocol as a user named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpProtocol {
    /// Its number (IANA), for the ethertype of the rule: `icmp` is 1 or 58.
    pub number: u8,
    /// The name or number that the user gave.
    pub text: String,
}

/// What a security group allows. Attributes that are absent allow anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// Identity; the name is empty.
    pub common: Common,
    /// Its group.
    pub security_group_id: Uuid,
    /// Which way.
    pub direction: Direction,
    /// Which version of IP.
    pub ethertype: Ethertype,
    /// Which protocol.
    pub protocol: Option<IpProtocol>,
    /// First destination port, or the ICMP type.
    pub port_range_min: Option<u16>,
    /// Last destination port, or the ICMP code.
    pub port_range_max: Option<u16>,
    /// Addresses of the other side; host bits are zero.
    pub remote_ip_prefix: Option<IpNet>,
    /// Group whose ports the other side is among.
    pub remote_group_id: Option<Uuid>,
    /// Address group that the other side is in.
    pub remote_address_group_id: Option<Uuid>,
}

/// A Neutron address group: a named list of prefixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Identity.
    pub common: Common,
    /// The prefixes, of both IP versions, each once; host bits are zero.
    pub addresses: Vec<IpNet>,
}

/// A Neutron QoS policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosPolicy {
    /// Identity.
    pub common: Common,
    /// Whether other projects may use it.
    pub shared: bool,
    /// Whether it is its project's policy for networks that name none.
    pub is_default: bool,
    /// Its rules: at most one of a kind and direction.
    pub rules: Vec<QosRule>,
}

/// A rule of a QoS policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosRule {
    /// Its UUID.
    pub id: Uuid,
    /// What it does.
    #[serde(flatten)]
    pub action: QosAction,
}

/// What a QoS rule does to packets of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum QosAction {
    /// Drops what exceeds a bandwidth.
    BandwidthLimit {
        /// Kilobits (1000) per second; 0 for no limit.
        max_kbps: u32,
        /// Burst in kilobits; 0 for the enforcer's choice.
        max_burst_kbps: u32,
        /// Which way.
        direction: Direction,
    },
    /// Drops what exceeds a rate of packets.
    PacketRateLimit {
        /// Thousands of packets per second; 0 for no limit.
        max_kpps: u32,
        /// Burst in thousands of packets; 0 for the enforcer's choice.
        max_burst_kpps: u32,
        /// Which way.
        direction: Direction,
    },
    /// Marks what the VM sends (RFC 2474).
    DscpMarking {
        /// The code point, 0 to 63.
        dscp_mark: u8,
    },
}

impl QosAction {
    /// Its kind, as Neutron calls it.
    pub const fn kind(&self) -> &'static str {
        match self {
            QosAction::BandwidthLimit { .. } => "bandwidth_limit",
            QosAction::PacketRateLimit { .. } => "packet_rate_limit",
            QosAction::DscpMarking { .. } => "dscp_marking",
        }
    }

    /// Its kind and direction, of which a policy has one.
    pub const fn way(&self) -> (&'static str, Direction) {
        let direction = match self {
            QosAction::BandwidthLimit { direction, .. }
            | QosAction::PacketRateLimit { direction, .. } => *direction,
            QosAction::DscpMarking { .. } => Direction::Egress,
        };
        (self.kind(), direction)
    }
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

/// A named set of hosts that VMs move between: within it, a VLAN tag is one port's.
/// Hosts of no cluster are in the default one, whose id is the nil UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its UUID.
    pub id: Uuid,
    /// Name for people; unique.
    pub name: String,
    /// Names of its hosts, as in events, ascending; a host is in one cluster.
    pub hosts: Vec<String>,
}

/// A VLAN tag that a port had on a host, and that no other port gets there for a
/// while: its port group and its NVE's tables may outlive it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Name of the host.
    pub host: String,
    /// The tag.
    pub tag: Vlan,
    /// The port that had it.
    pub port: Uuid,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
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
    /// Whether it was told to be deleted and no inventory has confirmed it yet: it
    /// forwards nothing, and its tags are nobody else's.
    #[serde(default)]
    pub deleted: bool,
    /// Its live migration, while one is under way.
    #[serde(default)]
    pub migration: Option<Migration>,
    /// The host that it has left last, until nobody sends anything there any more.
    #[serde(default)]
    pub departed: Option<Departed>,
}

impl PlacedVm {
    /// Name of the host where it is: where an NVE has heard it since its migration
    /// began, or else where it was told to be.
    pub fn host_name(&self) -> &str {
        let awake = self.migration.as_ref().and_then(|all| all.awake.as_deref());
        awake.unwrap_or(&self.vm.host_name)
    }
}

/// A VM's live migration away from the host that it was told to be on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// When its start was told, by the shim's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Names of the hosts where it may come up, ascending.
    pub to: Vec<String>,
    /// The one of them where an NVE has heard it, before its end was told.
    pub awake: Option<String>,
    /// Since when it is awake, by the shim's clock.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub awake_since: Option<OffsetDateTime>,
}

/// Where a VM was before it moved. What is still sent there is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// Name of the host.
    pub host: String,
    /// The ports that it had there, and their tags, ascending.
    pub vaps: Vec<(Uuid, Vlan)>,
}

/// What remains of a VM that is gone: events that are not newer are late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The VM's UUID.
    pub vm_uuid: Uuid,
    /// Timestamp of the event or inventory by which it went.
    #[serde(with = "time::serde::rfc3339")]
    pub as_of: OffsetDateTime,
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
    /// Router.
    PutRouter(Router),
    /// Router, by id.
    DeleteRouter(Uuid),
    /// Security group.
    PutSecurityGroup(SecurityGroup),
    /// Security group, by id.
    DeleteSecurityGroup(Uuid),
    /// Security group rule.
    PutSecurityGroupRule(SecurityGroupRule),
    /// Security group rule, by id.
    DeleteSecurityGroupRule(Uuid),
    /// Address group.
    PutAddressGroup(AddressGroup),
    /// Address group, by id.
    DeleteAddressGroup(Uuid),
    /// QoS policy, with its rules.
    PutQosPolicy(QosPolicy),
    /// QoS policy, by id.
    DeleteQosPolicy(Uuid),
    /// NVE.
    PutNve(Nve),
    /// NVE, by id.
    DeleteNve(Uuid),
    /// VTEP.
    PutVtep(Vtep),
    /// VTEP, by id.
    DeleteVtep(Uuid),
    /// VM, by its UUID.
    PutVm(PlacedVm),
    /// VM, by UUID.
    DeleteVm(Uuid),
    /// Tombstone.
    PutTombstone(Tombstone),
    /// Tombstone, by the VM's UUID.
    DeleteTombstone(Uuid),
    /// Where to resume a manager's events: manager's name and last event.
    PutCursor(String, Uuid),
    /// Cluster.
    PutCluster(Cluster),
    /// Cluster, by id.
    DeleteCluster(Uuid),
    /// Quarantine of a tag.
    PutQuarantine(Quarantine),
    /// Quarantine, by host and tag.
    DeleteQuarantine(String, Vlan),
}
