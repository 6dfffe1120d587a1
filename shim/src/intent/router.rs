//! Plans changes of routers and their static routes.
//!
//! Semantics are those of Neutron's extensions `router`, `extraroute` and
//! `extraroute-atomic`. Interfaces are in [`super::interface`].

use serde::Deserialize;
use uuid::Uuid;

use super::{CommonChange, Context, IntentError, NewCommon, Plan, RouterError, State, set};
use crate::model::{HostRoute, Mutation, Router, Subnet};

/// As Neutron's `max_routes`.
pub const MAX_ROUTES: usize = 30;

/// A router to be created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewRouter {
    /// Identity.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Whether it forwards.
    pub admin_state_up: bool,
    /// Whether it is asked for as distributed.
    pub distributed: bool,
    /// Whether it is asked for as highly available.
    pub ha: bool,
}

/// A change of a router; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RouterChange {
    /// Identity.
    #[serde(flatten)]
    pub common: CommonChange,
    /// Whether it forwards.
    pub admin_state_up: Option<bool>,
    /// Whether it is asked for as distributed.
    pub distributed: Option<bool>,
    /// Whether it is asked for as highly available.
    pub ha: Option<bool>,
    /// All its static routes.
    pub routes: Option<Vec<HostRoute>>,
}

/// Plans a new router.
pub fn create(context: Context<'_>, request: NewRouter) -> Result<Plan<Router>, IntentError> {
    let router = Router {
        common: request.common.create(context.now),
        admin_state_up: request.admin_state_up,
        routes: Vec::new(),
        distributed: request.distributed,
        ha: request.ha,
    };
    Ok(Plan::one(Mutation::PutRouter(router.clone()), router))
}

/// Plans a change of a router.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: RouterChange,
) -> Result<Plan<Router>, IntentError> {
    let mut router = find(state, id)?.clone();
    set(&mut router.admin_state_up, change.admin_state_up);
    set(&mut router.distributed, change.distributed);
    set(&mut router.ha, change.ha);
    if let Some(routes) = change.routes {
        router.routes = checked_routes(state, id, routes)?;
    }
    change.common.apply(&mut router.common, context.now);
    Ok(Plan::one(Mutation::PutRouter(router.clone()), router))
}

/// Plans that the router has these static routes besides those that it has.
pub fn add_routes(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    routes: Vec<HostRoute>,
) -> Result<Plan<Router>, IntentError> {
    let mut all = find(state, id)?.routes.clone();
    for route in routes {
        if !all.contains(&route) {
            all.push(route);
        }
    }
    update(state, context, id, all_routes(all))
}

/// Plans that the router does not have these static routes.
pub fn remove_routes(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    routes: &[HostRoute],
) -> Result<Plan<Router>, IntentError> {
    let mut all = find(state, id)?.routes.clone();
    all.retain(|route| !routes.contains(route));
    update(state, context, id, all_routes(all))
}

/// Plans the end of a router without interfaces.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    find(state, id)?;
    let some: Vec<String> = state
        .interfaces_of(id)
        .take(5)
        .map(|port| port.common.id.to_string())
        .collect();
    if !some.is_empty() {
        let ports = some.join(", ");
        return Err(RouterError::InUse { id, ports }.into());
    }
    Ok(Plan::one(Mutation::DeleteRouter(id), ()))
}

/// The router, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Router, IntentError> {
    state.router(id).ok_or(IntentError::not_found("Router", id))
}

/// The subnets that a router has interfaces on; one comes as often as it has.
pub fn subnets_of(state: &State, router: Uuid) -> impl Iterator<Item = &Subnet> {
    state
        .interfaces_of(router)
        .flat_map(|port| &port.fixed_ips)
        .filter_map(|ip| state.subnet(ip.subnet_id))
}

fn all_routes(routes: Vec<HostRoute>) -> RouterChange {
    RouterChange {
        routes: Some(routes),
        ..RouterChange::default()
    }
}

/// The routes, if each has a next hop that the router reaches and that is not itself.
fn checked_routes(
    state: &State,
    id: Uuid,
    routes: Vec<HostRoute>,
) -> Result<Vec<HostRoute>, IntentError> {
    if routes.len() > MAX_ROUTES {
        let max = MAX_ROUTES;
        return Err(RouterError::TooManyRoutes { id, max }.into());
    }
    for (at, route) in routes.iter().enumerate() {
        if let Some(reason) = refusal(state, id, route) {
            let destination = route.destination;
            return Err(RouterError::InvalidRoute {
                destination,
                reason,
            }
            .into());
        }
        if routes.iter().skip(at + 1).any(|other| other == route) {
            return Err(IntentError::InvalidInput(format!(
                "Duplicate hostroute to {} by way of {}",
                route.destination, route.nexthop
            )));
        }
    }
    Ok(routes)
}

fn refusal(state: &State, router: Uuid, route: &HostRoute) -> Option<&'static str> {
    let HostRoute {
        destination,
        nexthop,
    } = route;
    if destination.addr().is_ipv4() != nexthop.is_ipv4() {
        return Some("the nexthop is of another IP version");
    }
    if !subnets_of(state, router).any(|subnet| subnet.cidr.contains(nexthop)) {
        return Some("the nexthop is not connected with router");
    }
    let mut own = state
        .interfaces_of(router)
        .flat_map(|port| &port.fixed_ips)
        .map(|ip| ip.ip_address);
    own.any(|address| address == *nexthop)
        .then_some("the nexthop is used by router")
}
