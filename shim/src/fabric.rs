//! What binds the rooms: changes are compiled, and each NVE's newest tables are
//! where its session finds them.
//!
//! Invariant: once a change is acknowledged, the tables that the NVEs should
//! have contain it; sessions may be behind, snapshots are not.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use imbl::OrdMap;
use nve_protocol::inspect::Place;
use nve_protocol::{Presence, Vlan};
use tokio::sync::watch;
use uuid::Uuid;

use crate::compile::{Compiled, Compiler, NveTables, OtherVap, Scope};
use crate::controller::{Controller, TransactError};
use crate::events::recent::{RecentEvents, Seen};
use crate::events::types::{Inventory, LifecycleEvent, VmState};
use crate::events::{EventSink, SinkError};
use crate::intent::State;
use crate::model::{Departed, Mutation, PlacedVm};
use crate::northbound::PortStatus;
use crate::placement::{self, Outcome, Teller, alarms};
use crate::southbound::{Noting, NveDirectory, NveIdentity, PublicKey, Registry};

/// Before what could not be stored is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// VMs that migrate, or have left a host where there may still be traffic for them.
pub type Moves = OrdMap<Uuid, Arc<PlacedVm>>;

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
    published: RwLock<Published>,
    recent: RecentEvents,
    /// Managers that have listed an inventory since the shim started.
    listing: Mutex<HashSet<String>>,
    work: Mutex<Work>,
    moves: watch::Sender<Moves>,
}

/// How much there was to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// Changes that were compiled.
    pub changes: u64,
    /// How often an NVE's tables came out as other ones, by NVE.
    pub recompiled: HashMap<Uuid, u64>,
}

