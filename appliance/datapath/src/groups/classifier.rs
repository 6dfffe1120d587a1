//! The rules of one group, direction and family, compiled for a quick answer.
//!
//! Rules fall apart by who is at the other end: a prefix (anyone is the prefix of
//! length 0) or a group. Each such remote has a list of services, disjoint ranges
//! of ports by protocol. Prefixes nest, so the address space falls into disjoint
//! blocks; a binary search finds the block of an address and with it the
//! narrowest prefix, and each prefix knows the next wider one. What a question
//! costs goes by the number of prefixes that really hold the address, at most one
//! per length, and by the logarithm of the rest.
//!
//! What is searched is apart from what is found, so that a search touches little
//! memory.
//!
//! Invariants: `starts` ascends and is as long as `narrowest`; a node's parent
//! comes before it; `firsts` is as long as `services` and ascends within a remote;
//! `groups` ascends and is as long as `by_group`.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use nve_protocol::{GroupId, Remote, Rule, RuleId};

use super::GroupIndex;
use super::address::Address;
use crate::tables::TableError;

/// In place of an index: none. Above all others, so that the lowest of several
/// is the lowest there is.
const NONE: u32 = u32::MAX;

/// Compiled rules. Places of rules are in the order of their identifiers.
#[derive(Debug)]
pub(super) struct Classifier<A> {
    rules: Vec<RuleId>,
    /// Of each service, the protocol and the lowest port; see [`service_key`].
    firsts: Vec<u32>,
    services: Vec<Service>,
    prefixes: Vec<Node>,
    /// First address of each block.
    starts: Vec<A>,
    /// Of each block, the narrowest prefix that it is in.
    narrowest: Vec<u32>,
    groups: Vec<GroupIndex>,
    by_group: Vec<Allowed>,
}

/// Ports of a protocol, and the lowest rule that allows them.
#[derive(Debug, Clone, Copy)]
struct Service {
    /// Highest port.
    last: u16,
    rule: u32,
}

/// What is allowed with one remote.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    /// The lowest rule that allows all protocols.
    any: u32,
    /// Its part of the services.
    from: u32,
    to: u32,
}

/// A prefix and the next wider one.
#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    allowed: Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Other<A> {
    /// First address and length, so that wider ones come first.
    Prefix(A, u8),
    Group(GroupIndex),
}

/// What one rule says, in the order in which it is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item<A> {
    other: Other<A>,
    protocol: Option<u8>,
    low: u16,
    high: u16,
    rule: u32,
}

fn service_key(protocol: u8, port: u16) -> u32 {
    u32::from(protocol) << 16 | u32::from(port)
}

fn place(index: usize) -> Result<u32, TableError> {
    u32::try_from(index)
        .ok()
        .filter(|index| *index != NONE)
        .ok_or(TableError::OutOfMemory)
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), TableError> {
    list.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
    list.push(item);
    Ok(())
}

