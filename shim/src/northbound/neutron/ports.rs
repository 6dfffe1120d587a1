//! Ports, with the extensions `binding`, `port-security`, `security-group`,
//! `allowed-address-pairs`, `extra_dhcp_opt`, `qos` and `dns-integration`, and the
//! paper's `segmentation_id`.

use nve_protocol::Vlan;
use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Field, Kind, Post};
use super::resource::{Changeable, Resource, View};
use crate::intent::dhcp_option::MAX_OPTIONS;
use crate::intent::port::{self, MAX_FIXED_IPS, NewPort, PortChange};
use crate::intent::port_security::MAX_PAIRS;
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{AddressPair, Common, FixedIp, Mutation, Network, Port};

const FIXED_IP: Kind = Kind::Record(&[
    Field {
        name: "subnet_id",
        kind: Kind::Uuid,
        required: false,
    },
    Field {
        name: "ip_address",
        kind: Kind::Ip,
        required: false,
    },
]);

const ADDRESS_PAIR: Kind = Kind::Record(&[
    Field {
        name: "ip_address",
        kind: Kind::AddressOrPrefix,
        required: true,
    },
    Field {
        name: "mac_address",
        kind: Kind::Mac,
        required: false,
    },
]);

const DNS_ASSIGNMENT: Kind = Kind::Record(&[
    Field {
        name: "hostname",
        kind: Kind::DnsName,
        required: true,
    },
    Field {
        name: "ip_address",
        kind: Kind::Ip,
        required: true,
    },
    Field {
        name: "fqdn",
        kind: Kind::DnsDomain,
        required: true,
    },
]);

const DHCP_OPTION: Kind = Kind::Record(&[
    Field {
        name: "opt_name",
        kind: Kind::TextOrNumber,
        required: true,
    },
    Field {
        name: "opt_value",
        kind: Kind::Nullable(&Kind::Text(255)),
        required: true,
    },
    Field {
        name: "ip_version",
        kind: Kind::IntegerOf(&[4, 6]),
        required: false,
    },
]);

impl Resource for Port {
    const MEMBER: &'static str = "port";
    const COLLECTION: &'static str = "ports";
    const KIND: &'static str = "Port";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::fixed("network_id", Kind::Uuid, Post::Required, "Its network."),
        Attribute::writable(
            "admin_state_up",
            Kind::Bool,
            Post::Default("true"),
            "Whether it forwards.",
        ),
        Attribute::writable(
            "mac_address",
            Kind::Mac,
            Post::Optional,
            "The VM's address on it; generated if absent.",
        ),
        Attribute::writable(
            "fixed_ips",
            Kind::List(&FIXED_IP, MAX_FIXED_IPS),
            Post::Optional,
            "Its addresses; one per IP version that the network has if absent.",
        ),
        Attribute::writable(
            "device_id",
            Kind::Text(255),
            Post::Default("\"\""),
            "Who uses it, usually the VM's UUID.",
        ),
        Attribute::writable(
            "device_owner",
            Kind::Text(255),
            Post::Default("\"\""),
            "For what, such as compute:nova.",
        ),
        Attribute::writable(
            "segmentation_id",
            Kind::Nullable(&Kind::Integer(1, Vlan::MAX as i64)),
            Post::Optional,
            "VLAN tag of its port group, unique on a host; chosen if absent. A router's \
             interface has none.",
        ),
        Attribute::writable(
            "port_security_enabled",
            Kind::Bool,
            Post::Optional,
            "Whether it may send from its own addresses only, and security groups apply; its \
             network's if absent.",
        ),
        Attribute::writable(
            "security_groups",
            Kind::ListOrNull(&Kind::Uuid, usize::MAX),
            Post::Optional,
            "Its security groups; its project's default group if absent.",
        ),
        Attribute::writable(
            "allowed_address_pairs",
            Kind::ListOrNull(&ADDRESS_PAIR, MAX_PAIRS),
            Post::Default("[]"),
            "Addresses that it may use besides its own; the MAC address is its own if absent.",
        ),
        Attribute::writable(
            "extra_dhcp_opts",
            Kind::ListOrNull(&DHCP_OPTION, MAX_OPTIONS),
            Post::Default("[]"),
            "DHCP options, by dnsmasq's names or by number; in a change, those of no value go \
             and those not named stay.",
        ),
        Attribute::writable(
            "qos_policy_id",
            Kind::Nullable(&Kind::Uuid),
            Post::Optional,
            "QoS policy; its network's if null.",
        ),
        Attribute::read_only(
            "qos_network_policy_id",
            Kind::Nullable(&Kind::Uuid),
            "QoS policy of its network.",
        ),
        Attribute::writable(
            "dns_name",
            Kind::DnsName,
            Post::Default("\"\""),
            "Host name for DHCP; empty if none.",
        ),
        Attribute::read_only(
            "dns_assignment",
            Kind::List(&DNS_ASSIGNMENT, usize::MAX),
            "Names of its addresses.",
        ),
        Attribute::writable(
            "binding:host_id",
            Kind::TextOrNull(255),
            Post::Default("\"\""),
            "Name of the host that it is bound to; empty if none.",
        ),
        Attribute::writable(
            "binding:vnic_type",
            Kind::Choice(&["normal"]),
            Post::Default("\"normal\""),
            "Kind of virtual NIC.",
        ),
        Attribute::writable(
            "binding:profile",
            Kind::EmptyObject,
            Post::Default("{}"),
            "Always empty.",
        ),
        Attribute::read_only(
            "binding:vif_type",
            Kind::Choice(&["unbound", "other"]),
            "other: the VM's NIC is attached to the port group of the port.",
        ),
        Attribute::read_only(
            "binding:vif_details",
            Kind::EmptyObject,
            "Always empty: the port group's tag is in segmentation_id.",
        ),
        Attribute::read_only(
            "status",
            Kind::Choice(&["ACTIVE", "DOWN"]),
            "ACTIVE once its NVE has acknowledged tables that contain it.",
        ),
    ];
    type New = NewPort;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.ports()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.port(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, view: View<'_>) -> Value {
        match name {
            "network_id" => json!(self.network_id),
            "admin_state_up" => json!(self.admin_state_up),
            "mac_address" => json!(self.mac_address),
            "fixed_ips" => json!(self.fixed_ips),
            "device_id" => json!(self.device_id),
            "device_owner" => json!(self.device_owner),
            "segmentation_id" => json!(self.segmentation_id),
            "binding:host_id" => json!(self.binding_host_id),
            "binding:vnic_type" => json!("normal"),
            "binding:profile" | "binding:vif_details" => json!({}),
            "binding:vif_type" if self.binding_host_id.is_empty() => json!("unbound"),
            "binding:vif_type" => json!("other"),
            "port_security_enabled" => json!(self.port_security_enabled),
            "security_groups" => json!(self.security_groups),
            "allowed_address_pairs" => self.allowed_address_pairs.iter().map(shown_pair).collect(),
            "extra_dhcp_opts" => json!(self.extra_dhcp_opts),
            "qos_policy_id" => json!(self.qos_policy_id),
            "qos_network_policy_id" => json!(network(self, view).and_then(|n| n.qos_policy_id)),
            "dns_name" => json!(self.dns_name),
            "dns_assignment" => dns_assignment(self, view),
            "status" => json!(status(self, view)),
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutPort(self)
    }

    fn create(
        state: &State,
        context: Context<'_>,
        request: NewPort,
    ) -> Result<Plan<Self>, IntentError> {
        port::create(state, context, request)
    }

    fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        port::delete(state, context, id)
    }

    fn special_filter(&self, name: &str, values: &[String]) -> Option<bool> {
        (name == "fixed_ips").then(|| has_address(self, values))
    }
}

