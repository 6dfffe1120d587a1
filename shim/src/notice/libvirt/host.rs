//! Follows one host: connects, lists its VMs, looks at each that something happens to,
//! and connects again when the connection is lost. In a thread of its own, for calls of
//! libvirt block.
//!
//! What happened is never taken from an event: it is the reason to look.

use std::convert::Infallible;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sluice_libvirt::{Connection, Domain, Found, Listener, Status};
use time::OffsetDateTime;
use uuid::Uuid;

use super::domain::{self, HostName, LONGEST_NAME, Malformed, Networks};
use super::identities::{Identities, Taken};
use super::inbox::Next;
use super::link::{Link, Up};
use super::port_groups::PortGroups;
use super::story::{Cause, Listing, Seen};

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
    /// What the host with the first UUID has of the VM with the second, and what made it
    /// say so, the latest last.
    Seen(Uuid, Uuid, Vec<Cause>, Option<Seen>),
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
    /// Where it all goes; waits while that is full.
    pub said: SyncSender<Said>,
}

impl Follower {
    /// Follows the host for ever.
    pub(super) fn run(self) {
        let Some(link) = self.links.get(self.number) else {
            return;
        };
        let mut wait = BACKOFF;
        for connection in 1.. {
            let begun = Instant::now();
            let Err(ended) = self.connection(link, connection);
            if begun.elapsed() > BACKOFF_MOST {
                wait = BACKOFF;
            }
            tracing::warn!(uri = link.config.uri, "libvirt host: {ended}");
            if let Some(up) = link.end(ended.to_string()) {
                // Nobody to tell is the end of the process.
                let _ = self.said.send(Said::Lost(self.number));
                // Which may take long, so it comes last.
                drop(up);
            }
            // Jitter, so that hosts are not asked all at once.
            thread::sleep(wait.mul_f64(rand::random_range(0.5..1.0)));
            wait = (wait * 2).min(BACKOFF_MOST);
        }
    }

    fn connection(&self, link: &Link, number: u64) -> Result<Infallible, Ended> {
        link.inbox.begin(number);
        let inbox = Arc::clone(&link.inbox);
        let listener: Listener = Arc::new(move |event| inbox.put(number, event));
        let connection = Arc::new(Connection::open(&link.config.uri, &listener)?);
        let name = match &link.config.name {
            Some(name) => name.clone(),
            None => host_name(&connection)?,
        };
        let uuid = domain::host_uuid(&name, &connection.capabilities()?)?;
        let host = HostName { name, uuid };
        let up = self.enter(link, connection, host)?;
        let mut relist = self.list(link, &up)?;
        let host = &up.host.name;
        tracing::info!(host, uri = link.config.uri, "following libvirt");
        loop {
            match link.inbox.take(relist) {
                Next::Closed => return Err(Ended::Closed),
                Next::Look(uuid, causes) => self.look(link, &up, uuid, causes)?,
                Next::List => relist = self.list(link, &up)?,
            }
            if link.went_on() {
                tracing::info!(host, "libvirt host: it answers again");
                relist = self.list(link, &up)?;
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
        link.begin(up.clone());
        Ok(up)
    }

    /// Says which VMs the host has, and has it given the port groups that it lacks.
    /// Returns when to do so again.
    fn list(&self, link: &Link, up: &Up) -> Result<Instant, Ended> {
        let mut networks = self.networks();
        let mut listing = Listing::default();
        let mut domains = link.call(|| up.connection.domains())?;
        while let Some((uuid, found)) = link.call(|| domains.next()) {
            match link.call(|| see(up, found, &mut networks))? {
                Look::Unreadable => listing.unreadable.push(uuid),
                Look::Has(seen) => listing.seen.extend(seen),
            }
        }
        // Nobody to tell is the end of the process.
        let said = Said::Listed(self.number, up.host.uuid, listing);
        let _ = self.said.send(said);
        let is_done = self.port_groups.reconcile(link, up);
        // Events that came meanwhile are first.
        let pause = if is_done { RELIST } else { Duration::ZERO };
        Ok(Instant::now() + pause)
    }

    /// None is known yet.
    fn networks(&self) -> Networks {
        Networks::new(self.port_groups.network())
    }

    fn look(&self, link: &Link, up: &Up, uuid: Uuid, causes: Vec<Cause>) -> Result<(), Ended> {
        let host = &up.host;
        if causes != [Cause::Look] {
            tracing::debug!(host = host.name, vm = %uuid, ?causes, "libvirt tells");
        }
        let look = || see(up, up.connection.domain(uuid), &mut self.networks());
        let Look::Has(seen) = link.call(look)? else {
            // As it was.
            return Ok(());
        };
        let is = seen
            .as_ref()
            .map(|seen| (seen.vm.vm_status, seen.migrating));
        tracing::debug!(host = host.name, vm = %uuid, ?is, "libvirt has");
        let _ = self.said.send(Said::Seen(host.uuid, uuid, causes, seen));
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
