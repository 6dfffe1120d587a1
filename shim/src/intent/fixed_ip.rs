//! Fixed IPs of ports: chosen from pools, exact ones checked, and those that stations
//! of IPv6 subnets make of their MAC addresses (RFC 4862).

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use nve_protocol::Mac;
use serde::Deserialize;
use uuid::Uuid;

use super::{IntentError, State, address};
use crate::model::{FixedIp, Port, Subnet};

/// As Neutron's `max_fixed_ips_per_port`.
pub const MAX_FIXED_IPS: usize = 5;

/// One element of `fixed_ips` as asked for: a subnet, an address, or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct FixedIpRequest {
    /// Subnet to take the address from.
    pub subnet_id: Option<Uuid>,
    /// The very address.
    pub ip_address: Option<IpAddr>,
}

/// The port's address in a subnet that is automatic: the prefix and the modified
/// EUI-64 of its MAC address (RFC 4291, appendix A).
pub fn automatic(subnet: &Subnet, mac: Mac) -> FixedIp {
    let [a, b, c, d, e, f] = mac.0;
    let station = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let ip_address = match subnet.cidr {
        IpNet::V4(cidr) => IpAddr::V4(cidr.network()),
        IpNet::V6(cidr) => {
            let bits = cidr.network().to_bits() | u128::from(station);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    };
    FixedIp {
        subnet_id: subnet.common.id,
        ip_address,
    }
}

/// Addresses of a new port with that MAC address; one per IP version, and one of each
/// automatic subnet, if nothing is asked for.
pub(super) fn first(
    state: &State,
    network: Uuid,
    mac: Mac,
    requests: Option<&[FixedIpRequest]>,
) -> Result<Vec<FixedIp>, IntentError> {
    let mut ips = match requests {
        Some([]) => return Ok(Vec::new()),
        Some(requests) => requested(state, network, mac, None, requests)?,
        None => default_ips(state, network)?,
    };
    add_automatic(state, network, mac, &mut ips);
    check_automatic(state, None, &ips)?;
    Ok(ips)
}

/// Addresses of a port that has others, or another MAC address, from now on.
pub(super) fn next(
    state: &State,
    old: &Port,
    mac: Mac,
    requests: Option<&[FixedIpRequest]>,
) -> Result<Vec<FixedIp>, IntentError> {
    let network = old.network_id;
    let mut ips = match requests {
        Some([]) => return Ok(Vec::new()),
        Some(requests) => requested(state, network, mac, Some(old), requests)?,
        None if mac == old.mac_address => return Ok(old.fixed_ips.clone()),
        None => old.fixed_ips.clone(),
    };
    for ip in &mut ips {
        if let Some(subnet) = automatic_subnet(state, ip.subnet_id) {
            *ip = automatic(subnet, mac);
        }
    }
    if requests.is_some() {
        add_automatic(state, network, mac, &mut ips);
    }
    check_automatic(state, Some(old.common.id), &ips)?;
    Ok(ips)
}

fn automatic_subnet(state: &State, id: Uuid) -> Option<&Subnet> {
    state.subnet(id).filter(|subnet| subnet.is_automatic())
}

/// Stations have an address of every automatic subnet whether they ask or not.
fn add_automatic(state: &State, network: Uuid, mac: Mac, ips: &mut Vec<FixedIp>) {
    for subnet in state.subnets_of(network).filter(|s| s.is_automatic()) {
        let ip = automatic(subnet, mac);
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
}

/// A router's interface may have any address, so also one that a station makes.
fn check_automatic(state: &State, own: Option<Uuid>, ips: &[FixedIp]) -> Result<(), IntentError> {
    let taken = |ip: &&FixedIp| {
        let holder = state.port_by_address(ip.subnet_id, ip.ip_address);
        holder.is_some_and(|holder| Some(holder.common.id) != own)
    };
    match ips.iter().find(taken) {
        Some(ip) => Err(IntentError::AddressAllocated {
            address: ip.ip_address,
            subnet: ip.subnet_id,
        }),
        None => Ok(()),
    }
}

fn invalid(reason: impl Into<String>) -> IntentError {
    IntentError::InvalidInput(reason.into())
}

/// One address per IP version, from the first subnet of that version that has one
/// left.
fn default_ips(state: &State, network: Uuid) -> Result<Vec<FixedIp>, IntentError> {
    let mut chosen = Vec::new();
    for ipv4 in [true, false] {
        let mut candidates = state
            .subnets_of(network)
            .filter(|s| s.cidr.network().is_ipv4() == ipv4 && !s.is_automatic())
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
fn requested(
    state: &State,
    network: Uuid,
    mac: Mac,
    old: Option<&Port>,
    requests: &[FixedIpRequest],
) -> Result<Vec<FixedIp>, IntentError> {
    if requests.len() > MAX_FIXED_IPS {
        return Err(invalid("Exceeded maximum amount of fixed ips per port"));
    }
    let mut chosen: Vec<Option<FixedIp>> = Vec::with_capacity(requests.len());
    for request in requests {
        let exact = match request.ip_address {
            Some(address) => Some(station_ip(state, network, mac, old, request, address)?),
            None => request
                .subnet_id
                .and_then(|id| automatic_subnet(state, id))
                .map(|subnet| automatic(subnet, mac)),
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

/// A station has no choice in an automatic subnet.
fn station_ip(
    state: &State,
    network: Uuid,
    mac: Mac,
    old: Option<&Port>,
    request: &FixedIpRequest,
    address: IpAddr,
) -> Result<FixedIp, IntentError> {
    let ip = exact(state, network, old, request.subnet_id, address)?;
    match automatic_subnet(state, ip.subnet_id) {
        Some(subnet) if automatic(subnet, mac) != ip => Err(IntentError::AutomaticAddress {
            address,
            subnet: ip.subnet_id,
        }),
        _ => Ok(ip),
    }
}

/// That address of the subnet, or of whichever has it, unless another port has it.
pub(super) fn exact(
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
