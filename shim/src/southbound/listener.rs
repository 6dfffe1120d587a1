//! Accepts connections and gives each a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::admit::{Admitted, Refusal, admit};
use super::gate::{Gate, Pass};
use super::session::Session;
use super::{Config, KeyPair, NveDirectory, Registry, Rejection};

/// Pause after the system gave no connection, such as for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub(super) struct Shared {
    pub(super) keys: KeyPair,
    pub(super) config: Config,
    pub(super) directory: Arc<dyn NveDirectory>,
    pub(super) registry: Arc<Registry>,
}

/// Serves appliances for ever; all sessions end when the future is dropped.
pub async fn serve(
    listener: TcpListener,
    keys: KeyPair,
    config: Config,
    directory: Arc<dyn NveDirectory>,
    registry: Arc<Registry>,
) {
    let gate = Gate::new(
        config.max_unauthenticated,
        config.max_unauthenticated_per_address,
    );
    let shared = Arc::new(Shared {
        keys,
        config,
        directory,
        registry,
    });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => match gate.enter(address.ip()) {
                Some(pass) => {
                    connections.spawn(connection(Arc::clone(&shared), stream, address, pass));
                }
                None => refuse(&shared, address, &Rejection::TooMany.into()),
            },
            Err(error) => {
                warn!("accepting appliances: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr, pass: Pass) {
    let since = Instant::now();
    let admitted = match timeout(shared.config.hello_timeout, authenticate(&shared, stream)).await {
        Ok(admitted) => admitted,
        Err(_) => Err(Rejection::Timeout.into()),
    };
    drop(pass);
    match admitted {
        Ok(admitted) => {
            let nve = admitted.nve.clone();
            info!(%address, nve = nve.name, "NVE connected");
            let end = Session::start(&shared, admitted, address, since)
                .run()
                .await;
            info!(%address, nve = nve.name, "NVE disconnected: {end}");
        }
        Err(refusal) => refuse(&shared, address, &refusal),
    }
}

async fn authenticate(shared: &Shared, stream: TcpStream) -> Result<Admitted, Refusal> {
    stream.set_nodelay(true).map_err(|_| Rejection::Closed)?;
    admit(&shared.keys, &*shared.directory, stream).await
}

fn refuse(shared: &Shared, address: SocketAddr, refusal: &Refusal) {
    shared.registry.reject(refusal.reason);
    match &refusal.key {
        Some(key) => warn!(%address, key, "refused: {}", refusal.reason),
        None => warn!(%address, "refused: {}", refusal.reason),
    }
}
