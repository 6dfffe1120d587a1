//! Security group rules. They cannot change.

use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Kind, Post};
use super::resource::{Resource, View};
use crate::intent::rule::{self, NewRule};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{Common, Mutation, SecurityGroupRule};

impl Resource for SecurityGroupRule {
    const MEMBER: &'static str = "security_group_rule";
    const COLLECTION: &'static str = "security_group_rules";
    const PATH: &'static str = "security-group-rules";
    const NAMED: bool = false;
    const KIND: &'static str = "SecurityGroupRule";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::fixed(
            "security_group_id",
            Kind::Uuid,
            Post::Required,
            "Its group.",
        ),
        Attribute::fixed(
            "direction",
            Kind::Choice(&["ingress", "egress"]),
            Post::Required,
            "Which way, seen from the VM.",
        ),
        Attribute::fixed(
            "ethertype",
            Kind::Text(255),
            Post::Default("\"IPv4\""),
            "IPv4 or IPv6.",
        ),
        Attribute::fixed(
            "protocol",
            Kind::Nullable(&Kind::TextOrNumber),
            Post::Default("null"),
            "IP protocol, by name or number; any if null.",
        ),
        Attribute::fixed(
            "port_range_min",
            Kind::Nullable(&Kind::AnyInteger),
            Post::Default("null"),
            "First destination port, or the ICMP type.",
        ),
        Attribute::fixed(
            "port_range_max",
            Kind::Nullable(&Kind::AnyInteger),
            Post::Default("null"),
            "Last destination port, or the ICMP code.",
        ),
        Attribute::fixed(
            "remote_ip_prefix",
            Kind::Nullable(&Kind::Text(255)),
            Post::Default("null"),
            "Addresses of the other side.",
        ),
        Attribute::fixed(
            "remote_group_id",
            Kind::Nullable(&Kind::Uuid),
            Post::Default("null"),
            "Group whose ports the other side is among.",
        ),
        Attribute::fixed(
            "remote_address_group_id",
            Kind::Nullable(&Kind::Uuid),
            Post::Default("null"),
            "Address group that the other side is in.",
        ),
        Attribute::read_only(
            "normalized_cidr",
            Kind::Nullable(&Kind::Prefix),
            "remote_ip_prefix without host bits.",
        ),
        Attribute::read_only(
            "belongs_to_default_sg",
            Kind::Bool,
            "Whether its group is its project's default group.",
        ),
    ];
    type New = NewRule;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.rules()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.rule(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, view: View<'_>) -> Value {
        match name {
            "security_group_id" => json!(self.security_group_id),
            "direction" => json!(self.direction),
            "ethertype" => json!(self.ethertype),
            "protocol" => json!(self.protocol.as_ref().map(|protocol| &protocol.text)),
            "port_range_min" => json!(self.port_range_min),
            "port_range_max" => json!(self.port_range_max),
            "remote_ip_prefix" | "normalized_cidr" => json!(self.remote_ip_prefix),
            "remote_group_id" => json!(self.remote_group_id),
            "remote_address_group_id" => json!(self.remote_address_group_id),
            "belongs_to_default_sg" => {
                let group = view.state.security_group(self.security_group_id);
                json!(group.is_some_and(|group| group.is_default))
            }
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutSecurityGroupRule(self)
    }

    fn create(
        state: &State,
        context: Context<'_>,
        request: NewRule,
    ) -> Result<Plan<Self>, IntentError> {
        rule::create(state, context, request)
    }

    fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        rule::delete(state, context, id)
    }
}