/// What is to be seen of the tables. A copy shares everything with its original.
#[derive(Clone, Default)]
struct Published {
    compiled: Compiled,
    /// Ports that changed where they are attached, by place, after their NVE had
    /// acknowledged them there as they should have been.
    established: OrdMap<Uuid, (Uuid, Vlan)>,
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
        let published = RwLock::new(Published {
            compiled: desired.compiler.compiled().clone(),
            established: OrdMap::new(),
        });
        let shared = Arc::new(Shared {
            registry,
            desired: Mutex::new(desired),
            published,
            recent: RecentEvents::default(),
            listing: Mutex::default(),
            work: Mutex::default(),
            moves: watch::Sender::new(moving(state.vms())),
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

    /// What was compiled since the shim started.
    pub fn work(&self) -> Work {
        lock(&self.shared.work).clone()
    }

    /// The tables that an NVE should have; `None` if it is not registered.
    pub fn desired_tables(&self, nve: Uuid) -> Option<Arc<NveTables>> {
        self.shared.published().compiled.tables(nve).cloned()
    }

    /// Where a port is attached; `None` if it is on no NVE. It is in force once the
    /// NVE has acknowledged tables with the port's records as they should be: tables
    /// are whole, so what the port needs besides is in them too.
    pub fn attachment(&self, port: Uuid) -> Option<Attachment> {
        let compiled = self.shared.published().compiled;
        let (nve, vlan) = compiled.place(port)?;
        let desired = compiled.tables(nve)?;
        let in_force = self.shared.has(nve, desired, Scope::Vap(nve, vlan));
        Some(Attachment { nve, in_force })
    }

    /// The NVE that a port is attached to and its tag there; `None` if it is on none.
    pub fn place(&self, port: Uuid) -> Option<(Uuid, Vlan)> {
        self.shared.published().compiled.place(port)
    }

    /// The VAPs that a port has where its VM is not.
    pub fn asides(&self, port: Uuid) -> Vec<OtherVap> {
        self.shared.published().compiled.asides(port).to_vec()
    }

    /// The port whose VAP an NVE has acknowledged behind a tag, whether as it should be
    /// or as it was.
    pub fn port_in_force(&self, nve: Uuid, vlan: Vlan) -> Option<Uuid> {
        self.shared.port_acked(nve, Scope::Vap(nve, vlan))
    }

    /// Whether every NVE that can send to a network, of whom it tells, has acknowledged
    /// where its stations are. One that is not connected, or refuses, may have not.
    pub fn is_known_everywhere(&self, network: Uuid) -> bool {
        let compiled = self.shared.published().compiled;
        let scope = Scope::Network(network);
        let mut senders = compiled.all().filter(|(_, tables)| tables.has(scope));
        senders.all(|(nve, tables)| self.shared.has(nve, tables, scope))
    }

    /// The VMs that move, now and from now on.
    pub fn moves(&self) -> watch::Receiver<Moves> {
        self.shared.moves.subscribe()
    }

    /// Takes note that nobody sends to a host any more that a VM has left.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn settle(&self, vm: Uuid, departed: Departed) -> Result<bool, TransactError> {
        let plan = move |state: &State| Ok(placement::plan_settled(state, vm, &departed));
        self.controller.transact(plan).await
    }

    /// Takes note that an NVE has heard the VM of a VAP that was on standby.
    async fn take_awake(&self, nve: Uuid, place: Place) {
        let port = Uuid::from_bytes(place.port.0);
        let found = self.controller.read(|state| state.nve(nve).cloned());
        let Some(nve) = found else { return };
        // Whoever says so any number of times has nobody else wait for their turn.
        let awaited = (nve.id, place.vlan, Presence::Standby);
        if !self.asides(port).contains(&awaited) {
            tracing::debug!(%port, nve = nve.name, "a VM was heard that is not to come");
            return;
        }
        let noted = loop {
            let (planner, host) = (self.controller.clone(), nve.host_name.clone());
            let plan = move |state: &State| {
                let vap = (port, place.vlan);
                Ok(placement::plan_awake(state, planner.context(), &host, vap))
            };
            let noted: Result<_, TransactError> = self.controller.transact(plan).await;
            match noted {
                Ok(noted) => break noted,
                Err(error) => tracing::error!(%port, nve = nve.name, "a VM that came: {error}"),
            }
            tokio::time::sleep(RETRY).await;
        };
        match noted {
            Some(awoken) => tracing::info!(
                vm = %awoken.vm,
                %port,
                from = awoken.from,
                to = nve.host_name,
                nve = nve.name,
                after = %awoken.after,
                "a VM came up where it migrates to"
            ),
            None => tracing::debug!(%port, nve = nve.name, "a VM was heard that is not to come"),
        }
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
        let lists = lock(&self.shared.listing).contains(manager);
        let planner = self.controller.clone();
        let outcome = self
            .controller
            .transact::<_, TransactError, _>(move |state| {
                let teller = Teller { name: &name, lists };
                let context = planner.context();
                Ok(placement::plan_event(state, context, teller, &told))
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
        if outcome == Outcome::Applied {
            self.warn_of(&event.vm);
        }
        let manager = manager.to_owned();
        self.shared.recent.push(Seen {
            manager,
            outcome: outcome.name(),
            event,
        });
        Ok(outcome)
    }
}

impl Fabric {
    /// Logs what contradicts the leases of the tags that a VM has.
    fn warn_of(&self, vm: &VmState) {
        let state = self.controller.snapshot();
        let tags = vm.vnic_list.iter();
        for tag in tags.filter_map(|vnic| Vlan::new(vnic.port_segmentation_id)) {
            for alarm in alarms::on(&state, &vm.host_name, tag) {
                tracing::warn!(kind = alarm.kind.name(), "{}", alarm.message);
            }
        }
    }
}

impl PortStatus for Fabric {
    /// A port becomes active once it is in force. A change of what it may do does
    /// not make it inactive: it forwards all the time where its NVE has it.
    fn is_active(&self, port: Uuid) -> bool {
        let Published {
            compiled,
            established,
        } = self.shared.published();
        let Some((nve, vlan)) = compiled.place(port) else {
            return false;
        };
        let Some(desired) = compiled.tables(nve) else {
            return false;
        };
        let scope = Scope::Vap(nve, vlan);
        self.shared.has(nve, desired, scope)
            || (established.get(&port) == Some(&(nve, vlan))
                && self.shared.port_acked(nve, scope) == Some(port))
    }
}

impl EventSink for Fabric {
    async fn event(&self, manager: &str, event: LifecycleEvent) -> Result<(), SinkError> {
        let taken = self.take_event(manager, event).await;
        taken
            .map(|_| ())
            .map_err(|error| SinkError::Unavailable(error.to_string()))
    }

    async fn inventory(
        &self,
        manager: &str,
        inventory: Inventory,
        is_gap: bool,
    ) -> Result<(), SinkError> {
        let name = manager.to_owned();
        let vms = inventory.vms.len();
        let planner = self.controller.clone();
        let changed = self
            .controller
            .transact::<_, TransactError, _>(move |state| {
                let context = planner.context();
                let plan = placement::plan_inventory(state, context, &name, &inventory, is_gap);
                Ok(plan)
            })
            .await
            .map_err(|error| SinkError::Unavailable(error.to_string()))?;
        lock(&self.shared.listing).insert(manager.to_owned());
        if changed > 0 {
            tracing::info!(
                manager,
                vms,
                changed,
                "the inventory repaired the placement"
            );
            let state = self.controller.snapshot();
            for alarm in alarms::all(&state) {
                tracing::warn!(kind = alarm.kind.name(), "{}", alarm.message);
            }
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

    fn awake(&self, nve: Uuid, place: Place) -> Noting {
        let fabric = self.clone();
        Box::pin(async move { fabric.take_awake(nve, place).await })
    }
}

impl Shared {
    /// A panic while the lock was held would have been in the compiler, which is
    /// then made anew with the next start; what it holds is still served.
    fn lock(&self) -> MutexGuard<'_, Desired> {
        self.desired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> Published {
        let published = self.published.read();
        published.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an NVE has acknowledged a scope's records as they are in `tables`.
    fn has(&self, nve: Uuid, tables: &NveTables, scope: Scope) -> bool {
        let acked = self.registry.acked(nve);
        let acked = acked.borrow();
        acked
            .as_ref()
            .is_some_and(|acked| acked.agrees(tables, scope))
    }

    /// The port whose VAP the NVE has acknowledged there.
    fn port_acked(&self, nve: Uuid, scope: Scope) -> Option<Uuid> {
        let acked = self.registry.acked(nve);
        let acked = acked.borrow();
        acked.as_ref()?.port_at(scope)
    }

    fn follow(&self, state: &State, mutations: &[Mutation]) {
        let mut desired = self.lock();
        let changed = desired.compiler.follow(state, mutations);
        self.count(&changed);
        let before = self.published();
        let compiled = desired.compiler.compiled().clone();
        let established = self.established(before, &compiled, &changed);
        *self
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Published {
            compiled,
            established,
        };
        for nve in changed {
            desired.publish(nve);
        }
        self.follow_moves(mutations);
        for mutation in mutations {
            match mutation {
                Mutation::PutNve(nve) => self.registered(&mut desired, state, nve.id),
                Mutation::DeleteNve(id) => self.registered(&mut desired, state, *id),
                _ => {}
            }
        }
    }

    fn follow_moves(&self, mutations: &[Mutation]) {
        self.moves.send_if_modified(|moves| {
            let mut is_other = false;
            for mutation in mutations {
                is_other |= match mutation {
                    Mutation::PutVm(placed) if moves_now(placed) => {
                        let placed = Arc::new(placed.clone());
                        moves.insert(placed.vm.vm_uuid, placed);
                        true
                    }
                    Mutation::PutVm(PlacedVm { vm, .. }) => moves.remove(&vm.vm_uuid).is_some(),
                    Mutation::DeleteVm(id) => moves.remove(id).is_some(),
                    _ => false,
                };
            }
            is_other
        });
    }

    fn count(&self, changed: &BTreeSet<Uuid>) {
        let mut work = lock(&self.work);
        work.changes += 1;
        for nve in changed {
            *work.recompiled.entry(*nve).or_default() += 1;
        }
    }

    /// Which ports are established, now that these NVEs' tables are `after`.
    fn established(
        &self,
        before: Published,
        after: &Compiled,
        changed: &BTreeSet<Uuid>,
    ) -> OrdMap<Uuid, (Uuid, Vlan)> {
        let mut established = before.established;
        let none = NveTables::default();
        for nve in changed {
            let [old, new] = [&before.compiled, after].map(|all| match all.tables(*nve) {
                Some(tables) => tables,
                None => &none,
            });
            for scope in old.vaps_unlike(new) {
                let (Scope::Vap(_, vlan), Some(port)) = (scope, old.port_at(scope)) else {
                    continue;
                };
                let place = (*nve, vlan);
                if new.active_port_at(scope) == Some(port) {
                    if self.has(*nve, old, scope) {
                        established.insert(port, place);
                    }
                } else if established.get(&port) == Some(&place) {
                    established.remove(&port);
                }
            }
        }
        established
    }

    /// An NVE came, went or has other attributes. One with another key has to
    /// authenticate again.
    fn registered(&self, desired: &mut Desired, state: &State, nve: Uuid) {
        let before = desired.identity_key(nve);
        desired.by_key = directory(state);
        match state.nve(nve) {
            None => {
                self.registry.remove(nve);
                lock(&self.work).recompiled.remove(&nve);
            }
            Some(_) if before != desired.identity_key(nve) => self.registry.disconnect(nve),
            Some(_) => {}
        }
    }
}

/// Whether a VM migrates, or has left a host not long ago.
fn moves_now(placed: &PlacedVm) -> bool {
    placed.migration.is_some() || placed.departed.is_some()
}

fn moving<'a>(vms: impl Iterator<Item = &'a PlacedVm>) -> Moves {
    let moving = vms.filter(|placed| moves_now(placed));
    moving
        .map(|placed| (placed.vm.vm_uuid, Arc::new(placed.clone())))
        .collect()
}

/// No holder of these locks can fail while it has them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests;
