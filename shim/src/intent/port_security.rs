//! Plans what a port may send and receive: port security, security groups and
//! address pairs.
//!
//! Semantics are those of Neutron's extensions `port-security`, `security-group` and
//! `allowed-address-pairs`. Ports of the network itself (`network:…`) are trusted.

use ipnet::IpNet;
use nve_protocol::Mac;
use serde::Deserialize;
use uuid::Uuid;

use super::{Context, IntentError, SecurityError, State, group, network, set};
use crate::model::{AddressPair, Mutation, Port};

/// As Neutron's `max_allowed_address_pair`.
pub const MAX_PAIRS: usize = 10;

/// An element of `allowed_address_pairs` as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PairRequest {
    /// The addresses.
    pub ip_address: IpNet,
    /// With that MAC address; the port's if absent.
    pub mac_address: Option<Mac>,
}

/// What a request says about it; absent is unchanged, or by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SecurityRequest {
    /// Whether it may send from its own addresses only, and security groups apply.
    pub port_security_enabled: Option<bool>,
    /// All its security groups.
    pub security_groups: Option<Vec<Uuid>>,
    /// All other addresses that it may use.
    pub allowed_address_pairs: Option<Vec<PairRequest>>,
}

/// Settles it for a new port. Returns what makes its project's default group, if the
/// port is to be a member and there is none yet.
pub(super) fn first(
    state: &State,
    context: Context<'_>,
    port: &mut Port,
    request: SecurityRequest,
) -> Result<Vec<Mutation>, IntentError> {
    let groups = request.security_groups;
    let has_groups = groups.as_ref().is_some_and(|groups| !groups.is_empty());
    let of_network = network::find(state, port.network_id)?.port_security_enabled;
    port.port_security_enabled = match request.port_security_enabled {
        _ if is_trusted(port) => false,
        Some(enabled) => enabled,
        None => of_network || (has_groups && !port.fixed_ips.is_empty()),
    };
    port.allowed_address_pairs =
        checked_pairs(port, &request.allowed_address_pairs.unwrap_or_default())?;
    if !port.port_security_enabled && !port.allowed_address_pairs.is_empty() {
        return Err(SecurityError::PairsNeedPortSecurity.into());
    }
    let mut mutations = Vec::new();
    port.security_groups = match groups {
        Some(_) if is_trusted(port) => Vec::new(),
        Some(_) if has_groups && !port.port_security_enabled => {
            return Err(SecurityError::GroupsNeedPortSecurity.into());
        }
        Some(groups) => group::members_of(state, groups)?,
        None if port.port_security_enabled => {
            let (default, made) = group::default_of(state, context, &port.common.project_id);
            mutations = made;
            vec![default]
        }
        None => Vec::new(),
    };
    Ok(mutations)
}

/// Settles it for a port that changes; `port` has its new MAC address already.
pub(super) fn next(
    state: &State,
    port: &mut Port,
    request: SecurityRequest,
) -> Result<(), IntentError> {
    let (had_groups, asks_groups) = (
        !port.security_groups.is_empty(),
        request.security_groups.is_some(),
    );
    let enabled = request.port_security_enabled.filter(|_| !is_trusted(port));
    set(&mut port.port_security_enabled, enabled);
    if let Some(pairs) = request.allowed_address_pairs {
        port.allowed_address_pairs = checked_pairs(port, &pairs)?;
    }
    if let Some(groups) = request.security_groups.filter(|_| !is_trusted(port)) {
        port.security_groups = group::members_of(state, groups)?;
    }
    if port.port_security_enabled {
        return Ok(());
    }
    if !port.allowed_address_pairs.is_empty() {
        return Err(SecurityError::PairsNeedPortSecurity.into());
    }
    match port.security_groups.is_empty() {
        false if had_groups && !asks_groups => Err(SecurityError::PortHasGroups.into()),
        false => Err(SecurityError::GroupsNeedPortSecurity.into()),
        true => Ok(()),
    }
}

fn is_trusted(port: &Port) -> bool {
    port.device_owner.starts_with("network:")
}

fn checked_pairs(port: &Port, pairs: &[PairRequest]) -> Result<Vec<AddressPair>, IntentError> {
    let mut checked: Vec<AddressPair> = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let pair = AddressPair {
            ip_address: pair.ip_address.trunc(),
            mac_address: pair.mac_address.unwrap_or(port.mac_address),
        };
        let first = pair.ip_address.network();
        if first.is_multicast() || !pair.mac_address.is_unicast() {
            return Err(IntentError::InvalidInput(format!(
                "the address pair {} {} is not that of a station",
                pair.mac_address, pair.ip_address
            )));
        }
        if checked.contains(&pair) {
            return Err(SecurityError::DuplicatePair {
                mac: pair.mac_address,
                address: pair.ip_address,
            }
            .into());
        }
        checked.push(pair);
    }
    Ok(checked)
}
