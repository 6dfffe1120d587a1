//! Two hypervisors with libvirt, their NVEs, a guest that virsh(1) is used on, its
//! peers, and a recorder of events.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::table_ii::Subject;
use crate::cases::Context;
use crate::http::Client;
use crate::libvirt::guest::{self, Boot};
use crate::libvirt::recorder::Recorder;
use crate::libvirt::{Libvirtd, NETWORK};
use crate::neutron;
use crate::qemu::Accelerator;
use crate::reach;
use crate::site::{Site, list};
use crate::tenant::dual_subnets;
use crate::vm::{Interface, Setting};
use crate::wait;

/// The guest's name.
pub(super) const GUEST: &str = "w1";

/// How long an event may take to change forwarding; a guest may have to boot.
const EFFECT: Duration = Duration::from_secs(60);
/// How long a host may take to be followed again.
const FOLLOWED: Duration = Duration::from_secs(20);
/// What is not said within that is not said.
const SILENCE: Duration = Duration::from_millis(2500);
/// MiB per second of a migration that is to be watched, of some 80 MiB.
const SLOW: &str = "4";

/// Where the shim has the guest's port, by the number of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its NVE has tables with it.
    InForce(usize),
    /// The same, and the other host's NVE has tables with which it waits for the guest.
    Migrating(usize),
    /// The guest is there, and is off.
    Stopped(usize),
    /// Nowhere.
    None,
}

/// All that plays.
pub(super) struct Stage {
    pub(super) site: Site,
    recorder: Recorder,
    boot: Boot,
    subject: Subject,
    port: String,
    pub(super) interface: Interface,
    pub(super) dir: PathBuf,
}

impl Stage {
    /// Sets it up: the guest's port is there, and neither its port group nor the guest.
    pub(super) fn set(context: &Context) -> Result<Stage> {
        Stage::set_with(context, None)
    }

    /// The same with a task for the guest.
    pub(super) fn set_with(context: &Context, task: Option<&str>) -> Result<Stage> {
        let (dir, artifacts) = (&context.dir, &context.artifacts);
        let mut site = Site::start_with_libvirt(dir, artifacts)?;
        let mut subnets = dual_subnets(1);
        subnets[0]["enable_dhcp"] = true.into();
        site.add_network_with("red", &json!({}), &subnets[..1], true)?;
        site.add_vm(("a1", "red", 0, 11))?;
        site.add_vm(("b1", "red", 1, 12))?;
        site.await_active()?;
        let network = site.network("red")?;
        let wanted = json!({"network_id": network.id, "name": GUEST,
            "fixed_ips": network.fixed_ips(21)});
        let port = neutron::create(&site.control.api, "ports", &wanted)?;
        let interface = network.interface(&port, Setting::Automatic)?;
        let port = neutron::id(&port)?;
        let accelerator = Accelerator::choose(&artifacts.image, dir)?.0;
        let netns = site.lab.fabric.netns();
        let netrc = dir.join("recorder.netrc");
        Ok(Stage {
            recorder: Recorder::start(&site.control.libvirt, netns, &netrc, dir)?,
            boot: Boot::make(&artifacts.guest, dir, accelerator, task)?,
            subject: Subject {
                name: GUEST.to_owned(),
                uuid: Uuid::new_v4(),
                pg_name: format!("{port}_{}", interface.tag),
                pg_uuid: String::new(),
                mac: interface.mac.clone(),
                tag: interface.tag,
                vnic_uuid: None,
                timestamp: String::new(),
                seen: BTreeSet::new(),
            },
            port,
            interface,
            dir: dir.clone(),
            site,
        })
    }

    /// The hypervisor manager.
    pub(super) fn notice(&self) -> &Client {
        &self.site.control.libvirt
    }

    /// The guest's port, its tag, and the name of its port group.
    pub(super) fn port(&self) -> (String, u16, String) {
        let name = self.subject.pg_name.clone();
        (self.port.clone(), self.interface.tag, name)
    }

    /// Changes the guest's port.
    pub(super) fn change_port(&self, attributes: &Value) -> Result<()> {
        neutron::update(&self.site.control.api, "ports", &self.port, attributes).map(drop)
    }

