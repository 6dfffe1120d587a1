//! Why connections are refused before they are sessions, counted by reason.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Too many connections that have not authenticated yet.
    TooMany,
    /// Handshake and hello took too long.
    Timeout,
    /// What came is no handshake for this shim's key.
    Garbage,
    /// No NVE is registered with the key.
    UnknownKey,
    /// What came after the handshake is no hello.
    BadHello,
    /// The hello speaks another version of the messages.
    Version,
    /// The hello names another NVE than the key's.
    WrongNve,
    /// The connection ended before the hello.
    Closed,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Rejection; 8] = [
        Rejection::TooMany,
        Rejection::Timeout,
        Rejection::Garbage,
        Rejection::UnknownKey,
        Rejection::BadHello,
        Rejection::Version,
        Rejection::WrongNve,
        Rejection::Closed,
    ];

    /// Name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Rejection::TooMany => "too_many",
            Rejection::Timeout => "timeout",
            Rejection::Garbage => "garbage",
            Rejection::UnknownKey => "unknown_key",
            Rejection::BadHello => "bad_hello",
            Rejection::Version => "version",
            Rejection::WrongNve => "wrong_nve",
            Rejection::Closed => "closed",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::TooMany => "too many connections that have not authenticated",
            Rejection::Timeout => "handshake and hello took too long",
            Rejection::Garbage => "not a handshake for this shim's key",
            Rejection::UnknownKey => "no NVE is registered with this key",
            Rejection::BadHello => "no hello after the handshake",
            Rejection::Version => "another version of the protocol",
            Rejection::WrongNve => "the key belongs to another NVE",
            Rejection::Closed => "closed before it said hello",
        })
    }
}

/// A counter for each [`Rejection`].
#[derive(Debug, Default)]
pub(super) struct Rejections([AtomicU64; Rejection::ALL.len()]);

impl Rejections {
    pub(super) fn count(&self, reason: Rejection) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (Rejection, u64)> {
        let counters = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Rejection::ALL.into_iter().zip(counters)
    }
}
