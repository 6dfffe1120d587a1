//! Rates against plain arithmetic, and TCP through a meter.

extern crate std;
use std::{print, println};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
/// An Ethernet frame with 1500 bytes of IP.
const FRAME: u32 = 1514;

fn kbps(kbps: u32) -> Limit {
    Limit {
        kbps,
        ..Limit::default()
    }
}

#[test]
fn a_direction_fits_a_cache_line() {
    assert!(size_of::<Meter>() <= 64, "{}", size_of::<Meter>());
}

/// Part of `limit` that passes if `over` times as much is offered in bursts, once
/// the first burst has been used up.
fn long_run(limit: &Limit, bytes: u32, over: f64, per_burst: u32, frames: u32) -> f64 {
    let mut meter = Meter::new(limit);
    let bits = f64::from(bytes) * 8.0;
    let per_frame = match (limit.kbps, limit.pps) {
        (0, pps) => 1e9 / f64::from(pps),
        (kbps, _) => bits * 1e6 / f64::from(kbps),
    };
    let start = 7 * SECOND;
    while meter.admit(Nanos(start), bytes) {}
    let mut passed = 0;
    let mut now = 0.0;
    for at in 0..frames {
        if at % per_burst == 0 {
            now = f64::from(at) * per_frame / over;
        }
        passed += u32::from(meter.admit(Nanos(start + now as u64), bytes));
    }
    f64::from(passed) * per_frame / now
}

#[test]
fn the_long_run_rate_is_exact() {
    println!("rate            64 B     1514 B   9014 B   (part that passed of what may)");
    for kbit in [
        100,
        333,
        1_000,
        9_999,
        100_000,
        1_000_000,
        10_000_000,
        25_000_001,
        100_000_000,
    ] {
        print!("{kbit:>9} kbit/s");
        for bytes in [64, FRAME, 9014] {
            let part = long_run(&kbps(kbit), bytes, 1.5, 4, 300_000);
            print!("  {part:.5}");
            assert!((part - 1.0).abs() < 0.001, "{kbit} kbit/s, {bytes}: {part}");
        }
        println!();
    }
    for pps in [1, 100, 12_345, 10_000_000] {
        let limit = Limit {
            pps,
            ..Limit::default()
        };
        let part = long_run(&limit, 64, 3.0, 32, 300_000);
        assert!((part - 1.0).abs() < 0.001, "{pps} packets/s: {part}");
    }
}

#[test]
fn what_is_within_the_rate_passes() {
    for kbit in [100, 100_000, 100_000_000] {
        let mut meter = Meter::new(&kbps(kbit));
        let gap = u64::from(FRAME) * 8 * 1_000_000 / u64::from(kbit) + 1;
        for at in 0..100_000 {
            assert!(meter.admit(Nanos(at * gap), FRAME));
        }
    }
}

#[test]
fn zero_is_no_limit_and_no_burst_a_sensible_one() {
    let mut open = Meter::new(&Limit::default());
    assert!(!open.is_limit());
    assert!((0..100_000).all(|_| open.admit(Nanos(0), u32::MAX)));
    let passes = |limit: &Limit, bytes| {
        let mut meter = Meter::new(limit);
        assert!(meter.is_limit());
        (0u32..)
            .find(|_| !meter.admit(Nanos(0), bytes))
            .unwrap_or_default()
    };
    assert_eq!(passes(&kbps(100), 1 << 10), 64);
    assert_eq!(passes(&kbps(10_000), 1000), 1000);
    let packets = |pps, burst_packets| Limit {
        pps,
        burst_packets,
        ..Limit::default()
    };
    assert_eq!(passes(&packets(10, 0), 60), 64);
    assert_eq!(passes(&packets(1000, 0), 60), 800);
    assert_eq!(passes(&packets(1000, 7), 60), 7);
    let burst = Limit {
        burst_kbit: 80,
        ..kbps(1000)
    };
    assert_eq!(passes(&burst, 1000), 10);
}

