//! Plans changes of ports: MAC address, fixed IPs, binding and VLAN tag.

use std::net::IpAddr;

use nve_protocol::{Mac, Vlan};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    CommonChange, Context, IntentError, NewCommon, Plan, State, address, generate_mac, network,
    set, tag,
};
use crate::model::{FixedIp, Mutation, Port, Subnet};

/// As Neutron's `max_fixed_ips_per_port`.
pub const MAX_FIXED_IPS: usize = 5;
/// As Neutron's `mac_generation_retries`.
const MAC_RETRIES: usize = 16;

/// One element of `fixed_ips` as asked for: a subnet, an address, or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct FixedIpRequest {
    /// Subnet to take the address from.
    pub subnet_id: Option<Uuid>,
    /// The very address.
    pub ip_address: Option<IpAddr>,
}

/// A port to be created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewPort {
    /// Identity.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Its network.
    pub network_id: Uuid,
    /// Whether it forwards.
    pub admin_state_up: bool,
    /// MAC address; generated if absent.
    pub mac_address: Option<Mac>,
    /// Addresses; one per IP version that the network has if absent.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// Who uses it.
    pub device_id: String,
    /// For what.
    pub device_owner: String,
    /// Host that it is bound to; empty if none.
    #[serde(rename = "binding:host_id")]
    pub host: String,
    /// VLAN tag; chosen if absent.
    pub segmentation_id: Option<Vlan>,
}

/// A change of a port; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PortChange {
    /// Identity.
    #[serde(flatten)]
    pub common: CommonChange,
    /// Whether it forwards.
    pub admin_state_up: Option<bool>,
    /// MAC address.
    pub mac_address: Option<Mac>,
    /// All its addresses.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// Who uses it.
    pub device_id: Option<String>,
    /// For what.
    pub device_owner: Option<String>,
    /// Host that it is bound to; empty if none.
    #[serde(rename = "binding:host_id")]
    pub host: Option<String>,
    /// VLAN tag.
    pub segmentation_id: Option<Vlan>,
}

/// Plans a new port.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewPort,
) -> Result<Plan<Port>, IntentError> {
    let network_id = request.network_id;
    network::find(state, network_id)?;
    let common = request.common.create(context.now);
    let mac_address = match request.mac_address {
        Some(mac) => check_mac(state, network_id, mac)?,
        None => free_mac(state, context, network_id)?,
    };
    let fixed_ips = match request.fixed_ips {
        Some(requests) => fixed_ips(state, network_id, None, &requests)?,
        None => default_ips(state, network_id)?,
    };
    let segmentation_id = tag::choose(state, common.id, &request.host, request.segmentation_id)?;
    let port = Port {
        common,
        network_id,
        admin_state_up: request.admin_state_up,
        mac_address,
        fixed_ips,
        device_id: request.device_id,
        device_owner: request.device_owner,
        binding_host_id: request.host,
        segmentation_id: Some(segmentation_id),
        port_security_enabled: false,
        security_groups: Vec::new(),
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        qos_policy_id: None,
        dns_name: String::new(),
    };
    Ok(Plan::one(Mutation::PutPort(port.clone()), port))
}

/// Plans a change of a port.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: PortChange,
) -> Result<Plan<Port>, IntentError> {
    let old = find(state, id)?;
    let mut port = old.clone();
    set(&mut port.admin_state_up, change.admin_state_up);
    set(&mut port.device_id, change.device_id);
    set(&mut port.device_owner, change.device_owner);
    set(&mut port.binding_host_id, change.host);
    if let Some(mac) = change.mac_address.filter(|mac| *mac != old.mac_address) {
        check_unbound(old, mac)?;
        port.mac_address = check_mac(state, port.network_id, mac)?;
    }
    if let Some(requests) = change.fixed_ips {
        port.fixed_ips = fixed_ips(state, port.network_id, Some(old), &requests)?;
    }
    if let Some(wanted) = change.segmentation_id.or(old.segmentation_id) {
        let tag = tag::choose(state, id, &port.binding_host_id, Some(wanted))?;
        port.segmentation_id = Some(tag);
    }
    change.common.apply(&mut port.common, context.now);
    Ok(Plan::one(Mutation::PutPort(port.clone()), port))
}

/// Plans the end of a port.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    find(state, id)?;
    Ok(Plan::one(Mutation::DeletePort(id), ()))
}

/// The port, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Port, IntentError> {
    state.port(id).ok_or(IntentError::not_found("Port", id))
}

fn invalid(reason: impl Into<String>) -> IntentError {
    IntentError::InvalidInput(reason.into())
}

/// A VM keeps the MAC address that its host gave it, so a bound port's is fixed.
fn check_unbound(port: &Port, mac: Mac) -> Result<(), IntentError> {
    if port.binding_host_id.is_empty() {
        return Ok(());
    }
    Err(IntentError::PortBound {
        port: port.common.id,
        old: port.mac_address,
        new: mac,
    })
}

fn check_mac(state: &State, network: Uuid, mac: Mac) -> Result<Mac, IntentError> {
    if !mac.is_unicast() {
        return Err(invalid(format!("{mac} is not the address of a station")));
    }
    match state.port_by_mac(network, mac) {
        Some(_) => Err(IntentError::MacInUse { network, mac }),
        None => Ok(mac),
    }
}

