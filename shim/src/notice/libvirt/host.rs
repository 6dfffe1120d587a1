//! Follows one host: connects, lists its VMs, looks at each that something happens to,
//! and connects again when the connection is lost. In a thread of its own, for calls of
//! libvirt block.
//!
//! What happened is never taken from an event: it is the reason to look.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sluice_libvirt::{Connection, Domain, Event, Found, Happening, Listener, Status};
use time::OffsetDateTime;
use uuid::Uuid;

use super::domain::{self, HostName, LONGEST_NAME, Malformed, Networks};
use super::identities::{Identities, Taken};
use super::port_groups::PortGroups;
use super::story::{Cause, Listing, Seen};
use crate::notice::config::LibvirtHost;

/// Between two listings of a host: what nobody told is noticed by then.
const RELIST: Duration = Duration::from_secs(30);
/// Before the first reconnect; doubles with each that fails.
const BACKOFF: Duration = Duration::from_millis(200);
/// The most before any reconnect.
const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// Why a connection ended, or was not made.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Libvirt(#[from] sluice_libvirt::Error),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("it calls itself {0:?}, which is no name: set name in its [[libvirt.hosts]]")]
    NoName(String),
    #[error("the connection is closed")]
    Closed,
    #[error("{0}")]
    Taken(#[from] Taken),
}

/// What a host says, as told to the thread that combines it.
#[derive(Debug)]
pub(super) enum Said {
    /// All VMs of the host with that UUID, which the link of that number is; it is up.
    Listed(usize, Uuid, Listing),
    /// Nothing more: the connection of that link is lost.
    Lost(usize),
    /// What the host with the first UUID has of the VM with the second.
    Seen(Uuid, Uuid, Cause, Option<Seen>),
}

/// What comes in to a host's thread.
#[derive(Debug)]
pub(super) enum Note {
    /// From the connection of that number.
    Event(u64, Event),
    /// Somebody wants to know what it has of that VM.
    Look(Uuid),
}

/// A host that is connected.
#[derive(Debug, Clone)]
pub(super) struct Up {
    /// The connection, good for any thread.
    pub connection: Arc<Connection>,
    /// What the host is called.
    pub host: HostName,
    /// Since when.
    pub since: OffsetDateTime,
}

/// A host as others see it.
#[derive(Debug)]
pub(super) struct Link {
    /// How it is reached.
    pub config: LibvirtHost,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    up: Option<Up>,
    last_error: Option<String>,
}

impl Link {
    pub(super) fn new(config: LibvirtHost) -> Self {
        let state = Mutex::default();
        Link { config, state }
    }

    /// The connection, while there is one.
    pub(super) fn up(&self) -> Option<Up> {
        self.lock().up.clone()
    }

    /// Why the last connection ended, or was not made.
    pub(super) fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a host's thread works with.
pub(super) struct Follower {
    /// All hosts, this one among them.
    pub links: Arc<[Link]>,
    /// What they are.
    pub identities: Arc<Mutex<Identities>>,
    /// What each of them is to have.
    pub port_groups: Arc<PortGroups>,
    /// Which of them it is.
    pub number: usize,
    /// For events of its connections.
    pub notes: Sender<Note>,
    /// Those, and what others want to know.
    pub inbox: Receiver<Note>,
    /// Where it all goes.
    pub said: Sender<Said>,
}

impl Follower {
    /// Follows the host for ever.
    pub(super) fn run(self) {
        let Some(link) = self.links.get(self.number) else {
            return;
        };
        let mut wait = BACKOFF;
        for connection in 0.. {
            let begun = Instant::now();
            let Err(ended) = self.connection(link, connection);
            if begun.elapsed() > BACKOFF_MOST {
                wait = BACKOFF;
            }
            tracing::warn!(uri = link.config.uri, "libvirt host: {ended}");
            let up = {
                let mut state = link.lock();
                state.last_error = Some(ended.to_string());
                state.up.take()
            };
            if up.is_some() {
                // Nobody to tell is the end of the process.
                let _ = self.said.send(Said::Lost(self.number));
            }
            // Jitter, so that hosts are not asked all at once.
            thread::sleep(wait.mul_f64(rand::random_range(0.5..1.0)));
            wait = (wait * 2).min(BACKOFF_MOST);
        }
    }

