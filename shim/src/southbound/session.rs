//! The session of one NVE, from its welcome to its end: one task that reads,
//! writes and follows the wanted tables at once, so that neither direction waits
//! for the other.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nve_protocol::frame::{MAX_ACCEPTED, MAX_PLAINTEXT};
use nve_protocol::inspect::Place;
use nve_protocol::{API_VERSION, Applied, PortId, Refused, ToShim, Vlan, Welcome, codec};
use snow::TransportState;
use time::OffsetDateTime;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::admit::Admitted;
use super::inquiry::{Desk, Inquiry, Unasked};
use super::listener::Shared;
use super::registry::{LastApplied, SessionEntry, Started, micros};
use super::sending::Sending;
use super::sync::{Step, Sync, SyncError};
use super::wire::{FrameReader, FrameWriter, WireError};
use super::{Config, Noting, NveDirectory, NveIdentity};
use crate::compile::NveTables;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the NVE connected again, or was told to")]
    Replaced,
    #[error("the NVE was removed")]
    Removed,
    #[error("nothing heard for {0:?}")]
    Dead(Duration),
    #[error("a message that is none of this protocol version, or out of order")]
    Protocol,
    #[error("a message failed its authentication")]
    NotAuthentic,
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<snow::Error> for End {
    fn from(_: snow::Error) -> Self {
        End::NotAuthentic
    }
}

impl From<Unasked> for End {
    fn from(_: Unasked) -> Self {
        End::Protocol
    }
}

/// An NVE's session.
pub(super) struct Session {
    nve: NveIdentity,
    config: Config,
    connected: Instant,
    ended: oneshot::Receiver<()>,
    desired: Option<watch::Receiver<Arc<NveTables>>>,
    directory: Arc<dyn NveDirectory>,
    link: Link,
    state: State,
    /// The VM of which is being taken note.
    noting: Option<Noting>,
}

/// The connection.
struct Link {
    reader: FrameReader<OwnedReadHalf>,
    writer: FrameWriter<OwnedWriteHalf>,
    noise: TransportState,
    plain: Box<[u8]>,
}

/// What follows from the messages.
struct State {
    entry: SessionEntry,
    sync: Sync,
    desk: Desk,
    sending: Sending,
    /// Where VMs were heard that were not there before, to be taken note of one by one;
    /// no more than there are tags.
    awake: BTreeMap<Vlan, PortId>,
    /// Whether the transaction on its way is a full state.
    full: bool,
    /// Whether nothing has been sent or found out about the tables yet.
    first: bool,
    heard: Instant,
    next_ping: Instant,
    ping: Ping,
}

/// The ping that was sent last.
struct Ping {
    number: u64,
    sent: Instant,
}

impl Session {
    /// Takes the NVE's place in the registry.
    pub(super) fn start(
        shared: &Shared,
        admitted: Admitted,
        address: SocketAddr,
        connected: Instant,
    ) -> Self {
        let Admitted {
            nve,
            hello,
            noise,
            reader,
            writer,
        } = admitted;
        let Started {
            entry,
            ended,
            known,
            desk,
            tray,
        } = shared.registry.start(nve.id, address, &hello);
        let sync = Sync::new(hello.generation, hello.digest, &known);
        entry.set_held(sync.held().cloned());
        let now = Instant::now();
        Session {
            config: shared.config,
            connected,
            ended,
            desired: shared.directory.desired(nve.id),
            directory: Arc::clone(&shared.directory),
            noting: None,
            nve,
            link: Link {
                reader,
                writer,
                noise,
                plain: vec![0; MAX_PLAINTEXT].into_boxed_slice(),
            },
            state: State {
                entry,
                sync,
                desk,
                sending: Sending::new(welcome(&shared.config), tray),
                awake: BTreeMap::new(),
                full: false,
                first: true,
                heard: now,
                next_ping: now + shared.config.ping_interval,
                ping: Ping {
                    number: 0,
                    sent: now,
                },
            },
        }
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self) -> End {
        let Some(mut desired) = self.desired.take() else {
            return End::Removed;
        };
        loop {
            if let Err(end) = self.turn(&mut desired).await {
                return end;
            }
        }
    }

    /// Sends what there is to send and handles one thing that happens.
    async fn turn(&mut self, desired: &mut watch::Receiver<Arc<NveTables>>) -> Result<(), End> {
        let wanted = Arc::clone(&desired.borrow());
        self.state.follow(&wanted, self.connected)?;
        self.note();
        let link = &mut self.link;
        link.writer.fill(&mut link.noise, &mut self.state.sending)?;
        let unsent = !link.writer.is_empty();
        let idle = self.state.desk.is_idle();
        let wake_at = self.state.wake_at(&self.config);
        tokio::select! {
            _ = &mut self.ended => Err(End::Replaced),
            changed = desired.changed() => changed.map_err(|_| End::Removed),
            sent = link.writer.send_some(), if unsent => sent.map_err(|error| End::Wire(error.into())),
            sealed = link.reader.next(MAX_ACCEPTED) => {
                let length = link.noise.read_message(sealed?, &mut link.plain)?;
                let plain = link.plain.get(..length).unwrap_or_default();
                self.state.receive(plain, &self.nve, self.connected)
            }
            () = self.state.sending.receive() => Ok(()),
            () = noted(&mut self.noting) => Ok(()),
            inquiry = self.state.desk.next(), if idle => {
                self.state.ask(inquiry);
                Ok(())
            }
            () = sleep_until(wake_at) => self.state.tick(&self.config),
        }
    }
}

