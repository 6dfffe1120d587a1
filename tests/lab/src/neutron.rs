//! Neutron's REST interface, one object at a time.
//!
//! Collections go by their path below `/v2.0`, such as `qos/policies`; the name of
//! an object in requests and answers follows from it.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::Client;

/// Creates an object and returns it.
pub fn create(api: &Client, collection: &str, attributes: &Value) -> Result<Value> {
    let name = singular(collection);
    let body = json!({ name.as_str(): attributes });
    field(api.post(&path(collection), &body)?, &name)
}

/// Changes an object and returns it.
pub fn update(api: &Client, collection: &str, id: &str, attributes: &Value) -> Result<Value> {
    let name = singular(collection);
    let body = json!({ name.as_str(): attributes });
    field(
        api.put(&format!("{}/{id}", path(collection)), &body)?,
        &name,
    )
}

/// The object.
pub fn show(api: &Client, collection: &str, id: &str) -> Result<Value> {
    let answer = api.get(&format!("{}/{id}", path(collection)))?;
    field(answer, &singular(collection))
}

/// Deletes the object.
pub fn delete(api: &Client, collection: &str, id: &str) -> Result<()> {
    api.delete(&format!("{}/{id}", path(collection)))
}

/// The id of an object.
pub fn id(object: &Value) -> Result<String> {
    text(object, "id")
}

/// A string in an object.
pub fn text(value: &Value, name: &str) -> Result<String> {
    let text = value[name].as_str();
    Ok(text
        .with_context(|| format!("no {name} in {value}"))?
        .to_owned())
}

/// What an answer has under its one name.
pub fn field(mut answer: Value, name: &str) -> Result<Value> {
    match answer.get_mut(name) {
        Some(value) => Ok(value.take()),
        None => anyhow::bail!("no {name} in {answer}"),
    }
}

fn path(collection: &str) -> String {
    format!("/v2.0/{collection}")
}

/// What Neutron calls one object of a collection.
fn singular(collection: &str) -> String {
    let last = collection.rsplit('/').next().unwrap_or_default();
    let name = match last.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => last.trim_end_matches('s').to_owned(),
    };
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_in_neutron() {
        assert_eq!(singular("networks"), "network");
        assert_eq!(singular("security-group-rules"), "security_group_rule");
        assert_eq!(singular("qos/policies"), "policy");
        let rules = "qos/policies/7/bandwidth_limit_rules";
        assert_eq!(singular(rules), "bandwidth_limit_rule");
    }
}
