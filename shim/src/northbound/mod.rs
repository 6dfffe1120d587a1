//! The REST interfaces of the shim.
//!
//! `/v2.0` is Neutron's API ([`neutron`]); `/v1` is for operators ([`operations`]).
//! Both are built with [`routes::Routes`], which takes a description along with each
//! route, so the OpenAPI document cannot miss one.
//!
//! Invariants: a handler holds no lock and blocks no thread of the runtime; nothing a
//! client sends is kept beyond its request except as a planned change.

mod extract;
pub mod neutron;
mod openapi;
pub mod operations;
mod routes;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::auth::Credentials;
use crate::auth::digest::Authenticator;
use crate::controller::Controller;
use crate::events::StatusHandle;
use crate::fabric::Fabric;
use routes::Routes;

/// Most bytes of a request's body.
pub const BODY_LIMIT: usize = 1 << 20;
/// Realm of those who post events.
const REALM: &str = "sluice shim";

/// Tells which ports are in force.
pub trait PortStatus: Send + Sync {
    /// Whether the NVE of the port's host has acknowledged tables that contain it.
    fn is_active(&self, port: Uuid) -> bool;
}

/// What handlers work with.
#[derive(Clone)]
pub struct Api {
    /// State and changes.
    pub controller: Controller,
    /// Which ports are in force.
    pub ports: Arc<dyn PortStatus>,
    /// What NVEs have and should have, and the newest events.
    pub fabric: Fabric,
    /// Who may post events; nobody unless told.
    pub posters: Arc<Authenticator>,
    /// Subscriptions to hypervisor managers; none unless told.
    pub managers: Arc<[StatusHandle]>,
}

impl Api {
    /// The interfaces of what `fabric` binds.
    pub fn new(fabric: Fabric) -> Api {
        Api {
            controller: fabric.controller().clone(),
            ports: Arc::new(fabric.clone()),
            fabric,
            posters: Arc::new(Authenticator::new(REALM, [])),
            managers: Arc::new([]),
        }
    }

    /// Lets `users` post events.
    pub fn with_posters(mut self, users: impl IntoIterator<Item = Credentials>) -> Api {
        self.posters = Arc::new(Authenticator::new(REALM, users));
        self
    }

    /// Shows how these subscriptions go.
    pub fn with_managers(mut self, managers: Vec<StatusHandle>) -> Api {
        self.managers = managers.into();
        self
    }
}

/// All routes, ready to be served.
pub fn router(api: Api) -> Router {
    let (router, paths) = routes().into_parts();
    // Made when it is asked for first: not everybody does.
    let document = Arc::new(LazyLock::new(move || openapi::document(&paths)));
    router
        .route(
            openapi::PATH,
            axum::routing::get(move || async move { axum::Json((**document).clone()) }),
        )
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(identify))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(api)
}

fn routes() -> Routes {
    let routes = neutron::routes(Routes::default());
    operations::routes(routes)
}

fn is_operations(uri: &Uri) -> bool {
    uri.path().starts_with("/v1")
}

async fn no_such_path(uri: Uri) -> Response {
    if is_operations(&uri) {
        operations::Failure::no_such_path().into_response()
    } else {
        neutron::ApiError::no_such_path().into_response()
    }
}

async fn method_not_allowed(uri: Uri) -> Response {
    if is_operations(&uri) {
        operations::Failure::method_not_allowed().into_response()
    } else {
        neutron::ApiError::method_not_allowed().into_response()
    }
}

/// Gives the request an id, which OpenStack's clients show and the log has.
async fn identify(request: Request, next: Next) -> Response {
    let id = format!("req-{}", Uuid::new_v4());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    tracing::debug!(%id, %method, path, status = response.status().as_u16(), "request");
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-openstack-request-id", id);
    }
    response
}

#[cfg(test)]
mod tests;
