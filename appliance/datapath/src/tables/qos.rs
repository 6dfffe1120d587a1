//! QoS of VAPs: meters in slots, and marks.
//!
//! Invariants: each record has a slot, and both its meters have the record's
//! limits; a slot without a record is in `free`. Where several processors share the
//! NVE, the meters that frames pass are [`SharedMeters`], which the first one sets.

use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::handover::Level;
use nve_protocol::{Direction, Limit, Qos, Vlan};

use super::TableError;
use super::macs::Fast;
use crate::meter::{Meter, SharedMeters};
use crate::{Nanos, Role};

/// The meter of one direction of a VAP. Stable while the VAP has a QoS record;
/// later it may be another VAP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterIndex {
    slot: u16,
    direction: Direction,
}

#[derive(Debug)]
struct Slot {
    record: Qos,
    egress: Meter,
    ingress: Meter,
}

impl Slot {
    fn meter(&self, direction: Direction) -> &Meter {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    fn meter_mut(&mut self, direction: Direction) -> &mut Meter {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}

/// All QoS records.
#[derive(Debug, Default)]
pub(super) struct QosTable {
    slots: Vec<Option<Slot>>,
    free: Vec<u16>,
    by_vlan: HashMap<Vlan, u16, Fast>,
    shared: Option<(Arc<SharedMeters>, Role)>,
}

impl QosTable {
    /// From now on, frames pass `meters`.
    pub(super) fn share(&mut self, meters: Arc<SharedMeters>, role: Role) {
        self.shared = Some((meters, role));
    }

    /// The shared meters, if they are to be set.
    fn to_be_set(&self) -> Option<&SharedMeters> {
        let (meters, role) = self.shared.as_ref()?;
        (*role != Role::Other).then_some(meters)
    }

    pub(super) fn get(&self, vlan: Vlan) -> Option<&Qos> {
        let slot = self.slots.get(usize::from(*self.by_vlan.get(&vlan)?))?;
        slot.as_ref().map(|slot| &slot.record)
    }

    /// The meter of a direction; `None` if it has no limit.
    pub(super) fn meter(&self, vlan: Vlan, direction: Direction) -> Option<MeterIndex> {
        let slot = *self.by_vlan.get(&vlan)?;
        let meters = self.slots.get(usize::from(slot))?.as_ref()?;
        let meter = meters.meter(direction);
        meter.is_limit().then_some(MeterIndex { slot, direction })
    }

    /// Whether a frame may pass a meter; one that is gone limits nothing.
    #[inline]
    pub(super) fn admit(&mut self, index: MeterIndex, now: Nanos, bytes: u32) -> bool {
        let Some(Some(slot)) = self.slots.get_mut(usize::from(index.slot)) else {
            return true;
        };
        if let Some((meters, _)) = &self.shared {
            return meters.admit(slot.record.vlan, index.direction, now, bytes);
        }
        match index.direction {
            Direction::Egress => slot.egress.admit(now, bytes),
            Direction::Ingress => slot.ingress.admit(now, bytes),
        }
    }

    /// Whether a frame would pass a meter now.
    pub(super) fn would_admit(&self, index: MeterIndex, now: Nanos, bytes: u32) -> bool {
        let slot = self.slots.get(usize::from(index.slot));
        slot.and_then(Option::as_ref).is_none_or(|slot| {
            if let Some((meters, _)) = &self.shared {
                return meters.would_admit(slot.record.vlan, index.direction, now, bytes);
            }
            let mut meter = *slot.meter(index.direction);
            meter.admit(now, bytes)
        })
    }

    /// What is left in a direction; `None` if it has no limit.
    pub(super) fn level(&self, vlan: Vlan, direction: Direction, now: Nanos) -> Option<Level> {
        let index = self.meter(vlan, direction)?;
        let slot = self.slots.get(usize::from(index.slot))?.as_ref()?;
        let (bits, packets) = match &self.shared {
            Some((meters, _)) => meters.left(vlan, direction, now)?,
            None => slot.meter(direction).left(now),
        };
        Some(Level {
            direction,
            bits,
            packets,
        })
    }

    /// Leaves no more than that.
    pub(super) fn lower(&mut self, vlan: Vlan, level: &Level, now: Nanos) {
        let to = (level.bits, level.packets);
        if self.shared.is_some() {
            if let Some(meters) = self.to_be_set() {
                meters.lower(vlan, level.direction, now, to);
            }
            return;
        }
        let slot = self.by_vlan.get(&vlan).map(|slot| usize::from(*slot));
        let slot = slot.and_then(|slot| self.slots.get_mut(slot)?.as_mut());
        if let Some(slot) = slot {
            slot.meter_mut(level.direction).lower(now, to);
        }
    }

    /// Whom a meter meters, and its limit.
    pub(super) fn metered(&self, index: MeterIndex) -> Option<(Vlan, Direction, Limit)> {
        let record = &self.slots.get(usize::from(index.slot))?.as_ref()?.record;
        let limit = match index.direction {
            Direction::Egress => record.egress,
            Direction::Ingress => record.ingress,
        };
        Some((record.vlan, index.direction, limit))
    }

    pub(super) fn put(&mut self, qos: &Qos) -> Result<Option<Qos>, TableError> {
        if qos.dscp.is_some_and(|dscp| dscp > crate::dscp::MAX) {
            return Err(TableError::BadRecord);
        }
        let known = self.by_vlan.get(&qos.vlan).map(|slot| usize::from(*slot));
        if let Some(Some(slot)) = known.and_then(|slot| self.slots.get_mut(slot)) {
            slot.egress.set(&qos.egress);
            slot.ingress.set(&qos.ingress);
            let replaced = core::mem::replace(&mut slot.record, *qos);
            self.set_shared(qos);
            return Ok(Some(replaced));
        }
        self.by_vlan
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        let at = self.take_slot()?;
        if let Some(slot) = self.slots.get_mut(usize::from(at)) {
            *slot = Some(Slot {
                record: *qos,
                egress: Meter::new(&qos.egress),
                ingress: Meter::new(&qos.ingress),
            });
        }
        self.by_vlan.insert(qos.vlan, at);
        self.set_shared(qos);
        Ok(None)
    }

    fn set_shared(&self, qos: &Qos) {
        if let Some(meters) = self.to_be_set() {
            meters.set(qos.vlan, &qos.egress, &qos.ingress);
        }
    }

    fn take_slot(&mut self) -> Result<u16, TableError> {
        if let Some(at) = self.free.pop() {
            return Ok(at);
        }
        let at = u16::try_from(self.slots.len()).map_err(|_| TableError::Full)?;
        self.slots
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        // So that a deletion never has to find memory; nothing is free now.
        self.free
            .try_reserve(self.slots.len() + 1)
            .map_err(|_| TableError::OutOfMemory)?;
        self.slots.push(None);
        Ok(at)
    }

    /// Leaves in each meter what is left in that of the same VAP in `old`.
    pub(super) fn succeed(&mut self, old: &QosTable) {
        self.shared.clone_from(&old.shared);
        if let Some(meters) = self.to_be_set() {
            for vlan in old.by_vlan.keys() {
                if !self.by_vlan.contains_key(vlan) {
                    meters.clear(*vlan);
                }
            }
        }
        for slot in self.slots.iter().flatten() {
            self.set_shared(&slot.record);
        }
        for slot in self.slots.iter_mut().flatten() {
            let at = old.by_vlan.get(&slot.record.vlan).copied();
            let before = at.and_then(|at| old.slots.get(usize::from(at))?.as_ref());
            if let Some(before) = before {
                slot.egress = before.egress;
                slot.egress.set(&slot.record.egress);
                slot.ingress = before.ingress;
                slot.ingress.set(&slot.record.ingress);
            }
        }
    }

    pub(super) fn delete(&mut self, vlan: Vlan) -> Option<Qos> {
        let at = self.by_vlan.remove(&vlan)?;
        let slot = self.slots.get_mut(usize::from(at))?.take()?;
        self.free.push(at);
        if let Some(meters) = self.to_be_set() {
            meters.clear(vlan);
        }
        Some(slot.record)
    }
}