    fn connection(&self, link: &Link, number: u64) -> Result<Infallible, Ended> {
        let notes = self.notes.clone();
        let listener: Listener = Arc::new(move |event| {
            // Without a receiver nobody wants it.
            let _ = notes.send(Note::Event(number, event));
        });
        let connection = Arc::new(Connection::open(&link.config.uri, &listener)?);
        let name = match &link.config.name {
            Some(name) => name.clone(),
            None => host_name(&connection)?,
        };
        let uuid = domain::host_uuid(&name, &connection.capabilities()?)?;
        let host = HostName { name, uuid };
        let up = self.enter(link, connection, host)?;
        let host = &up.host;
        self.list(&up)?;
        tracing::info!(host = host.name, uri = link.config.uri, "following libvirt");
        let mut relist = Instant::now() + RELIST;
        loop {
            let left = relist.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Note::Event(from, _)) if from != number => {}
                Ok(Note::Event(_, Event::Closed)) => return Err(Ended::Closed),
                Ok(Note::Event(_, Event::Domain { uuid, what })) => {
                    tracing::debug!(host = host.name, vm = %uuid, ?what, "libvirt tells");
                    let cause = match what {
                        Happening::Arriving => Cause::Arriving,
                        Happening::Left => Cause::Left,
                        Happening::Changed => Cause::Other,
                    };
                    self.look(&up, uuid, cause)?;
                }
                Ok(Note::Look(uuid)) => self.look(&up, uuid, Cause::Look)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.list(&up)?;
                    relist = Instant::now() + RELIST;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Closed),
            }
        }
    }

    /// Lets others use the connection, unless another link is that host.
    fn enter(&self, link: &Link, connection: Arc<Connection>, host: HostName) -> Result<Up, Ended> {
        let identities = self.identities.lock();
        identities
            .unwrap_or_else(PoisonError::into_inner)
            .claim(self.number, &host)?;
        let up = Up {
            connection,
            host,
            since: OffsetDateTime::now_utc(),
        };
        let mut state = link.lock();
        state.last_error = None;
        state.up = Some(up.clone());
        Ok(up)
    }

    /// Says which VMs the host has, and has it given the port groups that it lacks.
    fn list(&self, up: &Up) -> Result<(), Ended> {
        let mut networks = self.networks();
        let mut listing = Listing::default();
        for (uuid, found) in up.connection.domains()? {
            match see(up, found, &mut networks)? {
                Look::Unreadable => listing.unreadable.push(uuid),
                Look::Has(seen) => listing.seen.extend(seen),
            }
        }
        // Nobody to tell is the end of the process.
        let _ = self.said.send(Said::Listed(self.number, up.host.uuid, listing));
        self.port_groups.reconcile(up);
        Ok(())
    }

    /// None is known yet.
    fn networks(&self) -> Networks {
        Networks::new(self.port_groups.network())
    }

    fn look(&self, up: &Up, uuid: Uuid, cause: Cause) -> Result<(), Ended> {
        let found = up.connection.domain(uuid);
        let Look::Has(seen) = see(up, found, &mut self.networks())? else {
            // As it was.
            return Ok(());
        };
        let host = &up.host;
        let is = seen
            .as_ref()
            .map(|seen| (seen.vm.vm_status, seen.migrating));
        tracing::debug!(host = host.name, vm = %uuid, ?is, "libvirt has");
        let _ = self.said.send(Said::Seen(host.uuid, uuid, cause, seen));
        Ok(())
    }
}

/// What the host calls itself.
fn host_name(connection: &Connection) -> Result<String, Ended> {
    let name = connection.host_name()?;
    let is_name = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(char::is_control);
    match is_name {
        true => Ok(name),
        false => Err(Ended::NoName(sluice_libvirt::one_line(&name))),
    }
}

/// What came of looking at a domain.
enum Look {
    /// What the host has, if it has it.
    Has(Option<Seen>),
    /// What it is cannot be said.
    Unreadable,
}

/// The domain as TABLE II has it. What cannot be said of it is told in a warning, and ends
/// nothing, unless the connection has failed with it.
fn see(up: &Up, found: Found, networks: &mut Networks) -> Result<Look, Ended> {
    match read(up, found, networks) {
        Ok(seen) => Ok(Look::Has(seen)),
        Err(Ended::Libvirt(error)) if !up.connection.is_alive() => Err(error.into()),
        Err(error) => {
            tracing::warn!(host = up.host.name, "a VM stays as it was: {error}");
            Ok(Look::Unreadable)
        }
    }
}

fn read(up: &Up, found: Found, networks: &mut Networks) -> Result<Option<Seen>, Ended> {
    let Some(domain) = found? else {
        return Ok(None);
    };
    learn(&up.connection, &domain, networks)?;
    Ok(Some(Seen {
        vm: domain::vm(&domain, &up.host, networks)?,
        migrating: domain.status == Status::Migrating,
    }))
}

/// Adds the networks of a domain to those that are known.
fn learn(connection: &Connection, domain: &Domain, networks: &mut Networks) -> Result<(), Ended> {
    for name in domain::networks_of(&domain.xml)? {
        if networks.known.contains_key(&name) {
            continue;
        }
        let groups = match connection.network(&name)? {
            None => Default::default(),
            Some(xml) => domain::port_groups(&name, &xml)?,
        };
        networks.known.insert(name, groups);
    }
    Ok(())
}
