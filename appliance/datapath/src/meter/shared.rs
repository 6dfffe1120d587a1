//! Meters that several processors pass frames through.
//!
//! A limit holds for all that a VAP sends or gets, and its flows are on all processors.
//! So each meter has a lock, and cache lines of its own: processors wait for each other
//! only where they meter the same VAP, which has a limit, so not for long.

use alloc::vec::Vec;

use nve_protocol::{Direction, Limit, Vlan};
use spin::Mutex;

use super::Meter;
use crate::Nanos;

/// One direction's meter of one VAP.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place(Mutex<Option<Meter>>);

const _: () = assert!(size_of::<Place>() == 128);

/// The meters of every VAP, by tag and direction.
#[derive(Debug)]
pub struct SharedMeters {
    places: Vec<[Place; 2]>,
}

impl SharedMeters {
    /// None of them limits anything yet. `None` without memory for them, about 1 MiB.
    pub fn new() -> Option<SharedMeters> {
        let count = usize::from(Vlan::MAX) + 1;
        let mut places = Vec::new();
        places.try_reserve_exact(count).ok()?;
        places.resize_with(count, Default::default);
        Some(SharedMeters { places })
    }

    /// Whether a frame may pass; if so, it has passed.
    pub(crate) fn admit(&self, vlan: Vlan, direction: Direction, now: Nanos, bytes: u32) -> bool {
        let Some(place) = self.place(vlan, direction) else {
            return true;
        };
        let mut meter = place.0.lock();
        // Who was held up comes with an older time than others had: no clock was set back.
        meter
            .as_mut()
            .is_none_or(|meter| meter.admit(now.max(meter.last), bytes))
    }

    /// Whether a frame would pass now.
    pub(crate) fn would_admit(
        &self,
        vlan: Vlan,
        direction: Direction,
        now: Nanos,
        bytes: u32,
    ) -> bool {
        let meter = self
            .place(vlan, direction)
            .and_then(|place| *place.0.lock());
        meter.is_none_or(|mut meter| meter.admit(now, bytes))
    }

    /// Tokens for bits and for packets that are left; `None` if it has no meter.
    pub(crate) fn left(&self, vlan: Vlan, direction: Direction, now: Nanos) -> Option<(i64, i64)> {
        let meter = (*self.place(vlan, direction)?.0.lock())?;
        Some(meter.left(now.max(meter.last)))
    }

    /// Leaves no more than those; see [`Meter::lower`].
    pub(crate) fn lower(&self, vlan: Vlan, direction: Direction, now: Nanos, to: (i64, i64)) {
        let Some(place) = self.place(vlan, direction) else {
            return;
        };
        if let Some(meter) = place.0.lock().as_mut() {
            meter.lower(now.max(meter.last), to);
        }
    }

    /// Sets a VAP's limits; see [`Meter::set`].
    pub(crate) fn set(&self, vlan: Vlan, egress: &Limit, ingress: &Limit) {
        for (direction, limit) in [(Direction::Egress, egress), (Direction::Ingress, ingress)] {
            let Some(place) = self.place(vlan, direction) else {
                continue;
            };
            let mut meter = place.0.lock();
            match meter.as_mut() {
                Some(meter) => meter.set(limit),
                None => *meter = Some(Meter::new(limit)),
            }
        }
    }

    /// A VAP has no limits any more.
    pub(crate) fn clear(&self, vlan: Vlan) {
        for direction in [Direction::Egress, Direction::Ingress] {
            if let Some(place) = self.place(vlan, direction) {
                *place.0.lock() = None;
            }
        }
    }

    fn place(&self, vlan: Vlan, direction: Direction) -> Option<&Place> {
        let [egress, ingress] = self.places.get(usize::from(vlan.get()))?;
        Some(match direction {
            Direction::Egress => egress,
            Direction::Ingress => ingress,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(burst_packets: u32) -> Limit {
        Limit {
            pps: 1,
            burst_packets,
            ..Limit::default()
        }
    }

    #[test]
    fn each_vap_and_direction_has_a_meter_of_its_own() {
        let meters = SharedMeters::new().unwrap();
        let [one, other] = [1, 2].map(|tag| Vlan::new(tag).unwrap());
        let admits = |vlan, direction| meters.admit(vlan, direction, Nanos(5), 100);
        assert!(admits(one, Direction::Egress), "nothing is limited");
        meters.set(one, &limit(1), &limit(2));
        assert!(meters.would_admit(one, Direction::Egress, Nanos(5), 100));
        assert!(admits(one, Direction::Egress));
        assert!(!meters.would_admit(one, Direction::Egress, Nanos(5), 100));
        assert!(!admits(one, Direction::Egress));
        assert!(admits(one, Direction::Ingress) && admits(one, Direction::Ingress));
        assert!(!admits(one, Direction::Ingress));
        assert!(admits(other, Direction::Egress));
        // The same limit again gives nothing away.
        meters.set(one, &limit(1), &limit(2));
        assert!(!admits(one, Direction::Egress));
        meters.clear(one);
        assert!(admits(one, Direction::Egress) && admits(one, Direction::Egress));
    }
}
