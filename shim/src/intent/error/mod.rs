//! Why a request is refused; names and texts follow Neutron's exceptions.

mod qos;
mod router;
mod security;

use std::net::IpAddr;

use ipnet::IpNet;
use nve_protocol::{Mac, Vlan, Vni};
use uuid::Uuid;

pub use qos::QosError;
pub use router::RouterError;
pub use security::SecurityError;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// A value is not possible, alone or together with others.
    #[error("Invalid input for operation: {0}.")]
    InvalidInput(String),
    /// A value of an operations resource is not possible.
    #[error("{field}: {reason}")]
    InvalidField {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Another object has the value, which must be unique.
    #[error("{field} {value} is that of {holder} already; choose another")]
    Taken {
        /// The field at fault.
        field: &'static str,
        /// The value asked for.
        value: String,
        /// Who has it.
        holder: String,
    },
    /// The object does not exist.
    #[error("{kind} {id} could not be found.")]
    NotFound {
        /// What it would be, such as `Network`, `SecurityGroup`, `NVE`.
        kind: &'static str,
        /// The id asked for.
        id: Uuid,
    },
    /// The client's `If-Match` names another revision.
    #[error("Constrained to {expected}, but current revision is {current}")]
    RevisionMismatch {
        /// The client's.
        expected: u64,
        /// The resource's.
        current: u64,
    },
    /// The network still has ports.
    #[error(
        "Unable to complete operation on network {id}. There are one or more ports \
         still in use on the network, id for these ports is: {ports}."
    )]
    NetworkInUse {
        /// The network.
        id: Uuid,
        /// The first few of them.
        ports: String,
    },
    /// The network is configured into a VTEP.
    #[error(
        "Unable to complete operation on network {id}: it is a network of VTEP {vtep}; \
         take it out there first."
    )]
    NetworkOfVtep {
        /// The network.
        id: Uuid,
        /// The VTEP.
        vtep: Uuid,
    },
    /// Ports have addresses of the subnet.
    #[error(
        "Unable to complete operation on subnet {0}: \
         One or more ports have an IP allocation from this subnet."
    )]
    SubnetInUse(Uuid),
    /// The VNI is another network's.
    #[error("Unable to create the network. The tunnel ID {0} is in use.")]
    VniInUse(Vni),
    /// The configured range of VNIs is used up.
    #[error(
        "Unable to create the network. No VNI is left in the configured range; \
         widen network.vni_range or give provider:segmentation_id."
    )]
    NoVniLeft,
    /// The MTU is more than the underlay leaves.
    #[error(
        "Invalid input for operation: Requested MTU is too big, maximum is {max}; \
         network.underlay_mtu says what the underlay carries."
    )]
    MtuTooBig {
        /// Largest possible MTU.
        max: u16,
    },
    /// The prefix overlaps one of the same network.
    #[error(
        "Invalid input for operation: Requested subnet with cidr: {cidr} for network: \
         {network} overlaps with another subnet."
    )]
    SubnetOverlap {
        /// The prefix asked for.
        cidr: IpNet,
        /// The network.
        network: Uuid,
    },
    /// A pool's ends are swapped or of another family.
    #[error("The allocation pool {0} is not valid.")]
    InvalidPool(String),
    /// A pool leaves the prefix.
    #[error("The allocation pool {pool} spans beyond the subnet cidr {cidr}.")]
    PoolOutOfBounds {
        /// The pool.
        pool: String,
        /// The subnet's prefix.
        cidr: IpNet,
    },
    /// Two pools share addresses.
    #[error("Found overlapping allocation pools: {first} {second} for subnet {cidr}.")]
    PoolsOverlap {
        /// One pool.
        first: String,
        /// The other.
        second: String,
        /// The subnet's prefix.
        cidr: IpNet,
    },
    /// The gateway's address would be handed out.
    #[error("Gateway ip {gateway} conflicts with allocation pool {pool}.")]
    GatewayInPool {
        /// The gateway.
        gateway: IpAddr,
        /// The pool that contains it.
        pool: String,
    },
    /// A port has the address that is to be the gateway's.
    #[error("Current gateway ip {gateway} already in use by port {port}. Unable to update.")]
    GatewayInUse {
        /// The address.
        gateway: IpAddr,
        /// The port.
        port: Uuid,
    },
    /// The MAC address is another port's of the network.
    #[error("Unable to complete operation for network {network}. The mac address {mac} is in use.")]
    MacInUse {
        /// The network.
        network: Uuid,
        /// The address.
        mac: Mac,
    },
    /// No free MAC address was found.
    #[error("Unable to generate unique mac on network {0}.")]
    MacGeneration(Uuid),
    /// The MAC address of a bound port cannot change.
    #[error(
        "Unable to complete operation on port {port}, port is already bound, \
         old_mac {old}, new_mac {new}"
    )]
    PortBound {
        /// The port.
        port: Uuid,
        /// What it has.
        old: Mac,
        /// What was asked for.
        new: Mac,
    },
    /// The address is another port's.
    #[error("IP address {address} already allocated in subnet {subnet}")]
    AddressAllocated {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: Uuid,
    },
    /// The address is not usable in the subnet.
    #[error("IP address {0} is not a valid IP for the specified subnet.")]
    AddressNotOfSubnet(IpAddr),
    /// The address is not usable in any subnet of the network.
    #[error("IP address {0} is not a valid IP for any of the subnets on the specified network.")]
    AddressNotOfNetwork(IpAddr),
    /// The pools of the subnet, or of all subnets, are used up.
    #[error("No more IP addresses available on network {0}.")]
    NoAddressLeft(Uuid),
    /// Such a subnet chooses the addresses itself.
    #[error(
        "IPv6 address {address} cannot be directly assigned to a port on subnet {subnet} as the \
         subnet is configured for automatic addresses"
    )]
    AutomaticAddress {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: Uuid,
    },
    /// It is about security groups, address groups or port security.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// It is about routers.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// It is about QoS.
    #[error(transparent)]
    Qos(#[from] QosError),
    /// The VLAN tag is not to be had on the host.
    #[error(
        "Unable to complete operation for port {port}. The segmentation_id {tag} cannot be had \
         on host {host}: it is in use {holder}; give a free segmentation_id, or none on creation."
    )]
    TagInUse {
        /// The port asked about.
        port: Uuid,
        /// The tag.
        tag: Vlan,
        /// The host.
        host: String,
        /// Who has it, and where.
        holder: String,
    },
    /// Hosts with ports of the same VLAN tag would be in one cluster.
    #[error(
        "segmentation_id {tag} would be that of two ports of one cluster: of port {port} on host \
         {host} and of port {other} on host {other_host}; give one of them another \
         segmentation_id first"
    )]
    TagsMeet {
        /// The tag.
        tag: Vlan,
        /// A port that has it.
        port: Uuid,
        /// Where it is bound.
        host: String,
        /// Another port that has it.
        other: Uuid,
        /// Where that is bound.
        other_host: String,
    },
    /// The configuration keeps the VLAN tag from ports.
    #[error("Invalid input for operation: segmentation_id {0} is reserved by vlan.reserved.")]
    TagReserved(Vlan),
    /// No VLAN tag of the host is free.
    #[error(
        "No segmentation_id is left on host {host} of cluster {cluster}: of 4094, {ports} are \
         those of ports bound to it, {vnics} are on other vNICs there, {quarantined} are in \
         quarantine and {reserved} are reserved."
    )]
    NoTagLeft {
        /// The host.
        host: String,
        /// Name of its cluster.
        cluster: String,
        /// Tags of ports.
        ports: usize,
        /// Tags of vNICs that are none of these ports'.
        vnics: usize,
        /// Tags that a port has left.
        quarantined: usize,
        /// Tags that the configuration keeps.
        reserved: usize,
    },
}

impl IntentError {
    /// The object of that kind does not exist.
    pub const fn not_found(kind: &'static str, id: Uuid) -> IntentError {
        IntentError::NotFound { kind, id }
    }
}
