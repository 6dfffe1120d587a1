//! A lab in operation: control plane, registered NVEs, tenants' networks and VMs.
//!
//! Invariant: the product learns of networks, VMs and NVEs through its public
//! interfaces only. What the lab does besides is what a hypervisor does: plug a VM's
//! vNIC into its port group, and boot machines.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::artifacts::Artifacts;
use crate::control::Control;
use crate::fabric::{Offloads, Underlay};
use crate::lab::Lab;
use crate::libvirt::{self, Libvirtd};
use crate::matrix::{Matrix, Peer};
pub use crate::neutron::text;
use crate::neutron::{self, field};
use crate::nve::Nve;
use crate::tenant::Network;
use crate::vm::{Interface, Setting, Vm};
use crate::wait;

/// How long a change may take until it is in force everywhere.
const SETTLE: Duration = Duration::from_secs(20);

/// How long an NVE may take from power to a session, under translation.
const CONNECT: Duration = Duration::from_secs(60);

/// A VM and what the product's interfaces call it.
#[derive(Debug)]
pub struct Guest {
    /// The VM.
    pub vm: Vm,
    /// Its UUID at the hypervisor manager.
    pub uuid: Uuid,
    /// UUID of its vNIC there.
    pub vnic: Uuid,
    /// UUID of its Neutron port.
    pub port: String,
    /// Name of its network.
    pub network: String,
    /// Number of its hypervisor.
    pub host: usize,
}

/// A lab in operation.
#[derive(Debug)]
pub struct Site {
    // Dropped in this order: users of the lab before the lab.
    /// The VMs.
    pub guests: Vec<Guest>,
    /// The networks.
    pub networks: Vec<Network>,
    /// The control plane.
    pub control: Control,
    /// The libvirtd of each hypervisor, if they have any.
    pub libvirt: Vec<Libvirtd>,
    /// Hypervisors, switches and cables.
    pub lab: Lab,
}

/// A VM to be made: its name, its network, its hypervisor's number and the last
/// number of its addresses.
pub type Plan<'a> = (&'a str, &'a str, usize, u8);

/// Six VMs in two networks of the same prefix, so that only the overlay keeps them
/// apart; each network has a pair on one hypervisor and pairs across.
pub const SIX: [Plan<'_>; 6] = [
    ("a1", "red", 0, 11),
    ("a2", "red", 0, 12),
    ("b1", "red", 1, 13),
    ("a3", "blue", 0, 21),
    ("b2", "blue", 1, 22),
    ("b3", "blue", 1, 23),
];

impl Site {
    /// Starts the control plane and both NVEs, and waits until they are connected.
    pub fn start(dir: &Path, artifacts: &Artifacts) -> Result<Site> {
        Site::start_over(Underlay::Ipv4, dir, artifacts)
    }

    /// [`start`](Self::start) with VTEPs of that version of IP.
    pub fn start_over(underlay: Underlay, dir: &Path, artifacts: &Artifacts) -> Result<Site> {
        Site::start_with(Offloads::Off, underlay, dir, artifacts)
    }

    /// [`start_over`](Self::start_over) with a vSwitch that has such offloads.
    pub fn start_with(
        offloads: Offloads,
        underlay: Underlay,
        dir: &Path,
        artifacts: &Artifacts,
    ) -> Result<Site> {
        let lab = Lab::with(offloads, dir, underlay, artifacts.processors)?;
        Site::operate(lab, Vec::new(), artifacts)
    }

    /// [`start`](Self::start) with hypervisors that have libvirt.
    pub fn start_with_libvirt(dir: &Path, artifacts: &Artifacts) -> Result<Site> {
        let lab = Lab::two_hypervisors(dir, Underlay::Ipv4, artifacts.processors)?;
        let libvirt = libvirt::start_all(&lab)?;
        Site::operate(lab, libvirt, artifacts)
    }

    fn operate(lab: Lab, libvirt: Vec<Libvirtd>, artifacts: &Artifacts) -> Result<Site> {
        let control = Control::start_with(&lab, artifacts, &libvirt)?;
        let mut site = Site {
            guests: Vec::new(),
            networks: Vec::new(),
            control,
            libvirt,
            lab,
        };
        site.boot_nves(artifacts)?;
        Ok(site)
    }

    /// [`start`](Self::start) with the VMs of [`SIX`], running, in networks `red`
    /// and `blue`.
    pub fn with_six_vms(dir: &Path, artifacts: &Artifacts) -> Result<Site> {
        let mut site = Site::start(dir, artifacts)?;
        site.add_network("red")?;
        site.add_network("blue")?;
        for plan in SIX {
            site.add_vm(plan)?;
        }
        site.await_active()?;
        Ok(site)
    }

