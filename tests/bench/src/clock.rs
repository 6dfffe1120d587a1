//! The processor's time stamp counter, in which everything short is measured.

use std::arch::x86_64::_rdtsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the counter is compared with the system's clock.
const CALIBRATION: Duration = Duration::from_millis(100);

/// Cycles since an arbitrary start.
#[inline]
pub fn now() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { _rdtsc() }
}

/// How fast the counter counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    hertz: f64,
}

impl Clock {
    /// Measures it, by waiting a moment.
    pub fn calibrate() -> Clock {
        let (start, cycles) = (Instant::now(), now());
        thread::sleep(CALIBRATION);
        let (elapsed, cycles) = (start.elapsed(), now().wrapping_sub(cycles));
        Clock {
            hertz: cycles as f64 / elapsed.as_secs_f64(),
        }
    }

    /// Cycles per second.
    pub fn hertz(self) -> f64 {
        self.hertz
    }

    /// How many cycles a time is.
    pub fn cycles(self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.hertz) as u64
    }

    /// How many seconds a number of cycles is.
    pub fn seconds(self, cycles: u64) -> f64 {
        cycles as f64 / self.hertz
    }
}
