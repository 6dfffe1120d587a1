//! Plans changes of subnets.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use super::{CommonChange, Context, IntentError, NewCommon, Plan, State, address, network, set};
use crate::model::{AllocationPool, HostRoute, Mutation, Subnet};

/// As Neutron's `max_dns_nameservers`.
pub const MAX_NAMESERVERS: usize = 5;
/// As Neutron's `max_subnet_host_routes`.
pub const MAX_ROUTES: usize = 20;
/// Most pools of a subnet; Neutron has no limit.
pub const MAX_POOLS: usize = 64;

/// A subnet to be created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewSubnet {
    /// Identity.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Its network.
    pub network_id: Uuid,
    /// 4 or 6; must be that of `cidr`.
    pub ip_version: u8,
    /// Its prefix.
    pub cidr: IpNet,
    /// Gateway; the first usable address if absent, none if null.
    #[serde(default, deserialize_with = "given")]
    pub gateway_ip: Option<Option<IpAddr>>,
    /// Whether addresses are handed out by DHCP.
    pub enable_dhcp: bool,
    /// Pools; all usable addresses but the gateway if absent.
    pub allocation_pools: Option<Vec<AllocationPool>>,
    /// DNS servers for DHCP.
    pub dns_nameservers: Vec<IpAddr>,
    /// Routes for DHCP.
    pub host_routes: Vec<HostRoute>,
}

/// A change of a subnet; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SubnetChange {
    /// Identity.
    #[serde(flatten)]
    pub common: CommonChange,
    /// Gateway, or none if null.
    #[serde(default, deserialize_with = "given")]
    pub gateway_ip: Option<Option<IpAddr>>,
    /// Whether addresses are handed out by DHCP.
    pub enable_dhcp: Option<bool>,
    /// Pools.
    pub allocation_pools: Option<Vec<AllocationPool>>,
    /// DNS servers for DHCP.
    pub dns_nameservers: Option<Vec<IpAddr>>,
    /// Routes for DHCP.
    pub host_routes: Option<Vec<HostRoute>>,
}

/// Tells null (`Some(None)`) from absent (`None`).
fn given<'de, D, T>(input: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(input).map(Some)
}

/// Plans a new subnet.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewSubnet,
) -> Result<Plan<Subnet>, IntentError> {
    network::find(state, request.network_id)?;
    let cidr = request.cidr;
    check_cidr(cidr, request.ip_version)?;
    check_overlap(state, request.network_id, cidr)?;
    let gateway_ip = request
        .gateway_ip
        .unwrap_or_else(|| address::default_gateway(cidr));
    let allocation_pools = request
        .allocation_pools
        .unwrap_or_else(|| address::default_pools(cidr, gateway_ip));
    let subnet = Subnet {
        common: request.common.create(context.now),
        network_id: request.network_id,
        cidr,
        gateway_ip,
        enable_dhcp: request.enable_dhcp,
        allocation_pools,
        dns_nameservers: request.dns_nameservers,
        host_routes: request.host_routes,
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
    };
    check(&subnet)?;
    Ok(Plan::one(Mutation::PutSubnet(subnet.clone()), subnet))
}

/// Plans a change of a subnet.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: SubnetChange,
) -> Result<Plan<Subnet>, IntentError> {
    let mut subnet = find(state, id)?.clone();
    if let Some(gateway_ip) = change.gateway_ip {
        check_gateway_unused(state, &subnet, gateway_ip)?;
        subnet.gateway_ip = gateway_ip;
    }
    set(&mut subnet.enable_dhcp, change.enable_dhcp);
    set(&mut subnet.allocation_pools, change.allocation_pools);
    set(&mut subnet.dns_nameservers, change.dns_nameservers);
    set(&mut subnet.host_routes, change.host_routes);
    check(&subnet)?;
    change.common.apply(&mut subnet.common, context.now);
    Ok(Plan::one(Mutation::PutSubnet(subnet.clone()), subnet))
}

