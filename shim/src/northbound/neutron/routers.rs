//! Routers, with the extensions `extraroute` and `extraroute-atomic`, and their
//! interfaces.

use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};
use uuid::Uuid;

use super::attribute::{Attribute, Field, Kind, Post, for_update};
use super::collection::{resource_id, shown, typed};
use super::document::Document;
use super::error::ApiError;
use super::resource::{Changeable, Resource, View};
use crate::intent::interface::{self, Interface, InterfaceRequest};
use crate::intent::router::{self, MAX_ROUTES, NewRouter, RouterChange};
use crate::intent::{Context, IntentError, Plan, RouterError, State};
use crate::model::{Common, HostRoute, Mutation, Router};
use crate::northbound::Api;
use crate::northbound::extract::Params;
use crate::northbound::routes::{Operation, Routes, Verb};

const ROUTE: Kind = Kind::Record(&[
    Field {
        name: "destination",
        kind: Kind::Prefix,
        required: true,
    },
    Field {
        name: "nexthop",
        kind: Kind::Ip,
        required: true,
    },
]);

const ROUTES: Attribute = Attribute::changeable(
    "routes",
    Kind::ListOrNull(&ROUTE, MAX_ROUTES),
    "Static routes; each next hop is in a subnet that it has an interface on.",
);

impl Resource for Router {
    const MEMBER: &'static str = "router";
    const COLLECTION: &'static str = "routers";
    const KIND: &'static str = "Router";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::writable(
            "admin_state_up",
            Kind::Bool,
            Post::Default("true"),
            "Whether it forwards.",
        ),
        Attribute::writable(
            "distributed",
            Kind::Bool,
            Post::Default("false"),
            "Has no effect: every router is on every NVE that has its networks.",
        ),
        Attribute::writable(
            "ha",
            Kind::Bool,
            Post::Default("false"),
            "Has no effect: no router is in one place alone.",
        ),
        Attribute::writable(
            "external_gateway_info",
            Kind::Null,
            Post::Default("null"),
            "Always null: there are no external networks.",
        ),
        ROUTES,
        Attribute::read_only(
            "status",
            Kind::Choice(&["ACTIVE"]),
            "State: routers need nothing to be set up.",
        ),
    ];
    type New = NewRouter;

    fn all(state: &State) -> impl Iterator<Item = &Self> {
        state.routers()
    }

    fn find(state: &State, id: Uuid) -> Option<&Self> {
        state.router(id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn value(&self, name: &str, _view: View<'_>) -> Value {
        match name {
            "admin_state_up" => json!(self.admin_state_up),
            "distributed" => json!(self.distributed),
            "ha" => json!(self.ha),
            "routes" => json!(self.routes),
            "status" => json!("ACTIVE"),
            _ => Value::Null,
        }
    }

    fn put(self) -> Mutation {
        Mutation::PutRouter(self)
    }

    fn create(
        _state: &State,
        context: Context<'_>,
        request: NewRouter,
    ) -> Result<Plan<Self>, IntentError> {
        router::create(context, request)
    }

    fn delete(state: &State, _context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
        router::delete(state, id)
    }
}

impl Changeable for Router {
    type Change = RouterChange;

    fn update(
        state: &State,
        context: Context<'_>,
        id: Uuid,
        change: RouterChange,
    ) -> Result<Plan<Self>, IntentError> {
        router::update(state, context, id, change)
    }
}

/// Routes of what else can be done to a router.
pub fn actions(routes: Routes) -> Routes {
    let path = |action: &str| format!("/v2.0/routers/{{id}}/{action}");
    let about = |summary: &str, errors| Operation::new("routers", summary).errors(errors);
    let request = || {
        let uuid = json!({"type": "string", "format": "uuid"});
        json!({"type": "object", "properties": {"subnet_id": uuid, "port_id": uuid}})
    };
    let answer = || json!({"$ref": "#/components/schemas/RouterInterface"});
    let more = || {
        let properties = json!({"routes": ROUTES.kind.schema()});
        let router = json!({"type": "object", "properties": properties, "required": ["routes"]});
        json!({"type": "object", "properties": {"router": router}, "required": ["router"]})
    };
    let router = || {
        let schema = json!({"$ref": "#/components/schemas/Router"});
        json!({"type": "object", "properties": {"router": schema}})
    };
    routes
        .add(
            Verb::Put,
            &path("add_router_interface"),
            about("Add an interface, by subnet or port", &[400, 404, 409])
                .body(request())
                .answer(200, answer()),
            add_interface,
        )
        .add(
            Verb::Put,
            &path("remove_router_interface"),
            about("Remove an interface, by subnet or port", &[400, 404, 409])
                .body(request())
                .answer(200, answer()),
            remove_interface,
        )
        .add(
            Verb::Put,
            &path("add_extraroutes"),
            about("Add static routes", &[400, 404])
                .body(more())
                .answer(200, router()),
            add_routes,
        )
        .add(
            Verb::Put,
            &path("remove_extraroutes"),
            about("Remove static routes", &[400, 404])
                .body(more())
                .answer(200, router()),
            remove_routes,
        )
}

/// JSON schema of an interface that came or went, by name.
pub fn schema() -> (String, Value) {
    let uuid = json!({"type": "string", "format": "uuid"});
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {
        "id": uuid, "project_id": text, "tenant_id": text, "port_id": uuid,
        "network_id": uuid, "subnet_id": uuid,
        "subnet_ids": {"type": "array", "items": uuid},
    }});
    ("RouterInterface".to_owned(), schema)
}

