//! What all Neutron resources have in common: a table of attributes, JSON in and out.
//!
//! A new kind of resource is one file: its planner's request types, its table, and
//! an `impl Resource`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use uuid::Uuid;

use super::attribute::{Attribute, Kind, Post};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{Common, Mutation};
use crate::northbound::PortStatus;

/// Most tags that a resource has.
pub const MAX_TAGS: usize = 64;
/// Most characters of a tag.
pub const MAX_TAG: usize = 255;

/// A kind of resource.
pub trait Resource: Sized + Clone + PartialEq + Send + Sync + 'static {
    /// What one is called in JSON, such as `network`.
    const MEMBER: &'static str;
    /// What many are called in paths and JSON, such as `networks`.
    const COLLECTION: &'static str;
    /// Where they are below `/v2.0/`.
    const PATH: &'static str = Self::COLLECTION;
    /// Where their tags are below `/v2.0/`.
    const TAG_PATHS: &'static [&'static str] = &[Self::PATH];
    /// What Neutron's exceptions call it, such as `Network`.
    const KIND: &'static str;
    /// Whether one has a name.
    const NAMED: bool = true;
    /// Its attributes besides [`COMMON`].
    const ATTRIBUTES: &'static [Attribute];
    /// What its planner takes to create one.
    type New: DeserializeOwned + Send + 'static;

    /// All of them, by id.
    fn all(state: &State) -> impl Iterator<Item = &Self>;
    /// The one with that id.
    fn find(state: &State, id: Uuid) -> Option<&Self>;
    /// Its common attributes.
    fn common(&self) -> &Common;
    /// The same, to be changed.
    fn common_mut(&mut self) -> &mut Common;
    /// The value of one attribute of [`Self::ATTRIBUTES`].
    fn value(&self, name: &str, view: View<'_>) -> Value;
    /// The mutation that puts it.
    fn put(self) -> Mutation;
    /// Plans a new one.
    fn create(
        state: &State,
        context: Context<'_>,
        request: Self::New,
    ) -> Result<Plan<Self>, IntentError>;
    /// Plans its end.
    fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError>;

    /// Whether it passes a filter whose values are no plain attribute values; nothing
    /// if that attribute has no filter of its own.
    fn special_filter(&self, _name: &str, _values: &[String]) -> Option<bool> {
        None
    }
}

/// A kind of resource that can change.
pub trait Changeable: Resource {
    /// What its planner takes to change one.
    type Change: DeserializeOwned + Send + 'static;

    /// Plans a change.
    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: Self::Change,
    ) -> Result<Plan<Self>, IntentError>;
}

/// What the attributes of a resource depend on besides itself.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The state that the resource is part of.
    pub state: &'a State,
    /// Which ports are in force.
    pub ports: &'a dyn PortStatus,
}

/// Attributes that every resource has.
pub const COMMON: &[Attribute] = &[
    Attribute::read_only("id", Kind::Uuid, "Identity."),
    Attribute::writable(
        "name",
        Kind::Text(255),
        Post::Default("\"\""),
        "Name; need not be unique.",
    ),
    Attribute::writable(
        "description",
        Kind::Text(255),
        Post::Default("\"\""),
        "Free text.",
    ),
    Attribute::fixed("project_id", Kind::Text(255), Post::Optional, "Owner."),
    Attribute::fixed(
        "tenant_id",
        Kind::Text(255),
        Post::Optional,
        "Owner, by its old name.",
    ),
    Attribute::read_only(
        "revision_number",
        Kind::Integer(0, i64::MAX),
        "Counts the changes of the resource.",
    ),
    Attribute::read_only("created_at", Kind::Time, "When it was created."),
    Attribute::read_only("updated_at", Kind::Time, "When it was last changed."),
    Attribute::read_only(
        "tags",
        Kind::List(&Kind::Text(MAX_TAG), MAX_TAGS),
        "Tags; see the resource's tags.",
    ),
];

/// A member's name in a sentence: with its article, in words.
pub fn a(member: &str) -> String {
    let article = if member.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {}", member.replace('_', " "))
}

/// All attributes of a kind of resource.
pub fn table<R: Resource>() -> Vec<&'static Attribute> {
    COMMON
        .iter()
        .filter(|attribute| R::NAMED || attribute.name != "name")
        .chain(R::ATTRIBUTES)
        .collect()
}

/// The value of one attribute, common or own.
pub fn value_of<R: Resource>(resource: &R, name: &str, view: View<'_>) -> Value {
    let common = resource.common();
    match name {
        "id" => json!(common.id),
        "name" => json!(common.name),
        "description" => json!(common.description),
        "project_id" | "tenant_id" => json!(common.project_id),
        "revision_number" => json!(common.revision_number),
        "created_at" => time(common.created_at),
        "updated_at" => time(common.updated_at),
        "tags" => json!(common.tags),
        _ => resource.value(name, view),
    }
}

/// The resource as JSON; of its attributes only `fields`, if there are any.
pub fn show<R: Resource>(resource: &R, fields: &[String], view: View<'_>) -> Value {
    let wanted = |name: &str| fields.is_empty() || fields.iter().any(|f| f == name);
    let shown: Map<String, Value> = table::<R>()
        .into_iter()
        .filter(|attribute| wanted(attribute.name))
        .map(|attribute| {
            let value = value_of(resource, attribute.name, view);
            (attribute.name.to_owned(), value)
        })
        .collect();
    Value::Object(shown)
}

/// As Neutron writes points in time.
fn time(at: OffsetDateTime) -> Value {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    at.format(&format).map_or(Value::Null, Value::String)
}
