//! The southbound over real sockets of this machine, against native NVEs and
//! against strangers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nve_protocol::{Fdb, Mac, PortId, Presence, Record, Vap, Vlan, Vni};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::testing::{MemoryDirectory, NativeConfig, NativeNve, snapshot};
use super::{Config, KeyPair, NveIdentity, NveStatus, Registry, Rejection, serve};
use crate::compile::NveTables;

mod decisions;
mod hostile;
mod inquiries;
mod moves;
mod peer;
mod syncing;

/// Longest wait for what should come at once.
const LIMIT: Duration = Duration::from_secs(20);

/// A shim's southbound that serves on a port of its own.
struct Shim {
    keys: KeyPair,
    config: Config,
    directory: Arc<MemoryDirectory>,
    registry: Arc<Registry>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shim {
    async fn start(config: Config) -> Self {
        let keys = KeyPair::generate().unwrap();
        Self::serve(config, keys, MemoryDirectory::new()).await
    }

    /// The same shim after a restart: what is not durable is gone.
    async fn restarted(self) -> Self {
        self.server.abort();
        let (keys, directory) = (self.keys.clone(), Arc::clone(&self.directory));
        Self::serve(self.config, keys, directory).await
    }

    async fn serve(config: Config, keys: KeyPair, directory: Arc<MemoryDirectory>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Arc::new(Registry::new());
        let server = serve(
            listener,
            keys.clone(),
            config,
            Arc::clone(&directory) as _,
            Arc::clone(&registry),
        );
        Shim {
            keys,
            config,
            directory,
            registry,
            address,
            server: tokio::spawn(server),
        }
    }

    /// Registers an NVE that should have `tables`; returns how to run it.
    fn add(&self, tables: &Arc<NveTables>) -> NativeConfig {
        let (id, keys) = (Uuid::new_v4(), KeyPair::generate().unwrap());
        let nve = NveIdentity {
            id,
            name: format!("nve-{id}"),
        };
        self.directory.add(nve, *keys.public(), Arc::clone(tables));
        NativeConfig::new(id, keys, *self.keys.public(), self.address)
    }

    /// Waits until an NVE's status is as wanted.
    async fn wait(&self, nve: Uuid, condition: impl Fn(&NveStatus) -> bool) -> NveStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.registry.status(nve);
            match status {
                Some(status) if condition(&status) => return status,
                other => assert!(Instant::now() < deadline, "{other:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn wait_in_sync(&self, nve: Uuid, tables: &NveTables) -> NveStatus {
        self.wait(nve, |s| s.in_sync && s.digest == tables.digest())
            .await
    }

    /// Waits until the shim has noticed that an NVE's connection is gone.
    async fn wait_gone(&self, nve: Uuid) {
        self.wait(nve, |s| s.connection.is_none()).await;
    }

    fn rejected(&self, reason: Rejection) -> u64 {
        let mut counts = self.registry.rejections();
        let (_, count) = counts.find(|(counted, _)| *counted == reason).unwrap();
        count
    }

    /// Waits until a connection has been refused for `reason`.
    async fn wait_rejected(&self, reason: Rejection, count: u64) {
        let deadline = Instant::now() + LIMIT;
        while self.rejected(reason) < count {
            let counts: Vec<_> = self.registry.rejections().collect();
            assert!(Instant::now() < deadline, "{reason:?}: {counts:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Shows that an NVE is served as if nothing else were there.
    async fn assert_serves(&self) {
        let tables = stations(3);
        let config = self.add(&tables);
        let nve = NativeNve::start(&config).unwrap();
        self.wait_in_sync(config.nve, &tables).await;
        assert_eq!(nve.state().digest, tables.digest());
    }
}

fn vap(n: u16) -> Record {
    let [high, low] = n.to_be_bytes();
    Record::Vap(Vap {
        vlan: Vlan::new(n).unwrap(),
        port: PortId([low; 16]),
        vni: Vni::new(u32::from(n) % 7).unwrap(),
        mac: Mac([2, 1, 0, 0, high, low]),
        port_security: true,
        presence: Presence::Active,
    })
}

fn fdb(n: u32, vtep: u8) -> Record {
    let [_, a, b, c] = n.to_be_bytes();
    Record::Fdb(Fdb {
        vni: Vni::new(n % 7).unwrap(),
        mac: Mac([2, 0, 0, a, b, c]),
        vtep: [192, 0, 2, vtep].into(),
    })
}

/// A table with so many remote stations.
fn stations(count: u32) -> Arc<NveTables> {
    snapshot((0..count).map(|n| fdb(n, 1)))
}
