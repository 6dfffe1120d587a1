//! Plans the coming and going of routers' interfaces.
//!
//! An interface is a port of the subnet's network whose owner is
//! [`ROUTER_INTERFACE`] and whose device is the router. It is in no port group, so it
//! has no VLAN tag; the network trusts it, so it has no port security. IPv6 subnets of
//! one network share an interface.
//!
//! Semantics are those of Neutron's `add_router_interface` and
//! `remove_router_interface`.

use serde::Deserialize;
use uuid::Uuid;

use super::{
    Context, IntentError, NewCommon, Plan, RouterError, State, fixed_ip, port, revise, router,
    subnet, tag,
};
use crate::model::{FixedIp, Mutation, Port, ROUTER_INTERFACE, Router, Subnet};

/// Which interface: that on a subnet, or that port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct InterfaceRequest {
    /// By the subnet; the interface has the subnet's gateway address.
    pub subnet_id: Option<Uuid>,
    /// By the port.
    pub port_id: Option<Uuid>,
}

/// What came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The router.
    pub router: Router,
    /// The port as it is now, or was last.
    pub port: Port,
    /// The subnets that were concerned; at least one.
    pub subnets: Vec<Uuid>,
}

/// Plans that the router has an interface more.
pub fn add(
    state: &State,
    context: Context<'_>,
    router: Uuid,
    request: InterfaceRequest,
) -> Result<Plan<Interface>, IntentError> {
    let router = router::find(state, router)?;
    let (port, subnets) = match (request.subnet_id, request.port_id) {
        (Some(subnet), None) => by_subnet(state, context, router, subnet)?,
        (None, Some(port)) => by_port(state, context, router, port)?,
        (None, None) => return Err(bad("Either subnet_id or port_id must be specified")),
        (Some(_), Some(_)) => return Err(bad("Cannot specify both subnet-id and port-id")),
    };
    let before = state.port(port.common.id);
    let released = before.and_then(|before| tag::release(context, before));
    let put = Mutation::PutPort(port.clone());
    let mut plan = revised(context, router, put, port, subnets);
    plan.mutations.extend(released);
    tag::forget_ended(state, context, &mut plan.mutations);
    Ok(plan)
}

/// Plans that the router has an interface less.
pub fn remove(
    state: &State,
    context: Context<'_>,
    router: Uuid,
    request: InterfaceRequest,
) -> Result<Plan<Interface>, IntentError> {
    let router = router::find(state, router)?;
    match (request.subnet_id, request.port_id) {
        (None, None) => Err(bad("Either subnet_id or port_id must be specified")),
        (Some(subnet), None) => remove_subnet(state, context, router, subnet),
        (subnet, Some(port)) => remove_port(state, context, router, port, subnet),
    }
}

fn bad(reason: impl Into<String>) -> IntentError {
    RouterError::BadRequest(reason.into()).into()
}

/// An interface that changes is a change of its router.
fn revised(
    context: Context<'_>,
    router: &Router,
    change: Mutation,
    port: Port,
    subnets: Vec<Uuid>,
) -> Plan<Interface> {
    let mut router = router.clone();
    revise(&mut router.common, context.now);
    Plan {
        mutations: vec![Mutation::PutRouter(router.clone()), change],
        result: Interface {
            router,
            port,
            subnets,
        },
    }
}

fn by_subnet(
    state: &State,
    context: Context<'_>,
    router: &Router,
    id: Uuid,
) -> Result<(Port, Vec<Uuid>), IntentError> {
    let subnet = subnet::find(state, id)?;
    let gateway = subnet
        .gateway_ip
        .ok_or_else(|| bad("Subnet for router interface must have a gateway IP"))?;
    check_subnet(state, router, subnet)?;
    let shared = state
        .interfaces_of(router.common.id)
        .filter(|port| port.network_id == subnet.network_id)
        .find(|port| subnet.cidr.addr().is_ipv6() && has_ipv6(port));
    let taken = shared.map_or(0, |port| port.fixed_ips.len());
    if taken >= port::MAX_FIXED_IPS {
        return Err(bad("Exceeded maximum amount of fixed ips per port"));
    }
    let ip = fixed_ip::exact(state, subnet.network_id, None, Some(id), gateway)?;
    let port = match shared {
        Some(port) => {
            let mut port = port.clone();
            port.fixed_ips.push(ip);
            revise(&mut port.common, context.now);
            port
        }
        None => new_port(state, context, router, subnet, ip)?,
    };
    Ok((port, vec![id]))
}

fn new_port(
    state: &State,
    context: Context<'_>,
    router: &Router,
    subnet: &Subnet,
    ip: FixedIp,
) -> Result<Port, IntentError> {
    let common = NewCommon {
        project_id: router.common.project_id.clone(),
        ..NewCommon::default()
    };
    Ok(Port {
        common: common.create(context.now),
        network_id: subnet.network_id,
        admin_state_up: true,
        mac_address: port::free_mac(state, context, subnet.network_id)?,
        fixed_ips: vec![ip],
        device_id: router.common.id.to_string(),
        device_owner: ROUTER_INTERFACE.to_owned(),
        binding_host_id: String::new(),
        segmentation_id: None,
        segmentation_id_named: false,
        port_security_enabled: false,
        security_groups: Vec::new(),
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        qos_policy_id: None,
        dns_name: String::new(),
    })
}