impl<A: Address> Classifier<A> {
    /// Compiles `rules`, all of one direction and of the family of `A`. `index`
    /// finds the groups that they name.
    pub(super) fn compile<'a>(
        rules: impl Iterator<Item = &'a Rule>,
        index: impl Fn(&GroupId) -> Option<GroupIndex>,
    ) -> Result<Self, TableError> {
        let mut sorted = Vec::new();
        for rule in rules {
            push(&mut sorted, rule)?;
        }
        sorted.sort_unstable_by_key(|rule| rule.id);
        let mut classifier = Classifier {
            rules: Vec::new(),
            firsts: Vec::new(),
            services: Vec::new(),
            prefixes: Vec::new(),
            starts: Vec::new(),
            narrowest: Vec::new(),
            groups: Vec::new(),
            by_group: Vec::new(),
        };
        let mut items = Vec::new();
        for (at, rule) in sorted.into_iter().enumerate() {
            push(&mut classifier.rules, rule.id)?;
            let other = match rule.remote {
                Remote::Any => Some(Other::Prefix(A::ZERO, 0)),
                Remote::Prefix(prefix) => {
                    A::prefix(&prefix).map(|(first, length)| Other::Prefix(first, length))
                }
                Remote::Group(group) => index(&group).map(Other::Group),
            };
            // A prefix of the other family holds no address of this one.
            let Some(other) = other else { continue };
            let item = Item {
                other,
                protocol: rule.protocol,
                low: rule.low,
                high: rule.high,
                rule: place(at)?,
            };
            push(&mut items, item)?;
        }
        items.sort_unstable();
        classifier.add_remotes(&items)?;
        Ok(classifier)
    }

    fn add_remotes(&mut self, items: &[Item<A>]) -> Result<(), TableError> {
        let mut blocks = Blocks {
            classifier: self,
            open: Vec::new(),
        };
        for remote in items.chunk_by(|a, b| a.other == b.other) {
            let Some(item) = remote.first() else { continue };
            let allowed = blocks.classifier.add_services(remote)?;
            match item.other {
                Other::Prefix(first, length) => blocks.add(first, length, allowed)?,
                Other::Group(group) => {
                    push(&mut blocks.classifier.groups, group)?;
                    push(&mut blocks.classifier.by_group, allowed)?;
                }
            }
        }
        blocks.close(None)
    }

    /// Adds the services of one remote.
    fn add_services(&mut self, items: &[Item<A>]) -> Result<Allowed, TableError> {
        let mut any = NONE;
        let from = place(self.services.len())?;
        for same in items.chunk_by(|a, b| a.protocol == b.protocol) {
            match same.first().map(|item| item.protocol) {
                Some(Some(protocol)) => self.add_ports(protocol, same)?,
                _ => any = same.iter().map(|item| item.rule).min().unwrap_or(NONE),
            }
        }
        Ok(Allowed {
            any,
            from,
            to: place(self.services.len())?,
        })
    }

    /// Adds the ports of one protocol; `items` come by lowest port. Sweeps over
    /// the ports: `open` holds the rules of those begun, lowest first.
    fn add_ports(&mut self, protocol: u8, items: &[Item<A>]) -> Result<(), TableError> {
        let mut open: BinaryHeap<Reverse<(u32, u16)>> = BinaryHeap::new();
        open.try_reserve(items.len())
            .map_err(|_| TableError::OutOfMemory)?;
        let mut items = items.iter().peekable();
        let mut port = 0;
        loop {
            while let Some(item) = items.next_if(|item| item.low <= port) {
                open.push(Reverse((item.rule, item.high)));
            }
            while open.peek().is_some_and(|Reverse((_, high))| *high < port) {
                open.pop();
            }
            let begins = items.peek().map(|item| item.low);
            port = match (open.peek(), begins) {
                (None, None) => return Ok(()),
                (None, Some(low)) => low,
                (Some(Reverse((rule, high))), begins) => {
                    // Later ones begin past `port`, so their lowest is not 0.
                    let last = begins.map_or(*high, |low| low.saturating_sub(1).min(*high));
                    self.add_service(service_key(protocol, port), last, *rule)?;
                    match last.checked_add(1) {
                        Some(next) => next,
                        None => return Ok(()),
                    }
                }
            };
        }
    }

    /// Adds a range, or makes the one before it longer.
    fn add_service(&mut self, first: u32, last: u16, rule: u32) -> Result<(), TableError> {
        match (self.firsts.last(), self.services.last_mut()) {
            (Some(before), Some(service))
                if service.rule == rule
                    && (*before & !0xffff | u32::from(service.last)) + 1 == first =>
            {
                service.last = last;
                Ok(())
            }
            _ => {
                push(&mut self.firsts, first)?;
                push(&mut self.services, Service { last, rule })
            }
        }
    }

    /// Whether some rule names a group.
    pub(super) fn names_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The lowest rule whose remote is no group and that allows this.
    pub(super) fn by_prefix(&self, ip: A, protocol: u8, port: u16) -> Option<RuleId> {
        let block = self.starts.partition_point(|start| *start <= ip);
        let block = block.checked_sub(1)?;
        let mut at = *self.narrowest.get(block)?;
        let mut lowest = NONE;
        while let Some(node) = self.prefixes.get(at as usize) {
            lowest = lowest.min(self.within(node.allowed, protocol, port));
            at = node.parent;
        }
        self.rules.get(lowest as usize).copied()
    }

    /// The lowest rule whose remote is this group and that allows this.
    pub(super) fn by_group(&self, group: GroupIndex, protocol: u8, port: u16) -> Option<RuleId> {
        let at = self.groups.binary_search(&group).ok()?;
        let lowest = self.within(*self.by_group.get(at)?, protocol, port);
        self.rules.get(lowest as usize).copied()
    }

    fn within(&self, allowed: Allowed, protocol: u8, port: u16) -> u32 {
        let (from, to) = (allowed.from as usize, allowed.to as usize);
        let firsts = self.firsts.get(from..to).unwrap_or_default();
        let key = service_key(protocol, port);
        let after = firsts.partition_point(|first| *first <= key);
        let rule = after.checked_sub(1).and_then(|at| {
            let first = firsts.get(at)?;
            let service = self.services.get(from + at)?;
            (first >> 16 == key >> 16 && port <= service.last).then_some(service.rule)
        });
        rule.unwrap_or(NONE).min(allowed.any)
    }
}

/// Cuts the address space into blocks while prefixes come in order, wider ones
/// before those in them.
struct Blocks<'a, A> {
    classifier: &'a mut Classifier<A>,
    /// The prefixes that the last one is in, and itself: last address, and place.
    open: Vec<(A, u32)>,
}

impl<A: Address> Blocks<'_, A> {
    fn add(&mut self, first: A, length: u8, allowed: Allowed) -> Result<(), TableError> {
        self.close(Some(first))?;
        let parent = self.open.last().map_or(NONE, |(_, at)| *at);
        let at = place(self.classifier.prefixes.len())?;
        push(&mut self.classifier.prefixes, Node { parent, allowed })?;
        push(&mut self.open, (first.last(length), at))?;
        self.begin(first, at)
    }

    /// Ends the prefixes that end before `next`.
    fn close(&mut self, next: Option<A>) -> Result<(), TableError> {
        while let Some((last, _)) = self
            .open
            .pop_if(|(last, _)| next.is_none_or(|next| *last < next))
        {
            let around = self.open.last().map_or(NONE, |(_, at)| *at);
            if let Some(after) = last.next() {
                self.begin(after, around)?;
            }
        }
        Ok(())
    }

    /// A block of the prefix at `at` begins.
    fn begin(&mut self, start: A, at: u32) -> Result<(), TableError> {
        let Classifier {
            starts, narrowest, ..
        } = &mut *self.classifier;
        match (starts.last(), narrowest.last_mut()) {
            (Some(last), Some(prefix)) if *last == start => *prefix = at,
            _ => {
                push(starts, start)?;
                push(narrowest, at)?;
            }
        }
        Ok(())
    }
}
