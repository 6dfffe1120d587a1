//! Copies what an NVE knows of a VM's traffic to others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use nve_protocol::handover::{Handover, Known, TakeOver};
use nve_protocol::inspect::{Part, Place, Question};
use nve_protocol::{PortId, Presence, ToNve, Vlan, codec};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{Progress, Shared, Tally, lock};
use crate::model::PlacedVm;
use crate::southbound::{AskError, Reply};

/// Most answers of one copy: more connections than a VAP can have.
const MAX_PAGES: usize = 16_384;
/// For an NVE to take one answer's worth.
const SENT_WITHIN: Duration = Duration::from_secs(2);

/// A VAP: its NVE and tag.
type Vap = (Uuid, Vlan);

/// What is to be copied: of a port, from one NVE to others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leg {
    port: Uuid,
    from: Vap,
    to: Vec<Vap>,
    /// The VM has left, so that nothing new comes.
    is_last: bool,
}

/// To which session of an NVE everything was copied, and since when what has changed
/// has not been.
#[derive(Debug, Clone, Copy)]
struct Copied {
    session: u64,
    since: Instant,
}

/// How far it has got, by port, VAP from where and VAP to where.
type State = BTreeMap<(Uuid, Vap), BTreeMap<Vap, Copied>>;

/// Copies for one VM.
pub(super) struct Copier<'a> {
    shared: &'a Shared,
    progress: &'a Mutex<Progress>,
    state: State,
}

impl<'a> Copier<'a> {
    pub(super) fn new(shared: &'a Shared, progress: &'a Mutex<Progress>) -> Self {
        let state = State::new();
        Copier {
            shared,
            progress,
            state,
        }
    }

