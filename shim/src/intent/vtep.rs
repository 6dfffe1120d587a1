//! Plans changes of VTEPs that are not NVEs.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::Deserialize;
use uuid::Uuid;

use super::nve::{check_name, check_vtep_address, check_vtep_free};
use super::{Context, IntentError, Plan, State, set};
use crate::model::{Endpoint, Mutation, Vtep};

/// A VTEP to be entered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVtep {
    /// Its UUID; made if absent.
    pub id: Option<Uuid>,
    /// Name for people; unique.
    pub name: String,
    /// Its VTEP address; unique among NVEs and VTEPs.
    pub address: IpAddr,
    /// Networks whose broadcast, unknown and multicast frames it gets.
    #[serde(default)]
    pub networks: Vec<Uuid>,
    /// Stations known to be behind it.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// A change of a VTEP; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VtepChange {
    /// New name.
    pub name: Option<String>,
    /// New address.
    pub address: Option<IpAddr>,
    /// All its networks.
    pub networks: Option<Vec<Uuid>>,
    /// All its stations.
    pub endpoints: Option<Vec<Endpoint>>,
}

impl Vtep {
    /// Whether it takes part in that network.
    pub fn names_network(&self, network: Uuid) -> bool {
        self.networks.contains(&network) || self.endpoints.iter().any(|e| e.network_id == network)
    }
}

/// Plans a new VTEP.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewVtep,
) -> Result<Plan<Vtep>, IntentError> {
    let id = request.id.unwrap_or_else(Uuid::new_v4);
    if let Some(other) = state.vtep(id) {
        return Err(taken("id", id, other));
    }
    let vtep = Vtep {
        id,
        name: request.name,
        address: request.address,
        networks: request.networks,
        endpoints: request.endpoints,
    };
    put(state, context, vtep)
}

/// Plans a change of a VTEP.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: VtepChange,
) -> Result<Plan<Vtep>, IntentError> {
    let mut vtep = find(state, id)?.clone();
    set(&mut vtep.name, change.name);
    set(&mut vtep.address, change.address);
    set(&mut vtep.networks, change.networks);
    set(&mut vtep.endpoints, change.endpoints);
    put(state, context, vtep)
}

/// Plans the end of a VTEP.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    find(state, id)?;
    Ok(Plan::one(Mutation::DeleteVtep(id), ()))
}

/// The VTEP, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Vtep, IntentError> {
    state.vtep(id).ok_or(IntentError::not_found("VTEP", id))
}

fn put(state: &State, context: Context<'_>, mut vtep: Vtep) -> Result<Plan<Vtep>, IntentError> {
    vtep.name = check_name("name", vtep.name)?;
    if let Some(other) = others(state, vtep.id).find(|v| v.name == vtep.name) {
        return Err(taken("name", &vtep.name, other));
    }
    check_vtep_address(context, "address", vtep.address)?;
    check_vtep_free(state, "address", vtep.address, Some(vtep.id))?;
    vtep.networks.sort();
    vtep.networks.dedup();
    check_networks(state, &vtep)?;
    check_endpoints(state, &vtep)?;
    Ok(Plan::one(Mutation::PutVtep(vtep.clone()), vtep))
}

fn others(state: &State, id: Uuid) -> impl Iterator<Item = &Vtep> {
    state.vteps().filter(move |v| v.id != id)
}

fn taken(field: &'static str, value: impl ToString, holder: &Vtep) -> IntentError {
    IntentError::Taken {
        field,
        value: value.to_string(),
        holder: format!("VTEP {}", holder.name),
    }
}

fn check_networks(state: &State, vtep: &Vtep) -> Result<(), IntentError> {
    let named = vtep.networks.iter().map(|id| ("networks", id));
    let reached = vtep
        .endpoints
        .iter()
        .map(|e| ("endpoints.network_id", &e.network_id));
    match named
        .chain(reached)
        .find(|(_, id)| state.network(**id).is_none())
    {
        Some((field, id)) => Err(IntentError::InvalidField {
            field,
            reason: format!("there is no network {id}"),
        }),
        None => Ok(()),
    }
}

/// A MAC address is behind one VTEP or one port of its network, never two.
fn check_endpoints(state: &State, vtep: &Vtep) -> Result<(), IntentError> {
    const FIELD: &str = "endpoints.mac_address";
    let elsewhere: HashSet<_> = others(state, vtep.id)
        .flat_map(|v| &v.endpoints)
        .map(|e| (e.network_id, e.mac_address))
        .collect();
    let mut seen = HashSet::new();
    for endpoint in &vtep.endpoints {
        let (network, mac) = (endpoint.network_id, endpoint.mac_address);
        if !mac.is_unicast() {
            return Err(IntentError::InvalidField {
                field: FIELD,
                reason: format!("{mac} is not the address of a station"),
            });
        }
        let holder = if let Some(port) = state.port_by_mac(network, mac) {
            format!("port {}", port.common.id)
        } else if elsewhere.contains(&(network, mac)) {
            "another VTEP".to_owned()
        } else if !seen.insert((network, mac)) {
            "another endpoint of the same VTEP".to_owned()
        } else {
            continue;
        };
        return Err(IntentError::Taken {
            field: FIELD,
            value: mac.to_string(),
            holder,
        });
    }
    Ok(())
}