#[test]
fn frames_larger_than_the_burst_keep_the_rate() {
    let small = Limit {
        burst_kbit: 1,
        ..kbps(1000)
    };
    let part = long_run(&small, FRAME, 2.0, 1, 100_000);
    assert!((part - 1.0).abs() < 0.01, "{part}");
}

#[test]
fn a_frame_that_one_limit_refuses_takes_nothing_from_the_other() {
    let mut meter = Meter::new(&Limit {
        kbps: 1,
        burst_kbit: 8,
        pps: 1,
        burst_packets: 2,
    });
    assert!(meter.admit(Nanos(0), 600));
    assert!(!meter.admit(Nanos(0), 600), "too many bits");
    assert!(meter.admit(Nanos(0), 200), "still a packet left");
    assert!(!meter.admit(Nanos(0), 100), "too many packets");
    assert_eq!(meter.bits.tokens, 200 * BYTE);
}

#[test]
fn the_clock_may_stand_jump_and_go_back() {
    let mut meter = Meter::new(&kbps(8));
    let drained = |meter: &mut Meter, now| (0..).find(|_| !meter.admit(now, 1000)).unwrap_or(0);
    let full = drained(&mut meter, Nanos(100 * SECOND));
    assert_eq!(full, 65);
    assert!(!meter.admit(Nanos(100 * SECOND), 1000));
    assert!(!meter.admit(Nanos(99 * SECOND + 1), 1000), "waited for");
    assert!(meter.admit(Nanos(101 * SECOND), 1000));
    assert!(!meter.admit(Nanos(SECOND), 1000), "followed");
    assert!(meter.admit(Nanos(2 * SECOND), 1000));
    assert_eq!(drained(&mut meter, Nanos(u64::MAX)), full);
}

#[test]
fn other_limits_keep_the_part_that_is_left() {
    let mut meter = Meter::new(&kbps(1_000_000));
    for _ in 0..25_000 {
        assert!(meter.admit(Nanos(SECOND), 1000));
    }
    assert_eq!(meter.bits.tokens, meter.bits.capacity / 4 * 3);
    meter.set(&kbps(4_000));
    assert_eq!(meter.bits.tokens, meter.bits.capacity / 4 * 3);
    assert!(!meter.admit(Nanos(SECOND), u32::MAX));
    meter.set(&Limit::default());
    assert!(meter.admit(Nanos(SECOND), u32::MAX));
    meter.set(&kbps(4_000));
    assert_eq!(
        meter.bits.tokens, meter.bits.capacity,
        "a limit begins full"
    );
}

fn limit() -> impl Strategy<Value = Limit> {
    let number = || prop_oneof![Just(0), 1u32..2000, any::<u32>()];
    (number(), number(), number(), number()).prop_map(|(kbps, burst_kbit, pps, burst_packets)| {
        Limit {
            kbps,
            burst_kbit,
            pps,
            burst_packets,
        }
    })
}

proptest! {
    /// What passes never exceeds burst and rate, exactly, and a frame that fits
    /// what both leave over passes.
    #[test]
    fn agrees_with_wide_arithmetic(
        limit in limit(),
        frames in proptest::collection::vec((0u64..2 * SECOND, 0u32..100_000), 1..200),
    ) {
        let mut meter = Meter::new(&limit);
        let full = [meter.bits.capacity, meter.packets.capacity].map(i128::from);
        let rates = [limit.kbps, limit.pps].map(i128::from);
        let mut tokens = full;
        let mut now = 0;
        for (step, bytes) in frames {
            now += step;
            for (tokens, (rate, full)) in tokens.iter_mut().zip(rates.iter().zip(full)) {
                *tokens = (*tokens + rate * i128::from(step)).min(full);
            }
            let costs = [i128::from(bytes) * i128::from(BYTE), i128::from(PACKET)];
            let fits = (0..2).all(|i| rates[i] == 0 || tokens[i] >= costs[i].min(full[i]));
            prop_assert_eq!(meter.admit(Nanos(now), bytes), fits);
            if fits {
                (0..2).for_each(|i| tokens[i] -= costs[i]);
            }
        }
    }

    #[test]
    fn no_clock_and_no_limit_overfills_or_panics(
        limits in proptest::collection::vec(limit(), 1..5),
        frames in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..50),
    ) {
        let mut meter = Meter::new(&Limit::default());
        for limit in &limits {
            meter.set(limit);
            for (now, bytes) in &frames {
                meter.admit(Nanos(*now), *bytes);
                prop_assert!(meter.bits.tokens <= meter.bits.capacity);
                prop_assert!(meter.packets.tokens <= meter.packets.capacity);
            }
        }
    }
}

