//! Security groups: what their rules allow a VAP.
//!
//! Every rule allows; what none allows is denied. A port's rules are those of all
//! its groups together (Neutron API v2.0, security groups). Of several rules that
//! allow the same, the one with the lowest identifier is told.
//!
//! Records come in any order. A rule counts while its group's record is there; a
//! remote group is what its members say, with or without a record.
//!
//! [`Groups::settle`] compiles the groups whose rules changed. One that is not
//! compiled is judged rule by rule: slower, and with the same outcome.
//!
//! Invariants: a slot is in use exactly while records name its group; `places`
//! holds exactly the rules, each where it is; `dirty` and `touched` have room for every
//! slot; a slot's `vaps` are those whose `bindings` have it.
//! Memory grows only in the `put_` methods, which report its lack, and in
//! `settle`, which can do without.

use core::net::IpAddr;

use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::{Direction, Family, GroupId, Remote, Rule, RuleId, Vlan};

use crate::tables::{Fast, TableError};

mod address;
mod classifier;
mod members;
mod records;

#[cfg(test)]
mod tests;

use address::Address;
use classifier::Classifier;
use members::Members;

/// Slot of a group, stable while any record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct GroupIndex(u32);

impl GroupIndex {
    fn get(self) -> usize {
        self.0 as usize
    }
}

/// What a packet asks of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Towards the VM or from it.
    pub direction: Direction,
    /// Who is at the other end.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; for ICMP and ICMPv6, 256 * type + code; 0 for protocols
    /// that have neither.
    pub service: u16,
}

/// The rules that allow what a packet asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// The lowest one of groups that allow replies too.
    pub stateful: Option<RuleId>,
    /// The lowest one of groups that do not.
    pub stateless: Option<RuleId>,
}

