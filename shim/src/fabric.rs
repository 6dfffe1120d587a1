//! What binds the rooms: changes are compiled, and each NVE's newest tables are
//! where its session finds them.
//!
//! Invariant: once a change is acknowledged, the tables that the NVEs should
//! have contain it; sessions may be behind, snapshots are not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::compile::{Compiled, Compiler, NveTables, Scope};
use crate::controller::{Controller, TransactError};
use crate::events::recent::{RecentEvents, Seen};
use crate::events::types::{Inventory, LifecycleEvent};
use crate::events::{EventSink, SinkError};
use crate::intent::State;
use crate::model::Mutation;
use crate::northbound::PortStatus;
use crate::placement::{self, Outcome};
use crate::southbound::{NveDirectory, NveIdentity, PublicKey, Registry};

/// Shared by the API, the event subscribers and the sessions.
#[derive(Clone)]
pub struct Fabric {
    controller: Controller,
    shared: Arc<Shared>,
}

struct Shared {
    registry: Arc<Registry>,
    desired: Mutex<Desired>,
    /// As it was published last; who looks waits for no compiler.
    compiled: RwLock<Compiled>,
    recent: RecentEvents,
}

struct Desired {
    compiler: Compiler,
    senders: HashMap<Uuid, watch::Sender<Arc<NveTables>>>,
    by_key: HashMap<PublicKey, NveIdentity>,
}

/// Where a port is attached, and whether its NVE has that in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// The NVE.
    pub nve: Uuid,
    /// Whether the NVE has acknowledged tables with the port in them.
    pub in_force: bool,
}

impl Fabric {
    /// Compiles what the controller has and follows it from now on.
    pub fn new(controller: Controller, registry: Arc<Registry>) -> Fabric {
        let state = controller.snapshot();
        let desired = Desired::new(&state);
        let compiled = RwLock::new(desired.compiler.compiled().clone());
        let shared = Arc::new(Shared {
            registry,
            desired: Mutex::new(desired),
            compiled,
            recent: RecentEvents::default(),
        });
        let follower = Arc::clone(&shared);
        controller.on_applied(Box::new(move |state, mutations| {
            follower.follow(state, mutations)
        }));
        Fabric { controller, shared }
    }

    /// State and store.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Run-time state of NVEs.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.shared.registry
    }

    /// The newest events.
    pub fn recent(&self) -> &RecentEvents {
        &self.shared.recent
    }

    /// The tables that an NVE should have; `None` if it is not registered.
    pub fn desired_tables(&self, nve: Uuid) -> Option<Arc<NveTables>> {
        self.shared.compiled().tables(nve).cloned()
    }

    /// Where a port is attached; `None` if it is on no NVE. It is in force once the
    /// NVE has acknowledged tables with the port's records as they should be: tables
    /// are whole, so what the port needs besides is in them too.
    pub fn attachment(&self, port: Uuid) -> Option<Attachment> {
        let compiled = self.shared.compiled();
        let (nve, vlan) = compiled.place(port)?;
        let desired = compiled.tables(nve)?;
        let acked = self.shared.registry.acked(nve);
        let in_force = acked
            .borrow()
            .as_ref()
            .is_some_and(|acked| acked.agrees(desired, Scope::Vap(nve, vlan)));
        Some(Attachment { nve, in_force })
    }

    /// Takes one event, whoever brings it.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn take_event(
        &self,
        manager: &str,
        event: LifecycleEvent,
    ) -> Result<Outcome, TransactError> {
        let (name, told) = (manager.to_owned(), event.clone());
        let outcome = self
            .controller
            .transact::<_, TransactError, _>(move |state| {
                Ok(placement::plan_event(
                    state,
                    &name,
                    &told,
                    OffsetDateTime::now_utc(),
                ))
            })
            .await?;
        tracing::info!(
            manager,
            event = %event.event_id,
            kind = %event.event_type,
            vm = %event.vm.vm_uuid,
            host = %event.vm.host_name,
            outcome = outcome.name(),
            "lifecycle event"
        );
        let manager = manager.to_owned();
        self.shared.recent.push(Seen {
            manager,
            outcome: outcome.name(),
            event,
        });
        Ok(outcome)
    }
}

