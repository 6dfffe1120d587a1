//! Which VMs claim which ports and tags.
//!
//! A port has one place, and a tag on a host one port; managers may contradict
//! that for a while. All claims are kept; the newest one wins a port, and a tag that
//! several ports have is nobody's. So the outcome depends on what is known and not on
//! the order in which it came.
//!
//! A VM that moves has its ports also where it may come up, or where it was: on a tag
//! there that no other port has anything to do with.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nve_protocol::{Presence, Vlan};
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
    /// Ports and their VMs by host and tag, where VMs may come up or have been.
    aside: BTreeMap<(String, Vlan), BTreeSet<(Uuid, Uuid)>>,
}

/// A tag on a host where a port's VM is not, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Name of the host.
    pub host: String,
    /// The tag.
    pub vlan: Vlan,
    /// Whether the VM may come there, or has left.
    pub presence: Presence,
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
        for (port, aside) in asides_of(placed) {
            let tag = (aside.host, aside.vlan);
            let entry = (port, placed.vm.vm_uuid);
            self.aside.entry(tag).or_default().insert(entry);
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
        for (port, aside) in asides_of(placed) {
            let tag = (aside.host, aside.vlan);
            if let Some(ports) = self.aside.get_mut(&tag) {
                ports.remove(&(port, placed.vm.vm_uuid));
                if ports.is_empty() {
                    self.aside.remove(&tag);
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

    /// Ports whose VMs may come up, or have been, on the tag.
    pub fn aside_on_tag(&self, host: &str, vlan: Vlan) -> impl Iterator<Item = Uuid> {
        let ports = self.aside.get(&(host.to_owned(), vlan));
        ports.into_iter().flatten().map(|(port, _)| *port)
    }

    /// Ports that have to do with any tag of the host.
    pub fn on_host(&self, host: &str) -> impl Iterator<Item = Uuid> {
        let claimed = on_host(&self.by_tag, host).copied();
        claimed.chain(on_host(&self.aside, host).map(|(port, _)| *port))
    }

    /// Ports that the VM claims, with all ports that have to do with a tag on which
    /// these are, may be or have been.
    pub fn touched_by(&self, placed: &PlacedVm) -> BTreeSet<Uuid> {
        let claims = claims_of(placed).map(|(port, claim)| (port, claim.host, claim.vlan));
        let asides = asides_of(placed).map(|(port, aside)| (port, aside.host, aside.vlan));
        let mut ports = BTreeSet::new();
        for (port, host, vlan) in claims.chain(asides) {
            ports.insert(port);
            ports.extend(self.on_tag(&host, vlan));
            ports.extend(self.aside_on_tag(&host, vlan));
        }
        ports
    }

    /// Where else a port is put, by its VM, which is the one that has the port's place:
    /// each tag once, none where another port has anything to do with the tag.
    pub fn asides(&self, port: Uuid, placed: &PlacedVm) -> Vec<Aside> {
        let place = self.place(port);
        let is_place = |aside: &Aside| {
            place.is_some_and(|place| place.host == aside.host && place.vlan == aside.vlan)
        };
        let mut asides: Vec<Aside> = Vec::new();
        for (of, aside) in asides_of(placed) {
            let is_same = |other: &Aside| other.host == aside.host && other.vlan == aside.vlan;
            let is_put = asides.iter().any(is_same);
            if of == port && !is_put && !is_place(&aside) && self.is_free(port, &aside) {
                asides.push(aside);
            }
        }
        asides
    }

    /// Whether no other port has anything to do with a tag.
    fn is_free(&self, port: Uuid, aside: &Aside) -> bool {
        let claims = self.on_tag(&aside.host, aside.vlan);
        let mut all = claims.chain(self.aside_on_tag(&aside.host, aside.vlan));
        all.all(|other| other == port)
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
            host: placed.host_name().to_owned(),
            vlan,
            as_of: placed.as_of,
        };
        Some((vnic.port_id()?, claim))
    })
}

/// Where else a VM has ports: on standby wherever it may come up, unless it has come up
/// already, and where it was.
fn asides_of(placed: &PlacedVm) -> impl Iterator<Item = (Uuid, Aside)> {
    let migration = placed.migration.as_ref().filter(|all| all.awake.is_none());
    let to = migration.map_or(&[][..], |migration| &migration.to);
    let ports = claims_of(placed).map(|(port, claim)| (port, claim.vlan));
    let standby = ports.flat_map(move |(port, vlan)| {
        to.iter().map(move |host| {
            let (host, presence) = (host.clone(), Presence::Standby);
            let aside = Aside {
                host,
                vlan,
                presence,
            };
            (port, aside)
        })
    });
    let departed = placed.departed.iter().flat_map(|departed| {
        departed.vaps.iter().map(move |(port, vlan)| {
            let (host, presence) = (departed.host.clone(), Presence::Departed);
            let aside = Aside {
                host,
                vlan: *vlan,
                presence,
            };
            (*port, aside)
        })
    });
    standby.chain(departed)
}

/// What an index has for the tags of a host.
fn on_host<'a, T>(
    index: &'a BTreeMap<(String, Vlan), BTreeSet<T>>,
    host: &str,
) -> impl Iterator<Item = &'a T> {
    let host = host.to_owned();
    let first = Vlan::new(1).map(|vlan| (host.clone(), vlan));
    let from = first.map(|first| index.range(first..));
    let here = from.into_iter().flatten();
    here.take_while(move |((at, _), _)| *at == host)
        .flat_map(|(_, all)| all)
}
