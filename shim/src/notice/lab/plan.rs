//! What a request makes of the lab's VMs, or why it cannot be: no state, no clock.
//!
//! Invariants kept for what is planned: a VLAN tag belongs to one vNIC per host (the
//! paper, section II.C), a MAC address to one vNIC per port group, every UUID to one
//! thing.

use std::collections::BTreeMap;

use nve_protocol::{Mac, Vlan};
use serde::Deserialize;
use uuid::Uuid;

use super::{Change, Vms, derived_uuid};
use crate::events::types::{EventType, IpEntry, Ipv6Entry, VmState, VmStatus, Vnic};

/// VMs that a lab may have.
const MAX_VMS: usize = 100_000;
/// vNICs that a VM may have.
const MAX_VNICS: usize = 32;
/// Addresses of each family that a vNIC may have.
const MAX_ADDRESSES: usize = 32;
/// Length of a name, bytes.
const MAX_NAME: usize = 255;

/// The hosts that VMs may be on; any host if there is none.
#[derive(Debug)]
pub(super) struct Hosts(pub(super) BTreeMap<String, Uuid>);

/// Why a request cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is wrong whatever the lab's state.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It would collide with what is there.
    #[error("{0}")]
    Conflict(String),
}

/// A VM to be defined.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRequest {
    /// Its name.
    pub vm_name: String,
    /// Its UUID; made up if not given.
    pub vm_uuid: Option<Uuid>,
    /// Its host.
    pub host_name: String,
    /// Its host's UUID, which has to be the one that the host has.
    pub host_uuid: Option<Uuid>,
    /// Its vNICs.
    #[serde(default)]
    pub vnic_list: Vec<VnicRequest>,
    /// Whether it is powered on too.
    #[serde(default)]
    pub power_on: bool,
}

/// A vNIC to be attached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VnicRequest {
    /// Its name; `vnicN` if not given.
    pub vnic_name: Option<String>,
    /// Its UUID; made up if not given.
    pub vnic_uuid: Option<Uuid>,
    /// Its port group.
    pub pg_name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// VLAN tag of the port group.
    pub port_segmentation_id: Vlan,
    /// IPv4 addresses.
    #[serde(default)]
    pub ip_list: Vec<IpEntry>,
    /// IPv6 addresses.
    #[serde(default)]
    pub ipv6_list: Vec<Ipv6Entry>,
}

/// Where a VM is to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The host to move it to.
    pub host_name: String,
    /// While it runs, or while it is off; what it is if not given.
    pub live: Option<bool>,
}

/// Where a VM is started again after its host has failed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRequest {
    /// The host to start it on.
    pub host_name: String,
}

pub(super) fn find(vms: &Vms, uuid: Uuid) -> Result<&VmState, Refusal> {
    vms.get(&uuid)
        .ok_or_else(|| Refusal::NotFound(format!("there is no VM {uuid}")))
}

pub(super) fn define(hosts: &Hosts, vms: &Vms, request: VmRequest) -> Result<Change, Refusal> {
    check_name("vm_name", &request.vm_name)?;
    let host_uuid = hosts.find(&request.host_name)?;
    if request.host_uuid.is_some_and(|uuid| uuid != host_uuid) {
        let name = &request.host_name;
        return Err(Refusal::Conflict(format!(
            "host {name:?} has the UUID {host_uuid}"
        )));
    }
    let vm_uuid = request.vm_uuid.unwrap_or_else(Uuid::new_v4);
    if vms.contains_key(&vm_uuid) {
        return Err(Refusal::Conflict(format!("VM {vm_uuid} exists already")));
    }
    if vms.len() >= MAX_VMS {
        return Err(Refusal::Conflict(format!(
            "there are {MAX_VMS} VMs already"
        )));
    }
    let mut vm = VmState {
        vm_name: request.vm_name,
        vm_uuid,
        vm_status: VmStatus::Stop,
        host_name: request.host_name,
        host_uuid,
        vnic_list: Vec::new(),
    };
    for vnic in request.vnic_list {
        add_vnic(vms, &mut vm, vnic)?;
    }
    let mut steps = vec![(EventType::VmCreated, vm.clone())];
    if request.power_on {
        vm.vm_status = VmStatus::Running;
        steps.push((EventType::VmPowerOn, vm.clone()));
    }
    Ok(Change { after: vm, steps })
}

