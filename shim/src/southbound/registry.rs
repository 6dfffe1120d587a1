//! What is known of each NVE at run time: its session, what it has applied, what
//! it reports. Nothing of it is durable.
//!
//! Invariants: an NVE has at most one session, the newest; a session that was
//! replaced changes nothing any more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nve_protocol::{Hello, Refused, Stats, TableDigest, TableSizes};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::inquiry::{Desk, Line};
use super::rejection::{Rejection, Rejections};
use super::take_over::{self, Slot, Tray};
use crate::compile::NveTables;

/// The connection of an NVE.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The appliance's end.
    pub address: SocketAddr,
    /// Round trip of the last ping in microseconds.
    pub ping_us: Option<u64>,
}

/// What an NVE said of itself in its last hello.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// Version of the image.
    pub version: String,
    /// Microseconds from the start of the image to its poll loop.
    pub boot_us: u64,
    /// What fits into its tables.
    pub capacity: TableSizes,
}

/// The last transaction that an NVE applied.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LastApplied {
    /// When the acknowledgement came.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Microseconds that the commit took on the appliance.
    pub apply_us: u64,
    /// Microseconds from `begin` to the end of the commit on the appliance.
    pub total_us: u64,
    /// Microseconds from sending `begin` to the acknowledgement.
    pub round_trip_us: u64,
    /// Whether it was a full state.
    pub full: bool,
}

/// The last counters that an NVE reported.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LastStats {
    /// When they came.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The counters.
    pub stats: Stats,
}

/// The last transaction that an NVE refused.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LastRefused {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Which, and why.
    pub refused: Refused,
}

/// How often what happened with an NVE since the shim started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sessions that got as far as hello.
    pub sessions: u64,
    /// Sessions at whose start the NVE had the tables already.
    pub syncs_skipped: u64,
    /// Full states applied.
    pub syncs_full: u64,
    /// Changes applied.
    pub syncs_incremental: u64,
    /// Transactions refused.
    pub refused: u64,
}

/// What is known of an NVE.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NveStatus {
    /// Its connection, if it has one.
    pub connection: Option<Connection>,
    /// Its image, once it has connected.
    pub image: Option<Image>,
    /// Generation of the tables in force.
    pub generation: u64,
    /// Digest of the tables in force.
    pub digest: TableDigest,
    /// Whether these are the tables that it should have.
    pub in_sync: bool,
    /// Microseconds from the last connection to the first time in sync.
    pub connect_to_applied_us: Option<u64>,
    /// The last transaction applied.
    pub last_applied: Option<LastApplied>,
    /// The last transaction refused.
    pub last_refused: Option<LastRefused>,
    /// The last counters.
    pub last_stats: Option<LastStats>,
    /// How often what happened.
    pub counts: Counts,
}

/// Run-time state of all NVEs; shared between the sessions and their watchers.
#[derive(Debug, Default)]
pub struct Registry {
    nves: Mutex<BTreeMap<Uuid, Entry>>,
    rejections: Rejections,
    /// Sessions begun; numbers them, also those of an NVE that was removed meanwhile.
    sessions: AtomicU64,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entry {
    status: NveStatus,
    acked: watch::Sender<Option<Arc<NveTables>>>,
    /// Tables that the NVE may have: applied last, and sent last.
    known: [Option<Arc<NveTables>>; 2],
    /// Dropped to end the session.
    end: Option<oneshot::Sender<()>>,
    /// Where the session takes questions.
    line: Option<Line>,
    /// Where the session takes what other NVEs knew.
    slot: Option<Slot>,
    session: u64,
}

/// What a session begins with.
pub(super) struct Started {
    pub(super) entry: SessionEntry,
    /// Says when to end.
    pub(super) ended: oneshot::Receiver<()>,
    /// Tables that the NVE may have.
    pub(super) known: Vec<Arc<NveTables>>,
    pub(super) desk: Desk,
    pub(super) tray: Tray,
}

impl Registry {
    /// Without any NVE.
    pub fn new() -> Self {
        Registry::default()
    }

    /// State of one NVE; `None` if it has never connected.
    pub fn status(&self, nve: Uuid) -> Option<NveStatus> {
        self.lock().get(&nve).map(|entry| entry.status.clone())
    }

    /// State of every NVE that has connected.
    pub fn statuses(&self) -> Vec<(Uuid, NveStatus)> {
        let nves = self.lock();
        let statuses = nves.iter().map(|(id, entry)| (*id, entry.status.clone()));
        statuses.collect()
    }

    /// The tables that an NVE has in force, as it acknowledged them; `None` as
    /// long as that is not known. An NVE that is not connected keeps its tables.
    pub fn acked(&self, nve: Uuid) -> watch::Receiver<Option<Arc<NveTables>>> {
        let mut nves = self.lock();
        nves.entry(nve).or_default().acked.subscribe()
    }

    /// Counts changes of any NVE's state, counters apart.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Connections that were refused, by reason.
    pub fn rejections(&self) -> impl Iterator<Item = (Rejection, u64)> {
        self.rejections.counts()
    }

    /// Ends an NVE's session, if it has one; it may come back at once.
    pub fn disconnect(&self, nve: Uuid) {
        if let Some(entry) = self.lock().get_mut(&nve) {
            entry.end = None;
        }
    }

    /// Ends an NVE's session and forgets the NVE.
    pub fn remove(&self, nve: Uuid) {
        self.lock().remove(&nve);
        self.changed();
    }

    pub(super) fn reject(&self, reason: Rejection) {
        self.rejections.count(reason);
    }

    /// As if the NVE had acknowledged these tables.
    #[cfg(test)]
    pub(crate) fn acknowledge(&self, nve: Uuid, tables: Arc<NveTables>) {
        set_acked(self.lock().entry(nve).or_default(), Some(tables));
    }

