//! The hypervisor manager's Subscribe-Notice module (the paper, section II.A): it
//! takes registrations of event types and notifies of them over a long connection.
//!
//! `shim notice` serves it with a back end that knows the VMs: hosts with libvirt, or the
//! lab. Every route asks for HTTP digest authentication. The routes of all back ends are
//! listed at the head of `api.rs`, those of one at the head of `libvirt/api.rs` or
//! `lab/api.rs`.

mod api;
pub mod backend;
mod config;
mod heartbeats;
pub mod lab;
mod ledger;
#[cfg(feature = "libvirt")]
pub mod libvirt;
mod log;
mod registrations;
mod store;
mod stream;
#[cfg(test)]
mod tests;

use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use tokio::net::TcpListener;

pub use config::{Config, HostConfig, LibvirtConfig, LibvirtHost};
pub use store::StoreError;
pub use stream::RESET;

use crate::auth::digest::{Authenticator, require};
use crate::auth::{Credentials, Secret, SecretError};
use crate::config::ConfigError;
use crate::http::server;
use backend::Backend;
use lab::Lab;
use registrations::Registrations;
use store::Store;

/// Largest request body, bytes.
const LARGEST_BODY: usize = 64 * 1024;
/// User that is let in if the configuration names none.
const DEFAULT_USER: &str = "shim";

/// Why the module does not start.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// A user's password.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory.
    #[error("state_dir {path:?}: {error}")]
    StateDir {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// libvirt is asked for, and is not there.
    #[cfg(not(feature = "libvirt"))]
    #[error("[libvirt]: this shim was built without it: build with --features libvirt")]
    WithoutLibvirt,
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The listening address.
    #[error("listen {address}: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What is wrong.
        error: std::io::Error,
    },
}

/// Serves the module until `shutdown` completes.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), NoticeError> {
    let app = router(&config)?;
    let address = config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| NoticeError::Listen { address, error })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "hypervisor manager's notice module listens");
    server::serve(listener, app, shutdown).await;
    Ok(())
}

/// All routes, with authentication. Blocks while the state is read.
///
/// # Errors
/// When a password or the state cannot be read.
pub fn router(config: &Config) -> Result<Router, NoticeError> {
    fs::create_dir_all(&config.state_dir).map_err(|error| NoticeError::StateDir {
        path: config.state_dir.clone(),
        error,
    })?;
    let users = users(config)?;
    let store = Arc::new(Store::open(&config.state_dir.join("notice.redb"))?);
    let registrations = Arc::new(Registrations::open(Arc::clone(&store))?);
    let (backend, own) = backend(config, store)?;
    let heartbeat = Duration::from_secs(config.heartbeat_seconds.max(1));
    let authenticator = Arc::new(Authenticator::new("hypervisor manager", users));
    Ok(api::router(backend, registrations, heartbeat)
        .merge(own)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(authenticator, require)))
}

/// The back end, and its own routes.
fn backend(config: &Config, store: Arc<Store>) -> Result<(Arc<dyn Backend>, Router), NoticeError> {
    match &config.libvirt {
        None => {
            let lab = Arc::new(Lab::open(config, store)?);
            Ok((Arc::clone(&lab) as _, lab::router(lab)))
        }
        #[cfg(feature = "libvirt")]
        Some(libvirt) => {
            let libvirt = libvirt::Libvirt::start(config, libvirt, store)?;
            Ok((Arc::clone(&libvirt) as _, libvirt::router(libvirt)))
        }
        #[cfg(not(feature = "libvirt"))]
        Some(_) => Err(NoticeError::WithoutLibvirt),
    }
}

fn users(config: &Config) -> Result<Vec<Credentials>, NoticeError> {
    if config.users.is_empty() {
        let password = generated_password(&config.state_dir.join("password"))?;
        return Ok(vec![Credentials::new(DEFAULT_USER, password)?]);
    }
    let users = config.users.iter().map(|user| user.credentials());
    Ok(users.collect::<Result<_, _>>()?)
}

/// The password in `file`, which is made up if there is no such file.
fn generated_password(file: &Path) -> Result<Secret, NoticeError> {
    let created = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    let written = match created {
        Ok(mut created) => {
            tracing::info!(
                user = DEFAULT_USER,
                ?file,
                "no users configured: password made up"
            );
            let password = hex::encode(rand::random::<[u8; 16]>());
            writeln!(created, "{password}").and_then(|()| created.sync_all())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    written.map_err(|error| NoticeError::StateDir {
        path: file.to_owned(),
        error,
    })?;
    Ok(Secret::resolve("the default user", None, Some(file))?)
}
