//! The records that an appliance's tables are made of.
//!
//! A record is a key and what the key maps to. Putting a record whose key is
//! there replaces it; deleting needs the key alone. Records name each other by
//! identifiers that need not be there: a rule may come before its group, and
//! means nothing until the group is there too.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::digest::{Hasher, IntoHash};
use crate::policy::{Direction, Family, Ipv6Mode, Limit, OptionValue, Presence, Remote};
use crate::types::{GroupId, Mac, PortId, Prefix, RouterId, RuleId, Vlan, Vni};

/// Declares the record types, and from them everything that goes by kind. The
/// number after each name starts the record's fingerprint, and is never reused.
macro_rules! records {
    ($(
        $(#[$doc:meta])+
        $number:literal $name:ident in $table:ident {
            key { $($(#[$key_doc:meta])+ $key:ident: $key_type:ty,)+ }
            value { $($(#[$value_doc:meta])+ $value:ident: $value_type:ty,)* }
        }
    )+) => {
        $(
            $(#[$doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$key_doc])+ pub $key: $key_type,)+
                $($(#[$value_doc])+ pub $value: $value_type,)*
            }
        )+

        /// A record of any table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Record {
            $($(#[$doc])+ $name($name),)+
        }

        /// What identifies a [`Record`] in its table.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Key {
            $(
                #[doc = concat!("Key of [`", stringify!($name), "`].")]
                $name { $($(#[$key_doc])+ $key: $key_type,)+ },
            )+
        }

        /// A table: all records of one kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table {
            $(#[doc = concat!("Records of kind [`", stringify!($name), "`].")] $name,)+
        }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Table] = &[$(Table::$name),+];

            /// Name in the protocol, in metrics and in lists.
            pub const fn name(self) -> &'static str {
                match self { $(Table::$name => stringify!($table)),+ }
            }
        }

        /// A number of records for each table: how many there are, or how many fit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        pub struct TableSizes {
            $(
                #[doc = concat!("Records of kind [`", stringify!($name), "`].")]
                pub $table: u32,
            )+
        }

        impl TableSizes {
            /// The same number for each table.
            pub const fn uniform(records: u32) -> TableSizes {
                TableSizes { $($table: records),+ }
            }

            /// The number for one table.
            pub const fn get(&self, table: Table) -> u32 {
                match table { $(Table::$name => self.$table),+ }
            }

            /// The number for one table, to be changed.
            pub const fn get_mut(&mut self, table: Table) -> &mut u32 {
                match table { $(Table::$name => &mut self.$table),+ }
            }
        }

        impl Record {
            /// What identifies the record in its table.
            pub const fn key(&self) -> Key {
                match *self {
                    $(Record::$name($name { $($key,)+ .. }) => Key::$name { $($key),+ },)+
                }
            }

            /// The table it belongs to.
            pub const fn table(&self) -> Table {
                match self { $(Record::$name(_) => Table::$name),+ }
            }

            /// Hash over every field, the same on both ends; summed into a
            /// [`TableDigest`](crate::TableDigest).
            pub fn fingerprint(&self) -> u64 {
                let mut hash;
                match self {
                    $(Record::$name(record) => {
                        hash = Hasher::new($number);
                        $(hash = record.$key.hash_into(hash);)+
                        $(hash = record.$value.hash_into(hash);)*
                    })+
                }
                hash.finish()
            }
        }

        impl Key {
            /// The table of the record that it identifies.
            pub const fn table(&self) -> Table {
                match self { $(Key::$name { .. } => Table::$name),+ }
            }
        }
    };
}

records! {
    /// One VM port on this NVE's trunk.
    1 Vap in vaps {
        key {
            /// Tag of the port's port group on the trunk.
            vlan: Vlan,
        }
        value {
            /// The Neutron port.
            port: PortId,
            /// Network of the port.
            vni: Vni,
            /// The port's own address.
            mac: Mac,
            /// Whether the VM may use only its [`Address`] records as sources, and
            /// passes only what its security groups allow; without it, anything.
            port_security: bool,
            /// Whether the VM is there, may come, or has gone.
            presence: Presence,
        }
    }

    /// A MAC address behind another VTEP.
    2 Fdb in fdb {
        key {
            /// Network in which the address lives.
            vni: Vni,
            /// Unicast address of the remote port.
            mac: Mac,
        }
        value {
            /// Where frames for it are tunnelled.
            vtep: IpAddr,
        }
    }

    /// An IP address and its MAC address, for answering ARP and neighbor
    /// solicitations and for delivering routed packets.
    3 Neighbor in neighbors {
        key {
            /// Network in which the address lives.
            vni: Vni,
            /// The port's address, local or remote.
            ip: IpAddr,
        }
        value {
            /// Its MAC address.
            mac: Mac,
        }
    }

    /// A VTEP that takes part in a network's head-end replication.
    4 Flood in flood {
        key {
            /// The network.
            vni: Vni,
            /// A remote VTEP that gets a copy of each frame without one receiver.
            vtep: IpAddr,
        }
        value {}
    }

    /// A VTEP that may send into a network without taking part in its
    /// replication: its NVE routes into the network.
    5 Peer in peers {
        key {
            /// The network.
            vni: Vni,
            /// The remote VTEP.
            vtep: IpAddr,
        }
        value {}
    }

    /// What a network as a whole has.
    6 Network in networks {
        key {
            /// The network.
            vni: Vni,
        }
        value {
            /// Bytes of the largest IP packet in it; told by DHCP and RA, and
            /// kept by the router.
            mtu: u16,
        }
    }

    /// A subnet, for DHCP and router advertisements.
    7 Subnet in subnets {
        key {
            /// Its network.
            vni: Vni,
            /// Its prefix; no two of a network overlap.
            prefix: Prefix,
        }
        value {
            /// Whether DHCP answers in it.
            dhcp: bool,
            /// The router that DHCPv4 announces.
            gateway: Option<IpAddr>,
            /// How the router advertises it (Neutron's `ipv6_ra_mode`); `None`:
            /// not at all.
            ra_mode: Option<Ipv6Mode>,
            /// How ports get their addresses (Neutron's `ipv6_address_mode`).
            address_mode: Option<Ipv6Mode>,
        }
    }

    /// A DNS server of a subnet.
    8 Dns in dns {
        key {
            /// The subnet's network.
            vni: Vni,
            /// The subnet.
            subnet: Prefix,
            /// Place in the list, from 0.
            index: u8,
        }
        value {
            /// The server.
            server: IpAddr,
        }
    }

    /// A route that DHCP announces (RFC 3442).
    9 HostRoute in host_routes {
        key {
            /// The subnet's network.
            vni: Vni,
            /// The subnet.
            subnet: Prefix,
            /// Where to.
            destination: Prefix,
        }
        value {
            /// By way of.
            next_hop: IpAddr,
        }
    }

    /// An interface of a distributed router: this NVE is that gateway. The
    /// router reaches all of `prefix` in the network directly.
    10 Gateway in gateways {
        key {
            /// Network of the interface.
            vni: Vni,
            /// Its address.
            ip: IpAddr,
        }
        value {
            /// The subnet's prefix.
            prefix: Prefix,
            /// The interface's MAC address, the same on every NVE.
            mac: Mac,
            /// The router.
            router: RouterId,
        }
    }

    /// A route of a router beside those to its interfaces' subnets.
    11 Route in routes {
        key {
            /// The router.
            router: RouterId,
            /// Where to.
            destination: Prefix,
        }
        value {
            /// By way of; an address in a subnet of one of the router's interfaces.
            next_hop: IpAddr,
        }
    }

    /// Addresses that a VM may send from.
    12 Address in addresses {
        key {
            /// The VAP.
            vlan: Vlan,
            /// Source MAC address.
            mac: Mac,
            /// Source IP addresses that go with it.
            prefix: Prefix,
        }
        value {
            /// Whether it is one of the port's fixed IPs, which DHCP leases; if
            /// not, it is an allowed address pair.
            fixed: bool,
        }
    }

    /// A piece of a DHCP option of a VAP.
    13 DhcpOption in dhcp_options {
        key {
            /// The VAP.
            vlan: Vlan,
            /// For DHCPv4 or DHCPv6.
            family: Family,
            /// Option code.
            code: u16,
            /// Which piece of the option's value, from 0; pieces are joined.
            part: u8,
        }
        value {
            /// Bytes of the piece, as they go on the wire.
            value: OptionValue,
        }
    }

    /// A security group that some VAP here is in.
    14 Group in groups {
        key {
            /// The security group.
            group: GroupId,
        }
        value {
            /// Whether replies to what its rules allow are allowed too.
            stateful: bool,
        }
    }

    /// What a security group allows.
    15 Rule in rules {
        key {
            /// The rule.
            id: RuleId,
        }
        value {
            /// The security group that it belongs to.
            group: GroupId,
            /// Towards the VM or from it.
            direction: Direction,
            /// Of IPv4 or IPv6 packets.
            family: Family,
            /// IP protocol number; `None` for any.
            protocol: Option<u8>,
            /// Lowest destination port; for ICMP and ICMPv6, 256 * type + code. 0
            /// if the protocol has neither.
            low: u16,
            /// Highest one, included; 65535 if the protocol has neither.
            high: u16,
            /// Who is at the other end.
            remote: Remote,
        }
    }

    /// Addresses in a security group or an address group that rules name as
    /// their remote.
    16 Member in members {
        key {
            /// The group.
            group: GroupId,
            /// The addresses.
            prefix: Prefix,
        }
        value {}
    }

    /// A VAP is in a security group.
    17 Binding in bindings {
        key {
            /// The VAP.
            vlan: Vlan,
            /// The security group.
            group: GroupId,
        }
        value {}
    }

    /// Rate limits and marking of a VAP.
    18 Qos in qos {
        key {
            /// The VAP.
            vlan: Vlan,
        }
        value {
            /// Of what the VM sends.
            egress: Limit,
            /// Of what the VM gets.
            ingress: Limit,
            /// DSCP that the VM's packets are marked with, 0 to 63.
            dscp: Option<u8>,
        }
    }
}