    /// Notes the UUID of the guest's port group.
    pub(super) fn name_port_group(&mut self, listed: &[Value]) -> Result<()> {
        let is_it = |group: &&Value| group["pg_name"] == json!(self.subject.pg_name);
        let group = listed.iter().find(is_it).context("it is not listed")?;
        self.subject.pg_uuid = crate::site::text(group, "pg_uuid")?;
        Ok(())
    }

    /// A host's libvirtd.
    pub(super) fn host(&self, host: usize) -> Result<&Libvirtd> {
        self.site.libvirt.get(host).context("no such host")
    }

    /// The same, to be changed.
    pub(super) fn host_mut(&mut self, host: usize) -> Result<&mut Libvirtd> {
        self.site.libvirt.get_mut(host).context("no such host")
    }

    /// `virsh define`.
    pub(super) fn define(&self, host: usize) -> Result<()> {
        let Subject { name, uuid, .. } = &self.subject;
        let console = self.dir.join(format!("{GUEST}.console"));
        let domain = self.boot.domain(name, *uuid, &self.nic(), &console);
        self.host(host)?.virsh_with(&domain, &["define"]).map(drop)
    }

    /// `virsh define` of what is there, or runs elsewhere: there is nothing to tell.
    pub(super) fn define_silently(&mut self, host: usize) -> Result<()> {
        self.define(host)?;
        self.expect_silence()
    }

    fn nic(&self) -> String {
        let Interface { mac, mtu, .. } = &self.interface;
        guest::interface(mac, *mtu, NETWORK, &self.subject.pg_name)
    }

    /// `virsh start`.
    pub(super) fn start(&self, host: usize) -> Result<()> {
        self.host(host)?.virsh(&["start", GUEST]).map(drop)
    }

    /// `virsh attach-device` or `detach-device`, of the guest as it runs and as it will.
    pub(super) fn change_nic(&self, host: usize, verb: &str) -> Result<()> {
        let arguments = [verb, GUEST, "--live", "--config", "--file"];
        self.host(host)?
            .virsh_with(&self.nic(), &arguments)
            .map(drop)
    }

    /// `virsh migrate`, for good, with these flags.
    pub(super) fn migrate(&self, from: usize, to: usize, flags: &[&str]) -> Result<()> {
        let uri = self.host(to)?.uri();
        let mut arguments = vec!["migrate", GUEST, &uri, "--persistent", "--undefinesource"];
        arguments.extend(flags);
        if flags.contains(&"--live") {
            arguments.extend(["--migrateuri", "tcp://127.0.0.1"]);
        }
        self.host(from)?.virsh(&arguments).map(drop)
    }

