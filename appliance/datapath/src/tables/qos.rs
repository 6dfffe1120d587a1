//! QoS of VAPs: meters in slots, and marks.
//!
//! Invariants: each record has a slot, and both its meters have the record's limits; a
//! slot without a record is in `free`, and its meters limit nothing. Where several
//! processors share the NVE, the meters that frames pass are [`SharedMeters`], which
//! the first one sets.

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

/// A meter in a cache line, which is all that a frame needs of it.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(Meter);

/// The meters of a slot.
#[derive(Debug, Clone, Copy)]
struct Meters {
    egress: Line,
    ingress: Line,
}

const _: () = assert!(size_of::<Meters>() == 128);

impl Meters {
    /// Of no limit.
    const NONE: Meters = Meters {
        egress: Line(Meter::NONE),
        ingress: Line(Meter::NONE),
    };

    fn new(record: &Qos) -> Meters {
        Meters {
            egress: Line(Meter::new(&record.egress)),
            ingress: Line(Meter::new(&record.ingress)),
        }
    }

    /// Sets the limits of a record.
    fn set(&mut self, record: &Qos) {
        self.egress.0.set(&record.egress);
        self.ingress.0.set(&record.ingress);
    }

    #[inline(always)]
    fn get(&self, direction: Direction) -> &Meter {
        match direction {
            Direction::Egress => &self.egress.0,
            Direction::Ingress => &self.ingress.0,
        }
    }

    #[inline(always)]
    fn get_mut(&mut self, direction: Direction) -> &mut Meter {
        match direction {
            Direction::Egress => &mut self.egress.0,
            Direction::Ingress => &mut self.ingress.0,
        }
    }
}

/// All QoS records.
#[derive(Debug, Default)]
pub(super) struct QosTable {
    records: Vec<Option<Qos>>,
    /// As many.
    meters: Vec<Meters>,
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

    fn slot(&self, vlan: Vlan) -> Option<usize> {
        self.by_vlan.get(&vlan).map(|slot| usize::from(*slot))
    }

    pub(super) fn get(&self, vlan: Vlan) -> Option<&Qos> {
        self.records.get(self.slot(vlan)?)?.as_ref()
    }

    /// The meter of a direction; `None` if it has no limit.
    pub(super) fn meter(&self, vlan: Vlan, direction: Direction) -> Option<MeterIndex> {
        let slot = *self.by_vlan.get(&vlan)?;
        let meter = self.meters.get(usize::from(slot))?.get(direction);
        meter.is_limit().then_some(MeterIndex { slot, direction })
    }

    /// Whether a frame may pass a meter; one that is gone limits nothing.
    #[inline(always)]
    pub(super) fn admit(&mut self, index: MeterIndex, now: Nanos, bytes: u32) -> bool {
        if self.shared.is_some() {
            return self.admit_shared(index, now, bytes);
        }
        let meters = self.meters.get_mut(usize::from(index.slot));
        meters.is_none_or(|meters| meters.get_mut(index.direction).admit(now, bytes))
    }

    #[inline(never)]
    fn admit_shared(&self, index: MeterIndex, now: Nanos, bytes: u32) -> bool {
        let record = self.records.get(usize::from(index.slot));
        let (Some(Some(record)), Some((meters, _))) = (record, &self.shared) else {
            return true;
        };
        meters.admit(record.vlan, index.direction, now, bytes)
    }

    /// Whether a frame would pass a meter now.
    pub(super) fn would_admit(&self, index: MeterIndex, now: Nanos, bytes: u32) -> bool {
        let slot = usize::from(index.slot);
        let (Some(Some(record)), Some(own)) = (self.records.get(slot), self.meters.get(slot))
        else {
            return true;
        };
        if let Some((meters, _)) = &self.shared {
            return meters.would_admit(record.vlan, index.direction, now, bytes);
        }
        let mut meter = *own.get(index.direction);
        meter.admit(now, bytes)
    }

    /// What is left in a direction; `None` if it has no limit.
    pub(super) fn level(&self, vlan: Vlan, direction: Direction, now: Nanos) -> Option<Level> {
        let index = self.meter(vlan, direction)?;
        let own = self.meters.get(usize::from(index.slot))?;
        let (bits, packets) = match &self.shared {
            Some((meters, _)) => meters.left(vlan, direction, now)?,
            None => own.get(direction).left(now),
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
        let slot = self.slot(vlan);
        if let Some(meters) = slot.and_then(|slot| self.meters.get_mut(slot)) {
            meters.get_mut(level.direction).lower(now, to);
        }
    }

    /// Whom a meter meters, and its limit.
    pub(super) fn metered(&self, index: MeterIndex) -> Option<(Vlan, Direction, Limit)> {
        let record = self.records.get(usize::from(index.slot))?.as_ref()?;
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
        let known = self.slot(qos.vlan);
        if let Some(slot) = known
            && let (Some(Some(record)), Some(meters)) =
                (self.records.get_mut(slot), self.meters.get_mut(slot))
        {
            meters.set(qos);
            let replaced = core::mem::replace(record, *qos);
            self.set_shared(qos);
            return Ok(Some(replaced));
        }
        self.by_vlan
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        let at = self.take_slot()?;
        let slot = usize::from(at);
        if let (Some(record), Some(meters)) =
            (self.records.get_mut(slot), self.meters.get_mut(slot))
        {
            *record = Some(*qos);
            *meters = Meters::new(qos);
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
        let at = u16::try_from(self.records.len()).map_err(|_| TableError::Full)?;
        self.records
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        self.meters
            .try_reserve(1)
            .map_err(|_| TableError::OutOfMemory)?;
        // So that a deletion never has to find memory; nothing is free now.
        self.free
            .try_reserve(self.records.len() + 1)
            .map_err(|_| TableError::OutOfMemory)?;
        self.records.push(None);
        self.meters.push(Meters::NONE);
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
        for record in self.records.iter().flatten() {
            self.set_shared(record);
        }
        for (record, meters) in self.records.iter().zip(&mut self.meters) {
            let Some(record) = record else { continue };
            let at = old.slot(record.vlan);
            if let Some(before) = at.and_then(|at| old.meters.get(at)) {
                *meters = *before;
                meters.set(record);
            }
        }
    }

    pub(super) fn delete(&mut self, vlan: Vlan) -> Option<Qos> {
        let at = self.by_vlan.remove(&vlan)?;
        let record = self.records.get_mut(usize::from(at))?.take()?;
        if let Some(meters) = self.meters.get_mut(usize::from(at)) {
            *meters = Meters::NONE;
        }
        self.free.push(at);
        if let Some(meters) = self.to_be_set() {
            meters.clear(vlan);
        }
        Some(record)
    }
}
