//! Which VMs claim which ports and tags.
//!
//! A port has one place, and a tag on a host one port; managers may contradict
//! that for a while. All claims are kept; the newest one wins a port, and a tag that
//! several ports have is nobody's. So the outcome depends on what is known and not on
//! the order in which it came.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nve_protocol::Vlan;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::intent::State;
use crate::model::PlacedVm;

/// A vNIC that is a port's, on a running VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The VM.
    pub vm: Uuid,
    /// Name of its host.
    pub host: String,
    /// Tag of the port group.
    pub vlan: Vlan,
    /// When that was told.
    pub as_of: OffsetDateTime,
}

/// All claims, by port and by tag.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    by_port: BTreeMap<Uuid, BTreeMap<Uuid, Claim>>,
    /// Ports by host and tag; a port counts once however many VMs claim it there.
    by_tag: BTreeMap<(String, Vlan), BTreeSet<Uuid>>,
}

impl Claims {
    /// The claims of all VMs.
    pub fn of(state: &State) -> Claims {
        let mut claims = Claims::default();
        state.vms().for_each(|vm| claims.add(vm));
        claims
    }

    /// Adds the claims of a VM that has none.
    pub fn add(&mut self, placed: &PlacedVm) {
        for (port, claim) in claims_of(placed) {
            let tag = (claim.host.clone(), claim.vlan);
            self.by_tag.entry(tag).or_default().insert(port);
            self.by_port
                .entry(port)
                .or_default()
                .insert(claim.vm, claim);
        }
    }

    /// Takes the claims of a VM back.
    pub fn remove(&mut self, placed: &PlacedVm) {
        for (port, claim) in claims_of(placed) {
            let Some(claims) = self.by_port.get_mut(&port) else {
                continue;
            };
            claims.remove(&claim.vm);
            let tag = (claim.host, claim.vlan);
            let still = claims
                .values()
                .any(|c| (&c.host, c.vlan) == (&tag.0, tag.1));
            if claims.is_empty() {
                self.by_port.remove(&port);
            }
            if !still && let Some(ports) = self.by_tag.get_mut(&tag) {
                ports.remove(&port);
                if ports.is_empty() {
                    self.by_tag.remove(&tag);
                }
            }
        }
    }

    /// Where a port is: the newest claim, and of equally new ones that of the
    /// VM with the lowest UUID.
    pub fn place(&self, port: Uuid) -> Option<&Claim> {
        self.by_port
            .get(&port)?
            .values()
            .max_by_key(|claim| (claim.as_of, Reverse(claim.vm)))
    }

    /// Ports that have a claim on the tag, by UUID.
    pub fn on_tag(&self, host: &str, vlan: Vlan) -> impl Iterator<Item = Uuid> {
        self.by_tag
            .get(&(host.to_owned(), vlan))
            .into_iter()
            .flatten()
            .copied()
    }

    /// Ports that have a claim on any tag of the host.
    pub fn on_host(&self, host: &str) -> impl Iterator<Item = Uuid> {
        let host = host.to_owned();
        let first = Vlan::new(1).map(|vlan| (host.clone(), vlan));
        first
            .map(|first| {
                self.by_tag
                    .range(first..)
                    .take_while(move |((at, _), _)| *at == host)
            })
            .into_iter()
            .flatten()
            .flat_map(|(_, ports)| ports.iter().copied())
    }

    /// Ports that the VM claims, with all ports that share a tag with them.
    pub fn touched_by(&self, placed: &PlacedVm) -> BTreeSet<Uuid> {
        claims_of(placed)
            .flat_map(|(port, claim)| {
                self.on_tag(&claim.host, claim.vlan)
                    .chain([port])
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// The port that a tag on a host belongs to: the one that is placed there. If
    /// there are several, the vSwitch mixes their traffic, and which frame is whose
    /// cannot be told: then it is nobody's.
    pub fn holder(&self, host: &str, vlan: Vlan) -> Option<Uuid> {
        let here = |id: &Uuid| {
            self.place(*id)
                .is_some_and(|claim| claim.host == host && claim.vlan == vlan)
        };
        let mut placed = self.on_tag(host, vlan).filter(here);
        let first = placed.next()?;
        placed.next().is_none().then_some(first)
    }
}

/// The claims of a VM: none unless it forwards and is not deleted.
fn claims_of(placed: &PlacedVm) -> impl Iterator<Item = (Uuid, Claim)> {
    let vm = &placed.vm;
    let vnics = if vm.vm_status.forwards() && !placed.deleted {
        &vm.vnic_list[..]
    } else {
        &[]
    };
    vnics.iter().filter_map(|vnic| {
        let vlan = Vlan::new(vnic.port_segmentation_id)?;
        let claim = Claim {
            vm: vm.vm_uuid,
            host: vm.host_name.clone(),
            vlan,
            as_of: placed.as_of,
        };
        Some((vnic.port_id()?, claim))
    })
}
