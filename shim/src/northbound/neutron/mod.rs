//! Neutron's API v2.0, as much of it as the shim stands for.
//!
//! Source: OpenStack Networking API v2.0 reference. [`resource::Resource`] is what a
//! kind of resource is; `collection` serves any kind; `networks`, `subnets` and
//! `ports` are the kinds.

mod attribute;
mod collection;
mod discovery;
mod document;
mod error;
mod networks;
mod ports;
mod query;
mod resource;
mod subnets;
mod tags;

pub use error::ApiError;
pub use resource::Resource;

use serde_json::{Value, json};

use super::routes::Routes;
use crate::model::{Network, Port, Subnet};

/// All routes of the API.
pub fn routes(routes: Routes) -> Routes {
    let routes = discovery::routes(routes);
    let routes = collection::routes::<Network>(routes);
    let routes = collection::routes::<Subnet>(routes);
    collection::routes::<Port>(routes)
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
    schemas
}

/// Names of one and of many, for discovery.
const COLLECTIONS: [(&str, &str); 3] = [
    (Network::MEMBER, Network::COLLECTION),
    (Subnet::MEMBER, Subnet::COLLECTION),
    (Port::MEMBER, Port::COLLECTION),
];
