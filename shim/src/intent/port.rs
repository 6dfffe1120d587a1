//! Plans changes of ports: MAC address, binding, VLAN tag and what else they have.

use nve_protocol::{Mac, Vlan};
use serde::Deserialize;
use uuid::Uuid;

use super::dhcp_option::{self, OptionRequest};
use super::fixed_ip::{self, FixedIpRequest};
use super::port_security::{self, SecurityRequest};
use super::{
    CommonChange, Context, IntentError, NewCommon, Plan, RouterError, State, generate_mac, given,
    network, qos, set,
    tag::{self, Wish},
};
use crate::model::{Mutation, Port, ROUTER_INTERFACE};

pub use super::fixed_ip::MAX_FIXED_IPS;

/// As Neutron's `mac_generation_retries`.
const MAC_RETRIES: usize = 16;

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
    /// Security groups and what else it may send.
    #[serde(flatten)]
    pub security: SecurityRequest,
    /// DHCP options of its own.
    #[serde(default)]
    pub extra_dhcp_opts: Vec<OptionRequest>,
    /// QoS policy of its own.
    pub qos_policy_id: Option<Uuid>,
    /// Host name for DHCP.
    #[serde(default)]
    pub dns_name: String,
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
    /// Security groups and what else it may send.
    #[serde(flatten)]
    pub security: SecurityRequest,
    /// DHCP options to be set, or removed if they have no value; others stay.
    #[serde(default)]
    pub extra_dhcp_opts: Vec<OptionRequest>,
    /// QoS policy of its own, or none if null.
    #[serde(default, deserialize_with = "given")]
    pub qos_policy_id: Option<Option<Uuid>>,
    /// Host name for DHCP.
    pub dns_name: Option<String>,
}

/// Plans a new port.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewPort,
) -> Result<Plan<Port>, IntentError> {
    let network_id = request.network_id;
    network::find(state, network_id)?;
    check_owner(&request.device_owner)?;
    let common = request.common.create(context.now);
    let mac_address = match request.mac_address {
        Some(mac) => check_mac(state, network_id, mac)?,
        None => free_mac(state, context, network_id)?,
    };
    let fixed_ips = fixed_ip::first(state, network_id, mac_address, request.fixed_ips.as_deref())?;
    let wish = request.segmentation_id.map_or(Wish::Any, Wish::Named);
    let segmentation_id = tag::choose(state, context, common.id, &request.host, wish)?;
    let mut port = Port {
        common,
        network_id,
        admin_state_up: request.admin_state_up,
        mac_address,
        fixed_ips,
        device_id: request.device_id,
        device_owner: request.device_owner,
        binding_host_id: request.host,
        segmentation_id: Some(segmentation_id),
        segmentation_id_named: matches!(wish, Wish::Named(_)),
        port_security_enabled: false,
        security_groups: Vec::new(),
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: dhcp_option::merged(&[], request.extra_dhcp_opts)?,
        qos_policy_id: qos::existing(state, request.qos_policy_id)?,
        dns_name: request.dns_name,
    };
    let mut mutations = port_security::first(state, context, &mut port, request.security)?;
    mutations.push(Mutation::PutPort(port.clone()));
    Ok(Plan {
        mutations,
        result: port,
    })
}

