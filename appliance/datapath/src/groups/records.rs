//! Records of security groups, in and out.

use alloc::vec::Vec;

use nve_protocol::{Binding, Group, GroupId, Member, Prefix, Remote, Rule, RuleId, Vlan};

use super::address::Address;
use super::{GroupIndex, Groups, Place, Slot, room};
use crate::tables::TableError;

impl Groups {
    pub(crate) fn has_group(&self, group: GroupId) -> bool {
        let slot = self
            .by_id
            .get(&group)
            .and_then(|at| self.slots.get(at.get()));
        slot.is_some_and(|slot| slot.stateful.is_some())
    }

    pub(crate) fn put_group(&mut self, group: &Group) -> Result<Option<Group>, TableError> {
        let index = match self.has_group(group.group) {
            true => self.by_id.get(&group.group).copied(),
            false => Some(self.acquire(group.group)?),
        };
        if let Some(index) = index {
            self.touch(index);
        }
        let slot = index.and_then(|index| self.slots.get_mut(index.get()));
        let old = slot.and_then(|slot| slot.stateful.replace(group.stateful));
        Ok(old.map(|stateful| Group { stateful, ..*group }))
    }

    pub(crate) fn delete_group(&mut self, group: GroupId) -> Option<Group> {
        let index = *self.by_id.get(&group)?;
        let stateful = self.slots.get_mut(index.get())?.stateful.take()?;
        self.touch(index);
        self.release(index);
        Some(Group { group, stateful })
    }

    pub(crate) fn has_rule(&self, id: RuleId) -> bool {
        self.places.contains_key(&id)
    }

    pub(crate) fn put_rule(&mut self, rule: &Rule) -> Result<Option<Rule>, TableError> {
        self.places
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        let owner = self.acquire(rule.group)?;
        if let Err(error) = self.acquire_for_rule(owner, rule) {
            self.release(owner);
            return Err(error);
        }
        let old = self.delete_rule(rule.id);
        if let Some(slot) = self.slots.get_mut(owner.get()) {
            let at = slot.rules.len();
            slot.rules.push(*rule);
            self.places.insert(rule.id, Place { group: owner, at });
        }
        self.mark(owner);
        Ok(old)
    }

    /// Finds room for a rule in its group, and the group that it names.
    fn acquire_for_rule(&mut self, owner: GroupIndex, rule: &Rule) -> Result<(), TableError> {
        if let Some(slot) = self.slots.get_mut(owner.get()) {
            room(&mut slot.rules, 1)?;
        }
        if let Remote::Group(remote) = rule.remote {
            self.acquire(remote)?;
        }
        Ok(())
    }

    pub(crate) fn delete_rule(&mut self, id: RuleId) -> Option<Rule> {
        let Place { group, at } = self.places.remove(&id)?;
        let slot = self.slots.get_mut(group.get())?;
        if at >= slot.rules.len() {
            return None;
        }
        let rule = slot.rules.swap_remove(at);
        let moved = slot.rules.get(at).map(|rule| rule.id);
        if let Some(place) = moved.and_then(|moved| self.places.get_mut(&moved)) {
            place.at = at;
        }
        self.mark(group);
        if let Remote::Group(remote) = rule.remote {
            self.release_id(remote);
        }
        self.release(group);
        Some(rule)
    }

    pub(crate) fn has_member(&self, group: GroupId, prefix: &Prefix) -> bool {
        self.by_id.get(&group).is_some_and(|group| {
            if let Some((first, length)) = u32::prefix(prefix) {
                self.members_v4.contains(first, length, *group)
            } else if let Some((first, length)) = u128::prefix(prefix) {
                self.members_v6.contains(first, length, *group)
            } else {
                false
            }
        })
    }

    pub(crate) fn put_member(&mut self, member: &Member) -> Result<Option<Member>, TableError> {
        if self.has_member(member.group, &member.prefix) {
            return Ok(Some(*member));
        }
        let group = self.acquire(member.group)?;
        let mut result = Ok(());
        if let Some((first, length)) = u32::prefix(&member.prefix) {
            result = self.members_v4.insert(first, length, group);
        } else if let Some((first, length)) = u128::prefix(&member.prefix) {
            result = self.members_v6.insert(first, length, group);
        }
        if let Err(error) = result {
            self.release(group);
            return Err(error);
        }
        Ok(None)
    }

