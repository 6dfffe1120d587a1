//! States of the session and their timers.

use core::ops::RangeInclusive;

use nve_datapath::Nanos;
use nve_protocol::Welcome;

use crate::close::CloseReason;
use crate::dial::MILLI;
use crate::noise::{Initiator, Transport};

/// Bounds of [`Welcome::dead_after_ms`], in milliseconds.
const DEAD_AFTER: RangeInclusive<u32> = 1_000..=600_000;

/// Shortest interval between two [`Stats`](nve_protocol::Stats), in milliseconds.
const MIN_STATS_INTERVAL: u32 = 100;

/// Where a session stands, with what it needs there.
pub(crate) enum State {
    Waiting,
    Dialing {
        deadline: Nanos,
    },
    Handshake {
        noise: Initiator,
        deadline: Nanos,
    },
    Greeting {
        noise: Transport,
        deadline: Nanos,
    },
    Established {
        noise: Transport,
        timers: Timers,
    },
    Closing {
        reason: CloseReason,
        welcomed: Option<Nanos>,
    },
}

/// Times of an established session.
pub(crate) struct Timers {
    /// When it was established.
    pub(crate) welcomed: Nanos,
    heard: Nanos,
    /// Nanoseconds.
    dead_after: u64,
    /// Nanoseconds between two reports; none are asked for if absent.
    interval: Option<u64>,
    next_report: Nanos,
}

impl Timers {
    /// As `welcome` says, within bounds.
    pub(crate) fn new(welcome: Welcome, now: Nanos) -> Self {
        let dead_after = welcome
            .dead_after_ms
            .clamp(*DEAD_AFTER.start(), *DEAD_AFTER.end());
        let interval = match welcome.stats_interval_ms {
            0 => None,
            asked => Some(u64::from(asked.max(MIN_STATS_INTERVAL)) * MILLI),
        };
        Timers {
            welcomed: now,
            heard: now,
            dead_after: u64::from(dead_after) * MILLI,
            interval,
            next_report: now,
        }
    }

    /// An authentic frame came.
    pub(crate) fn heard(&mut self, now: Nanos) {
        self.heard = now;
    }

    /// A report is sent; returns whether one was asked for.
    pub(crate) fn reported(&mut self, now: Nanos) -> bool {
        if let Some(interval) = self.interval {
            self.next_report = after(now, interval);
        }
        self.interval.is_some()
    }

    /// When the peer is given up.
    pub(crate) fn dead_at(&self) -> Nanos {
        after(self.heard, self.dead_after)
    }

    /// When the next report is due, if any.
    pub(crate) fn report_at(&self) -> Option<Nanos> {
        self.interval.map(|_| self.next_report)
    }
}

/// The time `nanos` after `now`.
pub(crate) fn after(now: Nanos, nanos: u64) -> Nanos {
    Nanos(now.0.saturating_add(nanos))
}