    /// `virsh migrate --live` that takes some time, in the background.
    pub(super) fn migrate_slowly(&self, from: usize, to: usize) -> Result<Migration> {
        let uri = self.host(to)?.uri();
        let arguments = ["migrate", GUEST, &uri, "--live", "--persistent"];
        let mut virsh = self.host(from)?.command(&arguments);
        virsh
            .args(["--undefinesource", "--migrateuri", "tcp://127.0.0.1"])
            .args(["--bandwidth", SLOW])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Migration(virsh.spawn().context("cannot run virsh")?))
    }

    fn saved(&self) -> Result<String> {
        let file = self.dir.join("saved");
        Ok(file.to_str().context("a path that is no text")?.to_owned())
    }

    /// `virsh save`.
    pub(super) fn save(&self, host: usize) -> Result<()> {
        let file = self.saved()?;
        self.host(host)?.virsh(&["save", GUEST, &file]).map(drop)
    }

    /// `virsh restore`.
    pub(super) fn restore(&self, host: usize) -> Result<()> {
        self.host(host)?
            .virsh(&["restore", &self.saved()?])
            .map(drop)
    }

    /// Waits until the manager follows that host.
    pub(super) fn await_followed(&self, host: usize) -> Result<()> {
        let name = &self.host(host)?.name;
        wait::until_true(&format!("{name} to be followed"), FOLLOWED, || {
            let hosts = list(self.notice().get("/v1/hosts")?, "hosts")?;
            Ok(hosts.iter().any(|host| host["host_name"] == name.as_str()))
        })
    }

    /// Has the manager of libvirt's hosts away while `meanwhile` happens.
    pub(super) fn restart_manager(
        &mut self,
        meanwhile: impl FnOnce(&Stage) -> Result<()>,
    ) -> Result<()> {
        self.site.control.kill_libvirt_notice()?;
        meanwhile(self)?;
        self.site.control.start_libvirt_notice()?;
        self.recorder.listen_again()
    }

    /// Holds that the next event is that one.
    pub(super) fn expect(&mut self, kind: &str, status: &str, host: usize) -> Result<()> {
        self.expect_with((kind, status), host, true)
    }

    /// The same, when the guest has no NIC.
    pub(super) fn expect_without_vnic(
        &mut self,
        kind: &str,
        status: &str,
        host: usize,
    ) -> Result<()> {
        self.expect_with((kind, status), host, false)
    }

    fn expect_with(&mut self, what: (&str, &str), host: usize, with_vnic: bool) -> Result<()> {
        let event = self.recorder.next(what.0)?;
        let host = self.site.lab.hypervisors.get(host);
        let host = host.context("no such host")?;
        self.subject
            .hold(&event, what, (&host.name, host.uuid), with_vnic)
    }

    /// The next event, if it has come.
    pub(super) fn peek(&self) -> Result<Option<Value>> {
        self.recorder.peek()
    }

    /// Holds that nothing is told for a while.
    pub(super) fn expect_silence(&mut self) -> Result<()> {
        thread::sleep(SILENCE);
        match self.peek()? {
            None => Ok(()),
            Some(event) => bail!("an event that nothing is the reason for: {event}"),
        }
    }

    /// Waits until the shim has the port there, and both NVEs have tables that say so.
    pub(super) fn await_place(&self, place: Place) -> Result<()> {
        let what = format!("the port to be {place:?}");
        wait::until_true(&what, EFFECT, || {
            let told = match place {
                Place::Migrating(host) => Place::InForce(host),
                told => told,
            };
            Ok(self.place()? == Some(told) && self.is_in_tables(place)?)
        })
    }

    /// Where the shim has it; nothing while it is on the way.
    fn place(&self) -> Result<Option<Place>> {
        let all = list(self.site.control.api.get("/v1/placement")?, "placement")?;
        let of_port = |vnic: &&Value| vnic["port_id"] == self.port.as_str();
        let Some(vnic) = all.iter().find(of_port) else {
            return Ok(Some(Place::None));
        };
        ensure!(vnic["manager"] == "libvirt", "{vnic}");
        let mut hosts = self.site.lab.hypervisors.iter();
        let host = hosts.position(|host| vnic["host_name"] == host.name.as_str());
        let host = host.with_context(|| format!("no such host: {vnic}"))?;
        Ok(match vnic["progress"].as_str() {
            Some("in_force") => Some(Place::InForce(host)),
            Some("stopped") => Some(Place::Stopped(host)),
            _ => None,
        })
    }

    /// Whether each NVE has the VAPs that it should have: its peer's, and the guest's on
    /// the one where it is, and on the one where it may come.
    fn is_in_tables(&self, place: Place) -> Result<bool> {
        let is_migrating = matches!(place, Place::Migrating(_));
        for (number, host) in self.site.lab.hypervisors.iter().enumerate() {
            let nve = self.site.nve_state(&host.identity.name)?;
            let has_guest = place == Place::InForce(number) || is_migrating;
            let vaps = 1 + u64::from(has_guest);
            if nve["desired"]["vaps"] != json!(vaps) || nve["in_sync"] != true {
                return Ok(false);
            }
        }
        let port = neutron::show(&self.site.control.api, "ports", &self.port)?;
        let is_active = port["status"] == "ACTIVE";
        let is_in_force = matches!(place, Place::InForce(_) | Place::Migrating(_));
        Ok(is_active == is_in_force)
    }

    /// Waits until the guest is reached from both hypervisors, or from none.
    pub(super) fn await_reach(&self, wanted: bool) -> Result<()> {
        for peer in ["a1", "b1"] {
            let what = format!("{GUEST} to be reached from {peer}: {wanted}");
            let netns = &self.site.guest(peer)?.vm.netns;
            wait::until_true(&what, EFFECT, || {
                Ok(reach::ping(netns, self.interface.ip, 1)? == wanted)
            })?;
        }
        Ok(())
    }
}

/// A migration under way.
pub(super) struct Migration(Child);

impl Migration {
    /// Waits for its end, which has to be a failure.
    pub(super) fn fails(mut self) -> Result<()> {
        let status = self.0.wait()?;
        ensure!(!status.success(), "the migration was not aborted");
        Ok(())
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
