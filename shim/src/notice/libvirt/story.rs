//! What several hosts say, combined into one story of each VM.
//!
//! Hosts do not agree with each other at every moment: a VM that migrates is on two of
//! them, for a while on none, and what they say arrives in any order. So nothing is made
//! of an event alone. Each says anew what a VM is on a host (a [`Sighting`]); the story
//! decides on which host it *is*, and [`transition`](super::transition) tells what
//! leads there from what was told last. What an event tells beyond that is kept with
//! the sighting: that the VM is yet to arrive, or has left.
//!
//! | hosts say | the story |
//! |---|---|
//! | destination `Started Migrated` | livemigratetestart, with the destination |
//! | destination runs it (`Resumed Migrated`) | livemigratefinish; the source has it no more, whatever it says |
//! | source `Stopped Migrated`, destination still `Started Migrated` | livemigratefinish |
//! | destination `Stopped Failed` | livemigratefinish with the source as host |
//! | stopped or saved on one, started, restored or defined on another | coldmigrateteststart, coldmigratetestfinish, vmpoweron if it runs |
//! | runs on a host, and the one where it ran is lost | hafinish |
//! | source `Stopped Migrated`, and no destination for [`GRACE`], or [`AWAY`] while a host is down | as the source says |
//! | no host has it, for [`GRACE`], or [`AWAY`] while a host is down | vmdeleted |
//!
//! No I/O and no clock: time is an argument, counted from the start of the process.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::transition::{self, Journey};
use crate::events::types::{EventType, VmState, VmStatus};
use crate::notice::ledger::{Steps, Vms};

/// How long a VM that no host has may take to appear on another.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// The same while a host is down, which may have it.
const AWAY: Duration = Duration::from_secs(120);
/// The longest that a VM may be on its way to a host that does not say more. Memory of
/// a terabyte takes some minutes.
const MIGRATION: Duration = Duration::from_secs(3600);
/// How long, from the start, to wait for a host that has not been heard of before it is
/// believed to be down.
const START_GRACE: Duration = Duration::from_secs(30);
/// When to look again at what a host has of a VM that others have too: libvirt tells
/// nothing when the source forgets a VM that migrated.
const LOOKS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// A VM as one host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The VM; its host is this one. Paused for a migration, it counts as running.
    pub vm: VmState,
    /// It is paused for a migration, in or out.
    pub migrating: bool,
}

/// All that one host has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Its VMs.
    pub seen: Vec<Seen>,
    /// VMs that it has too, though what they are cannot be said: they are as they were.
    pub unreadable: Vec<Uuid>,
}

/// What made a host say something of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// `Started Migrated`: it is about to arrive.
    Arriving,
    /// `Stopped Migrated`: it has left.
    Left,
    /// Any other event.
    Other,
    /// Nothing: it was looked at.
    Look,
}

/// What is known of a host and its VMs.
#[derive(Debug, Default)]
struct Host {
    /// Its connection is up.
    up: bool,
    vms: BTreeMap<Uuid, Sighting>,
}

#[derive(Debug, Clone)]
struct Sighting {
    vm: VmState,
    /// It is not here yet.
    arriving: bool,
    /// It is here no more, though the host did not say so yet.
    left: bool,
}

/// How long a VM is about to arrive.
#[derive(Debug, Clone, Copy)]
struct Underway {
    since: Duration,
    /// Since when its home does not run it, if it does not.
    idle: Option<Duration>,
    /// It took too long, and is not believed any more.
    over: bool,
}

/// The story of all VMs.
#[derive(Debug)]
pub(super) struct Story {
    /// By host UUID.
    hosts: BTreeMap<Uuid, Host>,
    /// How many hosts there are to be.
    expected: usize,
    /// Those that were up once, by the number of their link.
    heard: BTreeMap<usize, Uuid>,
    /// VMs whose live migration was told, with the destination.
    moving: BTreeMap<Uuid, Uuid>,
    /// VMs that are on no host, since when.
    absent: BTreeMap<Uuid, Duration>,
    /// VMs that are about to arrive elsewhere.
    underway: BTreeMap<Uuid, Underway>,
    /// VMs that left a host for one that has not said so yet, since when.
    leaving: BTreeMap<Uuid, (Uuid, Duration)>,
    /// VMs to decide on, and when.
    due: BTreeMap<Uuid, Duration>,
    /// Hosts to be asked of a VM, when, and how many times they were.
    looks: BTreeMap<(Uuid, Uuid), (Duration, usize)>,
}

