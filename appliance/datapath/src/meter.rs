//! Rate limits of a VAP in one direction: a token bucket for bits, one for packets.
//!
//! A frame's length is that of the Ethernet frame without FCS and VLAN tag, so it
//! is the same on either side of the NVE.
//!
//! Tokens are small enough for a nanosecond at any rate to be a whole number of
//! them: a kilobit per second (1000 bit/s) gives one per nanosecond if a bit costs
//! 10^6, a packet per second if a packet costs 10^9. So nothing is divided and
//! nothing is rounded, and the rate holds exactly over any time.
//!
//! What exceeds the rate is dropped (a policer), since a queue per VAP would hold
//! buffers that all VAPs share. TCP bears that if the bucket is deep enough. A
//! sender that lost a whole flight is silent until its retransmission timer fires
//! (200 ms at least on Linux, 400 ms the next time); what it could have sent
//! meanwhile has to be in the bucket afterwards, or is lost to it. A sender with a
//! long round trip reduces its window at each loss, and lives on what it saved
//! until the window has grown again. Both fit Neutron's default burst, 80 % of what
//! the rate gives in a second; the tests simulate it. A burst that the user chose
//! is kept, however small.
//!
//! Invariant: no bucket holds more tokens than its capacity. It may owe some:
//! frames larger than the capacity pass a full bucket, or none of them ever could.

use nve_protocol::Limit;

use crate::Nanos;

mod shared;

pub use shared::SharedMeters;

/// Tokens that a byte costs.
const BYTE: i64 = 8_000_000;
/// Tokens that a packet costs.
const PACKET: i64 = 1_000_000_000;
/// Tokens that a kilobit costs.
const KILOBIT: i64 = 125 * BYTE;
/// Nanoseconds for which an unused rate is saved if the burst is left open: 80 % of
/// a second, as in Neutron.
const SAVED: i64 = 800_000_000;
/// Least bytes of a burst that is left open: one segment of TCP as it leaves the
/// sender (64 KiB), which comes at once, cut into frames.
const LEAST_BYTES: i64 = 1 << 16;
/// Least packets of a burst that is left open: the frames of such a segment.
const LEAST_PACKETS: i64 = 64;
/// Most tokens for bits that a bucket owes: a frame of 64 KiB.
const MOST_OWED: i64 = (1 << 16) * BYTE;
/// A clock that is set back by less is waited for; by more, it is followed.
const PATIENCE: u64 = 1_000_000_000;

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    tokens: i64,
    capacity: i64,
    /// Tokens per nanosecond; 0 for no limit.
    rate: u32,
}

impl Bucket {
    /// One without a limit.
    const NONE: Bucket = Bucket {
        tokens: 0,
        capacity: 0,
        rate: 0,
    };

    /// A full bucket that holds `burst` units, or with 0 what `rate` gives in the
    /// time that is [`SAVED`] and at least `least` tokens.
    fn new(rate: u32, burst: u32, unit: i64, least: i64) -> Bucket {
        let capacity = match burst {
            0 => (i64::from(rate) * SAVED).max(least),
            burst => i64::from(burst) * unit,
        };
        Bucket {
            tokens: capacity,
            capacity,
            rate,
        }
    }

    /// What is in it after so long.
    #[inline(always)]
    fn filled(&self, nanos: u64) -> i64 {
        // Of more than four seconds it may be more than 64 bits have.
        let gain = match u32::try_from(nanos) {
            Ok(nanos) => u64::from(self.rate) * u64::from(nanos),
            Err(_) => u64::from(self.rate).saturating_mul(nanos),
        };
        // No more than there is room for, so this does not wrap.
        let room = self.capacity.wrapping_sub(self.tokens) as u64;
        self.tokens.wrapping_add_unsigned(gain.min(room))
    }

    /// Lets time pass, and then something that costs so much, if it has that.
    #[inline(always)]
    fn pass(&mut self, nanos: u64, cost: i64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let tokens = self.filled(nanos);
        let has = tokens >= cost.min(self.capacity);
        // At worst it owes all of the cost: far from wrapping.
        self.tokens = if has {
            tokens.wrapping_sub(cost)
        } else {
            tokens
        };
        has
    }

    fn refill(&mut self, nanos: u64) {
        self.tokens = self.filled(nanos);
    }

    /// Whether it has what something costs, as far as it can; always, if there is no limit.
    fn has(&self, cost: i64) -> bool {
        self.rate == 0 || self.tokens >= cost.min(self.capacity)
    }

    /// It has the cost, and at worst owes all of it: far from wrapping.
    fn take(&mut self, cost: i64) {
        if self.rate != 0 {
            self.tokens = self.tokens.wrapping_sub(cost);
        }
    }