/// Plans the end of a subnet.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    let subnet = find(state, id)?;
    let (first, last) = (subnet.cidr.network(), subnet.cidr.broadcast());
    if state.addresses(id, first, last).next().is_some() {
        return Err(IntentError::SubnetInUse(id));
    }
    Ok(Plan::one(Mutation::DeleteSubnet(id), ()))
}

/// The subnet, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Subnet, IntentError> {
    state.subnet(id).ok_or(IntentError::not_found("Subnet", id))
}

fn invalid(reason: impl Into<String>) -> IntentError {
    IntentError::InvalidInput(reason.into())
}

fn check_cidr(cidr: IpNet, ip_version: u8) -> Result<(), IntentError> {
    let version = if cidr.network().is_ipv4() { 4 } else { 6 };
    if version != ip_version {
        return Err(invalid(format!(
            "cidr '{cidr}' does not match the ip_version '{ip_version}'"
        )));
    }
    if cidr.trunc() != cidr {
        return Err(invalid(format!(
            "'{cidr}' isn't a recognized IP subnet cidr, '{}' is recommended",
            cidr.trunc()
        )));
    }
    if cidr.prefix_len() == 0 {
        return Err(invalid("0 is not allowed as CIDR prefix length"));
    }
    let first = cidr.network();
    if first.is_multicast() || first.is_loopback() || first.is_unspecified() {
        return Err(invalid(format!(
            "'{cidr}' is not a prefix of unicast addresses"
        )));
    }
    Ok(())
}

fn check_overlap(state: &State, network: Uuid, cidr: IpNet) -> Result<(), IntentError> {
    let overlaps = |other: &Subnet| cidr.contains(&other.cidr) || other.cidr.contains(&cidr);
    if state.subnets_of(network).any(overlaps) {
        return Err(IntentError::SubnetOverlap { cidr, network });
    }
    Ok(())
}

/// What must hold for a subnet by itself.
fn check(subnet: &Subnet) -> Result<(), IntentError> {
    if let Some(gateway) = subnet.gateway_ip {
        check_gateway(subnet.cidr, gateway)?;
    }
    address::check_pools(&subnet.allocation_pools, subnet.cidr, subnet.gateway_ip)?;
    if subnet.dns_nameservers.len() > MAX_NAMESERVERS {
        return Err(invalid(format!(
            "a subnet has at most {MAX_NAMESERVERS} dns_nameservers"
        )));
    }
    if subnet.host_routes.len() > MAX_ROUTES {
        return Err(invalid(format!(
            "a subnet has at most {MAX_ROUTES} host_routes"
        )));
    }
    let ipv4 = subnet.cidr.network().is_ipv4();
    let foreign =
        |r: &&HostRoute| r.destination.network().is_ipv4() != ipv4 || r.nexthop.is_ipv4() != ipv4;
    match subnet.host_routes.iter().find(foreign) {
        Some(route) => Err(invalid(format!(
            "the host route to {} is of another IP version than the subnet",
            route.destination
        ))),
        None => Ok(()),
    }
}

/// A gateway is a usable address of the prefix, or link-local (RFC 4861).
fn check_gateway(cidr: IpNet, gateway: IpAddr) -> Result<(), IntentError> {
    let link_local =
        matches!(gateway, IpAddr::V6(a) if a.is_unicast_link_local()) && cidr.network().is_ipv6();
    if link_local || address::usable(cidr).contains(gateway) {
        return Ok(());
    }
    Err(invalid("Gateway is not valid on subnet"))
}

fn check_gateway_unused(
    state: &State,
    subnet: &Subnet,
    gateway: Option<IpAddr>,
) -> Result<(), IntentError> {
    let Some(gateway) = gateway.filter(|g| subnet.gateway_ip != Some(*g)) else {
        return Ok(());
    };
    match state.port_by_address(subnet.common.id, gateway) {
        Some(port) => Err(IntentError::GatewayInUse {
            gateway,
            port: port.common.id,
        }),
        None => Ok(()),
    }
}
