//! Neutron's API v2.0, as much of it as the shim stands for.
//!
//! Source: OpenStack Networking API v2.0 reference. [`resource::Resource`] is what a
//! kind of resource is; `collection` serves any kind; the modules named for resources
//! are the kinds.

mod address_groups;
mod attribute;
mod collection;
mod discovery;
mod document;
mod error;
mod networks;
mod policies;
mod ports;
mod qos_rules;
mod query;
mod resource;
mod routers;
mod security_group_rules;
mod security_groups;
mod subnets;
mod tags;

pub use error::ApiError;
pub use resource::Resource;

use serde_json::{Value, json};

use super::routes::Routes;
use crate::model::{
    AddressGroup, Network, Port, QosPolicy, Router, SecurityGroup, SecurityGroupRule, Subnet,
};

/// All routes of the API.
pub fn routes(routes: Routes) -> Routes {
    let routes = discovery::routes(routes);
    let routes = collection::routes::<Network>(routes);
    let routes = collection::routes::<Subnet>(routes);
    let routes = collection::routes::<Port>(routes);
    let routes = routers::actions(collection::routes::<Router>(routes));
    let routes = collection::routes::<SecurityGroup>(routes);
    let routes = collection::fixed_routes::<SecurityGroupRule>(routes);
    let routes = address_groups::actions(collection::routes::<AddressGroup>(routes));
    qos_rules::routes(collection::routes::<QosPolicy>(routes))
}

/// JSON schemas of the API, by name.
pub fn schemas() -> Vec<(String, Value)> {
    let text = json!({"type": "string"});
    let error = json!({"type": "object",
        "properties": {"type": text, "message": text, "detail": text}});
    let mut schemas = vec![(
        "NeutronError".to_owned(),
        json!({"type": "object", "properties": {"NeutronError": error}}),
    )];
    schemas.extend(collection::schemas::<Network>());
    schemas.extend(collection::schemas::<Subnet>());
    schemas.extend(collection::schemas::<Port>());
    schemas.extend(collection::schemas::<Router>());
    schemas.push(routers::schema());
    schemas.extend(collection::schemas::<SecurityGroup>());
    schemas.extend(collection::fixed_schemas::<SecurityGroupRule>());
    schemas.extend(collection::schemas::<AddressGroup>());
    schemas.extend(collection::schemas::<QosPolicy>());
    schemas.extend(qos_rules::schemas());
    schemas
}

/// Names of one and of many, and where they are, for discovery.
const COLLECTIONS: [(&str, &str, &str); 8] = [
    named::<Network>(),
    named::<Subnet>(),
    named::<Port>(),
    named::<Router>(),
    named::<SecurityGroup>(),
    named::<SecurityGroupRule>(),
    named::<AddressGroup>(),
    named::<QosPolicy>(),
];

const fn named<R: Resource>() -> (&'static str, &'static str, &'static str) {
    (R::MEMBER, R::COLLECTION, R::PATH)
}