    /// Copies until the VM does not move any more.
    pub(super) async fn run(mut self, mut placed: watch::Receiver<Arc<PlacedVm>>) {
        let timing = self.shared.timing;
        let mut retry = timing.poll;
        loop {
            let now = Arc::clone(&placed.borrow_and_update());
            let begun = Instant::now();
            let before = self.state.clone();
            let is_whole = tokio::select! {
                is_whole = self.copy(&now) => is_whole,
                // What is copied for a VM that is elsewhere by now is no more of use.
                changed = placed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.state = before;
                    retry = timing.poll;
                    continue;
                }
            };
            let pause = match is_whole {
                true => timing.interval.saturating_sub(begun.elapsed()),
                false => retry,
            };
            retry = match is_whole {
                true => timing.poll,
                false => timing.interval.min(retry * 2),
            };
            let is_over = is_whole && now.migration.is_none();
            let changed = tokio::select! {
                changed = placed.changed() => {
                    retry = timing.poll;
                    changed
                }
                () = sleep(pause), if !is_over => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Copies once what there is of each port; whether all went well.
    async fn copy(&mut self, placed: &PlacedVm) -> bool {
        let legs = self.legs(placed);
        let mut old = std::mem::take(&mut self.state);
        let this = &*self;
        let copies = legs.iter().map(|leg| {
            let key = (leg.port, leg.from);
            let state = old.remove(&key).unwrap_or_default();
            async move { (key, leg.is_last, this.copy_leg(leg, state).await) }
        });
        let copies: Vec<_> = join_all(copies).await;
        let (mut is_whole, mut has_left) = (true, true);
        for (key, is_last, (state, went_well)) in copies {
            self.state.insert(key, state);
            is_whole &= went_well;
            has_left &= went_well || !is_last;
        }
        if has_left {
            lock(self.progress).done.clone_from(&placed.departed);
        }
        is_whole
    }

    /// From where to where there is something to copy.
    fn legs(&self, placed: &PlacedVm) -> Vec<Leg> {
        let fabric = &self.shared.fabric;
        let ports = placed.vm.vnic_list.iter().filter_map(|vnic| vnic.port_id());
        let ports: BTreeSet<Uuid> = ports.collect();
        let legs = ports.into_iter().flat_map(|port| {
            let (place, asides) = (fabric.place(port), fabric.asides(port));
            let with = |wanted: Presence| {
                let asides = asides
                    .iter()
                    .filter(move |(.., presence)| *presence == wanted);
                asides
                    .map(|(nve, vlan, _)| (*nve, *vlan))
                    .collect::<Vec<Vap>>()
            };
            let last = with(Presence::Departed).into_iter().map(|from| Leg {
                port,
                from,
                to: place.into_iter().collect(),
                is_last: true,
            });
            let standby = with(Presence::Standby);
            let next = place.filter(|_| !standby.is_empty()).map(|from| Leg {
                port,
                from,
                to: standby,
                is_last: false,
            });
            last.chain(next).collect::<Vec<Leg>>()
        });
        legs.collect()
    }

    /// Copies what has changed since the last time to where that was copied to, or else
    /// everything; whether all destinations have it.
    async fn copy_leg(
        &self,
        leg: &Leg,
        state: BTreeMap<Vap, Copied>,
    ) -> (BTreeMap<Vap, Copied>, bool) {
        let registry = self.shared.fabric.registry();
        let begun = Instant::now();
        let ready = leg.to.iter().filter_map(|to| {
            let session = registry.session(to.0)?;
            let has = self.shared.fabric.port_in_force(to.0, to.1) == Some(leg.port);
            has.then_some((*to, session))
        });
        let mut ready: BTreeMap<Vap, u64> = ready.collect();
        let within = ready.iter().map(|(to, session)| {
            let copied = state.get(to).filter(|copied| copied.session == *session)?;
            Some(copied.since.elapsed() + self.shared.timing.overlap)
        });
        // Those that have nothing yet get everything, and the others once more.
        let within = within
            .max_by_key(|within| within.unwrap_or(Duration::MAX))
            .flatten();
        if ready.is_empty() {
            return (state, leg.to.is_empty());
        }
        let tally = match self.copy_pages(leg, within, &mut ready).await {
            Ok(tally) => tally,
            Err(error) => {
                let (port, nve) = (leg.port, leg.from.0);
                tracing::debug!(%port, %nve, "what an NVE knows was not copied: it {error}");
                return (state, false);
            }
        };
        let is_whole = ready.len() == leg.to.len();
        let copied = ready.into_iter().map(|(to, session)| {
            let since = begun;
            (to, Copied { session, since })
        });
        tracing::debug!(
            port = %leg.port,
            from = %leg.from.0,
            to = leg.to.len(),
            connections = tally.connections,
            everything = within.is_none(),
            took = ?begun.elapsed(),
            "what an NVE knows was copied"
        );
        (copied.collect(), is_whole)
    }

    /// Copies page by page to those that are ready, and leaves out who fails to take it.
    async fn copy_pages(
        &self,
        leg: &Leg,
        within: Option<Duration>,
        ready: &mut BTreeMap<Vap, u64>,
    ) -> Result<Tally, AskError> {
        let within = within.map(|within| within.as_millis());
        let within_ms = within.map_or(u32::MAX, |ms| u32::try_from(ms).unwrap_or(u32::MAX));
        let mut all = Tally::default();
        let mut cursor = 0;
        for _ in 0..MAX_PAGES {
            let question = Question::Handover(Handover {
                place: place(leg.port, leg.from),
                cursor,
                within_ms,
            });
            let reply = self.ask(leg.from.0, question).await?;
            let mut known: Vec<Known> = reply.parts.iter().filter_map(known).collect();
            keep_levels(&mut known, cursor == 0);
            let sent = ready.keys().map(|to| self.send(leg.port, *to, &known));
            let failed: Vec<Vap> = join_all(sent).await.into_iter().flatten().collect();
            ready.retain(|to, _| !failed.contains(to));
            let tally = tally(leg, &known);
            all.connections += tally.connections;
            all.bytes += tally.bytes;
            cursor = reply.done.next;
            if !reply.done.more || cursor == 0 || ready.is_empty() {
                break;
            }
        }
        let mut progress = lock(self.progress);
        let copied = progress.copied.entry(leg.port).or_default();
        copied.connections += all.connections;
        copied.bytes += all.bytes;
        Ok(all)
    }

    async fn ask(&self, nve: Uuid, question: Question) -> Result<Reply, AskError> {
        let lane = self.shared.lane(nve);
        // It is never closed.
        let _turn = lane.acquire().await;
        self.shared.fabric.registry().ask(nve, question).await
    }

    /// Tells an NVE what another one knows; the VAP, if that failed.
    async fn send(&self, port: Uuid, to: Vap, known: &[Known]) -> Option<Vap> {
        let place = place(port, to);
        let told = known.iter().map(|known| TakeOver {
            place,
            known: *known,
        });
        let registry = self.shared.fabric.registry();
        let sent = timeout(SENT_WITHIN, registry.take_over(to.0, told.collect())).await;
        (!matches!(sent, Ok(Ok(())))).then_some(to)
    }
}

fn place(port: Uuid, (_, vlan): Vap) -> Place {
    let port = PortId(port.into_bytes());
    Place { vlan, port }
}

fn known(part: &Part) -> Option<Known> {
    match part {
        Part::Known(known) => Some(*known),
        _ => None,
    }
}

/// Keeps levels only on a first page, and one of each direction: each lowers a limit, so
/// that an NVE that repeats them could hold a VM up that has left it.
fn keep_levels(known: &mut Vec<Known>, is_first: bool) {
    let mut seen = Vec::new();
    known.retain(|known| match known {
        Known::Connection(_) => true,
        Known::Level(level) => {
            let is_new = is_first && !seen.contains(&level.direction);
            seen.push(level.direction);
            is_new
        }
    });
}

/// How much that is.
fn tally(leg: &Leg, known: &[Known]) -> Tally {
    let place = place(leg.port, leg.from);
    let mut room = [0; codec::MAX_MESSAGE];
    let mut tally = Tally::default();
    for known in known {
        tally.connections += u64::from(matches!(known, Known::Connection(_)));
        let known = *known;
        let message = ToNve::TakeOver(TakeOver { place, known });
        let length = codec::encode(&message, &mut room).unwrap_or_default();
        tally.bytes += length as u64;
    }
    tally
}
