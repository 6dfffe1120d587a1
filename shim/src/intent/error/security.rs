//! Refusals about security groups, address groups and port security.

use ipnet::IpNet;
use nve_protocol::Mac;
use uuid::Uuid;

use crate::model::Ethertype;

/// Why a request about security is refused. Each is an exception of Neutron.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// No such protocol.
    #[error(
        "Security group rule protocol {0} not supported. Only protocol values any, {names} \
         and integer representations [0 to 255] are supported.",
        names = crate::intent::protocol::names()
    )]
    InvalidProtocol(String),
    /// Neither IPv4 nor IPv6.
    #[error(
        "Security group rule for ethertype '{0}' not supported. \
         Allowed values are ['IPv4', 'IPv6']."
    )]
    InvalidEthertype(String),
    /// Ports of no protocol.
    #[error("Must also specify protocol if port range is given.")]
    ProtocolRequired,
    /// No such port.
    #[error("Invalid value for port {0}")]
    InvalidPort(i64),
    /// One end of the range is missing, or the ends are swapped.
    #[error("For TCP/UDP protocols, port_range_min must be <= port_range_max")]
    InvalidRange,
    /// The protocol has no ports.
    #[error(
        "Ports cannot be specified for protocol {0}. \
         Ports are only supported for DCCP, SCTP, TCP, UDP, UDPLITE."
    )]
    NoPorts(u8),
    /// An ICMP type or code of more than 8 bits.
    #[error("Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255.")]
    InvalidIcmp {
        /// `type` or `code`.
        field: &'static str,
        /// The attribute that holds it.
        attribute: &'static str,
        /// What was given.
        value: u16,
    },
    /// An ICMP code of no type.
    #[error(
        "ICMP code (port-range-max) {0} is provided but ICMP type (port-range-min) is missing."
    )]
    MissingIcmpType(u16),
    /// The protocol is IPv6's and the ethertype IPv4.
    #[error("Invalid ethertype {ethertype} for protocol {protocol}.")]
    EthertypeOfProtocol {
        /// The ethertype.
        ethertype: Ethertype,
        /// The protocol as given.
        protocol: String,
    },
    /// The prefix is of another IP version than the ethertype.
    #[error("Conflicting value ethertype {ethertype} for CIDR {cidr}")]
    EthertypeOfPrefix {
        /// The ethertype.
        ethertype: Ethertype,
        /// The prefix.
        cidr: IpNet,
    },
    /// Not an address or prefix.
    #[error("Invalid CIDR {0} given as IP prefix.")]
    InvalidPrefix(String),
    /// Several other sides.
    #[error(
        "Only one of remote_ip_prefix or remote_group_id or \
         remote_address_group_id may be provided."
    )]
    MultipleRemotes,
    /// The group has a rule that allows the same.
    #[error("Security group rule already exists. Rule id is {0}.")]
    RuleExists(Uuid),
    /// Ports are members of the group.
    #[error("Security Group {0} in use.")]
    GroupInUse(Uuid),
    /// A project keeps its default group.
    #[error("Insufficient rights for removing default security group.")]
    DefaultRemoved,
    /// A project's default group keeps its name.
    #[error("Updating default security group not allowed.")]
    DefaultRenamed,
    /// Only a project's default group is named so.
    #[error("Default security group already exists.")]
    DefaultExists,
    /// Groups that remember connections and groups that do not.
    #[error(
        "Error Cannot apply both stateful and stateless security groups on the same port \
         at the same time while attempting the operation."
    )]
    MixedStatefulness,
    /// Security groups of a port without port security.
    #[error(
        "Port security must be enabled and port must have an IP address in order to use \
         security groups."
    )]
    GroupsNeedPortSecurity,
    /// Port security cannot go while there are groups.
    #[error(
        "Port has security group associated. Cannot disable port security or IP address \
         until security group is removed."
    )]
    PortHasGroups,
    /// Address pairs of a port without port security.
    #[error("Port Security must be enabled in order to have allowed address pairs on a port.")]
    PairsNeedPortSecurity,
    /// The same pair twice.
    #[error("Request contains duplicate address pair: mac_address {mac} ip_address {address}.")]
    DuplicatePair {
        /// The pair's MAC address.
        mac: Mac,
        /// The pair's addresses.
        address: IpNet,
    },
    /// Rules name the address group.
    #[error("Address group {0} is in use on one or more security group rules.")]
    AddressGroupInUse(Uuid),
    /// The address group has these.
    #[error("Addresses {addresses} already exist in the address group {group}.")]
    AddressesExist {
        /// The prefixes.
        addresses: String,
        /// The address group.
        group: Uuid,
    },
    /// The address group does not have these.
    #[error("Addresses {addresses} not found in the address group {group}.")]
    AddressesNotFound {
        /// The prefixes.
        addresses: String,
        /// The address group.
        group: Uuid,
    },
}