fn free_mac(state: &State, context: Context<'_>, network: Uuid) -> Result<Mac, IntentError> {
    std::iter::repeat_with(|| generate_mac(context.settings.base_mac))
        .take(MAC_RETRIES)
        .find(|mac| check_mac(state, network, *mac).is_ok())
        .ok_or(IntentError::MacGeneration(network))
}

/// One address per IP version, from the first subnet of that version that has one
/// left.
fn default_ips(state: &State, network: Uuid) -> Result<Vec<FixedIp>, IntentError> {
    let mut chosen = Vec::new();
    for ipv4 in [true, false] {
        let mut candidates = state
            .subnets_of(network)
            .filter(|s| s.cidr.network().is_ipv4() == ipv4)
            .peekable();
        if candidates.peek().is_none() {
            continue;
        }
        let fixed_ip = candidates
            .find_map(|subnet| {
                let ip_address = address::allocate(state, subnet, &[])?;
                Some(FixedIp {
                    subnet_id: subnet.common.id,
                    ip_address,
                })
            })
            .ok_or(IntentError::NoAddressLeft(network))?;
        chosen.push(fixed_ip);
    }
    Ok(chosen)
}

/// Addresses for what is asked, in the order asked. Exact addresses are settled
/// first, so that none of them is handed out for another element. `old` is the port
/// as it is, whose addresses are free to itself and are kept where they fit.
fn fixed_ips(
    state: &State,
    network: Uuid,
    old: Option<&Port>,
    requests: &[FixedIpRequest],
) -> Result<Vec<FixedIp>, IntentError> {
    if requests.len() > MAX_FIXED_IPS {
        return Err(invalid("Exceeded maximum amount of fixed ips per port"));
    }
    let mut chosen: Vec<Option<FixedIp>> = Vec::with_capacity(requests.len());
    for request in requests {
        let exact = match request.ip_address {
            Some(address) => Some(exact_ip(state, network, old, request.subnet_id, address)?),
            None => None,
        };
        if let Some(ip) = exact.filter(|ip| chosen.contains(&Some(*ip))) {
            return Err(IntentError::AddressAllocated {
                address: ip.ip_address,
                subnet: ip.subnet_id,
            });
        }
        chosen.push(exact);
    }
    for (at, request) in requests.iter().enumerate() {
        if chosen[at].is_none() {
            chosen[at] = Some(any_ip(state, network, old, request.subnet_id, &chosen)?);
        }
    }
    Ok(chosen.into_iter().flatten().collect())
}

fn exact_ip(
    state: &State,
    network: Uuid,
    old: Option<&Port>,
    subnet_id: Option<Uuid>,
    ip_address: IpAddr,
) -> Result<FixedIp, IntentError> {
    let usable = |s: &&Subnet| address::usable(s.cidr).contains(ip_address);
    let subnet = match subnet_id {
        Some(id) => Some(subnet_of(state, network, id)?)
            .filter(usable)
            .ok_or(IntentError::AddressNotOfSubnet(ip_address))?,
        None => state
            .subnets_of(network)
            .find(usable)
            .ok_or(IntentError::AddressNotOfNetwork(ip_address))?,
    };
    let subnet_id = subnet.common.id;
    let holder = state.port_by_address(subnet_id, ip_address);
    if holder.is_some_and(|h| old.is_none_or(|o| o.common.id != h.common.id)) {
        return Err(IntentError::AddressAllocated {
            address: ip_address,
            subnet: subnet_id,
        });
    }
    Ok(FixedIp {
        subnet_id,
        ip_address,
    })
}

fn any_ip(
    state: &State,
    network: Uuid,
    old: Option<&Port>,
    subnet_id: Option<Uuid>,
    chosen: &[Option<FixedIp>],
) -> Result<FixedIp, IntentError> {
    let subnet_id =
        subnet_id.ok_or_else(|| invalid("IP allocation requires subnet_id or ip_address"))?;
    let subnet = subnet_of(state, network, subnet_id)?;
    let kept = old
        .into_iter()
        .flat_map(|port| &port.fixed_ips)
        .find(|ip| ip.subnet_id == subnet_id && !chosen.contains(&Some(**ip)));
    if let Some(kept) = kept {
        return Ok(*kept);
    }
    let taken: Vec<IpAddr> = chosen
        .iter()
        .flatten()
        .filter(|ip| ip.subnet_id == subnet_id)
        .map(|ip| ip.ip_address)
        .collect();
    let ip_address =
        address::allocate(state, subnet, &taken).ok_or(IntentError::NoAddressLeft(network))?;
    Ok(FixedIp {
        subnet_id,
        ip_address,
    })
}

fn subnet_of(state: &State, network: Uuid, id: Uuid) -> Result<&Subnet, IntentError> {
    state
        .subnet(id)
        .filter(|subnet| subnet.network_id == network)
        .ok_or_else(|| {
            invalid(format!(
                "fixed_ips names subnet {id}, which network {network} does not have"
            ))
        })
}
