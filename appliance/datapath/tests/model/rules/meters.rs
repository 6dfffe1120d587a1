//! Rate limits: one bucket for bits, one for packets, in whole numbers.

use nve_protocol::*;

use super::Model;

/// Parts of a bit or of a packet, so that each nanosecond gives a whole number:
/// a kilobit in a second is a millionth of a bit in a nanosecond.
const BIT: i128 = 1_000_000;
const PACKET: i128 = 1_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    /// Of no limit: 0.
    rate: i128,
    capacity: i128,
    tokens: i128,
}

impl Bucket {
    /// Without a burst, that is what the rate gives in 0.8 seconds, and `least`.
    fn new(rate: u32, burst: i128, least: i128) -> Bucket {
        let rate = i128::from(rate);
        let capacity = match burst {
            0 => least.max(rate * 800_000_000),
            burst => burst,
        };
        Bucket {
            rate,
            capacity,
            tokens: capacity,
        }
    }

    fn has(&self, cost: i128) -> bool {
        self.rate == 0 || self.tokens >= cost.min(self.capacity)
    }

    /// A bucket of another size that is as full, of those that limit something.
    fn succeed(&mut self, old: &Bucket) {
        if self.rate > 0 && old.rate > 0 {
            self.tokens = match old.tokens {
                owed @ ..=0 => owed,
                tokens => tokens * self.capacity / old.capacity,
            };
        }
    }
}

/// The limits of one direction of a VAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meter {
    bits: Bucket,
    packets: Bucket,
    filled: u64,
}

impl Meter {
    pub(super) fn new(limit: &Limit) -> Meter {
        let kilobits = i128::from(limit.burst_kbit) * 1000 * BIT;
        let packets = i128::from(limit.burst_packets) * PACKET;
        Meter {
            bits: Bucket::new(limit.kbps, kilobits, 8 * 65_536 * BIT),
            packets: Bucket::new(limit.pps, packets, 64 * PACKET),
            filled: 0,
        }
    }

    pub(super) fn admit(&mut self, now: u64, bytes: usize) -> bool {
        for bucket in [&mut self.bits, &mut self.packets] {
            let gain = bucket.rate * i128::from(now - self.filled);
            bucket.tokens = (bucket.tokens + gain).min(bucket.capacity);
        }
        self.filled = now;
        let bits = 8 * bytes as i128 * BIT;
        let admitted = self.bits.has(bits) && self.packets.has(PACKET);
        if admitted {
            self.bits.tokens -= bits;
            self.packets.tokens -= PACKET;
        }
        admitted
    }
}

impl Model {
    /// Gives a VAP's meters other limits.
    pub(super) fn limit(&mut self, qos: &Qos) {
        for (direction, limit) in [
            (Direction::Egress, &qos.egress),
            (Direction::Ingress, &qos.ingress),
        ] {
            let mut meter = Meter::new(limit);
            if let Some(old) = self.meters.get(&(qos.vlan, direction)) {
                meter.bits.succeed(&old.bits);
                meter.packets.succeed(&old.packets);
                meter.filled = old.filled;
            }
            self.meters.insert((qos.vlan, direction), meter);
        }
    }

    /// Passes a frame of `bytes`, without tag, through a VAP's meter.
    pub(super) fn meter(
        &mut self,
        vlan: Vlan,
        direction: Direction,
        bytes: usize,
    ) -> Result<(), DropReason> {
        let meter = self.meters.get_mut(&(vlan, direction));
        let admitted = meter.is_none_or(|meter| meter.admit(self.now, bytes));
        admitted.then_some(()).ok_or(DropReason::RateLimit)
    }

    /// How what a VAP sends is marked.
    pub(super) fn mark(&self, vlan: Vlan) -> Option<u8> {
        match self.records.get(&Key::Qos { vlan }) {
            Some(Record::Qos(qos)) => qos.dscp,
            _ => None,
        }
    }
}
