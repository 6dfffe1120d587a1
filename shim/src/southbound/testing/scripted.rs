//! An NVE without connection and tables that answers questions by a script.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use nve_protocol::handover::TakeOver;
use nve_protocol::inspect::{Failure, Question};
use nve_protocol::{API_VERSION, Hello, NveId, TableDigest, TableSizes};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::southbound::{AskError, Registry, Reply};

/// A session of an NVE that takes no tables; ends when dropped.
#[derive(Debug)]
pub struct ScriptedNve {
    task: JoinHandle<()>,
    taken: Arc<Mutex<Vec<TakeOver>>>,
}

impl ScriptedNve {
    /// Connects the NVE; `script` answers its questions, and does not when it
    /// returns `None`.
    pub fn start<F>(registry: &Arc<Registry>, nve: Uuid, mut script: F) -> Self
    where
        F: FnMut(&Question) -> Option<Result<Reply, Failure>> + Send + 'static,
    {
        let hello = Hello {
            api_version: API_VERSION,
            nve: NveId(nve.into_bytes()),
            version: "script".try_into().unwrap_or_default(),
            generation: 0,
            digest: TableDigest::default(),
            boot_us: 0,
            capacity: TableSizes::default(),
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut started = registry.start(nve, address, &hello);
        let entry = started.entry;
        let taken = Arc::new(Mutex::new(Vec::new()));
        let tray = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            let _connected = entry;
            let mut silent = Vec::new();
            loop {
                let inquiry = tokio::select! {
                    _ = &mut started.ended => break,
                    inquiry = started.desk.next() => inquiry,
                    Some(told) = started.tray.recv() => {
                        tray.lock().unwrap_or_else(PoisonError::into_inner).push(told);
                        continue;
                    }
                };
                match script(&inquiry.question) {
                    // Nobody may wait for it any more.
                    Some(answer) => drop(inquiry.reply.send(answer.map_err(AskError::Failed))),
                    None => silent.push(inquiry.reply),
                }
            }
        });
        ScriptedNve { task, taken }
    }

    /// What it was told that other NVEs knew, in order.
    pub fn taken_over(&self) -> Vec<TakeOver> {
        let taken = self.taken.lock();
        taken.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ScriptedNve {
    fn drop(&mut self) {
        self.task.abort();
    }
}
