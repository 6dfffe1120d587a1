//! Networks, with the extensions `provider`, `net-mtu-writable`, `port-security`, `qos`
//! and `dns-integration`.

use nve_protocol::Vni;
use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Kind, Post};
use super::resource::{Changeable, Resource, View};
use crate::intent::network::{self, NetworkChange, NewNetwork};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{Common, Mutation, Network};

impl Resource for Network {
    const MEMBER: &'static str = "network";
    const COLLECTION: &'static str = "networks";
    const KIND: &'static str = "Network";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::writable(
            "admin_state_up",
            Kind::Bool,
            Post::Default("true"),
            "Whether it forwards.",
        ),
        Attribute::writable(
            "shared",
            Kind::Bool,
            Post::Default("false"),
            "Whether other projects may use it.",
        ),
        Attribute::writable(
            "mtu",
            Kind::Integer(0, u16::MAX as i64),
            Post::Default("0"),
            "Bytes of an IP packet that fit; 0 for what the underlay leaves.",
        ),
        Attribute::fixed(
            "provider:network_type",
            Kind::Choice(&["vxlan"]),
            Post::Default("\"vxlan\""),
            "How it is carried.",
        ),
        Attribute::fixed(
            "provider:physical_network",
            Kind::Null,
            Post::Default("null"),
            "Always null: it is carried over VXLAN.",
        ),
        Attribute::fixed(
            "provider:segmentation_id",
            Kind::Nullable(&Kind::Integer(0, Vni::MAX as i64)),
            Post::Optional,
            "VNI; allocated if absent.",
        ),
        Attribute::writable(
            "port_security_enabled",
            Kind::Bool,
            Post::Default("true"),
            "What it is for its new ports unless they say otherwise.",
        ),
        Attribute::writable(
            "qos_policy_id",
            Kind::Nullable(&Kind::Uuid),
            Post::Optional,
            "QoS policy of its ports that have none of their own; the project's default \
             policy if absent.",
        ),
        Attribute::writable(
            "dns_domain",
            Kind::DnsDomain,
            Post::Default("\"\""),
            "Domain of its ports' names, with a dot at its end; empty if none.",
        ),
        Attribute::read_only(
            "status",
            Kind::Choice(&["ACTIVE"]),
            "State: networks need nothing to be set up.",
        ),
        Attribute::read_only(
            "subnets",
            Kind::List(&Kind::Uuid, usize::MAX),
            "Its subnets.",
        ),
    ];
    type New = NewNetwork;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.networks()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.network(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, view: View<'_>) -> Value {
        match name {
            "admin_state_up" => json!(self.admin_state_up),
            "shared" => json!(self.shared),
            "mtu" => json!(self.mtu),
            "provider:network_type" => json!("vxlan"),
            "provider:segmentation_id" => json!(self.vni),
            "port_security_enabled" => json!(self.port_security_enabled),
            "qos_policy_id" => json!(self.qos_policy_id),
            "dns_domain" => json!(self.dns_domain),
            "status" => json!("ACTIVE"),
            "subnets" => view
                .state
                .subnets_of(self.common.id)
                .map(|subnet| json!(subnet.common.id))
                .collect(),
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutNetwork(self)
    }

    fn create(
        state: &State,
        context: Context<'_>,
        request: NewNetwork,
    ) -> Result<Plan<Self>, IntentError> {
        network::create(state, context, request)
    }

    fn delete(state: &State, _context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        network::delete(state, id)
    }
}

impl Changeable for Network {
    type Change = NetworkChange;

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: NetworkChange,
    ) -> Result<Plan<Self>, IntentError> {
        network::update(state, context, id, change)
    }
}