/// A VM that runs is powered off first.
pub(super) fn delete(vms: &Vms, uuid: Uuid) -> Result<Change, Refusal> {
    let Change { after, mut steps } = power(vms, uuid, VmStatus::Stop)?;
    steps.push((EventType::VmDeleted, after.clone()));
    Ok(Change { after, steps })
}

pub(super) fn power(vms: &Vms, uuid: Uuid, status: VmStatus) -> Result<Change, Refusal> {
    let mut vm = find(vms, uuid)?.clone();
    if vm.vm_status == status {
        let steps = Vec::new();
        return Ok(Change { after: vm, steps });
    }
    vm.vm_status = status;
    let kind = match status.forwards() {
        true => EventType::VmPowerOn,
        false => EventType::VmPowerOff,
    };
    Ok(one_step(kind, vm))
}

pub(super) fn migrate(
    hosts: &Hosts,
    vms: &Vms,
    uuid: Uuid,
    request: &MoveRequest,
) -> Result<Change, Refusal> {
    let before = find(vms, uuid)?;
    let runs = before.vm_status.forwards();
    let live = request.live.unwrap_or(runs);
    if live != runs {
        let hint = match live {
            true => "it is powered off: power it on, or move it with \"live\": false",
            false => "it runs: power it off, or move it with \"live\": true",
        };
        return Err(Refusal::Conflict(format!("VM {uuid}: {hint}")));
    }
    let after = on_host(hosts, vms, before, &request.host_name)?;
    let (start, finish) = match live {
        true => (EventType::LiveMigrateStart, EventType::LiveMigrateFinish),
        false => (EventType::ColdMigrateStart, EventType::ColdMigrateFinish),
    };
    let steps = vec![(start, before.clone()), (finish, after.clone())];
    Ok(Change { after, steps })
}

/// High availability: the VM runs on another host, whatever became of the first.
pub(super) fn fail_over(
    hosts: &Hosts,
    vms: &Vms,
    uuid: Uuid,
    request: &HostRequest,
) -> Result<Change, Refusal> {
    let mut after = on_host(hosts, vms, find(vms, uuid)?, &request.host_name)?;
    after.vm_status = VmStatus::Running;
    Ok(one_step(EventType::HaFinish, after))
}

pub(super) fn attach(vms: &Vms, uuid: Uuid, request: VnicRequest) -> Result<Change, Refusal> {
    let mut vm = find(vms, uuid)?.clone();
    add_vnic(vms, &mut vm, request)?;
    Ok(one_step(EventType::VifAttach, vm))
}

pub(super) fn detach(vms: &Vms, uuid: Uuid, vnic_uuid: Uuid) -> Result<Change, Refusal> {
    let mut vm = find(vms, uuid)?.clone();
    let before = vm.vnic_list.len();
    vm.vnic_list.retain(|vnic| vnic.vnic_uuid != vnic_uuid);
    if vm.vnic_list.len() == before {
        return Err(Refusal::NotFound(format!(
            "VM {uuid} has no vNIC {vnic_uuid}"
        )));
    }
    Ok(one_step(EventType::VifDetach, vm))
}

fn one_step(kind: EventType, vm: VmState) -> Change {
    Change {
        after: vm.clone(),
        steps: vec![(kind, vm)],
    }
}

fn on_host(hosts: &Hosts, vms: &Vms, vm: &VmState, host: &str) -> Result<VmState, Refusal> {
    let host_uuid = hosts.find(host)?;
    if vm.host_name == host {
        let uuid = vm.vm_uuid;
        return Err(Refusal::Conflict(format!(
            "VM {uuid} is on host {host:?} already"
        )));
    }
    let mut moved = vm.clone();
    host.clone_into(&mut moved.host_name);
    moved.host_uuid = host_uuid;
    for vnic in &moved.vnic_list {
        check_collisions(vms, &moved, vnic)?;
    }
    Ok(moved)
}