impl Changeable for Port {
    type Change = PortChange;

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: PortChange,
    ) -> Result<Plan<Self>, IntentError> {
        port::update(state, context, id, change)
    }
}

fn network<'a>(port: &Port, view: View<'a>) -> Option<&'a Network> {
    view.state.network(port.network_id)
}

/// An address without a prefix length if it is one alone, as it was given.
fn shown_pair(pair: &AddressPair) -> Value {
    let cidr = pair.ip_address;
    let is_one = cidr.prefix_len() == cidr.max_prefix_len();
    let ip_address = if is_one {
        cidr.addr().to_string()
    } else {
        cidr.to_string()
    };
    json!({"ip_address": ip_address, "mac_address": pair.mac_address})
}

/// As Neutron: a name of its address if the port has none, in the network's domain or
/// the one of nobody.
fn dns_assignment(port: &Port, view: View<'_>) -> Value {
    let domain = network(port, view)
        .map(|network| network.dns_domain.as_str())
        .filter(|domain| !domain.is_empty())
        .unwrap_or("openstacklocal.");
    let assignment = |ip: &FixedIp| {
        let address = ip.ip_address.to_string();
        let hostname = match port.dns_name.is_empty() {
            true => format!("host-{}", address.replace(['.', ':'], "-")),
            false => port.dns_name.trim_end_matches('.').to_owned(),
        };
        let fqdn = format!("{hostname}.{domain}");
        json!({"hostname": hostname, "ip_address": address, "fqdn": fqdn})
    };
    port.fixed_ips.iter().map(assignment).collect()
}

/// A router is on every NVE that has its networks, so its interfaces need no NVE.
fn status(port: &Port, view: View<'_>) -> &'static str {
    let in_force = port.router().is_some() || view.ports.is_active(port.common.id);
    if port.admin_state_up && in_force {
        "ACTIVE"
    } else {
        "DOWN"
    }
}

/// Whether one address passes `key=value` filters: any value of each key given.
fn has_address(port: &Port, filters: &[String]) -> bool {
    let pairs: Vec<(&str, &str)> = filters
        .iter()
        .map(|filter| filter.split_once('=').unwrap_or((filter, "")))
        .collect();
    let matches = |ip: &FixedIp, key: &str, value: &str| match key {
        "subnet_id" => value.parse() == Ok(ip.subnet_id),
        "ip_address" => value.parse() == Ok(ip.ip_address),
        "ip_address_substr" => ip.ip_address.to_string().contains(value),
        _ => false,
    };
    let passes = |ip: &FixedIp| {
        pairs.iter().all(|(key, _)| {
            let same_key = pairs.iter().filter(|(other, _)| other == key);
            same_key.clone().any(|(key, value)| matches(ip, key, value))
        })
    };
    port.fixed_ips.iter().any(passes)
}
