//! The shim's end of the control channel: its own southbound, with tables from the
//! scenario in place of those compiled from intent.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use nve_protocol::Record;
use shim::southbound::testing::{MemoryDirectory, snapshot};
use shim::southbound::{Config, KeyPair, NveIdentity, Registry, serve};
use uuid::Uuid;

use crate::traffic::{NVE_ID, NVE_KEY, SHIM, SHIM_PORT};

/// A southbound that serves one NVE, for ever.
pub(super) struct Southbound {
    directory: Arc<MemoryDirectory>,
    nve: Uuid,
    key: String,
}

impl Southbound {
    /// Listens at the shim's address, which this network namespace must have.
    pub(super) fn start() -> Result<Southbound> {
        let nve = Uuid::parse_str(NVE_ID)?;
        let keys = KeyPair::generate()?;
        let key = keys.public_hex();
        let identity = NveIdentity {
            id: nve,
            name: "bench".to_owned(),
        };
        let directory = MemoryDirectory::new();
        let nve_key = KeyPair::from_hex(NVE_KEY)?;
        directory.add(identity, *nve_key.public(), snapshot([]));
        let listener = TcpListener::bind((SHIM, SHIM_PORT)).context("the shim cannot listen")?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = Arc::clone(&directory);
        thread::Builder::new()
            .name("southbound".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    match tokio::net::TcpListener::from_std(listener) {
                        Ok(listener) => {
                            let registry = Arc::new(Registry::new());
                            serve(listener, keys, Config::default(), served, registry).await;
                        }
                        Err(error) => eprintln!("the shim cannot listen: {error}"),
                    }
                });
            })?;
        Ok(Southbound {
            directory,
            nve,
            key,
        })
    }

    /// Its public key, 64 hexadecimal digits.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Changes the tables that the NVE should have.
    pub(super) fn set(&self, records: Vec<Record>) {
        self.directory.set(self.nve, snapshot(records));
    }
}
