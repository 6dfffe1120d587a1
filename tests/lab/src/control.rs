//! The control plane of a lab: `shim serve` and `shim notice`, and clients of both.

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
use crate::netns::Netns;
use crate::nve::KeyPair;
use crate::process::{Daemon, tail};
use crate::wait;

/// TCP port of the shim's REST API.
pub const API_PORT: u16 = 9696;

/// TCP port of the hypervisor manager.
const MANAGER_PORT: u16 = 9697;

/// User of the hypervisor manager.
const USER: &str = "shim";

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The two daemons.
#[derive(Debug)]
pub struct Control {
    shim: Option<Daemon>,
    _notice: Daemon,
    /// The shim's REST API.
    pub api: Client,
    /// The hypervisor manager, as an authenticated client sees it.
    pub manager: Client,
    /// The shim's static key.
    pub keys: KeyPair,
    program: PathBuf,
    netns: Netns,
    dir: PathBuf,
}

impl Control {
    /// Starts both for the hypervisors of `lab`.
    pub fn start(lab: &Lab, artifacts: &Artifacts) -> Result<Control> {
        let (netns, dir) = (lab.fabric.netns(), &lab.dir);
        let password = Uuid::new_v4().simple().to_string();
        let keys = KeyPair::generate()?;
        fs::create_dir_all(dir.join("shim"))?;
        write_secret(&dir.join("shim/shim.key"), &keys.private)?;
        write_secret(&dir.join("netrc"), &netrc(&password))?;
        write_secret(&dir.join("notice.toml"), &notice_config(lab, &password))?;
        write_secret(&dir.join("shim.toml"), &shim_config(lab, &password))?;
        let mut notice = daemon(&artifacts.shim, "notice", netns, dir)?;
        let manager = Client::new(netns, &format!("http://127.0.0.1:{MANAGER_PORT}"))
            .with_netrc(&dir.join("netrc"));
        await_answer(
            "the hypervisor manager",
            &mut notice,
            &manager,
            "/v1/inventory",
        )?;
        let mut control = Control {
            shim: None,
            _notice: notice,
            api: Client::new(netns, &format!("http://{CONTROL_ADDRESS}:{API_PORT}")),
            manager,
            keys,
            program: artifacts.shim.clone(),
            netns: netns.clone(),
            dir: dir.clone(),
        };
        control.start_shim()?;
        Ok(control)
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

fn log_of(dir: &Path, verb: &str) -> PathBuf {
    dir.join(format!("{verb}.log"))
}

fn daemon(program: &Path, verb: &str, netns: &Netns, dir: &Path) -> Result<Daemon> {
    let config = match verb {
        "serve" => dir.join("shim.toml"),
        _ => dir.join("notice.toml"),
    };
    let mut command = Command::new(program);
    command.arg(verb).arg("--config").arg(config);
    Daemon::spawn(
        &format!("shim {verb}"),
        netns,
        &mut command,
        &log_of(dir, verb),
    )
}

fn await_answer(what: &str, daemon: &mut Daemon, client: &Client, path: &str) -> Result<()> {
    wait::until_true(what, PATIENCE, || {
        daemon.check()?;
        Ok(client
            .send("GET", path, None)
            .is_ok_and(|answer| answer.status == 200))
    })
}

fn shim_config(lab: &Lab, password: &str) -> String {
    let dir = lab.dir.display();
    let version = match lab.underlay {
        Underlay::Ipv4 => 4,
        Underlay::Ipv6 => 6,
    };
    format!(
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
         [[managers]]\n\
         name = \"lab\"\n\
         url = \"http://127.0.0.1:{MANAGER_PORT}\"\n\
         username = \"{USER}\"\n\
         password = \"{password}\"\n",
        nve_protocol::DEFAULT_PORT
    )
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
    format!("default login {USER} password {password}\n")
}

/// Writes a file that only its owner can read.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