    fn boot_nves(&mut self, artifacts: &Artifacts) -> Result<()> {
        let key = self.control.keys.public.clone();
        let (netns, dir) = (self.lab.fabric.netns().clone(), self.lab.dir.clone());
        for hypervisor in &mut self.lab.hypervisors {
            let identity = hypervisor.identity.clone();
            let registration = json!({
                "id": identity.id,
                "name": identity.name,
                "host_name": hypervisor.name,
                "host_uuid": hypervisor.uuid,
                "vtep": identity.vtep,
                "public_key": identity.keys.public,
            });
            self.control.api.post("/v1/nves", &registration)?;
            let image = (artifacts.image.as_path(), artifacts.processors);
            let ports = &hypervisor.ports;
            let nve = Nve::boot(identity, &key, image, ports, &netns, &dir)?;
            hypervisor.nve = Some(nve);
        }
        self.await_connected()
    }

    /// Waits until both NVEs have a session and the tables that they should have.
    pub fn await_connected(&self) -> Result<()> {
        wait::until_true("both NVEs to connect", CONNECT, || {
            Ok(self.nves()?.iter().all(|nve| nve["in_sync"] == true))
        })
    }

    /// The NVEs as the shim shows them.
    pub fn nves(&self) -> Result<Vec<Value>> {
        list(self.control.api.get("/v1/nves")?, "nves")
    }

    /// The NVE of that name as the shim shows it.
    pub fn nve_state(&self, name: &str) -> Result<Value> {
        let mut nves = self.nves()?.into_iter();
        let nve = nves.find(|nve| nve["name"] == name);
        nve.with_context(|| format!("the shim has no NVE {name}"))
    }

    /// The NVE of hypervisor number `host`.
    pub fn nve(&self, host: usize) -> Result<&Nve> {
        let hypervisor = self.lab.hypervisors.get(host).context("no such host")?;
        hypervisor.nve.as_ref().context("the host has no NVE")
    }

    /// Creates a port, makes a VM for it, defines it at the hypervisor manager and
    /// powers it on. Does not wait.
    pub fn add_vm(&mut self, plan: Plan<'_>) -> Result<()> {
        self.add_vm_with(plan, Setting::Static, &json!({}))
    }

    /// [`add_vm`](Self::add_vm) with more attributes of its port.
    pub fn add_vm_with(
        &mut self,
        plan: Plan<'_>,
        setting: Setting,
        attributes: &Value,
    ) -> Result<()> {
        let guest = self.define_vm(plan, setting, attributes)?;
        self.guests.push(guest);
        self.power_on(plan.0)
    }

    fn define_vm(
        &self,
        (name, network, host, number): Plan<'_>,
        setting: Setting,
        attributes: &Value,
    ) -> Result<Guest> {
        let network = self.network(network)?;
        let host_name = &self.lab.hypervisors.get(host).context("no such host")?.name;
        let mut wanted = json!({
            "network_id": network.id,
            "name": name,
            "binding:host_id": host_name,
            "fixed_ips": network.fixed_ips(number),
        });
        merge(&mut wanted, attributes);
        let port = neutron::create(&self.control.api, "ports", &wanted)?;
        let interface = network.interface(&port, setting)?;
        let id = neutron::id(&port)?;
        let vm = Vm::create(&self.lab.fabric, name, interface)?;
        let (uuid, vnic) = (Uuid::new_v4(), Uuid::new_v4());
        let request = json!({
            "vm_name": name,
            "vm_uuid": uuid,
            "host_name": host_name,
            "vnic_list": [vnic_request(&id, vnic, &vm.interface)],
        });
        self.control.manager.post("/v1/lab/vms", &request)?;
        Ok(Guest {
            vm,
            uuid,
            vnic,
            port: id,
            network: network.name.clone(),
            host,
        })
    }

    /// The VM of that name.
    pub fn guest(&self, name: &str) -> Result<&Guest> {
        let mut guests = self.guests.iter();
        guests
            .find(|guest| guest.vm.name == name)
            .with_context(|| format!("there is no VM {name}"))
    }

    fn guest_mut(&mut self, name: &str) -> Result<(&mut Guest, &Lab, &Control)> {
        let mut guests = self.guests.iter_mut();
        let guest = guests
            .find(|guest| guest.vm.name == name)
            .with_context(|| format!("there is no VM {name}"))?;
        Ok((guest, &self.lab, &self.control))
    }