impl Story {
    /// A story of `expected` hosts that goes on from what was told.
    pub fn new(told: &Vms, expected: usize) -> Self {
        let mut hosts: BTreeMap<Uuid, Host> = BTreeMap::new();
        for vm in told.values() {
            let host = hosts.entry(vm.host_uuid).or_default();
            host.vms.insert(vm.vm_uuid, Sighting::of(vm.clone()));
        }
        Story {
            hosts,
            expected,
            heard: BTreeMap::new(),
            moving: BTreeMap::new(),
            absent: BTreeMap::new(),
            underway: BTreeMap::new(),
            leaving: BTreeMap::new(),
            due: BTreeMap::new(),
            looks: BTreeMap::new(),
        }
    }

    /// The host of that link is up, or was listed again: these are its VMs.
    pub fn listed(&mut self, link: usize, host: Uuid, listing: Listing, now: Duration) {
        if let Some(old) = self.heard.insert(link, host)
            && !self.is_heard(old)
        {
            // It was set up anew, and is that one no more.
            self.forget(old, now);
        }
        let mut before = std::mem::take(&mut self.hosts.entry(host).or_default().vms);
        self.host(host).up = true;
        for vm in listing.unreadable {
            if let Some(old) = before.remove(&vm) {
                self.host(host).vms.insert(vm, old);
            }
        }
        for seen in listing.seen {
            let vm = seen.vm.vm_uuid;
            if let Some(old) = before.remove(&vm) {
                self.host(host).vms.insert(vm, old);
            }
            self.seen(host, vm, Cause::Look, Some(seen), now);
        }
        for vm in before.into_keys() {
            self.decide(vm, now);
        }
        if self.heard.len() >= self.expected {
            self.forget_unheard(now);
        }
        if self.patience() < AWAY {
            // Nobody is waited for any longer.
            let waiting = self.absent.keys().chain(self.leaving.keys());
            let waiting: Vec<Uuid> = waiting.copied().collect();
            waiting.into_iter().for_each(|vm| self.decide(vm, now));
        }
    }

    /// Hosts that VMs were told to be on and that are not there any more.
    fn forget_unheard(&mut self, now: Duration) {
        let hosts = self.hosts.keys().copied();
        let gone: Vec<Uuid> = hosts.filter(|host| !self.is_heard(*host)).collect();
        gone.into_iter().for_each(|host| self.forget(host, now));
    }

    fn forget(&mut self, host: Uuid, now: Duration) {
        let vms = self.hosts.remove(&host).unwrap_or_default().vms;
        vms.into_keys().for_each(|vm| self.decide(vm, now));
    }

    fn is_heard(&self, host: Uuid) -> bool {
        self.heard.values().any(|heard| *heard == host)
    }

    /// The connection of a link is lost: its host's VMs are as it said last, unless another
    /// host has them.
    pub fn lost(&mut self, link: usize, now: Duration) {
        let Some(host) = self.heard.get(&link).copied() else {
            return;
        };
        let Some(lost) = self.hosts.get_mut(&host) else {
            return;
        };
        lost.up = false;
        // What was to arrive there does not, as far as anyone can tell.
        lost.vms.retain(|_, sighting| !sighting.arriving);
        let vms: Vec<Uuid> = lost.vms.keys().copied().collect();
        let moving = self.moving.iter().filter(|(_, to)| **to == host);
        let moving: Vec<Uuid> = moving.map(|(vm, _)| *vm).collect();
        for vm in vms.into_iter().chain(moving) {
            self.decide(vm, now);
        }
    }

    /// A host says what it has of a VM; nothing if it does not have it.
    pub fn seen(&mut self, host: Uuid, vm: Uuid, cause: Cause, seen: Option<Seen>, now: Duration) {
        let runs_elsewhere = self.elsewhere(host, vm, Sighting::runs);
        let mut arrived = false;
        if let Some(Seen {
            vm: state,
            migrating,
        }) = seen
        {
            let before = self.host(host).vms.remove(&vm);
            let was_arriving = before.as_ref().is_some_and(|before| before.arriving);
            let left = migrating && before.is_some_and(|before| before.left);
            let arriving = match cause {
                Cause::Arriving => migrating || state.vm_status != VmStatus::Running,
                _ => migrating && !left && (was_arriving || runs_elsewhere),
            };
            arrived = (was_arriving || cause == Cause::Arriving)
                && !arriving
                && state.vm_status.forwards();
            let sighting = Sighting {
                vm: state,
                arriving,
                left,
            };
            self.host(host).vms.insert(vm, sighting);
        } else {
            self.host(host).vms.remove(&vm);
        }
        if arrived {
            self.leave_others(host, vm);
        }
        let left = cause == Cause::Left;
        let known = runs_elsewhere || (left && self.arrives_elsewhere(host, vm));
        if left && !known {
            // The destination will say so, unless it is none of ours.
            self.leaving.insert(vm, (host, now));
        }
        self.decide(vm, now);
        if cause != Cause::Look {
            self.look_at_others(host, vm, now);
        }
    }