    pub(crate) fn delete_member(&mut self, group: GroupId, prefix: Prefix) -> Option<Member> {
        let index = *self.by_id.get(&group)?;
        let removed = if let Some((first, length)) = u32::prefix(&prefix) {
            self.members_v4.remove(first, length, index)
        } else if let Some((first, length)) = u128::prefix(&prefix) {
            self.members_v6.remove(first, length, index)
        } else {
            false
        };
        if !removed {
            return None;
        }
        self.release(index);
        Some(Member { group, prefix })
    }

    pub(crate) fn has_binding(&self, vlan: Vlan, group: GroupId) -> bool {
        let index = self.by_id.get(&group);
        index.is_some_and(|index| self.bound(vlan).contains(index))
    }

    pub(crate) fn put_binding(&mut self, binding: &Binding) -> Result<Option<Binding>, TableError> {
        if self.has_binding(binding.vlan, binding.group) {
            return Ok(Some(*binding));
        }
        if self.bindings.is_empty() {
            let slots = usize::from(Vlan::MAX) + 1;
            room(&mut self.bindings, slots)?;
            self.bindings.resize_with(slots, Default::default);
        }
        let group = self.acquire(binding.group)?;
        let bound = self.bindings.get_mut(usize::from(binding.vlan.get()));
        let slot = self.slots.get_mut(group.get());
        if let (Some(bound), Some(slot)) = (bound, slot) {
            if let Err(error) = room(bound, 1).and_then(|()| room(&mut slot.vaps, 1)) {
                self.release(group);
                return Err(error);
            }
            bound.push(group);
            slot.vaps.push(binding.vlan);
        }
        Ok(None)
    }

    pub(crate) fn delete_binding(&mut self, vlan: Vlan, group: GroupId) -> Option<Binding> {
        let index = *self.by_id.get(&group)?;
        let bound = self.bindings.get_mut(usize::from(vlan.get()))?;
        let at = bound.iter().position(|bound| *bound == index)?;
        bound.swap_remove(at);
        if let Some(slot) = self.slots.get_mut(index.get()) {
            slot.vaps.retain(|bound| *bound != vlan);
        }
        self.release(index);
        Some(Binding { vlan, group })
    }

    /// Counts one more record that names the group.
    fn acquire(&mut self, id: GroupId) -> Result<GroupIndex, TableError> {
        if let Some(index) = self.by_id.get(&id).copied() {
            if let Some(slot) = self.slots.get_mut(index.get()) {
                slot.records += 1;
            }
            return Ok(index);
        }
        self.by_id
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        let index = self.take_slot(id)?;
        self.by_id.insert(id, index);
        Ok(index)
    }

    fn take_slot(&mut self, id: GroupId) -> Result<GroupIndex, TableError> {
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(index.get()) {
                slot.id = id;
                slot.records = 1;
            }
            return Ok(index);
        }
        let index = u32::try_from(self.slots.len()).map_err(|_| TableError::Full)?;
        room(&mut self.slots, 1)?;
        // So that a release and a mark never have to find memory.
        let slots = self.slots.len() + 1;
        room(&mut self.free, slots)?;
        room(&mut self.dirty, slots)?;
        room(&mut self.touched, slots)?;
        self.slots.push(Slot {
            id,
            records: 1,
            stateful: None,
            rules: Vec::new(),
            compiled: None,
            dirty: false,
            vaps: Vec::new(),
            touched: false,
        });
        Ok(GroupIndex(index))
    }

    /// Counts one record less. A slot that no record names has no rules left.
    fn release(&mut self, index: GroupIndex) {
        let Some(slot) = self.slots.get_mut(index.get()) else {
            return;
        };
        slot.records = slot.records.saturating_sub(1);
        if slot.records == 0 {
            slot.rules = Vec::new();
            slot.compiled = None;
            self.by_id.remove(&slot.id);
            self.free.push(index);
        }
    }

    fn release_id(&mut self, id: GroupId) {
        if let Some(index) = self.by_id.get(&id).copied() {
            self.release(index);
        }
    }
}