/// Checks the request, and appends what it makes to `vm`.
fn add_vnic(vms: &Vms, vm: &mut VmState, request: VnicRequest) -> Result<(), Refusal> {
    let default_name = || format!("vnic{}", vm.vnic_list.len());
    let vnic_name = request.vnic_name.unwrap_or_else(default_name);
    check_name("vnic_name", &vnic_name)?;
    check_name("pg_name", &request.pg_name)?;
    if !request.mac.is_unicast() {
        let mac = request.mac;
        return Err(Refusal::Invalid(format!(
            "mac {mac} cannot belong to one station"
        )));
    }
    if request.ip_list.len() > MAX_ADDRESSES || request.ipv6_list.len() > MAX_ADDRESSES {
        return Err(Refusal::Invalid(format!(
            "a vNIC has at most {MAX_ADDRESSES} addresses of each family"
        )));
    }
    if vm.vnic_list.len() >= MAX_VNICS {
        return Err(Refusal::Conflict(format!(
            "a VM has at most {MAX_VNICS} vNICs"
        )));
    }
    let vnic = Vnic {
        vnic_name,
        vnic_uuid: request.vnic_uuid.unwrap_or_else(Uuid::new_v4),
        pg_uuid: derived_uuid("port-group", &request.pg_name),
        pg_name: request.pg_name,
        mac: request.mac,
        port_segmentation_id: request.port_segmentation_id.get(),
        ip_list: request.ip_list,
        ipv6_list: request.ipv6_list,
    };
    check_collisions(vms, vm, &vnic)?;
    vm.vnic_list.push(vnic);
    Ok(())
}

/// Whether `vnic` can be one of `vm`'s, on `vm`'s host: compared with all others of
/// `vm` and of `vms`, except with what `vms` says of `vm` itself.
fn check_collisions(vms: &Vms, vm: &VmState, vnic: &Vnic) -> Result<(), Refusal> {
    let others = vms.values().filter(|other| other.vm_uuid != vm.vm_uuid);
    for owner in others.chain([vm]) {
        let own = owner.vm_uuid == vm.vm_uuid;
        for other in &owner.vnic_list {
            if own && std::ptr::eq(other, vnic) {
                continue;
            }
            if let Some(what) = collision(vnic, other, owner.host_name == vm.host_name) {
                return Err(Refusal::Conflict(format!(
                    "{what} of vNIC {:?} of VM {:?} ({})",
                    other.vnic_name, owner.vm_name, owner.vm_uuid
                )));
            }
        }
    }
    Ok(())
}

fn collision(vnic: &Vnic, other: &Vnic, same_host: bool) -> Option<String> {
    if vnic.vnic_uuid == other.vnic_uuid {
        return Some(format!("vnic_uuid {} is the one", vnic.vnic_uuid));
    }
    if same_host && vnic.port_segmentation_id == other.port_segmentation_id {
        let tag = vnic.port_segmentation_id;
        return Some(format!("on this host, VLAN {tag} is the one"));
    }
    (vnic.pg_name == other.pg_name && vnic.mac == other.mac).then(|| {
        format!(
            "on port group {:?}, mac {} is the one",
            vnic.pg_name, vnic.mac
        )
    })
}

fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    match name.len() {
        1..=MAX_NAME if !name.chars().any(char::is_control) => Ok(()),
        _ => Err(Refusal::Invalid(format!(
            "{field} has 1 to {MAX_NAME} bytes, none of them control characters"
        ))),
    }
}

