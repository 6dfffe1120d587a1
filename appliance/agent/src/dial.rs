//! When to dial, and which shim: exponential backoff with jitter, each shim in
//! turn.
//!
//! Invariant: two attempts are at least half of [`FIRST`] apart.

use nve_datapath::Nanos;

/// Nanoseconds in a millisecond.
pub(crate) const MILLI: u64 = 1_000_000;

/// Delay before the second attempt, in nanoseconds, before jitter.
const FIRST: u64 = 100 * MILLI;

/// Longest delay, in nanoseconds; also how long a session must have lasted to
/// count as a success.
const LONGEST: u64 = 10_000 * MILLI;

/// Decides when to dial which shim.
pub(crate) struct Dialer {
    shims: usize,
    index: usize,
    failures: u32,
    not_before: Nanos,
}

impl Dialer {
    /// Of `shims` addresses, at least one; the first is dialed at once.
    pub(crate) fn new(shims: usize) -> Self {
        Dialer {
            shims: shims.max(1),
            index: 0,
            failures: 0,
            not_before: Nanos(0),
        }
    }

    /// Index of the shim to dial next.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// When to dial it.
    pub(crate) fn not_before(&self) -> Nanos {
        self.not_before
    }

    /// An attempt failed: the next shim's turn, later after each full round.
    pub(crate) fn failed(&mut self, now: Nanos, random: u64) {
        let rounds = self.failures / u32::try_from(self.shims).unwrap_or(u32::MAX);
        let delay = (FIRST << rounds.min(16)).min(LONGEST);
        let jittered = delay / 2 + random % (delay / 2 + 1);
        self.not_before = Nanos(now.0.saturating_add(jittered));
        self.failures = self.failures.saturating_add(1);
        self.index = (self.index + 1) % self.shims;
    }

    /// A session that was welcomed at `since` ended: the same shim again, and
    /// soon if the session had lasted.
    pub(crate) fn lost(&mut self, now: Nanos, since: Nanos, random: u64) {
        let index = self.index;
        let lasted = now.0.saturating_sub(since.0) >= LONGEST;
        if lasted {
            self.failures = 0;
        }
        self.failed(now, random);
        if lasted {
            self.index = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(dialer: &mut Dialer, random: u64) -> u64 {
        dialer.failed(Nanos(1000), random);
        dialer.not_before().0 - 1000
    }

    #[test]
    fn delays_double_up_to_ten_seconds() {
        let mut dialer = Dialer::new(1);
        assert_eq!(dialer.not_before(), Nanos(0));
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let random = expected * MILLI / 2;
            assert_eq!(delay(&mut dialer, random), expected * MILLI);
        }
        dialer.failures = u32::MAX;
        assert_eq!(delay(&mut dialer, 0), LONGEST / 2);
    }

    #[test]
    fn jitter_stays_within_half_of_the_delay() {
        for random in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let delay = delay(&mut Dialer::new(1), random);
            assert!((FIRST / 2..=FIRST).contains(&delay), "{delay}");
        }
    }

    #[test]
    fn each_shim_has_its_turn_before_delays_grow() {
        let mut dialer = Dialer::new(3);
        let mut seen = [0; 6];
        for seen in &mut seen {
            *seen = dialer.index();
            delay(&mut dialer, 0);
        }
        assert_eq!(seen, [0, 1, 2, 0, 1, 2]);
        assert_eq!(delay(&mut dialer, 0), 2 * FIRST);
    }

    #[test]
    fn a_session_that_lasted_starts_over_and_a_short_one_does_not() {
        let mut dialer = Dialer::new(2);
        for _ in 0..5 {
            delay(&mut dialer, 0);
        }
        assert_eq!(dialer.index(), 1);
        dialer.lost(Nanos(LONGEST), Nanos(0), 0);
        assert_eq!(dialer.index(), 1);
        assert_eq!(dialer.not_before().0 - LONGEST, FIRST / 2);
        let failures = dialer.failures;
        dialer.lost(Nanos(LONGEST), Nanos(1), 0);
        assert_eq!((dialer.index(), dialer.failures), (0, failures + 1));
    }
}