    /// What is left in it, or owed; the most there is if there is no limit.
    fn left(&self) -> i64 {
        if self.rate == 0 {
            i64::MAX
        } else {
            self.tokens
        }
    }

    /// Leaves no more than `to`, but owes no more than `owed` by that.
    fn lower(&mut self, to: i64, owed: i64) {
        if self.rate != 0 {
            self.tokens = self.tokens.min(to.max(-owed));
        }
    }

    /// Fills the bucket to the same part as `old` was: of the same limit, exactly.
    fn succeed(&mut self, old: &Bucket) {
        if self.rate == 0 || old.rate == 0 || old.capacity == 0 {
            return;
        }
        // What it owes it owes whatever its size is now.
        if old.tokens <= 0 {
            self.tokens = old.tokens;
            return;
        }
        let part = (self.capacity.unsigned_abs(), old.capacity.unsigned_abs());
        let tokens = scale(old.tokens.unsigned_abs(), part);
        self.tokens =
            i64::try_from(tokens).map_or(self.capacity, |tokens| tokens.min(self.capacity));
    }
}

/// `number * of / whole`, rounded down; `whole` is not 0. Bit by bit: the compiler's own
/// 128-bit division wants support for unwinding, which the image does not link.
fn scale(number: u64, (of, whole): (u64, u64)) -> u128 {
    let product = u128::from(number) * u128::from(of);
    let (mut quotient, mut rest) = (0, 0);
    for bit in (0..u128::BITS).rev() {
        rest = rest << 1 | (product >> bit & 1);
        quotient <<= 1;
        if rest >= u128::from(whole) {
            rest -= u128::from(whole);
            quotient |= 1;
        }
    }
    quotient
}

/// The limits of one direction of a VAP, and how much of them is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    bits: Bucket,
    packets: Bucket,
    /// Up to when the buckets have been filled.
    last: Nanos,
}

impl Meter {
    /// One without a limit.
    pub(crate) const NONE: Meter = Meter {
        bits: Bucket::NONE,
        packets: Bucket::NONE,
        last: Nanos(0),
    };

    /// A meter that nothing has passed yet.
    pub fn new(limit: &Limit) -> Meter {
        Meter {
            bits: Bucket::new(limit.kbps, limit.burst_kbit, KILOBIT, LEAST_BYTES * BYTE),
            packets: Bucket::new(
                limit.pps,
                limit.burst_packets,
                PACKET,
                LEAST_PACKETS * PACKET,
            ),
            last: Nanos(0),
        }
    }

    /// Whether it limits anything.
    pub fn is_limit(&self) -> bool {
        self.bits.rate != 0 || self.packets.rate != 0
    }

    /// Sets other limits. Each bucket stays as full as it was, in proportion, so
    /// that a change gives nothing away.
    pub fn set(&mut self, limit: &Limit) {
        let old = core::mem::replace(self, Meter::new(limit));
        self.bits.succeed(&old.bits);
        self.packets.succeed(&old.packets);
        self.last = old.last;
    }

    /// Whether a frame of `bytes` may pass at `now`; if so, it has passed. One that
    /// may not takes nothing, from either bucket.
    #[inline(always)]
    pub fn admit(&mut self, now: Nanos, bytes: u32) -> bool {
        let bits = i64::from(bytes) * BYTE;
        // Most have no limit for packets, and clocks go forward.
        if self.packets.rate == 0 && now >= self.last {
            let nanos = now.0 - self.last.0;
            self.last = now;
            return self.bits.pass(nanos, bits);
        }
        self.admit_both(now, bits)
    }

    #[inline(never)]
    fn admit_both(&mut self, now: Nanos, bits: i64) -> bool {
        self.pass_time(now);
        let admitted = self.bits.has(bits) && self.packets.has(PACKET);
        if admitted {
            self.bits.take(bits);
            self.packets.take(PACKET);
        }
        admitted
    }

    /// Tokens for bits and for packets that are left at `now`.
    pub fn left(mut self, now: Nanos) -> (i64, i64) {
        self.pass_time(now);
        (self.bits.left(), self.packets.left())
    }

    /// Leaves no more tokens for bits and for packets than those, which may come from
    /// anyone.
    pub fn lower(&mut self, now: Nanos, (bits, packets): (i64, i64)) {
        self.pass_time(now);
        self.bits.lower(bits, MOST_OWED);
        self.packets.lower(packets, PACKET);
    }

    /// A clock that jumps ahead fills the buckets, and no more than that.
    fn pass_time(&mut self, now: Nanos) {
        match now.0.checked_sub(self.last.0) {
            Some(nanos) => {
                self.last = now;
                self.bits.refill(nanos);
                self.packets.refill(nanos);
            }
            None if self.last.0 - now.0 > PATIENCE => self.last = now,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