impl PortStatus for Fabric {
    fn is_active(&self, port: Uuid) -> bool {
        self.attachment(port)
            .is_some_and(|attachment| attachment.in_force)
    }
}

impl EventSink for Fabric {
    async fn event(&self, manager: &str, event: LifecycleEvent) -> Result<(), SinkError> {
        let taken = self.take_event(manager, event).await;
        taken
            .map(|_| ())
            .map_err(|error| SinkError::Unavailable(error.to_string()))
    }

    async fn inventory(&self, manager: &str, inventory: Inventory) -> Result<(), SinkError> {
        let name = manager.to_owned();
        let vms = inventory.vms.len();
        let changed = self
            .controller
            .transact::<_, TransactError, _>(move |state| {
                Ok(placement::plan_inventory(
                    state,
                    &name,
                    &inventory,
                    OffsetDateTime::now_utc(),
                ))
            })
            .await
            .map_err(|error| SinkError::Unavailable(error.to_string()))?;
        if changed > 0 {
            tracing::info!(
                manager,
                vms,
                changed,
                "the inventory repaired the placement"
            );
        }
        Ok(())
    }

    async fn cursor(&self, manager: &str) -> Option<Uuid> {
        self.controller.read(|state| state.cursor(manager))
    }
}

impl NveDirectory for Fabric {
    fn by_public_key(&self, key: &PublicKey) -> Option<NveIdentity> {
        self.shared.lock().by_key.get(key).cloned()
    }

    fn desired(&self, nve: Uuid) -> Option<watch::Receiver<Arc<NveTables>>> {
        self.shared
            .lock()
            .senders
            .get(&nve)
            .map(watch::Sender::subscribe)
    }
}

impl Shared {
    /// A panic while the lock was held would have been in the compiler, which is
    /// then made anew with the next start; what it holds is still served.
    fn lock(&self) -> MutexGuard<'_, Desired> {
        self.desired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compiled(&self) -> Compiled {
        let compiled = self.compiled.read();
        compiled.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn follow(&self, state: &State, mutations: &[Mutation]) {
        let mut desired = self.lock();
        let changed = desired.compiler.follow(state, mutations);
        let compiled = desired.compiler.compiled().clone();
        *self
            .compiled
            .write()
            .unwrap_or_else(PoisonError::into_inner) = compiled;
        for nve in changed {
            desired.publish(nve);
        }
        for mutation in mutations {
            match mutation {
                Mutation::PutNve(nve) => self.registered(&mut desired, state, nve.id),
                Mutation::DeleteNve(id) => self.registered(&mut desired, state, *id),
                _ => {}
            }
        }
    }

    /// An NVE came, went or has other attributes. One with another key has to
    /// authenticate again.
    fn registered(&self, desired: &mut Desired, state: &State, nve: Uuid) {
        let before = desired.identity_key(nve);
        desired.by_key = directory(state);
        match state.nve(nve) {
            None => self.registry.remove(nve),
            Some(_) if before != desired.identity_key(nve) => self.registry.disconnect(nve),
            Some(_) => {}
        }
    }
}

impl Desired {
    fn new(state: &State) -> Desired {
        let mut desired = Desired {
            compiler: Compiler::new(state),
            senders: HashMap::new(),
            by_key: directory(state),
        };
        for nve in state.nves() {
            desired.publish(nve.id);
        }
        desired
    }

    /// Offers an NVE's tables to its session, or ends it if the NVE is gone.
    fn publish(&mut self, nve: Uuid) {
        match self.compiler.tables(nve) {
            Some(tables) => {
                let sender = self.senders.entry(nve).or_default();
                sender.send_replace(Arc::clone(tables));
            }
            None => drop(self.senders.remove(&nve)),
        }
    }

    fn identity_key(&self, nve: Uuid) -> Option<PublicKey> {
        self.by_key
            .iter()
            .find(|(_, identity)| identity.id == nve)
            .map(|(key, _)| *key)
    }
}

/// NVEs by key. A key that does not parse was refused before it was stored.
fn directory(state: &State) -> HashMap<PublicKey, NveIdentity> {
    let entries = state.nves().filter_map(|nve| {
        let key = crate::southbound::parse_public_key(&nve.public_key).ok()?;
        Some((
            key,
            NveIdentity {
                id: nve.id,
                name: nve.name.clone(),
            },
        ))
    });
    entries.collect()
}