impl Session {
    /// Has the next VM taken note of that was heard.
    fn note(&mut self) {
        if self.noting.is_none()
            && let Some((vlan, port)) = self.state.awake.pop_first()
        {
            let place = Place { vlan, port };
            self.noting = Some(self.directory.awake(self.nve.id, place));
        }
    }
}

/// Waits until note has been taken. The future can be dropped and called again without
/// loss.
async fn noted(noting: &mut Option<Noting>) {
    match noting {
        Some(future) => future.await,
        None => pending().await,
    }
    *noting = None;
}

impl State {
    /// Sends `wanted` if it is time to.
    fn follow(&mut self, wanted: &Arc<NveTables>, connected: Instant) -> Result<(), End> {
        let now = Instant::now();
        match self.sync.next(wanted, now)? {
            Step::Nothing => return Ok(()),
            Step::InSync(tables) => {
                let since = now.duration_since(connected);
                self.entry.in_sync(tables, self.first, since);
            }
            Step::Send { push, full } => {
                self.sending.push = Some(push);
                self.full = full;
                self.entry.sending(Arc::clone(wanted));
            }
        }
        self.first = false;
        Ok(())
    }

    fn receive(
        &mut self,
        mut plain: &[u8],
        nve: &NveIdentity,
        connected: Instant,
    ) -> Result<(), End> {
        self.heard = Instant::now();
        while let Some((message, rest)) = codec::decode(plain).map_err(|_| End::Protocol)? {
            plain = rest;
            match message {
                ToShim::Hello(_) => return Err(End::Protocol),
                ToShim::Applied(applied) => self.applied(&applied, nve, connected)?,
                ToShim::Refused(refused) => self.refused(refused, nve)?,
                ToShim::Stats(stats) => self.entry.stats(stats),
                ToShim::Pong(number) if number == self.ping.number => {
                    self.entry.ping(self.heard.duration_since(self.ping.sent));
                }
                ToShim::Pong(_) => {}
                ToShim::Answer(answer) => self.desk.answered(answer)?,
                ToShim::Awake(Place { vlan, port }) => {
                    self.awake.insert(vlan, port);
                }
            }
        }
        Ok(())
    }

    fn applied(
        &mut self,
        applied: &Applied,
        nve: &NveIdentity,
        connected: Instant,
    ) -> Result<(), End> {
        let now = self.heard;
        let (round_trip, tables) = self.sync.applied(applied, now)?;
        self.sending.push = None;
        let last = LastApplied {
            at: OffsetDateTime::now_utc(),
            apply_us: applied.apply_us,
            total_us: applied.total_us,
            round_trip_us: micros(round_trip),
            full: self.full,
        };
        debug!(
            nve = nve.name,
            generation = applied.generation,
            full = last.full,
            ?round_trip,
            "applied"
        );
        self.entry.applied(
            applied.generation,
            tables,
            last,
            now.duration_since(connected),
        );
        Ok(())
    }

    /// The rest of a refused transaction is not sent. A message of it that waits
    /// in the writer is passed over by the NVE, like all until the next `begin`.
    fn refused(&mut self, refused: Refused, nve: &NveIdentity) -> Result<(), End> {
        self.sync.refused(&refused, self.heard)?;
        self.sending.push = None;
        warn!(nve = nve.name, generation = refused.generation, full = self.full, reason = ?refused.reason, "refused");
        self.entry.refused(refused);
        Ok(())
    }

    fn ask(&mut self, inquiry: Inquiry) {
        self.sending.ask = self.desk.open(inquiry, Instant::now());
    }

    fn wake_at(&self, config: &Config) -> Instant {
        let dead_at = self.heard + config.dead_after;
        let others = [self.sync.retry_at(), self.desk.until()];
        let at = dead_at.min(self.next_ping);
        others.into_iter().flatten().fold(at, Instant::min)
    }

    fn tick(&mut self, config: &Config) -> Result<(), End> {
        let now = Instant::now();
        if now >= self.heard + config.dead_after {
            return Err(End::Dead(config.dead_after));
        }
        if now >= self.next_ping {
            self.ping = Ping {
                number: self.ping.number.wrapping_add(1),
                sent: now,
            };
            self.sending.ping = Some(self.ping.number);
            self.next_ping = now + config.ping_interval;
        }
        if self.desk.expire(now) {
            // It may not even have been sent.
            self.sending.ask = None;
        }
        Ok(())
    }
}

fn welcome(config: &Config) -> Welcome {
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    Welcome {
        api_version: API_VERSION,
        stats_interval_ms: millis(config.stats_interval),
        dead_after_ms: millis(config.dead_after),
    }
}
