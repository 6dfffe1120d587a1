//! The control plane of a lab: `shim serve` and `shim notice`, the latter maybe twice, and
//! clients of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::artifacts::Artifacts;
use crate::fabric::{CONTROL_ADDRESS, Underlay};
use crate::http::Client;
use crate::lab::Lab;
use crate::libvirt::{self, Libvirtd};
use crate::netns::Netns;
use crate::nve::KeyPair;
use crate::process::{Daemon, tail};
use crate::wait;

/// TCP port of the shim's REST API.
pub const API_PORT: u16 = 9696;

/// TCP port of the hypervisor manager.
const MANAGER_PORT: u16 = 9697;

/// TCP port of the one of libvirt's hosts.
const LIBVIRT_PORT: u16 = 9698;

/// User of the hypervisor manager.
const USER: &str = "shim";

/// User that records the events of libvirt's hosts.
const RECORDER: &str = "recorder";

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The daemons.
#[derive(Debug)]
pub struct Control {
    shim: Option<Daemon>,
    _notice: Daemon,
    libvirt_notice: Option<Daemon>,
    /// The shim's REST API.
    pub api: Client,
    /// The hypervisor manager, as an authenticated client sees it.
    pub manager: Client,
    /// The hypervisor manager of libvirt's hosts, where there is one.
    pub libvirt: Client,
    /// The shim's static key.
    pub keys: KeyPair,
    program: PathBuf,
    netns: Netns,
    dir: PathBuf,
}

impl Control {
    /// Starts them for the hypervisors of `lab`.
    pub fn start(lab: &Lab, artifacts: &Artifacts) -> Result<Control> {
        Control::start_with(lab, artifacts, &[])
    }

    /// The same with a second hypervisor manager, which follows these `hosts`, if any.
    pub fn start_with(lab: &Lab, artifacts: &Artifacts, hosts: &[Libvirtd]) -> Result<Control> {
        let (netns, dir) = (lab.fabric.netns(), &lab.dir);
        let password = Uuid::new_v4().simple().to_string();
        let keys = KeyPair::generate()?;
        fs::create_dir_all(dir.join("shim"))?;
        write_secret(&dir.join("shim/shim.key"), &keys.private)?;
        write_secret(&dir.join("netrc"), &netrc(&password))?;
        write_secret(&dir.join("recorder.netrc"), &login(RECORDER, &password))?;
        write_secret(&dir.join("notice.toml"), &notice_config(lab, &password))?;
        let config = libvirt_config(lab, hosts, &password);
        write_secret(&dir.join("libvirt.toml"), &config)?;
        let config = shim_config(lab, !hosts.is_empty(), &password);
        write_secret(&dir.join("serve.toml"), &config)?;
        let client = |port| {
            let client = Client::new(netns, &format!("http://127.0.0.1:{port}"));
            client.with_netrc(&dir.join("netrc"))
        };
        let mut control = Control {
            shim: None,
            _notice: daemon(&artifacts.shim, "notice", netns, dir)?,
            libvirt_notice: None,
            api: Client::new(netns, &format!("http://{CONTROL_ADDRESS}:{API_PORT}")),
            manager: client(MANAGER_PORT),
            libvirt: client(LIBVIRT_PORT),
            keys,
            program: artifacts.shim.clone(),
            netns: netns.clone(),
            dir: dir.clone(),
        };
        let what = "the hypervisor manager";
        await_answer(
            what,
            &mut control._notice,
            &control.manager,
            "/v1/inventory",
        )?;
        if !hosts.is_empty() {
            control.start_libvirt_notice()?;
        }
        control.start_shim()?;
        Ok(control)
    }

    /// Starts the manager of libvirt's hosts, with the state that it has, and waits until
    /// it answers.
    pub fn start_libvirt_notice(&mut self) -> Result<()> {
        let mut notice = daemon(&self.program, "libvirt", &self.netns, &self.dir)?;
        let what = "the manager of libvirt's hosts";
        await_answer(what, &mut notice, &self.libvirt, "/v1/inventory")?;
        self.libvirt_notice = Some(notice);
        Ok(())
    }

    /// Kills it as `kill -9` does.
    pub fn kill_libvirt_notice(&mut self) -> Result<()> {
        let notice = self.libvirt_notice.take();
        notice.context("the manager is not running")?.kill()
    }

    /// Starts the shim, with the state that it has, and waits until it answers.
    pub fn start_shim(&mut self) -> Result<()> {
        let mut shim = daemon(&self.program, "serve", &self.netns, &self.dir)?;
        await_answer("the shim", &mut shim, &self.api, "/healthz")?;
        self.shim = Some(shim);
        Ok(())
    }

