//! `shim serve`: the daemon put together.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::controller::Controller;
use crate::http::server;
use crate::northbound::{self, Api, NoneActive};
use crate::store::EmbeddedStore;

/// Runs until `shutdown` completes.
///
/// # Errors
/// If the store cannot be opened or an address cannot be listened on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let store = EmbeddedStore::open(&config.data_dir)?;
    let controller = Controller::open(Box::new(store), config.settings())?;
    let address = config.northbound.listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("northbound.listen: cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "northbound API is up");
    let api = Api {
        controller,
        ports: Arc::new(NoneActive),
    };
    server::serve(listener, northbound::router(api), shutdown).await;
    tracing::info!("stopped");
    Ok(())
}