/// Plans a change of a port.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: PortChange,
) -> Result<Plan<Port>, IntentError> {
    let old = find(state, id)?;
    match old.router() {
        Some(_) => check_interface(old, &change)?,
        None => check_owner(change.device_owner.as_deref().unwrap_or_default())?,
    }
    let mut port = old.clone();
    set(&mut port.admin_state_up, change.admin_state_up);
    set(&mut port.device_id, change.device_id);
    set(&mut port.device_owner, change.device_owner);
    set(&mut port.binding_host_id, change.host);
    set(&mut port.dns_name, change.dns_name);
    if let Some(mac) = change.mac_address.filter(|mac| *mac != old.mac_address) {
        check_unbound(old, mac)?;
        port.mac_address = check_mac(state, port.network_id, mac)?;
    }
    if old.router().is_none() {
        port.fixed_ips = fixed_ip::next(state, old, port.mac_address, change.fixed_ips.as_deref())?;
    }
    let left = retag(state, context, old, &mut port, change.segmentation_id)?;
    let mut mutations = Vec::from_iter(left);
    port_security::next(state, &mut port, change.security)?;
    port.extra_dhcp_opts = dhcp_option::merged(&old.extra_dhcp_opts, change.extra_dhcp_opts)?;
    if let Some(policy) = change.qos_policy_id {
        port.qos_policy_id = qos::existing(state, policy)?;
    }
    change.common.apply(&mut port.common, context.now);
    mutations.push(Mutation::PutPort(port.clone()));
    tag::forget_ended(state, context, &mut mutations);
    Ok(Plan {
        mutations,
        result: port,
    })
}

/// Gives the port the tag that is named, or one that is free where it is bound now,
/// and keeps the one that it leaves from others.
fn retag(
    state: &State,
    context: Context<'_>,
    old: &Port,
    port: &mut Port,
    named: Option<Vlan>,
) -> Result<Option<Mutation>, IntentError> {
    let moves = port.binding_host_id != old.binding_host_id;
    let wish = match (named, old.segmentation_id) {
        (Some(tag), _) => Wish::Named(tag),
        (None, Some(tag)) if moves && old.segmentation_id_named => Wish::Named(tag),
        (None, Some(tag)) if moves => Wish::Keep(tag),
        _ => return Ok(None),
    };
    let tag = tag::choose(state, context, port.common.id, &port.binding_host_id, wish)?;
    port.segmentation_id = Some(tag);
    port.segmentation_id_named |= named.is_some();
    let leaves = moves || port.segmentation_id != old.segmentation_id;
    Ok(leaves.then(|| tag::release(context, old)).flatten())
}

/// Plans the end of a port.
pub fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
    let port = find(state, id)?;
    if port.router().is_some_and(|id| state.router(id).is_some()) {
        return Err(RouterError::InterfaceDeleted(id).into());
    }
    let mut mutations = vec![Mutation::DeletePort(id)];
    mutations.extend(tag::release(context, port));
    tag::forget_ended(state, context, &mut mutations);
    Ok(Plan {
        mutations,
        result: (),
    })
}

/// The port, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Port, IntentError> {
    state.port(id).ok_or(IntentError::not_found("Port", id))
}

fn invalid(reason: impl Into<String>) -> IntentError {
    IntentError::InvalidInput(reason.into())
}

/// Only a router makes its interfaces.
fn check_owner(device_owner: &str) -> Result<(), IntentError> {
    match device_owner == ROUTER_INTERFACE {
        true => Err(invalid(format!(
            "device_owner {ROUTER_INTERFACE} is set by add_router_interface only"
        ))),
        false => Ok(()),
    }
}

/// What makes a port a router's interface changes through the router.
fn check_interface(port: &Port, change: &PortChange) -> Result<(), IntentError> {
    let same = |change: &Option<String>, value: &str| change.as_deref().is_none_or(|c| c == value);
    let attribute = if !same(&change.device_id, &port.device_id) {
        "device_id"
    } else if !same(&change.device_owner, &port.device_owner) {
        "device_owner"
    } else if !same(&change.host, "") {
        "binding:host_id"
    } else if change.fixed_ips.is_some() {
        "fixed_ips"
    } else if change.segmentation_id.is_some() {
        "segmentation_id"
    } else {
        return Ok(());
    };
    Err(invalid(format!(
        "{attribute} of port {} cannot change: it is a router's interface",
        port.common.id
    )))
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

/// A MAC address that no port of the network has.
pub(super) fn free_mac(
    state: &State,
    context: Context<'_>,
    network: Uuid,
) -> Result<Mac, IntentError> {
    std::iter::repeat_with(|| generate_mac(context.settings.base_mac))
        .take(MAC_RETRIES)
        .find(|mac| check_mac(state, network, *mac).is_ok())
        .ok_or(IntentError::MacGeneration(network))
}
