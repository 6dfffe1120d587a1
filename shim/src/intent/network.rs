//! Plans changes of networks.

use nve_protocol::Vni;
use serde::Deserialize;
use uuid::Uuid;

use super::{CommonChange, Context, IntentError, NewCommon, Plan, State, given, group, qos, set};
use crate::model::{Mutation, Network};

/// The least that IPv4 requires of a link (RFC 791, section 3.2).
const MIN_MTU: u16 = 68;

/// A network to be created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewNetwork {
    /// Identity.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Whether it forwards.
    pub admin_state_up: bool,
    /// Whether other projects may use it.
    pub shared: bool,
    /// Bytes of an IP packet; 0 for what the underlay leaves.
    pub mtu: u16,
    /// VNI; allocated if absent.
    #[serde(rename = "provider:segmentation_id")]
    pub vni: Option<Vni>,
    /// What its ports have unless they say otherwise.
    pub port_security_enabled: bool,
    /// QoS policy; the project's default if absent.
    pub qos_policy_id: Option<Uuid>,
    /// Domain of its ports' names.
    #[serde(default)]
    pub dns_domain: String,
}

/// A change of a network; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NetworkChange {
    /// Identity.
    #[serde(flatten)]
    pub common: CommonChange,
    /// Whether it forwards.
    pub admin_state_up: Option<bool>,
    /// Whether other projects may use it.
    pub shared: Option<bool>,
    /// Bytes of an IP packet; 0 for what the underlay leaves.
    pub mtu: Option<u16>,
    /// What new ports have unless they say otherwise.
    pub port_security_enabled: Option<bool>,
    /// QoS policy, or none if null.
    #[serde(default, deserialize_with = "given")]
    pub qos_policy_id: Option<Option<Uuid>>,
    /// Domain of its ports' names.
    pub dns_domain: Option<String>,
}

/// Plans a new network, and its project's default security group if there is none yet.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewNetwork,
) -> Result<Plan<Network>, IntentError> {
    let vni = match request.vni {
        Some(vni) if state.network_by_vni(vni).is_some() => {
            return Err(IntentError::VniInUse(vni));
        }
        Some(vni) => vni,
        None => free_vni(state, context)?,
    };
    let project = &request.common.project_id;
    let qos_policy_id =
        qos::existing(state, request.qos_policy_id)?.or_else(|| qos::default_of(state, project));
    let mut mutations = match project.is_empty() {
        true => Vec::new(),
        false => group::default_of(state, context, project).1,
    };
    let network = Network {
        common: request.common.create(context.now),
        admin_state_up: request.admin_state_up,
        shared: request.shared,
        mtu: check_mtu(context, request.mtu)?,
        vni,
        port_security_enabled: request.port_security_enabled,
        qos_policy_id,
        dns_domain: request.dns_domain,
    };
    mutations.push(Mutation::PutNetwork(network.clone()));
    Ok(Plan {
        mutations,
        result: network,
    })
}

/// Plans a change of a network.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: NetworkChange,
) -> Result<Plan<Network>, IntentError> {
    let mut network = find(state, id)?.clone();
    set(&mut network.admin_state_up, change.admin_state_up);
    set(&mut network.shared, change.shared);
    if let Some(mtu) = change.mtu {
        network.mtu = check_mtu(context, mtu)?;
    }
    set(
        &mut network.port_security_enabled,
        change.port_security_enabled,
    );
    set(&mut network.dns_domain, change.dns_domain);
    if let Some(policy) = change.qos_policy_id {
        network.qos_policy_id = qos::existing(state, policy)?;
    }
    change.common.apply(&mut network.common, context.now);
    Ok(Plan::one(Mutation::PutNetwork(network.clone()), network))
}

/// Plans the end of a network; its subnets go with it.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    find(state, id)?;
    let mut ports = state.ports_of(id).map(|p| p.common.id.to_string());
    let some: Vec<String> = ports.by_ref().take(5).collect();
    if !some.is_empty() {
        return Err(IntentError::NetworkInUse {
            id,
            ports: some.join(", "),
        });
    }
    if let Some(vtep) = state.vteps().find(|v| v.names_network(id)) {
        return Err(IntentError::NetworkOfVtep { id, vtep: vtep.id });
    }
    let mut mutations: Vec<Mutation> = state
        .subnets_of(id)
        .map(|s| Mutation::DeleteSubnet(s.common.id))
        .collect();
    mutations.push(Mutation::DeleteNetwork(id));
    Ok(Plan {
        mutations,
        result: (),
    })
}

/// The network, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Network, IntentError> {
    state
        .network(id)
        .ok_or(IntentError::not_found("Network", id))
}

fn check_mtu(context: Context<'_>, mtu: u16) -> Result<u16, IntentError> {
    let max = context.settings.network_mtu();
    match mtu {
        0 => Ok(max),
        mtu if mtu > max => Err(IntentError::MtuTooBig { max }),
        mtu if mtu < MIN_MTU => Err(IntentError::InvalidInput(format!(
            "Requested MTU is too small, minimum is {MIN_MTU}"
        ))),
        mtu => Ok(mtu),
    }
}

/// The VNI after the highest in use, so that one is used again only when the range
/// has been walked through; then the first gap.
fn free_vni(state: &State, context: Context<'_>) -> Result<Vni, IntentError> {
    let range = &context.settings.vni_range;
    let (Some(first), Some(last)) = (Vni::new(*range.start()), Vni::new(*range.end())) else {
        return Err(IntentError::NoVniLeft);
    };
    let Some(highest) = state.vnis(first, last).next_back() else {
        return Ok(first);
    };
    if highest < last {
        return Vni::new(highest.get() + 1).ok_or(IntentError::NoVniLeft);
    }
    state
        .vnis(first, last)
        .map(Vni::get)
        .zip(first.get()..)
        .find(|(used, expected)| used != expected)
        .and_then(|(_, gap)| Vni::new(gap))
        .ok_or(IntentError::NoVniLeft)
}
