//! The records that one network puts on each NVE.
//!
//! An NVE gets a network's records if it has a VAP of it: its VAPs, the remote
//! MAC addresses, all neighbors, and every other VTEP of the network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use nve_protocol::{Fdb, Flood, Key, Mac, Neighbor, PortId, Record, Vap, Vlan};
use uuid::Uuid;

use crate::intent::State;
use crate::model::{Network, Nve};
use crate::placement::Claims;

/// Records per NVE, sorted by key.
pub(super) type PerNve = BTreeMap<Uuid, Arc<[Record]>>;

/// A port that is on an NVE.
struct Member<'a> {
    nve: &'a Nve,
    vlan: Vlan,
    port: Uuid,
    mac: Mac,
}

/// Where a port is attached: the NVE of its place, if the tag there is its own.
pub fn attachment<'a>(state: &'a State, claims: &Claims, port: Uuid) -> Option<(&'a Nve, Vlan)> {
    let place = claims.place(port)?;
    let nve = state.nve_by_host(&place.host)?;
    let holder = claims.holder(&place.host, place.vlan, |id| active_port(state, id))?;
    (holder == port).then_some((nve, place.vlan))
}

/// A port that intent lets forward behind a tag; routers' interfaces have none.
fn active_port(state: &State, id: Uuid) -> Option<&crate::model::Port> {
    let port = state.port(id)?;
    let network = state.network(port.network_id)?;
    let is_up = port.admin_state_up && network.admin_state_up;
    (is_up && port.segmentation_id.is_some()).then_some(port)
}

/// The VAP record of a port that is attached, and the NVE that holds it.
pub fn vap_of<'a>(state: &'a State, claims: &Claims, id: Uuid) -> Option<(&'a Nve, Vap)> {
    let port = active_port(state, id)?;
    let (nve, vlan) = attachment(state, claims, id)?;
    let vni = state.network(port.network_id)?.vni;
    Some((
        nve,
        Vap {
            vlan,
            port: PortId(id.into_bytes()),
            vni,
            mac: port.mac_address,
            port_security: false,
        },
    ))
}

/// Compiles one network.
pub(super) fn compile(state: &State, claims: &Claims, network: &Network) -> PerNve {
    if !network.admin_state_up {
        return PerNve::new();
    }
    let id = network.common.id;
    let members: Vec<Member<'_>> = state
        .ports_of(id)
        .filter(|port| port.admin_state_up)
        .filter_map(|port| {
            let (nve, vlan) = attachment(state, claims, port.common.id)?;
            Some(Member {
                nve,
                vlan,
                port: port.common.id,
                mac: port.mac_address,
            })
        })
        .collect();
    let nves: BTreeMap<Uuid, &Nve> = members.iter().map(|m| (m.nve.id, m.nve)).collect();
    let neighbors = neighbors(state, network, &members);
    let tables = nves.values().map(|nve| {
        let mut records = BTreeMap::new();
        add_stations(state, network, &members, nve, &mut records);
        for vtep in flood_list(state, id, &nves, nve) {
            add(
                &mut records,
                Record::Flood(Flood {
                    vni: network.vni,
                    vtep,
                }),
            );
        }
        records.extend(neighbors.iter().map(|record| (record.key(), *record)));
        (nve.id, records.into_values().collect())
    });
    tables.collect()
}

/// The first record with a key stays: ports go before endpoints.
fn add(records: &mut BTreeMap<Key, Record>, record: Record) {
    records.entry(record.key()).or_insert(record);
}

fn add_stations(
    state: &State,
    network: &Network,
    members: &[Member<'_>],
    nve: &Nve,
    records: &mut BTreeMap<Key, Record>,
) {
    let vni = network.vni;
    for member in members {
        let (mac, vtep) = (member.mac, member.nve.vtep);
        if member.nve.id == nve.id {
            let port = PortId(member.port.into_bytes());
            add(
                records,
                Record::Vap(Vap {
                    vlan: member.vlan,
                    port,
                    vni,
                    mac,
                    port_security: false,
                }),
            );
        } else {
            add(records, Record::Fdb(Fdb { vni, mac, vtep }));
        }
    }
    for (vtep, endpoint) in endpoints(state, network.common.id) {
        let mac = endpoint.mac_address;
        if !members.iter().any(|member| member.mac == mac) {
            add(records, Record::Fdb(Fdb { vni, mac, vtep }));
        }
    }
}

fn endpoints(
    state: &State,
    network: Uuid,
) -> impl Iterator<Item = (IpAddr, &crate::model::Endpoint)> {
    state.vteps().flat_map(move |vtep| {
        let here = vtep
            .endpoints
            .iter()
            .filter(move |e| e.network_id == network);
        here.map(|endpoint| (vtep.address, endpoint))
    })
}

fn neighbors(state: &State, network: &Network, members: &[Member<'_>]) -> Vec<Record> {
    let vni = network.vni;
    let ports = members
        .iter()
        .filter_map(|member| state.port(member.port))
        .flat_map(|port| {
            let mac = port.mac_address;
            port.fixed_ips
                .iter()
                .map(move |fixed| (fixed.ip_address, mac))
        });
    let others = endpoints(state, network.common.id)
        .filter_map(|(_, endpoint)| Some((endpoint.ip_address?, endpoint.mac_address)));
    let mut records = BTreeMap::new();
    for (ip, mac) in ports.chain(others) {
        add(&mut records, Record::Neighbor(Neighbor { vni, ip, mac }));
    }
    records.into_values().collect()
}

/// Every other VTEP of the network.
fn flood_list<'a>(
    state: &'a State,
    network: Uuid,
    nves: &'a BTreeMap<Uuid, &'a Nve>,
    own: &'a Nve,
) -> impl Iterator<Item = IpAddr> + 'a {
    let others = nves
        .values()
        .filter(|nve| nve.id != own.id)
        .map(|nve| nve.vtep);
    let vteps = state.vteps().filter(move |vtep| {
        vtep.networks.contains(&network)
            || vtep
                .endpoints
                .iter()
                .any(|endpoint| endpoint.network_id == network)
    });
    others.chain(vteps.map(|vtep| vtep.address))
}
