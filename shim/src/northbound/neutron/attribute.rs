//! Attributes of resources: who may give them, what values they take, what they
//! default to.
//!
//! A resource is a table of these, as in Neutron's attribute maps. From the table
//! come validation, filters and the OpenAPI schema. Conversions and texts follow
//! `neutron_lib.api.converters` and `validators`.

use std::net::IpAddr;

use ipnet::IpNet;
use nve_protocol::Mac;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::ApiError;

/// One attribute of a resource.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Whether and how a creator gives it.
    pub post: Post,
    /// Whether an update may change it.
    pub put: bool,
    /// What it means, for the OpenAPI document.
    pub doc: &'static str,
}

/// Whether and how a creator gives an attribute.
#[derive(Debug, Clone, Copy)]
pub enum Post {
    /// It must be given.
    Required,
    /// It may be given; absent means that the planner chooses.
    Optional,
    /// It may be given; absent means this JSON.
    Default(&'static str),
    /// It must not be given.
    Refused,
}

/// Values that an attribute takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A UUID.
    Uuid,
    /// A text of so many characters at most.
    Text(usize),
    /// True or false.
    Bool,
    /// An integer within bounds.
    Integer(i64, i64),
    /// An integer whose bounds the planner checks.
    AnyInteger,
    /// One of these integers.
    IntegerOf(&'static [i64]),
    /// A text, or a number that stands for its digits.
    TextOrNumber,
    /// An Ethernet address.
    Mac,
    /// An IP address.
    Ip,
    /// An IP prefix.
    Cidr,
    /// An IP prefix without host bits.
    Prefix,
    /// The same, or an IP address, which stands for the prefix of it alone.
    AddressOrPrefix,
    /// A DNS name, relative or with a dot at its end, or the empty text.
    DnsName,
    /// A DNS name with a dot at its end, or the empty text.
    DnsDomain,
    /// A point in time.
    Time,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// Nothing but null: what is known but not supported.
    Null,
    /// Nothing but `{}` or null.
    EmptyObject,
    /// An object with these fields, all of which may be missing unless required.
    Record(&'static [Field]),
    /// A list of at most so many.
    List(&'static Kind, usize),
    /// The same, or null, which means the empty list.
    ListOrNull(&'static Kind, usize),
    /// What that schema of the OpenAPI document describes; shown only.
    Shown(&'static str),
    /// The same, or null.
    Nullable(&'static Kind),
    /// The same, or null, which means the empty text.
    TextOrNull(usize),
}

/// One field of a [`Kind::Record`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
}

impl Attribute {
    /// An attribute that is not given at creation and can change.
    pub const fn changeable(name: &'static str, kind: Kind, doc: &'static str) -> Attribute {
        Attribute {
            name,
            kind,
            post: Post::Refused,
            put: true,
            doc,
        }
    }

    /// An attribute that only the shim sets.
    pub const fn read_only(name: &'static str, kind: Kind, doc: &'static str) -> Attribute {
        Attribute {
            name,
            kind,
            post: Post::Refused,
            put: false,
            doc,
        }
    }

    /// An attribute that is given at creation and stays.
    pub const fn fixed(name: &'static str, kind: Kind, post: Post, doc: &'static str) -> Attribute {
        Attribute {
            name,
            kind,
            post,
            put: false,
            doc,
        }
    }

    /// An attribute that is given at creation and can change.
    pub const fn writable(
        name: &'static str,
        kind: Kind,
        post: Post,
        doc: &'static str,
    ) -> Attribute {
        Attribute {
            name,
            kind,
            post,
            put: true,
            doc,
        }
    }

    fn convert(&self, value: &Value) -> Result<Value, ApiError> {
        self.kind.convert(value).map_err(|reason| {
            ApiError::bad_request(format!(
                "Invalid input for {}. Reason: {reason}.",
                self.name
            ))
        })
    }
}

/// The attributes of a new resource: checked, converted, defaults filled in.
pub fn for_create(
    table: &[&'static Attribute],
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, ApiError> {
    refuse_unknown(table, &given)?;
    let mut checked = Map::new();
    for attribute in table {
        let value = match (given.remove(attribute.name), attribute.post) {
            (Some(_), Post::Refused) => {
                return Err(ApiError::bad_request(format!(
                    "Attribute '{}' not allowed in POST",
                    attribute.name
                )));
            }
            (None, Post::Required) => {
                return Err(ApiError::bad_request(format!(
                    "Failed to parse request. Required attribute '{}' not specified",
                    attribute.name
                )));
            }
            (Some(value), _) => attribute.convert(&value)?,
            (None, Post::Default(text)) => {
                serde_json::from_str(text).map_err(|e| ApiError::internal(&e))?
            }
            (None, Post::Optional | Post::Refused) => continue,
        };
        checked.insert(attribute.name.to_owned(), value);
    }
    Ok(checked)
}

/// The attributes of a change: checked and converted.
pub fn for_update(
    table: &[&'static Attribute],
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, ApiError> {
    refuse_unknown(table, &given)?;
    let mut checked = Map::new();
    for attribute in table {
        let Some(value) = given.remove(attribute.name) else {
            continue;
        };
        if !attribute.put {
            return Err(ApiError::bad_request(format!(
                "Cannot update read-only attribute {}",
                attribute.name
            )));
        }
        checked.insert(attribute.name.to_owned(), attribute.convert(&value)?);
    }
    Ok(checked)
}

fn refuse_unknown(
    table: &[&'static Attribute],
    given: &Map<String, Value>,
) -> Result<(), ApiError> {
    let known = |name: &str| table.iter().any(|a| a.name == name);
    let unknown: Vec<&str> = given
        .keys()
        .map(String::as_str)
        .filter(|n| !known(n))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Unrecognized attribute(s) '{}'",
        unknown.join(", ")
    )))
}

impl Kind {
    /// The value in its normal form, or why it is none.
    pub fn convert(self, value: &Value) -> Result<Value, String> {
        match self {
            Kind::Uuid => parsed::<Uuid>(value, "a valid UUID"),
            Kind::Mac => mac(value),
            Kind::Ip => parsed::<IpAddr>(value, "a valid IP address"),
            Kind::Cidr => parsed::<IpNet>(value, "a valid IP subnet"),
            Kind::Prefix => prefix(value),
            Kind::AddressOrPrefix => address_or_prefix(value),
            Kind::DnsName => dns_name(value),
            Kind::DnsDomain => dns_domain(value),
            Kind::Time => text(value, usize::MAX),
            Kind::Text(max) => text(value, max),
            Kind::TextOrNull(_) if value.is_null() => Ok(json!("")),
            Kind::TextOrNull(max) => text(value, max),
            Kind::Bool => boolean(value),
            Kind::Integer(min, max) => integer(value, min, max),
            Kind::AnyInteger => integer(value, i64::MIN, i64::MAX),
            Kind::IntegerOf(choices) => integer_of(value, choices),
            Kind::TextOrNumber => text_or_number(value),
            Kind::Choice(choices) => choice(value, choices),
            Kind::Null if value.is_null() => Ok(Value::Null),
            Kind::Null => Err(format!("{} is not supported", shown(value))),
            Kind::EmptyObject => empty_object(value),
            Kind::Record(fields) => record(value, fields),
            Kind::ListOrNull(..) if value.is_null() => Ok(json!([])),
            Kind::List(of, max) | Kind::ListOrNull(of, max) => list(value, of, max),
            Kind::Shown(_) => Err(format!("{} is not supported", shown(value))),
            Kind::Nullable(_) if value.is_null() => Ok(Value::Null),
            Kind::Nullable(kind) => kind.convert(value),
        }
    }

    /// Its JSON schema.
    pub fn schema(self) -> Value {
        match self {
            Kind::Uuid => json!({"type": "string", "format": "uuid"}),
            Kind::Mac => json!({"type": "string", "examples": ["fa:16:3e:00:00:01"]}),
            Kind::Ip => json!({"type": "string", "examples": ["10.0.0.2", "fd00::2"]}),
            Kind::AnyInteger => json!({"type": "integer"}),
            Kind::IntegerOf(choices) => json!({"enum": choices}),
            Kind::TextOrNumber => json!({"type": ["string", "integer"]}),
            Kind::DnsName => json!({"type": "string", "examples": ["vm-1"]}),
            Kind::DnsDomain => json!({"type": "string", "examples": ["example.org."]}),
            Kind::AddressOrPrefix => {
                json!({"type": "string", "examples": ["10.0.0.2", "fd00::/64"]})
            }
            Kind::Cidr | Kind::Prefix => {
                json!({"type": "string", "examples": ["10.0.0.0/24", "fd00::/64"]})
            }
            Kind::Time => json!({"type": "string", "format": "date-time"}),
            Kind::Text(max) => json!({"type": "string", "maxLength": max}),
            Kind::TextOrNull(max) => json!({"type": ["string", "null"], "maxLength": max}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Integer(min, max) => {
                json!({"type": "integer", "minimum": min, "maximum": max})
            }
            Kind::Choice(choices) => json!({"enum": choices}),
            Kind::Null => json!({"type": "null"}),
            Kind::EmptyObject => json!({"type": ["object", "null"], "maxProperties": 0}),
            Kind::Record(fields) => record_schema(fields),
            Kind::Shown(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
            Kind::ListOrNull(of, max) => {
                let mut schema = Kind::List(of, max).schema();
                schema["type"] = json!(["array", "null"]);
                schema
            }
            Kind::List(of, usize::MAX) => json!({"type": "array", "items": of.schema()}),
            Kind::List(of, max) => {
                json!({"type": "array", "items": of.schema(), "maxItems": max})
            }
            Kind::Nullable(kind) => json!({"oneOf": [kind.schema(), {"type": "null"}]}),
        }
    }
}

/// A value as an error message shows it: short, whatever a client sent.
fn shown(value: &Value) -> String {
    const MAX: usize = 80;
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("'{}…'", &text[..end]),
        None => format!("'{text}'"),
    }
}

fn parsed<T: std::str::FromStr + ToString>(value: &Value, what: &str) -> Result<Value, String> {
    value
        .as_str()
        .and_then(|text| text.parse::<T>().ok())
        .map(|parsed| Value::String(parsed.to_string()))
        .ok_or_else(|| format!("{} is not {what}", shown(value)))
}

fn mac(value: &Value) -> Result<Value, String> {
    let colons = value.as_str().map(|text| text.replace('-', ":"));
    colons
        .and_then(|text| text.parse::<Mac>().ok())
        .map(|mac| Value::String(mac.to_string()))
        .ok_or_else(|| format!("{} is not a valid MAC address", shown(value)))
}

fn text(value: &Value, max: usize) -> Result<Value, String> {
    match value.as_str() {
        None => Err(format!("{} is not a valid string", shown(value))),
        Some(text) if text.chars().count() > max => {
            Err(format!("{} exceeds maximum length of {max}", shown(value)))
        }
        Some(_) => Ok(value.clone()),
    }
}

fn boolean(value: &Value) -> Result<Value, String> {
    let found = match value {
        Value::Bool(found) => Some(*found),
        Value::Number(number) => match number.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    };
    found
        .map(Value::Bool)
        .ok_or_else(|| format!("{} cannot be converted to boolean", shown(value)))
}

fn integer(value: &Value, min: i64, max: i64) -> Result<Value, String> {
    let found = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    match found {
        None => Err(format!("{} is not an integer", shown(value))),
        Some(n) if n < min || n > max => {
            Err(format!("'{n}' is not in the range of '{min}' to '{max}'"))
        }
        Some(n) => Ok(n.into()),
    }
}

fn integer_of(value: &Value, choices: &[i64]) -> Result<Value, String> {
    let found = integer(value, i64::MIN, i64::MAX)?;
    match found.as_i64().filter(|n| choices.contains(n)) {
        Some(_) => Ok(found),
        None => Err(format!("{} is not in {choices:?}", shown(value))),
    }
}

fn text_or_number(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => Ok(json!(number.to_string())),
        _ => text(value, 255),
    }
}

fn prefix(value: &Value) -> Result<Value, String> {
    let parsed = parsed::<IpNet>(value, "a valid IP subnet")?;
    let cidr: Option<IpNet> = parsed.as_str().and_then(|text| text.parse().ok());
    match cidr.map(|cidr| cidr.trunc()).filter(|c| json!(c) != parsed) {
        Some(other) => Err(format!(
            "{} isn't a recognized IP subnet cidr, '{other}' is recommended",
            shown(value)
        )),
        None => Ok(parsed),
    }
}

fn address_or_prefix(value: &Value) -> Result<Value, String> {
    let address: Option<IpAddr> = value.as_str().and_then(|text| text.parse().ok());
    match address {
        Some(address) => Ok(json!(IpNet::from(address))),
        None => prefix(value),
    }
}

/// Labels as of RFC 1123, section 2.1, in lower case.
fn dns_name(value: &Value) -> Result<Value, String> {
    let name = text(value, 255)?
        .as_str()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(&name).split('.').collect();
    let top = labels.last().copied().unwrap_or_default();
    let is_number = labels.len() > 1 && top.bytes().all(|b| b.is_ascii_digit());
    match name.is_empty() || (labels.iter().all(|label| fits(label)) && !is_number) {
        true => Ok(json!(name)),
        false => Err(format!("{} not a valid PQDN or FQDN", shown(value))),
    }
}

fn dns_domain(value: &Value) -> Result<Value, String> {
    let name = dns_name(value)?;
    match name.as_str() {
        Some(text) if text.is_empty() || text.ends_with('.') => Ok(name),
        _ => Err(format!("{} is not a FQDN", shown(value))),
    }
}

fn choice(value: &Value, choices: &[&str]) -> Result<Value, String> {
    match value.as_str() {
        Some(text) if choices.contains(&text) => Ok(value.clone()),
        _ => Err(format!("{} is not in {choices:?}", shown(value))),
    }
}

fn empty_object(value: &Value) -> Result<Value, String> {
    match value {
        Value::Null => Ok(json!({})),
        Value::Object(fields) if fields.is_empty() => Ok(value.clone()),
        _ => Err(format!("{} is not supported, only {{}} is", shown(value))),
    }
}

fn record(value: &Value, fields: &[Field]) -> Result<Value, String> {
    let given = value
        .as_object()
        .ok_or_else(|| format!("{} is not a dictionary", shown(value)))?;
    if let Some(unknown) = given.keys().find(|k| fields.iter().all(|f| f.name != **k)) {
        return Err(format!("it has no field {}", shown(&json!(unknown))));
    }
    let mut checked = Map::new();
    for field in fields {
        match given.get(field.name) {
            Some(value) => {
                let value = field
                    .kind
                    .convert(value)
                    .map_err(|reason| format!("{}: {reason}", field.name))?;
                checked.insert(field.name.to_owned(), value);
            }
            None if field.required => return Err(format!("its {} is missing", field.name)),
            None => {}
        }
    }
    Ok(Value::Object(checked))
}

fn list(value: &Value, of: &Kind, max: usize) -> Result<Value, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("{} is not a list", shown(value)))?;
    if items.len() > max {
        return Err(format!("it has {} items, {max} is the most", items.len()));
    }
    let items: Result<Vec<Value>, String> = items.iter().map(|item| of.convert(item)).collect();
    items.map(Value::Array)
}

fn record_schema(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| (field.name.to_owned(), field.kind.schema()))
        .collect();
    let required: Vec<&str> = fields
        .iter()
        .filter(|f| f.required)
        .map(|f| f.name)
        .collect();
    let mut schema = json!({
        "type": "object", "properties": properties, "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}
