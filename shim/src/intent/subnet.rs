//! Plans changes of subnets.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    CommonChange, Context, IntentError, NewCommon, Plan, State, address, fixed_ip, given, network,
    revise, set,
};
use crate::model::{AllocationPool, HostRoute, Ipv6Mode, Mutation, Port, Subnet};

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
    /// What router advertisements say.
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How its ports get their addresses.
    pub ipv6_address_mode: Option<Ipv6Mode>,
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
        ipv6_ra_mode: request.ipv6_ra_mode,
        ipv6_address_mode: request.ipv6_address_mode,
    };
    check(&subnet)?;
    let mut mutations = vec![Mutation::PutSubnet(subnet.clone())];
    if subnet.is_automatic() {
        mutations.extend(give_addresses(state, context, &subnet));
    }
    Ok(Plan {
        mutations,
        result: subnet,
    })
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

/// Plans the end of a subnet; addresses that stations made themselves go with it.
pub fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
    let subnet = find(state, id)?;
    let (first, last) = (subnet.cidr.network(), subnet.cidr.broadcast());
    let mut mutations = Vec::new();
    for address in state.addresses(id, first, last) {
        let holder = state.port_by_address(id, address);
        let Some(port) = holder.filter(|p| subnet.is_automatic() && p.router().is_none()) else {
            return Err(IntentError::SubnetInUse(id));
        };
        let mut port = port.clone();
        port.fixed_ips.retain(|ip| ip.subnet_id != id);
        revise(&mut port.common, context.now);
        mutations.push(Mutation::PutPort(port));
    }
    mutations.push(Mutation::DeleteSubnet(id));
    Ok(Plan {
        mutations,
        result: (),
    })
}

/// The stations of the network make addresses of a new prefix.
fn give_addresses(
    state: &State,
    context: Context<'_>,
    subnet: &Subnet,
) -> impl Iterator<Item = Mutation> {
    let stations = state
        .ports_of(subnet.network_id)
        .filter(|port| port.router().is_none());
    stations.map(move |port| {
        let mut port = Port::clone(port);
        let ip = fixed_ip::automatic(subnet, port.mac_address);
        port.fixed_ips.push(ip);
        revise(&mut port.common, context.now);
        Mutation::PutPort(port)
    })
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
    check_ipv6_modes(subnet)?;
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

/// RFC 4862, section 5.5.3: prefix and EUI-64 have 128 bits together.
fn check_ipv6_modes(subnet: &Subnet) -> Result<(), IntentError> {
    let (ra_mode, address_mode) = (subnet.ipv6_ra_mode, subnet.ipv6_address_mode);
    if ra_mode.or(address_mode).is_none() {
        return Ok(());
    }
    if subnet.cidr.network().is_ipv4() {
        return Err(invalid(
            "ipv6_ra_mode and ipv6_address_mode are for subnets of IP version 6",
        ));
    }
    if !subnet.enable_dhcp {
        return Err(invalid(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False",
        ));
    }
    if ra_mode.is_some() && address_mode.is_some() && ra_mode != address_mode {
        return Err(invalid(
            "if both ipv6_ra_mode and ipv6_address_mode are set, they must be the same value",
        ));
    }
    if subnet.is_automatic() && subnet.cidr.prefix_len() != 64 {
        return Err(invalid(format!(
            "Invalid CIDR {} for IPv6 address mode. The EUI-64 address format requires the \
             prefix to be /64",
            subnet.cidr
        )));
    }
    Ok(())
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

/// The gateway neither leaves a router's interface nor goes to another port.
fn check_gateway_unused(
    state: &State,
    subnet: &Subnet,
    gateway: Option<IpAddr>,
) -> Result<(), IntentError> {
    if gateway == subnet.gateway_ip {
        return Ok(());
    }
    let current = subnet.gateway_ip.map(|address| (address, true));
    let wanted = gateway.map(|address| (address, false));
    for (gateway, of_router) in [current, wanted].into_iter().flatten() {
        let holder = state.port_by_address(subnet.common.id, gateway);
        if let Some(port) = holder.filter(|port| port.router().is_some() == of_router) {
            return Err(IntentError::GatewayInUse {
                gateway,
                port: port.common.id,
            });
        }
    }
    Ok(())
}