/// The port, made an interface; its addresses stay.
fn by_port(
    state: &State,
    context: Context<'_>,
    router: &Router,
    id: Uuid,
) -> Result<(Port, Vec<Uuid>), IntentError> {
    let mut port = port::find(state, id)?.clone();
    if !port.device_id.is_empty() || port.router().is_some() {
        return Err(RouterError::PortInUse {
            port: id,
            network: port.network_id,
            device: port.device_id,
        }
        .into());
    }
    let subnets: Vec<&Subnet> = port
        .fixed_ips
        .iter()
        .filter_map(|ip| state.subnet(ip.subnet_id))
        .collect();
    if subnets.is_empty() {
        return Err(bad("Router port must have at least one fixed IP"));
    }
    let is_ipv4 = |subnet: &&&Subnet| subnet.cidr.addr().is_ipv4();
    if subnets.iter().filter(is_ipv4).count() > 1 {
        return Err(bad("Cannot have multiple IPv4 subnets on router port"));
    }
    for subnet in &subnets {
        check_subnet(state, router, subnet)?;
    }
    check_only_ipv6_port(state, router, &port)?;
    let ids = subnets.iter().map(|subnet| subnet.common.id).collect();
    port.device_id = router.common.id.to_string();
    port.device_owner = ROUTER_INTERFACE.to_owned();
    port.binding_host_id = String::new();
    port.segmentation_id = None;
    port.port_security_enabled = false;
    port.security_groups.clear();
    port.allowed_address_pairs.clear();
    revise(&mut port.common, context.now);
    Ok((port, ids))
}

fn has_ipv6(port: &Port) -> bool {
    port.fixed_ips.iter().any(|ip| ip.ip_address.is_ipv6())
}

fn check_only_ipv6_port(state: &State, router: &Router, port: &Port) -> Result<(), IntentError> {
    let mut others = state
        .interfaces_of(router.common.id)
        .filter(|other| other.network_id == port.network_id && has_ipv6(other));
    match others.next().filter(|_| has_ipv6(port)) {
        Some(other) => Err(bad(format!(
            "Router already contains IPv6 port {} belonging to network id {}. Only one IPv6 \
             port from the same network subnet can be connected to a router.",
            other.common.id, other.network_id
        ))),
        None => Ok(()),
    }
}

/// Whether the subnet can be the router's besides those that it has.
fn check_subnet(state: &State, router: &Router, subnet: &Subnet) -> Result<(), IntentError> {
    let id = subnet.common.id;
    if subnet.ipv6_ra_mode.is_none() && subnet.ipv6_address_mode.is_some() {
        return Err(bad(format!(
            "IPv6 subnet {id} configured to receive RAs from an external router cannot be \
             added to Neutron Router."
        )));
    }
    for other in router::subnets_of(state, router.common.id) {
        if other.common.id == id {
            return Err(bad(format!("Router already has a port on subnet {id}")));
        }
        if subnet.cidr.contains(&other.cidr) || other.cidr.contains(&subnet.cidr) {
            return Err(bad(format!(
                "Cidr {} of subnet {id} overlaps with cidr {} of subnet {}",
                subnet.cidr, other.cidr, other.common.id
            )));
        }
    }
    Ok(())
}

fn remove_subnet(
    state: &State,
    context: Context<'_>,
    router: &Router,
    id: Uuid,
) -> Result<Plan<Interface>, IntentError> {
    subnet::find(state, id)?;
    let on_subnet = |ip: &FixedIp| ip.subnet_id == id;
    let port = state
        .interfaces_of(router.common.id)
        .find(|port| port.fixed_ips.iter().any(on_subnet))
        .ok_or(RouterError::NoInterfaceOnSubnet {
            router: router.common.id,
            subnet: id,
        })?;
    check_no_route(state, router, id)?;
    let mut rest = port.clone();
    rest.fixed_ips.retain(|ip| !on_subnet(ip));
    let change = if rest.fixed_ips.is_empty() {
        Mutation::DeletePort(port.common.id)
    } else {
        revise(&mut rest.common, context.now);
        Mutation::PutPort(rest)
    };
    Ok(revised(context, router, change, port.clone(), vec![id]))
}

fn remove_port(
    state: &State,
    context: Context<'_>,
    router: &Router,
    id: Uuid,
    subnet: Option<Uuid>,
) -> Result<Plan<Interface>, IntentError> {
    let port = state
        .port(id)
        .filter(|port| port.router() == Some(router.common.id))
        .ok_or(RouterError::NoInterface {
            router: router.common.id,
            port: id,
        })?;
    let mut subnets: Vec<Uuid> = port.fixed_ips.iter().map(|ip| ip.subnet_id).collect();
    subnets.dedup();
    if let Some(subnet) = subnet.filter(|subnet| !subnets.contains(subnet)) {
        return Err(RouterError::SubnetMismatch { port: id, subnet }.into());
    }
    for subnet in &subnets {
        check_no_route(state, router, *subnet)?;
    }
    let change = Mutation::DeletePort(id);
    Ok(revised(context, router, change, port.clone(), subnets))
}

fn check_no_route(state: &State, router: &Router, id: Uuid) -> Result<(), IntentError> {
    let cidr = subnet::find(state, id)?.cidr;
    match router.routes.iter().any(|r| cidr.contains(&r.nexthop)) {
        true => Err(RouterError::InterfaceInUseByRoute {
            router: router.common.id,
            subnet: id,
        }
        .into()),
        false => Ok(()),
    }
}