impl Answer {
    fn note(&mut self, stateful: bool, rule: Option<RuleId>) {
        let lowest = match stateful {
            true => &mut self.stateful,
            false => &mut self.stateless,
        };
        *lowest = match (*lowest, rule) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

#[derive(Debug)]
struct Slot {
    id: GroupId,
    /// How many records name the group.
    records: u32,
    /// What the group's own record says, if it is there.
    stateful: Option<bool>,
    rules: Vec<Rule>,
    compiled: Option<Compiled>,
    /// Whether it is in the list of those to compile.
    dirty: bool,
    /// Who is in it.
    vaps: Vec<Vlan>,
    /// Whether it is in the list of those that changed.
    touched: bool,
}

#[derive(Debug)]
struct Compiled {
    ingress_v4: Classifier<u32>,
    egress_v4: Classifier<u32>,
    ingress_v6: Classifier<u128>,
    egress_v6: Classifier<u128>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    group: GroupIndex,
    at: usize,
}

/// All security groups, their rules and members, and who is in them.
#[derive(Debug, Default)]
pub struct Groups {
    slots: Vec<Slot>,
    free: Vec<GroupIndex>,
    dirty: Vec<GroupIndex>,
    touched: Vec<GroupIndex>,
    by_id: HashMap<GroupId, GroupIndex, Fast>,
    places: HashMap<RuleId, Place, Fast>,
    members_v4: Members<u32>,
    members_v6: Members<u128>,
    /// Groups of each VAP, indexed by VLAN tag.
    bindings: Vec<Vec<GroupIndex>>,
}

fn room<T>(list: &mut Vec<T>, more: usize) -> Result<(), TableError> {
    list.try_reserve(more).map_err(|_| TableError::OutOfMemory)
}

impl Groups {
    /// Which rules of the VAP's groups allow this.
    pub fn judge(&self, vlan: Vlan, question: &Question) -> Answer {
        match question.remote {
            IpAddr::V4(ip) => self.judge_in(vlan, question, ip.to_bits(), &self.members_v4),
            IpAddr::V6(ip) => self.judge_in(vlan, question, ip.to_bits(), &self.members_v6),
        }
    }

    fn judge_in<A: Address>(
        &self,
        vlan: Vlan,
        question: &Question,
        ip: A,
        members: &Members<A>,
    ) -> Answer {
        let (protocol, service) = (question.protocol, question.service);
        let mut answer = Answer::default();
        let mut names_groups = false;
        for (slot, stateful) in self.groups_of(vlan) {
            let rule = match &slot.compiled {
                Some(compiled) => {
                    let classifier = A::classifier(compiled, question.direction);
                    names_groups |= classifier.names_groups();
                    classifier.by_prefix(ip, protocol, service)
                }
                None => self.scan(slot, question),
            };
            answer.note(stateful, rule);
        }
        if names_groups {
            members.each_group(ip, |group| {
                for (slot, stateful) in self.groups_of(vlan) {
                    let rule = slot.compiled.as_ref().and_then(|compiled| {
                        A::classifier(compiled, question.direction)
                            .by_group(group, protocol, service)
                    });
                    answer.note(stateful, rule);
                }
            });
        }
        answer
    }

    /// The VAP's groups that have a record, and whether they are stateful.
    fn groups_of(&self, vlan: Vlan) -> impl Iterator<Item = (&Slot, bool)> {
        self.bound(vlan).iter().filter_map(|group| {
            let slot = self.slots.get(group.get())?;
            Some((slot, slot.stateful?))
        })
    }

    fn bound(&self, vlan: Vlan) -> &[GroupIndex] {
        self.bindings
            .get(usize::from(vlan.get()))
            .map_or(&[], Vec::as_slice)
    }

    /// The lowest rule of a group that allows this, rule by rule.
    fn scan(&self, slot: &Slot, question: &Question) -> Option<RuleId> {
        let family = match question.remote {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        };
        let serves = |rule: &&Rule| {
            rule.direction == question.direction
                && rule.family == family
                && rule.protocol.is_none_or(|protocol| {
                    protocol == question.protocol
                        && (rule.low..=rule.high).contains(&question.service)
                })
        };
        let reaches = |rule: &&Rule| match rule.remote {
            Remote::Any => true,
            Remote::Prefix(prefix) => prefix.contains(question.remote),
            Remote::Group(group) => self.is_member(question.remote, group),
        };
        let allows = slot.rules.iter().filter(serves).filter(reaches);
        allows.map(|rule| rule.id).min()
    }

    fn is_member(&self, ip: IpAddr, group: GroupId) -> bool {
        self.by_id.get(&group).is_some_and(|group| match ip {
            IpAddr::V4(ip) => self.members_v4.is_member(ip.to_bits(), *group),
            IpAddr::V6(ip) => self.members_v6.is_member(ip.to_bits(), *group),
        })
    }

    /// Compiles the groups whose rules changed; to be called after each change of
    /// the tables. Those that memory lacks for stay as they are until the next
    /// call.
    pub fn settle(&mut self) {
        while let Some(group) = self.dirty.pop() {
            let compiled = match self.slots.get(group.get()) {
                Some(slot) if !slot.rules.is_empty() => Some(self.compile(&slot.rules)),
                _ => None,
            };
            let Some(slot) = self.slots.get_mut(group.get()) else {
                continue;
            };
            match compiled.transpose() {
                Ok(compiled) => {
                    slot.compiled = compiled;
                    slot.dirty = false;
                }
                Err(_) => {
                    // In the place that it had.
                    self.dirty.push(group);
                    return;
                }
            }
        }
    }

    fn compile(&self, rules: &[Rule]) -> Result<Compiled, TableError> {
        let index = |group: &GroupId| self.by_id.get(group).copied();
        let of = |direction, family| {
            rules
                .iter()
                .filter(move |rule| rule.direction == direction && rule.family == family)
        };
        Ok(Compiled {
            ingress_v4: Classifier::compile(of(Direction::Ingress, Family::Ipv4), index)?,
            egress_v4: Classifier::compile(of(Direction::Egress, Family::Ipv4), index)?,
            ingress_v6: Classifier::compile(of(Direction::Ingress, Family::Ipv6), index)?,
            egress_v6: Classifier::compile(of(Direction::Egress, Family::Ipv6), index)?,
        })
    }

    /// Tells the VAPs whose groups, or rules of those, changed since the last call. A VAP
    /// that came to a group or left it is not among them; neither are members.
    pub(crate) fn take_touched(&mut self, mut tell: impl FnMut(Vlan)) {
        for group in self.touched.drain(..) {
            if let Some(slot) = self.slots.get_mut(group.get()) {
                slot.touched = false;
                slot.vaps.iter().copied().for_each(&mut tell);
            }
        }
    }

    /// Has the group's VAPs told at the next [`take_touched`](Self::take_touched).
    fn touch(&mut self, group: GroupIndex) {
        if let Some(slot) = self.slots.get_mut(group.get())
            && !core::mem::replace(&mut slot.touched, true)
        {
            self.touched.push(group);
        }
    }

    /// Has the group compiled at the next [`settle`](Self::settle).
    fn mark(&mut self, group: GroupIndex) {
        self.touch(group);
        let Some(slot) = self.slots.get_mut(group.get()) else {
            return;
        };
        slot.compiled = None;
        if !core::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(group);
        }
    }
}
