//! What other NVEs knew of VAPs' traffic, on its way to an NVE within its session.
//!
//! Invariant: little waits in a session, and whoever tells more waits; it ends with the
//! session.

use nve_protocol::handover::TakeOver;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Registry;

/// Most that waits in a session.
const WAITING: usize = 64;

/// Where it is put.
pub(super) type Slot = mpsc::Sender<TakeOver>;

/// A session's end of it.
pub(super) type Tray = mpsc::Receiver<TakeOver>;

/// The NVE has no session, or it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not connected")]
pub struct NotConnected;

pub(super) fn channel() -> (Slot, Tray) {
    mpsc::channel(WAITING)
}

impl Registry {
    /// Tells an NVE what another one knew, in order. Returns once the session has room
    /// for the last of it: that the NVE has taken it over is not acknowledged.
    ///
    /// # Errors
    /// When the NVE is not connected; it may have been told a part.
    pub async fn take_over(&self, nve: Uuid, told: Vec<TakeOver>) -> Result<(), NotConnected> {
        let slot = self.slot(nve).ok_or(NotConnected)?;
        for told in told {
            slot.send(told).await.map_err(|_| NotConnected)?;
        }
        Ok(())
    }
}