    /// Kills the shim as `kill -9` does.
    pub fn kill_shim(&mut self) -> Result<()> {
        self.shim.take().context("the shim is not running")?.kill()
    }

    /// Process id of the shim, inside the sandbox.
    pub fn shim_pid(&self) -> Result<u32> {
        Ok(self.shim.as_ref().context("the shim is not running")?.pid())
    }

    /// What the shim has logged.
    pub fn shim_log(&self) -> Result<String> {
        Ok(fs::read_to_string(log_of(&self.dir, "serve"))?)
    }

    /// The end of both logs, for reports.
    pub fn tail(dir: &Path) -> String {
        ["serve", "notice"]
            .map(|verb| format!("  shim {verb}:\n{}", tail(&log_of(dir, verb), 30)))
            .concat()
    }
}

/// Each daemon's files are named by what it is for.
fn log_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

fn daemon(program: &Path, name: &str, netns: &Netns, dir: &Path) -> Result<Daemon> {
    let verb = match name {
        "serve" => "serve",
        _ => "notice",
    };
    let mut command = Command::new(program);
    command
        .args([verb, "--config"])
        .arg(dir.join(format!("{name}.toml")));
    let log = log_of(dir, name);
    Daemon::spawn(&format!("shim {verb}"), netns, &mut command, &log)
}

fn await_answer(what: &str, daemon: &mut Daemon, client: &Client, path: &str) -> Result<()> {
    wait::until_true(what, PATIENCE, || {
        daemon.check()?;
        Ok(client
            .send("GET", path, None)
            .is_ok_and(|answer| answer.status == 200))
    })
}

fn shim_config(lab: &Lab, with_libvirt: bool, password: &str) -> String {
    let dir = lab.dir.display();
    let version = match lab.underlay {
        Underlay::Ipv4 => 4,
        Underlay::Ipv6 => 6,
    };
    let mut text = format!(
        "data_dir = \"{dir}/shim\"\n\
         \n\
         [northbound]\n\
         listen = \"0.0.0.0:{API_PORT}\"\n\
         \n\
         [southbound]\n\
         listen = \"[::]:{}\"\n\
         \n\
         [network]\n\
         overlay_ip_version = {version}\n\
         \n\
         [log]\n\
         level = \"info,shim::southbound::session=debug\"\n",
        nve_protocol::DEFAULT_PORT
    );
    let managers = [("lab", MANAGER_PORT), ("libvirt", LIBVIRT_PORT)];
    for (name, port) in &managers[..1 + usize::from(with_libvirt)] {
        text += &format!(
            "\n[[managers]]\n\
             name = \"{name}\"\n\
             url = \"http://127.0.0.1:{port}\"\n\
             username = \"{USER}\"\n\
             password = \"{password}\"\n"
        );
    }
    text
}

/// Of a manager that has a user for tests, too.
fn libvirt_config(lab: &Lab, hosts: &[Libvirtd], password: &str) -> String {
    let mut text = format!(
        "listen = \"127.0.0.1:{LIBVIRT_PORT}\"\n\
         state_dir = \"{}/libvirt-notice\"\n",
        lab.dir.display()
    );
    for user in [USER, RECORDER] {
        text += &format!("\n[[users]]\nusername = \"{user}\"\npassword = \"{password}\"\n");
    }
    text += "\n[log]\nlevel = \"info,shim::notice::libvirt=debug\"\n";
    text += &format!(
        "\n[libvirt]\nnetwork = \"{}\"\ntrunk = \"{}\"\n",
        libvirt::NETWORK,
        libvirt::TRUNK
    );
    for host in hosts {
        text += &format!("\n[[libvirt.hosts]]\nuri = \"{}\"\n", host.uri());
    }
    text
}

fn notice_config(lab: &Lab, password: &str) -> String {
    let mut text = format!(
        "listen = \"127.0.0.1:{MANAGER_PORT}\"\n\
         state_dir = \"{}/notice\"\n\
         \n\
         [[users]]\n\
         username = \"{USER}\"\n\
         password = \"{password}\"\n",
        lab.dir.display()
    );
    for hypervisor in &lab.hypervisors {
        let (name, uuid) = (&hypervisor.name, hypervisor.uuid);
        text += &format!("\n[[hosts]]\nname = \"{name}\"\nuuid = \"{uuid}\"\n");
    }
    text
}

/// What curl reads a password from.
pub fn netrc(password: &str) -> String {
    login(USER, password)
}

fn login(user: &str, password: &str) -> String {
    format!("default login {user} password {password}\n")
}

/// Writes a file that only its owner can read.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