    /// It runs on `host` now, so nowhere else.
    fn leave_others(&mut self, host: Uuid, vm: Uuid) {
        for (other, view) in &mut self.hosts {
            if *other != host
                && let Some(sighting) = view.vms.get_mut(&vm)
            {
                sighting.left = sighting.vm.vm_status.forwards();
            }
        }
    }

    /// Where a VM that left its source is expected, it is.
    fn arrives_elsewhere(&mut self, host: Uuid, vm: Uuid) -> bool {
        let others = self.hosts.iter_mut().filter(|(other, _)| **other != host);
        let mut sightings = others.filter_map(|(_, view)| view.vms.get_mut(&vm));
        match sightings.find(|sighting| sighting.arriving) {
            None => false,
            Some(sighting) => {
                sighting.arriving = false;
                true
            }
        }
    }

    fn elsewhere(&self, host: Uuid, vm: Uuid, is: impl Fn(&Sighting) -> bool) -> bool {
        let mut others = self.hosts.iter().filter(|(other, _)| **other != host);
        others.any(|(_, view)| view.vms.get(&vm).is_some_and(&is))
    }

    fn look_at_others(&mut self, host: Uuid, vm: Uuid, now: Duration) {
        let others = self
            .hosts
            .iter()
            .filter(|(other, view)| **other != host && view.up && view.vms.contains_key(&vm));
        for (other, _) in others {
            self.looks.insert((*other, vm), (now, 0));
        }
    }

    /// The hosts to be asked of a VM at `now`.
    pub fn looks(&mut self, now: Duration) -> Vec<(Uuid, Uuid)> {
        let due = self.looks.iter_mut().filter(|(_, (when, _))| *when <= now);
        let mut asked = Vec::new();
        let mut done = Vec::new();
        for (key, (when, times)) in due {
            asked.push(*key);
            *times += 1;
            match LOOKS.get(*times) {
                Some(pause) => *when = now + *pause,
                None => done.push(*key),
            }
        }
        for key in done {
            self.looks.remove(&key);
        }
        asked
    }

    fn decide(&mut self, vm: Uuid, when: Duration) {
        let due = self.due.entry(vm).or_insert(when);
        *due = (*due).min(when);
    }

    /// The VMs to [`settle`](Self::settle) at `now`.
    pub fn due(&mut self, now: Duration) -> Vec<Uuid> {
        let due = self.due.iter().filter(|(_, when)| **when <= now);
        let vms: Vec<Uuid> = due.map(|(vm, _)| *vm).collect();
        for vm in &vms {
            self.due.remove(vm);
        }
        vms
    }

    /// When there is something to do next, if nothing is said until then.
    pub fn next(&self) -> Option<Duration> {
        let looks = self.looks.values().map(|(when, _)| *when);
        self.due.values().copied().chain(looks).min()
    }

    /// Has `vm` settled again later, because what came of it could not be told.
    pub fn again(&mut self, vm: Uuid, when: Duration) {
        self.decide(vm, when);
    }

    /// What has happened to `vm` since `told`. Call [`Self::told`] once it is told.
    pub fn settle(&mut self, vm: Uuid, told: Option<&VmState>, now: Duration) -> Steps {
        let home = told.map(|told| told.host_uuid);
        if let Some(told) = told
            && self.is_underway(vm, home, now)
        {
            // Until it has arrived or failed to, it is where it was.
            return self.depart(vm, told);
        }
        if self.best(vm, home).is_some_and(Sighting::runs) {
            self.leaving.remove(&vm);
        } else if self.is_leaving(vm, home, now) {
            return Steps::default();
        }
        let current = match self.best(vm, home).map(Sighting::now) {
            Some(current) => {
                self.absent.remove(&vm);
                Some(current)
            }
            None => self.without_host(vm, told, now),
        };
        let journey = Journey {
            started: self.moving.contains_key(&vm),
            lost: home.is_some_and(|home| self.is_lost(home, now)),
        };
        transition::steps(told, current.as_ref(), journey)
    }

    /// Whether `vm` is about to arrive elsewhere while its home runs it, or did until a
    /// moment ago. What a destination says after that holds nothing up.
    fn is_underway(&mut self, vm: Uuid, home: Option<Uuid>, now: Duration) -> bool {
        if self.destination(vm, home).is_none() {
            self.underway.remove(&vm);
            return false;
        }
        let at_home = home.and_then(|home| self.hosts.get(&home)?.vms.get(&vm));
        let runs = at_home.is_some_and(Sighting::runs);
        let new = Underway {
            since: now,
            idle: None,
            over: false,
        };
        let underway = self.underway.entry(vm).or_insert(new);
        let mut until = underway.since + MIGRATION;
        if runs {
            underway.idle = None;
        } else {
            until = until.min(*underway.idle.get_or_insert(now) + GRACE);
        }
        underway.over |= now >= until;
        if !underway.over {
            self.decide(vm, until);
            return true;
        }
        if let Some((from, _)) = self.leaving.get(&vm).copied() {
            // It is there: its home let it go for that.
            self.arrives_elsewhere(from, vm);
        }
        false
    }

