//! Waits until nobody sends to the NVE any more that a VM has left.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::{Progress, Shared, lock};
use crate::fabric::Fabric;
use crate::model::{Departed, PlacedVm};

/// Before what could not be stored is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long it took from the move of a VM.
#[derive(Debug, Clone, Copy)]
struct Took {
    /// Until the NVE where it is had that in force; nothing if it did not come to that.
    in_force: Option<Duration>,
    /// Until all had learned where it is; nothing if some have not.
    known: Option<Duration>,
}

/// Attends to hosts that a VM leaves until it does not move any more.
pub(super) async fn run(
    shared: &Shared,
    progress: &Mutex<Progress>,
    mut placed: watch::Receiver<Arc<PlacedVm>>,
) {
    loop {
        let now = Arc::clone(&placed.borrow_and_update());
        let Some(departed) = &now.departed else {
            if placed.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut follower = placed.clone();
        tokio::select! {
            took = wait(shared, progress, departed) => {
                forget(shared, now.vm.vm_uuid, departed).await;
                tell(&placed.borrow(), departed, progress, took);
                // Not before it is seen here too.
                if left_another(&mut placed, departed).await.is_err() {
                    return;
                }
            }
            other = left_another(&mut follower, departed) => {
                if other.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits until the VM has left another host last, or none.
async fn left_another(
    placed: &mut watch::Receiver<Arc<PlacedVm>>,
    departed: &Departed,
) -> Result<(), watch::error::RecvError> {
    let other = |placed: &Arc<PlacedVm>| placed.departed.as_ref() != Some(departed);
    placed.wait_for(other).await.map(drop)
}

/// Waits until the host can be forgotten, as long as there is patience.
async fn wait(shared: &Shared, progress: &Mutex<Progress>, departed: &Departed) -> Took {
    let (fabric, timing) = (&shared.fabric, &shared.timing);
    let begun = Instant::now();
    let patience = begun + timing.patience;
    let in_force = in_force(shared, patience, departed).await;
    let known = until(shared, patience, || is_known(fabric, departed)).await;
    let is_copied = || lock(progress).done.as_ref() == Some(departed);
    until(shared, begun + timing.last_copy, is_copied).await;
    sleep(timing.in_flight).await;
    Took {
        in_force: in_force.map(|at| at - begun),
        known: known.map(|at| at - begun),
    }
}

/// When the condition held, unless it did not until then. It is looked at less and less
/// often.
async fn until(
    shared: &Shared,
    deadline: Instant,
    condition: impl Fn() -> bool,
) -> Option<Instant> {
    let mut pause = shared.timing.poll;
    while !condition() {
        let now = Instant::now();
        if now >= deadline {
            return None;
        }
        sleep_until(deadline.min(now + pause)).await;
        pause = (pause * 2).min(shared.timing.interval);
    }
    Some(Instant::now())
}

/// When the NVEs where the ports are now had them in force, unless they had not until then.
async fn in_force(shared: &Shared, deadline: Instant, departed: &Departed) -> Option<Instant> {
    let mut changes = shared.fabric.registry().changes();
    while !is_in_force(&shared.fabric, departed) {
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(shared.timing.interval) => {}
            () = sleep_until(deadline) => return None,
        }
    }
    Some(Instant::now())
}

/// Whether the NVEs where the ports are now have them in force.
fn is_in_force(fabric: &Fabric, departed: &Departed) -> bool {
    let mut ports = departed.vaps.iter();
    ports.all(|(port, _)| fabric.attachment(*port).is_none_or(|at| at.in_force))
}

/// Whether everyone who sends to the ports knows where they are now.
fn is_known(fabric: &Fabric, departed: &Departed) -> bool {
    let state = fabric.controller().snapshot();
    let ports = departed
        .vaps
        .iter()
        .filter_map(|(port, _)| state.port(*port));
    ports
        .map(|port| port.network_id)
        .all(|network| fabric.is_known_everywhere(network))
}

async fn forget(shared: &Shared, vm: Uuid, departed: &Departed) {
    while let Err(error) = shared.fabric.settle(vm, departed.clone()).await {
        tracing::error!(%vm, "a host that a VM has left: {error}");
        sleep(RETRY).await;
    }
}

fn tell(placed: &PlacedVm, departed: &Departed, progress: &Mutex<Progress>, took: Took) {
    let progress = lock(progress);
    for (port, _) in &departed.vaps {
        let copied = progress.copied.get(port).copied().unwrap_or_default();
        tracing::info!(
            %port,
            from = departed.host,
            to = placed.host_name(),
            connections = copied.connections,
            bytes = copied.bytes,
            in_force_ms = took.in_force.map(|took| took.as_millis()),
            known_ms = took.known.map(|took| took.as_millis()),
            "a port has moved"
        );
    }
}
