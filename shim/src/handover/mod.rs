//! What NVEs know of a VM's traffic goes along when the VM moves.
//!
//! A task for each VM that moves (see [`Fabric::moves`]) does two things at once. It
//! copies connections and levels of limits from the NVE where the VM is, or was, to those
//! where it may come up: all at first, then again and again what has changed meanwhile,
//! and once more after the VM came up elsewhere (`copy`). And it waits until nobody
//! sends to the NVE any more that the VM has left, so that this one can forget it
//! (`settle`).
//!
//! Invariants: nothing here is durable, and a shim that is started again starts again
//! from the state; what fails for one port fails for no other; an NVE is asked few
//! questions at once.

mod copy;
mod settle;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use imbl::ordmap::DiffItem;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::fabric::{Fabric, Moves};
use crate::model::{Departed, PlacedVm};

/// Questions that an NVE is asked at once; others may ask it too.
const LANES: usize = 4;

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two copies of what has changed.
    pub interval: Duration,
    /// From when before the last copy on something is copied once more.
    pub overlap: Duration,
    /// Before what failed is tried again, or is looked at again.
    pub poll: Duration,
    /// For the last copy, once the VM has moved.
    pub last_copy: Duration,
    /// For NVEs that are not connected, or do not acknowledge, to learn where the VM is.
    pub patience: Duration,
    /// For frames that are on their way when all have learned it.
    pub in_flight: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            interval: Duration::from_millis(500),
            overlap: Duration::from_millis(300),
            poll: Duration::from_millis(50),
            last_copy: Duration::from_secs(5),
            patience: Duration::from_secs(600),
            in_flight: Duration::from_millis(500),
        }
    }
}

/// Attends to all VMs that move, for ever; stops when the future is dropped.
pub async fn run(fabric: Fabric, timing: Timing) {
    let mut moves = fabric.moves();
    let shared = Arc::new(Shared {
        fabric,
        timing,
        lanes: Mutex::default(),
    });
    let mut known = Moves::new();
    let mut attended: HashMap<Uuid, watch::Sender<Arc<PlacedVm>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let now = moves.borrow_and_update().clone();
        for change in known.diff(&now) {
            match change {
                DiffItem::Add(vm, placed) => {
                    let (sender, placed) = watch::channel(Arc::clone(placed));
                    tasks.spawn(attend(Arc::clone(&shared), placed));
                    attended.insert(*vm, sender);
                }
                DiffItem::Update { new: (vm, new), .. } => {
                    if let Some(sender) = attended.get(vm) {
                        sender.send_replace(Arc::clone(new));
                    }
                }
                DiffItem::Remove(vm, _) => drop(attended.remove(vm)),
            }
        }
        known = now;
        loop {
            tokio::select! {
                changed = moves.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

/// What all tasks share.
struct Shared {
    fabric: Fabric,
    timing: Timing,
    /// By NVE.
    lanes: Mutex<HashMap<Uuid, Arc<Semaphore>>>,
}

impl Shared {
    fn lane(&self, nve: Uuid) -> Arc<Semaphore> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.entry(nve);
        Arc::clone(lane.or_insert_with(|| Arc::new(Semaphore::new(LANES))))
    }
}

/// What has been copied for a VM.
#[derive(Debug, Default)]
struct Progress {
    /// By port.
    copied: BTreeMap<Uuid, Tally>,
    /// Where the VM was when it was copied from there for the last time.
    done: Option<Departed>,
}

/// How much was copied of a port, to each of the NVEs that got it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    /// Connections; one counts as often as it was copied.
    connections: u64,
    /// Bytes of messages.
    bytes: u64,
}

/// Attends to one VM until it does not move any more.
async fn attend(shared: Arc<Shared>, placed: watch::Receiver<Arc<PlacedVm>>) {
    let progress = Mutex::default();
    // Both end with the sender.
    tokio::join!(
        copy::Copier::new(&shared, &progress).run(placed.clone()),
        settle::run(&shared, &progress, placed),
    );
}

/// No holder of these locks can fail while it has them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