    /// Powers a VM on.
    pub fn power_on(&mut self, name: &str) -> Result<()> {
        let (guest, lab, control) = self.guest_mut(name)?;
        guest.plug(lab)?;
        let path = format!("/v1/lab/vms/{}/power-on", guest.uuid);
        control.manager.post(&path, &json!({})).map(drop)
    }

    /// Powers a VM off, at the manager only: its cable stays, so that whatever is
    /// still forwarded would arrive.
    pub fn power_off(&self, name: &str) -> Result<()> {
        let guest = self.guest(name)?;
        let path = format!("/v1/lab/vms/{}/power-off", guest.uuid);
        self.control.manager.post(&path, &json!({})).map(drop)
    }

    /// Deletes a VM at the manager; its cable stays.
    pub fn delete_vm(&self, name: &str) -> Result<()> {
        let guest = self.guest(name)?;
        self.control
            .manager
            .delete(&format!("/v1/lab/vms/{}", guest.uuid))
    }

    /// Detaches a VM's vNIC at the manager; its cable stays.
    pub fn detach(&self, name: &str) -> Result<()> {
        let guest = self.guest(name)?;
        let path = format!("/v1/lab/vms/{}/vnics/{}", guest.uuid, guest.vnic);
        self.control.manager.delete(&path)
    }

    /// Attaches it again.
    pub fn attach(&self, name: &str) -> Result<()> {
        let guest = self.guest(name)?;
        let request = vnic_request(&guest.port, guest.vnic, &guest.vm.interface);
        let path = format!("/v1/lab/vms/{}/vnics", guest.uuid);
        self.control.manager.post(&path, &request).map(drop)
    }

    /// Moves a running VM to another hypervisor, cable and all.
    pub fn move_vm(&mut self, name: &str, host: usize) -> Result<()> {
        let (guest, lab, control) = self.guest_mut(name)?;
        guest.vm.unplug(&lab.fabric)?;
        guest.host = host;
        guest.plug(lab)?;
        let target = &lab.hypervisors.get(host).context("no such host")?.name;
        let path = format!("/v1/lab/vms/{}/move", guest.uuid);
        let request = json!({ "host_name": target });
        control.manager.post(&path, &request).map(drop)
    }

    /// Waits until the shim says of every VM's port that it is in force.
    pub fn await_active(&self) -> Result<()> {
        wait::until_true("all ports to be active", SETTLE, || {
            let ports = list(self.control.api.get("/v2.0/ports")?, "ports")?;
            let is_active = |guest: &Guest| {
                let mut ports = ports.iter();
                ports.any(|port| port["id"] == guest.port.as_str() && port["status"] == "ACTIVE")
            };
            Ok(self.guests.iter().all(is_active))
        })
    }

    /// Finds out who reaches whom.
    pub fn matrix(&self) -> Result<Matrix> {
        let peers = self.guests.iter().map(|guest| self.peer(guest));
        Matrix::measure(peers.collect::<Result<_>>()?)
    }

    fn peer(&self, guest: &Guest) -> Result<Peer> {
        Ok(Peer {
            name: guest.vm.name.clone(),
            network: guest.network.clone(),
            nve: self.nve(guest.host)?.identity.name.clone(),
            ip: guest.vm.interface.ip,
            netns: guest.vm.netns.clone(),
        })
    }
}

impl Guest {
    /// Plugs it into its port group, unless it is.
    fn plug(&mut self, lab: &Lab) -> Result<()> {
        if self.vm.bridge().is_some() {
            return Ok(());
        }
        let hypervisor = lab.hypervisors.get(self.host).context("no such host")?;
        self.vm.plug(&lab.fabric, &hypervisor.ports.bridge)
    }
}

/// A vNIC in the words of TABLE II.
fn vnic_request(port: &str, vnic: Uuid, interface: &Interface) -> Value {
    let ipv6: Vec<Value> = interface.ip6.iter().map(|ip| json!({"ipv6": ip})).collect();
    json!({
        "vnic_name": "eth0",
        "vnic_uuid": vnic,
        "pg_name": format!("{port}_{}", interface.tag),
        "mac": interface.mac,
        "port_segmentation_id": interface.tag,
        "ip_list": [{"ip": interface.ip}],
        "ipv6_list": ipv6,
    })
}

/// Adds the members of `more` to the object `object`.
pub(crate) fn merge(object: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        object[name.as_str()] = value.clone();
    }
}

/// The list that an answer has under its one name.
pub fn list(answer: Value, name: &str) -> Result<Vec<Value>> {
    match field(answer, name)? {
        Value::Array(values) => Ok(values),
        other => anyhow::bail!("{name} is no list: {other}"),
    }
}