/// How a sender's window grows after a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// RFC 5681.
    Reno,
    /// RFC 9438.
    Cubic,
}

/// A bulk sender with selective acknowledgements (RFC 6675) and proportional rate
/// reduction (RFC 6937), but without RACK and tail loss probes: whatever leaves
/// fewer than three packets to acknowledge has to wait for the timer, at least
/// 200 ms, and twice as long each time in a row.
struct Sender {
    growth: Growth,
    window: f64,
    threshold: f64,
    /// Window at the last loss, and nanoseconds since.
    peak: f64,
    since: f64,
    recovering: bool,
    timeouts: i32,
}

impl Sender {
    fn beta(&self) -> f64 {
        match self.growth {
            Growth::Reno => 0.5,
            Growth::Cubic => 0.7,
        }
    }

    fn lose(&mut self) {
        self.peak = self.window;
        self.since = 0.0;
        self.threshold = (self.window * self.beta()).max(2.0);
    }

    /// Takes note of a round trip in which `passed` of `sent` packets passed, and
    /// returns how many nanoseconds the sender then waits.
    fn round(&mut self, sent: f64, passed: f64, trip: f64) -> f64 {
        self.since += trip;
        if passed < sent && passed < 3.0 {
            if self.timeouts == 0 && !self.recovering {
                self.lose();
            }
            self.window = 1.0;
            self.recovering = false;
            self.timeouts += 1;
            return 2e8 * f64::from(self.timeouts - 1).exp2();
        }
        self.timeouts = 0;
        if passed < sent {
            if !self.recovering {
                self.lose();
                self.recovering = true;
            }
            // No more than what is known to have left the network.
            self.window = self.threshold.min(passed + 1.0);
            return 0.0;
        }
        if self.recovering {
            self.recovering = false;
            self.window = self.threshold;
        } else if self.window < self.threshold {
            self.window = (self.window * 2.0).min(self.threshold);
        } else {
            self.grow(trip);
        }
        0.0
    }

    fn grow(&mut self, trip: f64) {
        let reno = self.window + 1.0;
        self.window = match self.growth {
            Growth::Reno => reno,
            Growth::Cubic => {
                let apex = (self.peak * 0.3 / 0.4).cbrt();
                let cubic = 0.4 * (self.since / 1e9 - apex).powi(3) + self.peak;
                // As much as Reno with this beta at least (RFC 9438, 4.3).
                let friendly = self.peak * 0.7 + 0.53 * self.since / trip;
                cubic.max(friendly).clamp(self.window, self.window * 1.5)
            }
        };
    }
}