async fn add_interface(
    Shared(api): Shared<Api>,
    Params(id): Params<String>,
    document: Document,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<Router>(id)?;
    let request = interface_request(&document)?;
    let controller = api.controller.clone();
    let added: Interface = api
        .controller
        .transact(move |state| {
            interface::add(state, controller.context(), id, request).map_err(ApiError::from)
        })
        .await?;
    Ok(shown_interface(&added))
}

async fn remove_interface(
    Shared(api): Shared<Api>,
    Params(id): Params<String>,
    document: Document,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<Router>(id)?;
    let request = interface_request(&document)?;
    let controller = api.controller.clone();
    let removed: Interface = api
        .controller
        .transact(move |state| {
            interface::remove(state, controller.context(), id, request).map_err(ApiError::from)
        })
        .await?;
    Ok(shown_interface(&removed))
}

fn interface_request(document: &Document) -> Result<InterfaceRequest, ApiError> {
    let uuid = |name: &str| -> Result<Option<Uuid>, ApiError> {
        let Some(given) = document.0.get(name) else {
            return Ok(None);
        };
        let bad = |reason| IntentError::from(RouterError::BadRequest(reason));
        let id = Kind::Uuid.convert(given).map_err(bad)?;
        Ok(id.as_str().and_then(|text| text.parse().ok()))
    };
    Ok(InterfaceRequest {
        subnet_id: uuid("subnet_id")?,
        port_id: uuid("port_id")?,
    })
}

fn shown_interface(interface: &Interface) -> Json<Value> {
    let project = &interface.router.common.project_id;
    Json(json!({
        "id": interface.router.common.id,
        "project_id": project,
        "tenant_id": project,
        "port_id": interface.port.common.id,
        "network_id": interface.port.network_id,
        "subnet_id": interface.subnets.last(),
        "subnet_ids": interface.subnets,
    }))
}

async fn add_routes(
    Shared(api): Shared<Api>,
    Params(id): Params<String>,
    document: Document,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<Router>(id)?;
    let routes = extra_routes(document)?;
    let controller = api.controller.clone();
    let changed: Router = api
        .controller
        .transact(move |state| {
            router::add_routes(state, controller.context(), id, routes).map_err(ApiError::from)
        })
        .await?;
    Ok(Json(json!({"router": shown(&api, &changed)})))
}

async fn remove_routes(
    Shared(api): Shared<Api>,
    Params(id): Params<String>,
    document: Document,
) -> Result<Json<Value>, ApiError> {
    let id = resource_id::<Router>(id)?;
    let routes = extra_routes(document)?;
    let controller = api.controller.clone();
    let changed: Router = api
        .controller
        .transact(move |state| {
            router::remove_routes(state, controller.context(), id, &routes).map_err(ApiError::from)
        })
        .await?;
    Ok(Json(json!({"router": shown(&api, &changed)})))
}

fn extra_routes(document: Document) -> Result<Vec<HostRoute>, ApiError> {
    let given = for_update(&[&ROUTES], document.one(Router::MEMBER)?)?;
    let change: RouterChange = typed(given)?;
    change.routes.ok_or_else(|| {
        ApiError::bad_request("Failed to parse request. Required attribute 'routes' not specified")
    })
}
