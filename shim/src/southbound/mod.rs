//! Sessions with appliances: authenticate, sync, push, collect.
//!
//! Appliances dial in and authenticate with Noise IK (see [`nve_protocol`]); the
//! static key says which NVE it is. The session then keeps the NVE's tables equal
//! to the newest snapshot that the [`NveDirectory`] offers for it, and tells the
//! directory which VMs the NVE hears that were not there before. What is seen of
//! each NVE is in the [`Registry`]; what is asked of one, or told to it, goes through
//! that too.
//!
//! Call [`serve`] only once the directory's snapshots are complete: an NVE whose
//! tables differ gets the snapshot's, whatever it forwards meanwhile.
//!
//! Invariants: an unauthenticated connection costs a bounded buffer for a bounded
//! time, and is one of a bounded number; a slow or hostile NVE holds up no other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nve_protocol::inspect::Place;
use tokio::sync::watch;
use uuid::Uuid;

use crate::compile::NveTables;

mod admit;
mod gate;
mod inquiry;
mod keys;
mod listener;
mod noise;
mod push;
mod registry;
mod rejection;
mod sending;
mod session;
mod sync;
mod take_over;
mod wire;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(test)]
mod tests;

pub use inquiry::{ANSWER_TIMEOUT, AskError, MAX_WAITING, Reply};
pub use keys::{KeyError, KeyPair, PublicKey, parse_public_key};
pub use listener::serve;
pub use registry::{
    Connection, Counts, Image, LastApplied, LastRefused, LastStats, NveStatus, Registry,
};
pub use rejection::Rejection;
pub use take_over::NotConnected;

/// An NVE that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NveIdentity {
    /// Its UUID, which its hello must name.
    pub id: Uuid,
    /// Its name, for the log.
    pub name: String,
}

/// That an NVE has heard a VM is being taken note of.
pub type Noting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who may connect, and which tables each should have.
pub trait NveDirectory: Send + Sync + 'static {
    /// The NVE with this static key.
    fn by_public_key(&self, key: &PublicKey) -> Option<NveIdentity>;

    /// The tables that an NVE should have, now and from now on; `None` if it is
    /// gone. Its session ends when the sender is dropped.
    fn desired(&self, nve: Uuid) -> Option<watch::Receiver<Arc<NveTables>>>;

    /// Takes note that an NVE has heard the VM of a VAP that is on standby. It may be
    /// wrong, or late. If the session ends first, the NVE says it again in the next one.
    fn awake(&self, nve: Uuid, place: Place) -> Noting;
}

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long a connection may take to authenticate and say hello.
    pub hello_timeout: Duration,
    /// Most connections at once that have not.
    pub max_unauthenticated: usize,
    /// The same from one address.
    pub max_unauthenticated_per_address: usize,
    /// Between two pings.
    pub ping_interval: Duration,
    /// Silence after which either end gives up the connection.
    pub dead_after: Duration,
    /// Between two reports of counters.
    pub stats_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            hello_timeout: Duration::from_secs(5),
            max_unauthenticated: 256,
            max_unauthenticated_per_address: 16,
            ping_interval: Duration::from_secs(4),
            dead_after: Duration::from_secs(15),
            stats_interval: Duration::from_secs(2),
        }
    }
}
