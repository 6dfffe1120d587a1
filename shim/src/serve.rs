//! `shim serve`: the daemon put together.
//!
//! Appliances are let in last: by then the tables are compiled.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::controller::Controller;
use crate::events::{StatusHandle, Subscriber};
use crate::fabric::Fabric;
use crate::handover;
use crate::http::server;
use crate::northbound::{self, Api};
use crate::southbound::{self, KeyPair, NveDirectory, Registry};
use crate::store::EmbeddedStore;

/// The shim's private key in the data directory, if the configuration names no other.
pub const KEY_FILE: &str = "shim.key";

/// Runs until `shutdown` completes.
///
/// # Errors
/// If the store cannot be opened or an address cannot be listened on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let store = EmbeddedStore::open(&config.data_dir)?;
    let in_data_dir = || config.data_dir.join(KEY_FILE);
    let key_file = config
        .southbound
        .key_file
        .clone()
        .unwrap_or_else(in_data_dir);
    let keys = KeyPair::load_or_create(&key_file)?;
    let controller = Controller::open(Box::new(store), config.settings())?;
    let fabric = Fabric::new(controller, Arc::new(Registry::new()));
    let north = listen("northbound", config.northbound.listen).await?;
    let south = listen("southbound", config.southbound.listen).await?;
    tracing::info!(
        northbound = %north.local_addr()?,
        southbound = %south.local_addr()?,
        public_key = keys.public_hex(),
        "shim serves"
    );
    let (_subscribers, managers) = follow_managers(&config, &fabric)?;
    let users = config.users.iter().map(|user| user.credentials());
    let users = users.collect::<Result<Vec<_>, _>>().context("users")?;
    let api = Api::new(fabric.clone())
        .with_posters(users)
        .with_managers(managers);
    tokio::select! {
        () = server::serve(north, northbound::router(api), shutdown) => {}
        () = serve_appliances(south, keys, fabric.clone()) => {}
        () = handover::run(fabric, handover::Timing::default()) => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts a subscriber for each manager; they end when the set is dropped.
fn follow_managers(
    config: &Config,
    fabric: &Fabric,
) -> anyhow::Result<(JoinSet<()>, Vec<StatusHandle>)> {
    let mut tasks = JoinSet::new();
    let mut handles = Vec::new();
    for manager in &config.managers {
        let credentials = manager.credentials()?;
        let subscriber = Subscriber::new(&manager.name, &manager.url, credentials, fabric.clone())
            .with_context(|| format!("managers: {}", manager.name))?;
        handles.push(subscriber.status());
        tasks.spawn(subscriber.run());
    }
    Ok((tasks, handles))
}

async fn listen(section: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("{section}.listen: cannot listen on {address}"))
}

async fn serve_appliances(listener: TcpListener, keys: KeyPair, fabric: Fabric) {
    let registry = Arc::clone(fabric.registry());
    let directory: Arc<dyn NveDirectory> = Arc::new(fabric);
    southbound::serve(
        listener,
        keys,
        southbound::Config::default(),
        directory,
        registry,
    )
    .await;
}
