//! Ports, with the extension `binding` and the paper's `segmentation_id`.

use nve_protocol::Vlan;
use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Field, Kind, Post};
use super::resource::{Resource, View};
use crate::intent::port::{self, MAX_FIXED_IPS, NewPort, PortChange};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{Common, FixedIp, Mutation, Port};

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
            "VLAN tag of its port group, unique on a host; chosen if absent.",
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
    type Change = PortChange;

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

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: PortChange,
    ) -> Result<Plan<Self>, IntentError> {
        port::update(state, context, id, change)
    }

    fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
        port::delete(state, id)
    }

    fn special_filter(&self, name: &str, values: &[String]) -> Option<bool> {
        (name == "fixed_ips").then(|| has_address(self, values))
    }
}

fn status(port: &Port, view: View<'_>) -> &'static str {
    if port.admin_state_up && view.ports.is_active(port.common.id) {
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
