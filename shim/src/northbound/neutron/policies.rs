//! QoS policies. Their rules are in [`super::qos_rules`].

use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Kind, Post};
use super::qos_rules;
use super::resource::{Changeable, Resource, View};
use crate::intent::qos::{self, NewPolicy, PolicyChange};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{Common, Mutation, QosPolicy};

impl Resource for QosPolicy {
    const MEMBER: &'static str = "policy";
    const COLLECTION: &'static str = "policies";
    const PATH: &'static str = "qos/policies";
    const TAG_PATHS: &'static [&'static str] = &["policies", "qos/policies"];
    const KIND: &'static str = "QosPolicy";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::writable(
            "shared",
            Kind::Bool,
            Post::Default("false"),
            "Whether other projects may use it.",
        ),
        Attribute::writable(
            "is_default",
            Kind::Bool,
            Post::Default("false"),
            "Whether it is its project's policy for networks that name none.",
        ),
        Attribute::read_only(
            "rules",
            Kind::List(&Kind::Shown("QosRule"), usize::MAX),
            "Its rules, each with its type.",
        ),
    ];
    type New = NewPolicy;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.qos_policies()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.qos_policy(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, _view: View<'_>) -> Value {
        match name {
            "shared" => json!(self.shared),
            "is_default" => json!(self.is_default),
            "rules" => self
                .rules
                .iter()
                .map(|rule| qos_rules::shown_in_policy(self.common.id, rule))
                .collect(),
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutQosPolicy(self)
    }

    fn create(
        state: &State,
        context: Context<'_>,
        request: NewPolicy,
    ) -> Result<Plan<Self>, IntentError> {
        qos::create(state, context, request)
    }

    fn delete(state: &State, _context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        qos::delete(state, id)
    }
}

impl Changeable for QosPolicy {
    type Change = PolicyChange;

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: PolicyChange,
    ) -> Result<Plan<Self>, IntentError> {
        qos::update(state, context, id, change)
    }
}
