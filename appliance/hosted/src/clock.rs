//! Time from the time-stamp counter, as on the bare machine.

use std::arch::x86_64::_rdtsc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nve_datapath::Nanos;
use nve_kernel::tsc::Scale;

/// How long the counter is held against the system's clock.
const CALIBRATION: Duration = Duration::from_millis(50);

static CLOCK: OnceLock<Clock> = OnceLock::new();

/// The counter's rate, and its value at the start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
    scale: Scale,
}

impl Clock {
    /// The process's clock. The first call takes 50 ms, and fixes the start.
    pub fn get() -> Clock {
        *CLOCK.get_or_init(|| {
            let (began, start) = (Instant::now(), ticks());
            std::thread::sleep(CALIBRATION);
            let counted = ticks().wrapping_sub(start);
            let nanos = began.elapsed().as_nanos().max(1);
            let hertz = u128::from(counted) * 1_000_000_000 / nanos;
            let scale = u64::try_from(hertz).ok().and_then(Scale::new);
            Clock {
                start,
                scale: scale.expect("a processor's counter runs at 1 MHz to 1 THz"),
            }
        })
    }

    /// The time when the counter was at `ticks`.
    #[inline]
    pub fn at(&self, ticks: u64) -> Nanos {
        Nanos(self.scale.nanos(ticks.wrapping_sub(self.start)))
    }
}

/// Time since the start.
pub fn now() -> Nanos {
    Clock::get().at(ticks())
}

/// The counter.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: every 64-bit processor has RDTSC, and it has no effect.
    unsafe { _rdtsc() }
}
