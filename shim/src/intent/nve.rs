//! Plans changes of NVEs.

use std::net::IpAddr;

use serde::Deserialize;
use uuid::Uuid;

use super::{Context, IntentError, IpVersion, Plan, State};
use crate::model::{Mutation, Nve};

/// Most characters of a name, as in Neutron.
const MAX_NAME: usize = 255;

/// An NVE to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNve {
    /// Its UUID; made if absent.
    pub id: Option<Uuid>,
    /// Name for people; unique.
    pub name: String,
    /// Name of the host that it serves; unique.
    pub host_name: String,
    /// UUID of that host.
    pub host_uuid: Option<Uuid>,
    /// Its VTEP address; unique among NVEs and VTEPs.
    pub vtep: IpAddr,
    /// Its static X25519 public key, 64 hexadecimal digits; unique.
    pub public_key: String,
}

/// Plans the registration of an NVE.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewNve,
) -> Result<Plan<Nve>, IntentError> {
    let nve = Nve {
        id: request.id.unwrap_or_else(Uuid::new_v4),
        name: check_name("name", request.name)?,
        host_name: check_name("host_name", request.host_name)?,
        host_uuid: request.host_uuid,
        vtep: check_vtep_address(context, "vtep", request.vtep)?,
        public_key: check_key(&request.public_key)?,
    };
    for other in state.nves() {
        check_distinct(&nve, other)?;
    }
    check_vtep_free(state, "vtep", nve.vtep, None)?;
    Ok(Plan::one(Mutation::PutNve(nve.clone()), nve))
}

/// Plans the end of an NVE.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    find(state, id)?;
    Ok(Plan::one(Mutation::DeleteNve(id), ()))
}

/// The NVE, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Nve, IntentError> {
    state.nve(id).ok_or(IntentError::not_found("NVE", id))
}

/// Refuses a name that is empty or too long.
pub(super) fn check_name(field: &'static str, name: String) -> Result<String, IntentError> {
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(IntentError::InvalidField {
            field,
            reason: format!("a name has 1 to {MAX_NAME} characters"),
        });
    }
    Ok(name)
}

/// Refuses an address that no VTEP can have, or none here: networks that leave no
/// room for IPv6 headers would lose their largest packets on the way to it.
pub(super) fn check_vtep_address(
    context: Context<'_>,
    field: &'static str,
    address: IpAddr,
) -> Result<IpAddr, IntentError> {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast {
        return Err(IntentError::InvalidField {
            field,
            reason: format!("{address} is not an address that VXLAN can be sent to"),
        });
    }
    if address.is_ipv6() && context.settings.overlay == IpVersion::V4 {
        return Err(IntentError::InvalidField {
            field,
            reason: format!(
                "{address} is an IPv6 address, for which the MTU of networks leaves no room; \
                 set network.overlay_ip_version to 6 in the shim's configuration"
            ),
        });
    }
    Ok(address)
}

/// Refuses an address that another NVE or VTEP has; `own` is the VTEP that asks.
pub(super) fn check_vtep_free(
    state: &State,
    field: &'static str,
    address: IpAddr,
    own: Option<Uuid>,
) -> Result<(), IntentError> {
    let nve = state
        .nves()
        .find(|n| n.vtep == address)
        .map(|n| format!("NVE {}", n.name));
    let vtep = || {
        state
            .vteps()
            .find(|v| v.address == address && own != Some(v.id))
            .map(|v| format!("VTEP {}", v.name))
    };
    match nve.or_else(vtep) {
        Some(holder) => Err(IntentError::Taken {
            field,
            value: address.to_string(),
            holder,
        }),
        None => Ok(()),
    }
}

fn check_key(key: &str) -> Result<String, IntentError> {
    let invalid = |reason: &str| IntentError::InvalidField {
        field: "public_key",
        reason: reason.to_owned(),
    };
    let mut octets = [0u8; 32];
    hex::decode_to_slice(key, &mut octets)
        .map_err(|_| invalid("a public key has 64 hexadecimal digits"))?;
    if octets == [0; 32] {
        return Err(invalid("the all-zero key is nobody's"));
    }
    Ok(hex::encode(octets))
}

/// Refuses what would make two NVEs one.
fn check_distinct(nve: &Nve, other: &Nve) -> Result<(), IntentError> {
    let taken = |field, value: String| {
        Err(IntentError::Taken {
            field,
            value,
            holder: format!("NVE {}", other.name),
        })
    };
    if nve.id == other.id {
        return taken("id", nve.id.to_string());
    }
    if nve.name == other.name {
        return taken("name", nve.name.clone());
    }
    if nve.host_name == other.host_name {
        return taken("host_name", nve.host_name.clone());
    }
    if let Some(uuid) = nve.host_uuid.filter(|_| nve.host_uuid == other.host_uuid) {
        return taken("host_uuid", uuid.to_string());
    }
    if nve.public_key == other.public_key {
        return taken("public_key", nve.public_key.clone());
    }
    Ok(())
}
