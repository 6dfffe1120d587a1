//! Address groups.

use axum::Json;
use axum::extract::State as Shared;
use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Kind, Post};
use super::collection::{resource_id, shown};
use super::document::Document;
use super::error::ApiError;
use super::resource::{Changeable, Resource, View};
use crate::intent::address_group::{self, AddressGroupChange, MAX_ADDRESSES, NewAddressGroup};
use crate::intent::{Context, IntentError, Plan, State};
use crate::model::{AddressGroup, Common, Mutation};
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

const ADDRESSES: Kind = Kind::ListOrNull(&Kind::Prefix, MAX_ADDRESSES);

impl Resource for AddressGroup {
    const MEMBER: &'static str = "address_group";
    const COLLECTION: &'static str = "address_groups";
    const PATH: &'static str = "address-groups";
    const KIND: &'static str = "AddressGroup";
    const ATTRIBUTES: &'static [Attribute] = &[Attribute::fixed(
        "addresses",
        ADDRESSES,
        Post::Default("[]"),
        "Prefixes.",
    )];
    type New = NewAddressGroup;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.address_groups()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.address_group(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, _view: View<'_>) -> Value {
        match name {
            "addresses" => json!(self.addresses),
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutAddressGroup(self)
    }

    fn create(
        _state: &State,
        context: Context<'_>,
        request: NewAddressGroup,
    ) -> Result<Plan<Self>, IntentError> {
        address_group::create(context, request)
    }

    fn delete(state: &State, _context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        address_group::delete(state, id)
    }
}

impl Changeable for AddressGroup {
    type Change = AddressGroupChange;

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: AddressGroupChange,
    ) -> Result<Plan<Self>, IntentError> {
        address_group::update(state, context, id, change)
    }
}

/// Routes of what else can be done to an address group.
pub fn actions(routes: Routes) -> Routes {
    let path = |action: &str| format!("/v2.0/address-groups/{{id}}/{action}");
    let about = |summary: &str| {
        let group = json!({"$ref": "#/components/schemas/AddressGroup"});
        Operation::new("address_groups", summary)
            .body(
                json!({"type": "object", "properties": {"addresses": ADDRESSES.schema()},
                "required": ["addresses"]}),
            )
            .answer(
                200,
                json!({"type": "object", "properties": {"address_group": group}}),
            )
            .errors(&[400, 404])
    };
    routes
        .add(
            Verb::Put,
            &path("add_addresses"),
            about("Add prefixes"),
            add_addresses,
        )
        .add(
            Verb::Put,
            &path("remove_addresses"),
            about("Remove prefixes"),
            remove_addresses,
        )
}

async fn add_addresses(
    Shared(api): Shared<Api>,
    Params(id): Params<String>,
    document: Document,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<AddressGroup>(id)?;
    let addresses = addresses(&document)?;
    let controller = api.controller.clone();
    let changed: AddressGroup = api
        .controller
        .transact(move |state| {
            address_group::add(state, controller.context(), id, addresses).map_err(ApiError::from)
        })
        .await?;
    Ok(Json(json!({"address_group": shown(&api, &changed)})))
}

async fn remove_addresses(
    Shared(api): Shared<Api>,
    Params(id): Params<String>,
    document: Document,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<AddressGroup>(id)?;
    let addresses = addresses(&document)?;
    let controller = api.controller.clone();
    let changed: AddressGroup = api
        .controller
        .transact(move |state| {
            address_group::remove(state, controller.context(), id, addresses)
                .map_err(ApiError::from)
        })
        .await?;
    Ok(Json(json!({"address_group": shown(&api, &changed)})))
}

fn addresses(document: &Document) -> Result<Vec<IpNet>, ApiError> {
    let missing = || ApiError::bad_request("Unable to find 'addresses' in request body");
    let given = document.0.get("addresses").ok_or_else(missing)?;
    let invalid = |reason: String| {
        ApiError::bad_request(format!("Invalid input for addresses. Reason: {reason}."))
    };
    let checked = ADDRESSES.convert(given).map_err(invalid)?;
    serde_json::from_value(checked).map_err(|error| invalid(error.to_string()))
}
