//! Arithmetic of the time-stamp counter.

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// Bits behind the binary point of [`Scale`].
const SHIFT: u32 = 32;

/// Turns ticks into nanoseconds by one multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Nanoseconds per tick, with 32 bits behind the binary point.
    nanos_per_tick: u64,
    /// Ticks per second.
    hertz: u64,
}

impl Scale {
    /// The scale of a counter that runs at `hertz`; `None` outside of what a
    /// processor's counter can have (1 MHz to 1 THz).
    pub fn new(hertz: u64) -> Option<Scale> {
        if !(1_000_000..=1_000_000_000_000).contains(&hertz) {
            return None;
        }
        let nanos_per_tick = u64::try_from((SECOND << SHIFT) / u128::from(hertz)).ok()?;
        Some(Scale {
            nanos_per_tick,
            hertz,
        })
    }

    /// Ticks per second.
    pub const fn hertz(self) -> u64 {
        self.hertz
    }

    /// Nanoseconds that `ticks` take.
    pub const fn nanos(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.nanos_per_tick as u128) >> SHIFT) as u64
    }

    /// Ticks in `nanos`, rounded down.
    pub const fn ticks(self, nanos: u64) -> u64 {
        (nanos as u128 * self.hertz as u128 / SECOND) as u64
    }
}

/// Rate in Hz from CPUID leaf 0x15: `eax` and `ebx` are the ratio of the counter
/// to the crystal, `ecx` the crystal in Hz (Intel SDM volume 2A, CPUID).
pub fn from_crystal(eax: u32, ebx: u32, ecx: u32) -> Option<u64> {
    if eax == 0 || ebx == 0 || ecx == 0 {
        return None;
    }
    Some(u64::from(ecx) * u64::from(ebx) / u64::from(eax))
}

/// Rate in Hz from a kvm-clock structure's `tsc_to_system_mul` and `tsc_shift`
/// (Linux, Documentation/virt/kvm/x86/msr.rst): nanoseconds are
/// `(ticks << shift) * mul >> 32`.
pub fn from_kvm_clock(mul: u32, shift: i8) -> Option<u64> {
    if mul == 0 || !(-31..=31).contains(&shift) {
        return None;
    }
    let scaled = (SECOND << 32) / u128::from(mul);
    let hertz = match shift {
        0.. => scaled >> shift,
        _ => scaled << -i32::from(shift),
    };
    u64::try_from(hertz).ok()
}

/// Rate in Hz of a counter that made `ticks` while the PIT (1.193182 MHz) made
/// `pit_ticks`.
pub fn from_pit(ticks: u64, pit_ticks: u16) -> Option<u64> {
    const PIT_HERTZ: u128 = 1_193_182;
    let rate = (u128::from(ticks) * PIT_HERTZ).checked_div(u128::from(pit_ticks))?;
    u64::try_from(rate).ok()
}

/// The ticks of one round of a measurement that can only come out too long: a
/// hypervisor that lets the processor wait in the middle makes it so. That is the
/// least of `rounds`, which are taken until two agree by 0.1 %.
pub fn undisturbed(rounds: impl IntoIterator<Item = u64>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for ticks in rounds {
        let best = least.map_or(ticks, |least| least.min(ticks));
        if least.is_some_and(|least| least.abs_diff(ticks) <= best / 1024) {
            return Some(best);
        }
        least = Some(best);
    }
    least
}

/// What one question and answer tell of the counter of another processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// The counters are within the limit of each other.
    Within,
    /// They are not.
    Beyond,
    /// The answer took too long to tell.
    Unknown,
}

/// Compares another processor's counter with ours: it was `theirs` at some time
/// between `asked` and `answered` of ours; `limit` is in ticks as well.
pub fn skew(asked: u64, theirs: u64, answered: u64, limit: u64) -> Skew {
    // The counters start somewhere, so they may be about to wrap around.
    let ahead_of = |ours: u64| theirs.wrapping_sub(ours).cast_signed();
    let (most, least) = (ahead_of(asked), ahead_of(answered));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    if most <= limit && least >= -limit {
        Skew::Within
    } else if least > limit || most < -limit {
        Skew::Beyond
    } else {
        Skew::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_a_second_at_any_rate() {
        for hertz in [1_000_000, 1_193_182, 2_600_000_000, 5_999_999_999] {
            let scale = Scale::new(hertz).unwrap();
            let nanos = scale.nanos(hertz);
            assert!(nanos.abs_diff(1_000_000_000) <= 2, "{hertz}: {nanos}");
            assert_eq!(scale.ticks(1_000_000_000), hertz);
        }
    }

    #[test]
    fn a_year_of_ticks_does_not_overflow() {
        let scale = Scale::new(3_000_000_000).unwrap();
        let year = 365 * 24 * 3600;
        let nanos = scale.nanos(3_000_000_000 * year);
        assert!(nanos.abs_diff(year * 1_000_000_000) < 50_000_000);
    }

    #[test]
    fn impossible_rates_are_refused() {
        assert_eq!(Scale::new(0), None);
        assert_eq!(Scale::new(u64::MAX), None);
        assert_eq!(from_crystal(0, 1, 1), None);
        assert_eq!(from_crystal(2, 200, 0), None);
        assert_eq!(from_kvm_clock(0, 0), None);
        assert_eq!(from_kvm_clock(1, 100), None);
        assert_eq!(from_pit(1, 0), None);
    }

    #[test]
    fn rounds_in_which_the_processor_waited_do_not_count() {
        let mut taken = 0;
        let rounds = [46_000_000, 26_000_500, 31_000_000, 26_000_000, 9];
        let rounds = rounds.into_iter().inspect(|_| taken += 1);
        assert_eq!(undisturbed(rounds), Some(26_000_000));
        assert_eq!(taken, 4, "two agreed");
        assert_eq!(undisturbed([46, 26]), Some(26));
        assert_eq!(undisturbed([]), None);
    }

    #[test]
    fn counters_are_compared_by_question_and_answer() {
        let compare = |asked, theirs, answered| skew(asked, theirs, answered, 100);
        assert_eq!(compare(1000, 1005, 1010), Skew::Within);
        assert_eq!(compare(1000, 1100, 1010), Skew::Within);
        assert_eq!(compare(1000, 910, 1010), Skew::Within);
        // By the time of the answer it may be more.
        assert_eq!(compare(1000, 1101, 1010), Skew::Unknown);
        assert_eq!(compare(1000, 909, 1010), Skew::Unknown);
        assert_eq!(compare(1000, 1200, 1400), Skew::Unknown);
        assert_eq!(compare(1000, 1111, 1010), Skew::Beyond);
        assert_eq!(compare(1000, 899, 1010), Skew::Beyond);
        assert_eq!(compare(1_000_000, 3, 1_000_010), Skew::Beyond);
        assert_eq!(compare(u64::MAX - 4, 1, 5), Skew::Within);
    }

    #[test]
    fn sources_agree_on_a_known_processor() {
        assert_eq!(from_crystal(2, 200, 24_000_000), Some(2_400_000_000));
        // As KVM computes them for 2.6 GHz: shift -1, multiplier 1e9 * 2^33 / 2.6e9.
        let rate = from_kvm_clock(3_303_820_997, -1).unwrap();
        assert!(rate.abs_diff(2_600_000_000) < 10, "{rate}");
        let rate = from_pit(26_000_000, 11_932).unwrap();
        assert!(rate.abs_diff(2_600_000_000) < 100_000, "{rate}");
    }
}
