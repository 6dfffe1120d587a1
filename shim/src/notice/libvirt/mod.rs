//! Back end for hypervisors with libvirt: one process follows any number of hosts.
//!
//! A thread per host ([`host`]) says what the host has of each VM; one thread combines
//! that into events ([`story`]), which are written down and told. Which events were told
//! last is known after a restart, so what happened meanwhile is told then.

mod api;
mod domain;
mod host;
mod identities;
mod inbox;
mod link;
mod port_groups;
mod story;
mod transition;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use uuid::Uuid;

pub use api::router;

use super::NoticeError;
use super::backend::{Backend, Feed};
use super::config::{Config, LibvirtConfig};
use super::ledger::{Ledger, Steps};
use super::store::{Owner, Store, StoreError};
use crate::events::types::{EventType, Inventory};
use host::{Follower, Said};
use identities::Identities;
use link::Link;
use port_groups::PortGroups;
use story::Story;

/// Before an event that could not be written down is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at whether hosts answer.
const WATCH: Duration = Duration::from_secs(5);
/// What hosts said and was not combined yet; they wait while there is more.
const BACKLOG: usize = 64;
/// Requests that may wait for hosts at a time.
const CALLS: usize = 16;

/// The hosts, their VMs and the events.
#[derive(Debug)]
pub struct Libvirt {
    ledger: Ledger,
    links: Arc<[Link]>,
    port_groups: Arc<PortGroups>,
    /// Of requests that wait for hosts.
    calls: Arc<Semaphore>,
}

impl Libvirt {
    /// Reads what was told last from `store`, and starts to follow the hosts, in threads
    /// that end with the process.
    ///
    /// # Errors
    /// When the state cannot be read, the configuration cannot be used, or there are no
    /// more threads.
    pub fn start(
        config: &Config,
        libvirt: &LibvirtConfig,
        store: Arc<Store>,
    ) -> Result<Arc<Self>, NoticeError> {
        libvirt.check()?;
        let links = libvirt.hosts.iter().cloned().map(Link::new).collect();
        let backend = Arc::new(Libvirt {
            ledger: Ledger::open(Owner::Libvirt, config, Arc::clone(&store))?,
            port_groups: Arc::new(PortGroups::open(libvirt, store)?),
            links,
            calls: Arc::new(Semaphore::new(CALLS)),
        });
        let (said, says) = mpsc::sync_channel(BACKLOG);
        let identities = Arc::<Mutex<Identities>>::default();
        for number in 0..backend.links.len() {
            let follower = Follower {
                links: Arc::clone(&backend.links),
                identities: Arc::clone(&identities),
                port_groups: Arc::clone(&backend.port_groups),
                number,
                said: said.clone(),
            };
            spawn(format!("libvirt {number}"), move || follower.run())?;
        }
        let teller = Arc::clone(&backend);
        spawn("libvirt story".to_owned(), move || teller.run(&says))?;
        Ok(backend)
    }

    /// Combines what hosts say, for ever.
    fn run(&self, says: &Receiver<Said>) {
        let start = Instant::now();
        let mut story = self
            .ledger
            .with_vms(|vms| Story::new(vms, self.links.len()));
        loop {
            let next = story.next().unwrap_or(Duration::MAX);
            let left = next.saturating_sub(start.elapsed()).min(WATCH);
            match says.recv_timeout(left) {
                Ok(said) => hear(&mut story, said, start.elapsed()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = start.elapsed();
            for (number, link) in self.links.iter().enumerate() {
                if link.fell_silent() {
                    tracing::warn!(uri = link.config.uri, "libvirt host: it does not answer");
                    story.lost(number, now);
                }
            }
            for (host, vm) in story.looks(now) {
                self.ask(host, vm);
            }
            for vm in story.due(now) {
                if let Err(error) = self.tell(&mut story, vm, now) {
                    tracing::error!(%vm, "an event is delayed: {error}");
                    story.again(vm, now + RETRY);
                }
            }
        }
    }

    fn ask(&self, host: Uuid, vm: Uuid) {
        let is_it = |link: &&Link| link.up().is_some_and(|up| up.host.uuid == host);
        for link in self.links.iter().filter(is_it) {
            link.inbox.look(vm);
        }
    }

    /// Tells what has become of a VM.
    fn tell(&self, story: &mut Story, vm: Uuid, now: Duration) -> Result<(), StoreError> {
        let told: Vec<EventType> = self.ledger.change::<_, StoreError>(|vms| {
            let steps: Steps = story.settle(vm, vms.get(&vm), now);
            for (kind, state) in &steps.events {
                let host = &state.host_name;
                tracing::info!(event = %kind, vm = state.vm_name, %host, "event");
            }
            let kinds = steps.events.iter().map(|(kind, _)| *kind).collect();
            Ok((kinds, steps))
        })?;
        story.told(vm, &told);
        Ok(())
    }
}

impl Backend for Libvirt {
    fn inventory(&self) -> Inventory {
        self.ledger.inventory()
    }

    fn follow(&self, after: Option<Uuid>) -> Feed {
        self.ledger.follow(after)
    }
}

fn hear(story: &mut Story, said: Said, now: Duration) {
    match said {
        Said::Listed(link, host, listing) => story.listed(link, host, listing, now),
        Said::Lost(link) => story.lost(link, now),
        Said::Seen(host, vm, causes, seen) => {
            for cause in causes {
                story.seen(host, vm, cause, seen.clone(), now);
            }
        }
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), NoticeError> {
    let spawned = thread::Builder::new().name(name).spawn(work);
    spawned.map(drop).map_err(NoticeError::Thread)
}

#[cfg(test)]
mod tests;