    /// Starts the session of an NVE that has said hello, in place of an earlier
    /// one.
    pub(super) fn start(
        self: &Arc<Self>,
        nve: Uuid,
        address: SocketAddr,
        hello: &Hello,
    ) -> Started {
        let (end, ended) = oneshot::channel();
        let (line, desk) = Desk::new();
        let (slot, tray) = take_over::channel();
        let mut nves = self.lock();
        let entry = nves.entry(nve).or_default();
        entry.end = Some(end);
        entry.line = Some(line);
        entry.slot = Some(slot);
        entry.session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let status = &mut entry.status;
        status.connection = Some(Connection {
            since: OffsetDateTime::now_utc(),
            address,
            ping_us: None,
        });
        status.image = Some(Image {
            version: hello.version.as_str().to_owned(),
            boot_us: hello.boot_us,
            capacity: hello.capacity,
        });
        status.generation = hello.generation;
        status.digest = hello.digest;
        status.in_sync = false;
        status.connect_to_applied_us = None;
        status.counts.sessions += 1;
        let handle = SessionEntry {
            registry: Arc::clone(self),
            nve,
            session: entry.session,
        };
        let known = entry.known.iter().flatten().cloned().collect();
        drop(nves);
        self.changed();
        Started {
            entry: handle,
            ended,
            known,
            desk,
            tray,
        }
    }

    /// Where to ask an NVE; `None` if it has no session.
    pub(super) fn line(&self, nve: Uuid) -> Option<Line> {
        self.lock().get(&nve)?.line.clone()
    }

    /// Where to put what an NVE is to take over; `None` if it has no session.
    pub(super) fn slot(&self, nve: Uuid) -> Option<Slot> {
        self.lock().get(&nve)?.slot.clone()
    }

    /// The number of an NVE's session; `None` if it has none.
    pub fn session(&self, nve: Uuid) -> Option<u64> {
        let nves = self.lock();
        let entry = nves.get(&nve)?;
        entry.status.connection.as_ref().map(|_| entry.session)
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A panic elsewhere leaves nothing half done here.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        self.nves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's access to its NVE's state; disconnects it when dropped.
pub(super) struct SessionEntry {
    registry: Arc<Registry>,
    nve: Uuid,
    session: u64,
}

impl SessionEntry {
    /// The session begins with these tables in force, if they are known.
    pub(super) fn set_held(&self, tables: Option<Arc<NveTables>>) {
        self.with(|entry| set_acked(entry, tables));
    }

    /// The NVE is found to have the tables that it should.
    pub(super) fn in_sync(&self, tables: Arc<NveTables>, skipped: bool, since: Duration) {
        self.with(|entry| {
            entry.status.counts.syncs_skipped += u64::from(skipped);
            mark_in_sync(&mut entry.status, since);
            entry.known = [Some(Arc::clone(&tables)), None];
            set_acked(entry, Some(tables));
        });
        self.registry.changed();
    }

    /// These tables are on their way.
    pub(super) fn sending(&self, tables: Arc<NveTables>) {
        self.with(|entry| {
            entry.status.in_sync = false;
            let [_, sent] = &mut entry.known;
            *sent = Some(tables);
        });
        self.registry.changed();
    }

    /// A transaction was applied, `since` the connection began.
    pub(super) fn applied(
        &self,
        generation: u64,
        tables: Arc<NveTables>,
        applied: LastApplied,
        since: Duration,
    ) {
        self.with(|entry| {
            let status = &mut entry.status;
            status.generation = generation;
            status.digest = tables.digest();
            status.last_applied = Some(applied);
            match applied.full {
                true => status.counts.syncs_full += 1,
                false => status.counts.syncs_incremental += 1,
            }
            status.connect_to_applied_us.get_or_insert(micros(since));
            entry.known = [Some(Arc::clone(&tables)), None];
            set_acked(entry, Some(tables));
        });
        self.registry.changed();
    }

    /// A transaction was refused.
    pub(super) fn refused(&self, refused: Refused) {
        self.with(|entry| {
            entry.status.counts.refused += 1;
            entry.status.last_refused = Some(LastRefused {
                at: OffsetDateTime::now_utc(),
                refused,
            });
        });
        self.registry.changed();
    }

    /// Counters came.
    pub(super) fn stats(&self, stats: Stats) {
        let at = OffsetDateTime::now_utc();
        self.with(|entry| entry.status.last_stats = Some(LastStats { at, stats }));
    }

    /// A ping was answered.
    pub(super) fn ping(&self, round_trip: Duration) {
        self.with(|entry| {
            if let Some(connection) = &mut entry.status.connection {
                connection.ping_us = Some(micros(round_trip));
            }
        });
    }

    fn with(&self, change: impl FnOnce(&mut Entry)) {
        let mut nves = self.registry.lock();
        let entry = nves.get_mut(&self.nve);
        if let Some(entry) = entry.filter(|entry| entry.session == self.session) {
            change(entry);
        }
    }
}

impl Drop for SessionEntry {
    fn drop(&mut self) {
        self.with(|entry| {
            entry.status.connection = None;
            entry.status.in_sync = false;
            entry.end = None;
            entry.line = None;
            entry.slot = None;
        });
        self.registry.changed();
    }
}

fn mark_in_sync(status: &mut NveStatus, since: Duration) {
    status.in_sync = true;
    status.connect_to_applied_us.get_or_insert(micros(since));
}

fn set_acked(entry: &mut Entry, tables: Option<Arc<NveTables>>) {
    entry.acked.send_if_modified(|acked| {
        let same = match (acked.as_ref(), tables.as_ref()) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        *acked = tables;
        !same
    });
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
