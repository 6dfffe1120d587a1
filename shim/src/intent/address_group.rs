//! Plans changes of address groups.

use ipnet::IpNet;
use serde::Deserialize;
use uuid::Uuid;

use super::{CommonChange, Context, IntentError, NewCommon, Plan, SecurityError, State, revise};
use crate::model::{AddressGroup, Mutation};

/// Most prefixes of an address group; Neutron has no limit.
pub const MAX_ADDRESSES: usize = 4096;

/// An address group to be created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewAddressGroup {
    /// Identity.
    #[serde(flatten)]
    pub common: NewCommon,
    /// Prefixes.
    pub addresses: Vec<IpNet>,
}

/// A change of an address group; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct AddressGroupChange {
    /// Identity.
    #[serde(flatten)]
    pub common: CommonChange,
}

/// Plans a new address group.
pub fn create(
    context: Context<'_>,
    request: NewAddressGroup,
) -> Result<Plan<AddressGroup>, IntentError> {
    let group = AddressGroup {
        common: request.common.create(context.now),
        addresses: normal(request.addresses),
    };
    Ok(Plan::one(Mutation::PutAddressGroup(group.clone()), group))
}

/// Plans a change of an address group.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: AddressGroupChange,
) -> Result<Plan<AddressGroup>, IntentError> {
    let mut group = find(state, id)?.clone();
    change.common.apply(&mut group.common, context.now);
    Ok(Plan::one(Mutation::PutAddressGroup(group.clone()), group))
}

/// Plans that the group has more prefixes, none of which it has.
pub fn add(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    addresses: Vec<IpNet>,
) -> Result<Plan<AddressGroup>, IntentError> {
    let mut group = find(state, id)?.clone();
    let more = normal(addresses);
    let known: Vec<&IpNet> = more
        .iter()
        .filter(|cidr| group.addresses.contains(cidr))
        .collect();
    if !known.is_empty() {
        return Err(SecurityError::AddressesExist {
            addresses: listed(&known),
            group: id,
        }
        .into());
    }
    group.addresses = normal([group.addresses, more].concat());
    if group.addresses.len() > MAX_ADDRESSES {
        return Err(IntentError::InvalidInput(format!(
            "an address group has at most {MAX_ADDRESSES} addresses"
        )));
    }
    revise(&mut group.common, context.now);
    Ok(Plan::one(Mutation::PutAddressGroup(group.clone()), group))
}

/// Plans that the group no longer has these prefixes, all of which it has.
pub fn remove(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    addresses: Vec<IpNet>,
) -> Result<Plan<AddressGroup>, IntentError> {
    let mut group = find(state, id)?.clone();
    let gone = normal(addresses);
    let unknown: Vec<&IpNet> = gone
        .iter()
        .filter(|cidr| !group.addresses.contains(cidr))
        .collect();
    if !unknown.is_empty() {
        return Err(SecurityError::AddressesNotFound {
            addresses: listed(&unknown),
            group: id,
        }
        .into());
    }
    group.addresses.retain(|cidr| !gone.contains(cidr));
    revise(&mut group.common, context.now);
    Ok(Plan::one(Mutation::PutAddressGroup(group.clone()), group))
}

/// Plans the end of an address group that no rule names.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    find(state, id)?;
    if state.rules_about(id).next().is_some() {
        return Err(SecurityError::AddressGroupInUse(id).into());
    }
    Ok(Plan::one(Mutation::DeleteAddressGroup(id), ()))
}

/// The address group, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&AddressGroup, IntentError> {
    state
        .address_group(id)
        .ok_or(IntentError::not_found("AddressGroup", id))
}

/// Ascending, each once, without host bits.
fn normal(addresses: Vec<IpNet>) -> Vec<IpNet> {
    let mut addresses: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn listed(addresses: &[&IpNet]) -> String {
    let texts: Vec<String> = addresses.iter().map(|cidr| format!("'{cidr}'")).collect();
    format!("[{}]", texts.join(", "))
}