    fn depart(&self, vm: Uuid, told: &VmState) -> Steps {
        let starts = told.vm_status.forwards() && !self.moving.contains_key(&vm);
        let start = starts.then(|| (EventType::LiveMigrateStart, told.clone()));
        let destination = self
            .arrival(vm)
            .map(|(_, there)| there.vm.host_name.clone());
        Steps {
            events: start.into_iter().collect(),
            silent: None,
            destination,
        }
    }

    /// Whether a host is down: not one that has only not been heard of yet.
    fn is_lost(&self, host: Uuid, now: Duration) -> bool {
        let up = self.hosts.get(&host).is_some_and(|host| host.up);
        !up && (self.is_heard(host) || now >= START_GRACE)
    }

    /// What [`settle`](Self::settle) found was told of `vm`.
    pub fn told(&mut self, vm: Uuid, events: &[EventType]) {
        for kind in events {
            match kind {
                EventType::LiveMigrateStart => {
                    if let Some(destination) = self.destination(vm, None) {
                        self.moving.insert(vm, destination);
                    }
                }
                EventType::LiveMigrateFinish | EventType::HaFinish | EventType::VmDeleted => {
                    self.moving.remove(&vm);
                }
                _ => {}
            }
        }
    }

    /// A VM that no host has is stopped where it was, and gone after a while.
    fn without_host(&mut self, vm: Uuid, told: Option<&VmState>, now: Duration) -> Option<VmState> {
        let told = told?;
        let since = *self.absent.entry(vm).or_insert(now);
        let until = since + self.patience();
        if now >= until {
            self.absent.remove(&vm);
            return None;
        }
        self.decide(vm, until);
        Some(VmState {
            vm_status: VmStatus::Stop,
            ..told.clone()
        })
    }

    /// Whether a VM that has left its home may still appear on another host.
    fn is_leaving(&mut self, vm: Uuid, home: Option<Uuid>, now: Duration) -> bool {
        let Some((from, since)) = self.leaving.get(&vm).copied() else {
            return false;
        };
        let until = since + self.patience();
        if now >= until || home != Some(from) {
            self.leaving.remove(&vm);
            return false;
        }
        self.decide(vm, until);
        true
    }

    /// How long a VM that no host has may be on its way to one.
    fn patience(&self) -> Duration {
        let is_up = |host: &Uuid| self.hosts.get(host).is_some_and(|host| host.up);
        let up = self.heard.values().filter(|host| is_up(host)).count();
        match self.expected {
            expected if up < expected => AWAY,
            0 | 1 => Duration::ZERO,
            _ => GRACE,
        }
    }

    /// Where `vm` is about to arrive.
    fn destination(&self, vm: Uuid, home: Option<Uuid>) -> Option<Uuid> {
        let (host, _) = self.arrival(vm)?;
        (home != Some(host)).then_some(host)
    }

    /// The host that `vm` is about to arrive on, and what it has of it.
    fn arrival(&self, vm: Uuid) -> Option<(Uuid, &Sighting)> {
        let mut hosts = self.hosts.iter();
        hosts.find_map(|(host, view)| {
            let sighting = view.vms.get(&vm)?;
            sighting.arriving.then_some((*host, sighting))
        })
    }

    /// The host's sighting that counts: where it runs rather than where it does not, a
    /// host that is up rather than one that is lost, where it was rather than elsewhere.
    fn best(&self, vm: Uuid, home: Option<Uuid>) -> Option<&Sighting> {
        let sightings = self.hosts.iter().filter_map(|(host, view)| {
            let sighting = view.vms.get(&vm)?;
            let rank = (sighting.runs(), view.up, home == Some(*host));
            (!sighting.arriving).then_some((rank, sighting))
        });
        sightings.max_by_key(|(rank, _)| *rank).map(|(_, s)| s)
    }

    fn host(&mut self, host: Uuid) -> &mut Host {
        self.hosts.entry(host).or_default()
    }
}

impl Sighting {
    fn of(vm: VmState) -> Self {
        Sighting {
            vm,
            arriving: false,
            left: false,
        }
    }

    /// Whether it runs, or is paused, here.
    fn runs(&self) -> bool {
        self.vm.vm_status.forwards() && !self.left && !self.arriving
    }

    /// The VM as it is if this sighting counts.
    fn now(&self) -> VmState {
        let mut vm = self.vm.clone();
        if self.left {
            vm.vm_status = VmStatus::Stop;
        }
        vm
    }
}

#[cfg(test)]
mod tests;
