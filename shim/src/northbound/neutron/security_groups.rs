//! Security groups, with the extension `stateful-security-group`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Kind, Post};
use super::resource::{Changeable, Resource, View, show};
use crate::intent::group::{self, GroupChange, NewGroup};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{Common, Mutation, SecurityGroup};

impl Resource for SecurityGroup {
    const MEMBER: &'static str = "security_group";
    const COLLECTION: &'static str = "security_groups";
    const PATH: &'static str = "security-groups";
    const KIND: &'static str = "SecurityGroup";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::writable(
            "stateful",
            Kind::Bool,
            Post::Default("true"),
            "Whether answers to what is allowed are allowed.",
        ),
        Attribute::read_only(
            "shared",
            Kind::Bool,
            "Always false: it is its project's alone.",
        ),
        Attribute::read_only(
            "security_group_rules",
            Kind::List(&Kind::Shown("SecurityGroupRule"), usize::MAX),
            "Its rules.",
        ),
    ];
    type New = NewGroup;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.security_groups()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.security_group(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, view: View<'_>) -> Value {
        match name {
            "stateful" => json!(self.stateful),
            "shared" => json!(false),
            "security_group_rules" => view
                .state
                .rules_of(self.common.id)
                .map(|rule| show(rule, &[], view))
                .collect(),
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutSecurityGroup(self)
    }

    fn create(
        state: &State,
        context: Context<'_>,
        request: NewGroup,
    ) -> Result<Plan<Self>, IntentError> {
        group::create(state, context, request)
    }

    fn delete(state: &State, _context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        group::delete(state, id)
    }
}

impl Changeable for SecurityGroup {
    type Change = GroupChange;

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: GroupChange,
    ) -> Result<Plan<Self>, IntentError> {
        group::update(state, context, id, change)
    }
}