/// Part of the limit that a TCP connection gets in the long run, after the first
/// ten seconds, which include the first burst.
fn tcp(limit: &Limit, trip: f64, growth: Growth) -> f64 {
    const WARM_UP: f64 = 1e10;
    /// Nanoseconds that a frame takes on the wire at 25 Gbit/s.
    const WIRE: f64 = 484.0;
    /// Frames in a segment of 64 KiB.
    const SEGMENT: u32 = 45;
    let mut meter = Meter::new(limit);
    let mut sender = Sender {
        growth,
        window: 10.0,
        threshold: f64::MAX,
        peak: 10.0,
        since: 0.0,
        recovering: false,
        timeouts: 0,
    };
    let end = 7e10;
    let (mut now, mut total) = (0.0, 0.0);
    while now < end {
        let sent = sender.window as u32;
        let mut passed = 0;
        for at in 0..sent {
            // Segments spread over the round trip, the frames of each at once.
            let segment = f64::from(at - at % SEGMENT) / f64::from(sent) * trip;
            let then = now + segment + f64::from(at % SEGMENT) * WIRE;
            passed += u32::from(meter.admit(Nanos(then as u64), FRAME));
        }
        if now >= WARM_UP {
            total += f64::from(passed);
        }
        // Faster than the wire it cannot be.
        let trip = trip.max(f64::from(sent) * WIRE);
        now += trip + sender.round(sent.into(), passed.into(), trip);
    }
    total * f64::from(FRAME) * 8e6 / f64::from(limit.kbps) / (now - WARM_UP)
}

/// Prints and returns the parts for the round trips of 0.2 to 50 ms.
fn tcp_parts(limit: &Limit, growth: Growth) -> [f64; 4] {
    let parts = [2e5, 2e6, 1e7, 5e7].map(|trip| tcp(limit, trip, growth));
    println!("{growth:?} {limit:?} at 0.2, 2, 10, 50 ms: {parts:.4?}");
    parts
}

/// The part is that of [`FRAME`]s, so 1 is all that there is.
#[test]
fn tcp_gets_what_the_limit_allows() {
    for kbit in [1_000, 10_000, 100_000, 1_000_000, 10_000_000] {
        for part in tcp_parts(&kbps(kbit), Growth::Cubic) {
            assert!((0.95..1.01).contains(&part), "{kbit} kbit/s: {part}");
        }
    }
    // Faster, Reno's window takes longer to grow back than any burst may last.
    for kbit in [1_000, 10_000, 100_000] {
        let parts = tcp_parts(&kbps(kbit), Growth::Reno);
        for (part, least) in parts.into_iter().zip([0.95, 0.95, 0.95, 0.9]) {
            assert!((least..1.01).contains(&part), "{kbit} kbit/s: {part}");
        }
    }
}

/// Why the default is as large as it is.
#[test]
fn a_small_burst_starves_tcp() {
    let small = Limit {
        burst_kbit: 100_000 / 50,
        ..kbps(100_000)
    };
    assert!(
        tcp_parts(&small, Growth::Cubic)
            .into_iter()
            .any(|part| part < 0.8)
    );
}

proptest! {
    #[test]
    fn scaling_is_multiplying_and_dividing(number: u64, of: u64, whole in 1u64..) {
        let wanted = u128::from(number) * u128::from(of) / u128::from(whole);
        prop_assert_eq!(scale(number, (of, whole)), wanted);
    }
}

#[test]
fn a_meter_can_only_be_lowered() {
    let limit = Limit {
        pps: 1,
        burst_packets: 10,
        kbps: 1,
        burst_kbit: 10,
    };
    let mut meter = Meter::new(&limit);
    let full = (10 * KILOBIT, 10 * PACKET);
    assert_eq!(meter.left(Nanos(5)), full);
    meter.lower(Nanos(5), (i64::MAX, i64::MAX));
    assert_eq!(meter.left(Nanos(5)), full);
    meter.lower(Nanos(5), (7, i64::MAX));
    assert_eq!(meter.left(Nanos(5)), (7, full.1));
    assert_eq!(meter.left(Nanos(6)), (8, full.1));
    meter.lower(Nanos(7), (i64::MIN, i64::MIN));
    assert_eq!(meter.left(Nanos(7)), (-MOST_OWED, -PACKET));
    meter.lower(Nanos(7), (0, 0));
    assert_eq!(meter.left(Nanos(7)), (-MOST_OWED, -PACKET));
    let mut open = Meter::new(&Limit::default());
    open.lower(Nanos(7), (0, 0));
    assert_eq!(open.left(Nanos(7)), (i64::MAX, i64::MAX));
    assert!(open.admit(Nanos(7), 1000));
}