impl Hosts {
    fn find(&self, name: &str) -> Result<Uuid, Refusal> {
        check_name("host_name", name)?;
        if self.0.is_empty() {
            return Ok(derived_uuid("host", name));
        }
        self.0.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            Refusal::Invalid(format!(
                "there is no host {name:?}; hosts are {}",
                known.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts(BTreeMap::new())
    }

    fn vnic(pg: &str, mac: u8, tag: u16) -> VnicRequest {
        VnicRequest {
            vnic_name: None,
            vnic_uuid: None,
            pg_name: pg.into(),
            mac: Mac([2, 0, 0, 0, 0, mac]),
            port_segmentation_id: Vlan::new(tag).unwrap(),
            ip_list: vec![],
            ipv6_list: vec![],
        }
    }

    fn vm(name: &str, host: &str, vnics: Vec<VnicRequest>) -> VmRequest {
        VmRequest {
            vm_name: name.into(),
            vm_uuid: None,
            host_name: host.into(),
            host_uuid: None,
            vnic_list: vnics,
            power_on: false,
        }
    }

    /// Plans and applies; the VM's UUID and the events' types.
    fn make(vms: &mut Vms, change: Result<Change, Refusal>) -> (Uuid, Vec<EventType>) {
        let change = change.unwrap();
        let uuid = change.after.vm_uuid;
        vms.insert(uuid, change.after);
        (uuid, change.steps.into_iter().map(|step| step.0).collect())
    }

    fn reason(change: Result<Change, Refusal>) -> String {
        match change {
            Err(Refusal::Conflict(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_vm_lives_through_all_events_of_table_i() {
        use EventType::*;
        let mut vms = Vms::new();
        let request = VmRequest {
            power_on: true,
            ..vm("a", "h1", vec![vnic("p", 1, 101)])
        };
        let (id, events) = make(&mut vms, define(&hosts(), &Vms::new(), request));
        assert_eq!(events, [VmCreated, VmPowerOn]);
        let to = |host: &str, live| MoveRequest {
            host_name: host.into(),
            live,
        };
        let planned = migrate(&hosts(), &vms, id, &to("h2", None));
        assert_eq!(
            make(&mut vms, planned).1,
            [LiveMigrateStart, LiveMigrateFinish]
        );
        assert!(reason(migrate(&hosts(), &vms, id, &to("h2", None))).contains("already"));
        assert!(reason(migrate(&hosts(), &vms, id, &to("h1", Some(false)))).contains("it runs"));
        let planned = power(&vms, id, VmStatus::Stop);
        assert_eq!(make(&mut vms, planned).1, [VmPowerOff]);
        let planned = power(&vms, id, VmStatus::Stop);
        assert_eq!(make(&mut vms, planned).1, []);
        let planned = migrate(&hosts(), &vms, id, &to("h1", None));
        assert_eq!(
            make(&mut vms, planned).1,
            [ColdMigrateStart, ColdMigrateFinish]
        );
        let request = HostRequest {
            host_name: "h3".into(),
        };
        let planned = fail_over(&hosts(), &vms, id, &request);
        assert_eq!(make(&mut vms, planned).1, [HaFinish]);
        let planned = attach(&vms, id, vnic("q", 1, 102));
        assert_eq!(make(&mut vms, planned).1, [VifAttach]);
        let first = vms[&id].vnic_list[0].vnic_uuid;
        let planned = detach(&vms, id, first);
        assert_eq!(make(&mut vms, planned).1, [VifDetach]);
        assert_eq!(vms[&id].vnic_list.len(), 1);
        assert!(matches!(detach(&vms, id, first), Err(Refusal::NotFound(_))));
        let last = delete(&vms, id).unwrap();
        let kinds: Vec<EventType> = last.steps.iter().map(|step| step.0).collect();
        assert_eq!(kinds, [VmPowerOff, VmDeleted]);
    }

    #[test]
    fn collisions_are_told() {
        let mut vms = Vms::new();
        let planned = define(&hosts(), &vms, vm("a", "h1", vec![vnic("p", 1, 101)]));
        make(&mut vms, planned);
        let tag = define(&hosts(), &vms, vm("b", "h1", vec![vnic("q", 2, 101)]));
        assert!(reason(tag).contains("VLAN 101"));
        let mac = define(&hosts(), &vms, vm("b", "h2", vec![vnic("p", 1, 101)]));
        assert!(reason(mac).contains("02:00:00:00:00:01"));
        let twice = vec![vnic("q", 2, 102), vnic("r", 3, 102)];
        assert!(reason(define(&hosts(), &vms, vm("b", "h1", twice))).contains("VLAN 102"));

        let planned = define(&hosts(), &vms, vm("b", "h2", vec![vnic("q", 2, 101)]));
        let (b, _) = make(&mut vms, planned);
        let to_h1 = MoveRequest {
            host_name: "h1".into(),
            live: None,
        };
        assert!(reason(migrate(&hosts(), &vms, b, &to_h1)).contains("VLAN 101"));
        let again = VmRequest {
            vm_uuid: Some(b),
            ..vm("c", "h3", vec![])
        };
        assert!(reason(define(&hosts(), &vms, again)).contains("exists"));
    }

    #[test]
    fn configured_hosts_are_the_only_ones() {
        let uuid = Uuid::new_v4();
        let hosts = Hosts(BTreeMap::from([("h1".to_owned(), uuid)]));
        let defined = define(&hosts, &Vms::new(), vm("a", "h1", vec![])).unwrap();
        assert_eq!(defined.after.host_uuid, uuid);
        let unknown = define(&hosts, &Vms::new(), vm("a", "h2", vec![]));
        assert!(matches!(unknown, Err(Refusal::Invalid(reason)) if reason.contains("h1")));
    }
}
