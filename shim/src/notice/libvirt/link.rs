//! A host as others see it: whether it is connected, whether it answers, and whose turn
//! it is to change something there.
//!
//! Calls of libvirt have no deadline, and a libvirtd that hangs may still give signs of
//! life. So nobody waits for a host that somebody else waits for already, and one that
//! lets its own thread wait for longer than [`SILENCE`] counts as lost until it goes on.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_libvirt::Connection;
use time::OffsetDateTime;

use super::domain::HostName;
use super::inbox::Inbox;
use crate::notice::config::LibvirtHost;

/// The longest that a host may take for one answer. libvirtd itself gives up after 30 s
/// where it waits for a VM that does something else.
const SILENCE: Duration = Duration::from_secs(40);

/// A host that is connected.
#[derive(Debug, Clone)]
pub(super) struct Up {
    /// The connection, good for any thread.
    pub connection: Arc<Connection>,
    /// What the host is called.
    pub host: HostName,
    /// Since when.
    pub since: OffsetDateTime,
}

/// A host.
#[derive(Debug)]
pub(super) struct Link {
    /// How it is reached.
    pub config: LibvirtHost,
    /// What its thread is to do.
    pub inbox: Arc<Inbox>,
    state: Mutex<State>,
    is_taken: Mutex<bool>,
    is_free: Condvar,
}

#[derive(Debug, Default)]
struct State {
    up: Option<Up>,
    last_error: Option<String>,
    /// Since when its thread waits for an answer, if it does.
    waits: Option<Instant>,
    /// It is told that it does not answer.
    is_silent: bool,
}

/// The right to change something on a host, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Link);

impl Link {
    pub(super) fn new(config: LibvirtHost) -> Self {
        Link {
            config,
            inbox: Arc::default(),
            state: Mutex::default(),
            is_taken: Mutex::default(),
            is_free: Condvar::new(),
        }
    }

    /// The connection, while there is one that answers.
    pub(super) fn up(&self) -> Option<Up> {
        let state = self.lock();
        state.up.clone().filter(|_| !state.waits_too_long())
    }

    /// Why the last connection ended, was not made, or does not answer.
    pub(super) fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    /// There is a connection.
    pub(super) fn begin(&self, up: Up) {
        let mut state = self.lock();
        state.last_error = None;
        state.up = Some(up);
    }

    /// The connection has ended, or was not made. Returns what there was.
    pub(super) fn end(&self, error: String) -> Option<Up> {
        let before = std::mem::replace(
            &mut *self.lock(),
            State {
                last_error: Some(error),
                ..State::default()
            },
        );
        before.up
    }

    /// A call of libvirt by the host's own thread.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        self.lock().waits = Some(Instant::now());
        let result = call();
        self.lock().waits = None;
        result
    }

    /// Whether a host that is connected does not answer any more; once each time.
    pub(super) fn fell_silent(&self) -> bool {
        let mut state = self.lock();
        let is_new = state.up.is_some() && state.waits_too_long() && !state.is_silent;
        if is_new {
            state.is_silent = true;
            state.last_error = Some(format!("it has not answered for {} s", SILENCE.as_secs()));
        }
        is_new
    }

    /// Whether it answers again since it fell silent; once each time.
    pub(super) fn went_on(&self) -> bool {
        let mut state = self.lock();
        if state.is_silent {
            state.last_error = None;
        }
        std::mem::take(&mut state.is_silent)
    }

    /// Waits for the turn to change something there; none if another has it for longer
    /// than `patience`.
    pub(super) fn turn(&self, patience: Duration) -> Option<Turn<'_>> {
        let is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut is_taken, _) = self
            .is_free
            .wait_timeout_while(is_taken, patience, |is_taken| *is_taken)
            .unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *is_taken, true) {
            return None;
        }
        Some(Turn(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waits_too_long(&self) -> bool {
        self.waits.is_some_and(|since| since.elapsed() > SILENCE)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let is_taken = self.0.is_taken.lock();
        *is_taken.unwrap_or_else(PoisonError::into_inner) = false;
        self.0.is_free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use sluice_libvirt::Listener;
    use uuid::Uuid;

    use super::*;

    fn link() -> Link {
        let uri = "test:///default".to_owned();
        Link::new(LibvirtHost { uri, name: None })
    }

    #[test]
    fn one_that_does_not_answer_is_lost_until_it_goes_on() {
        let link = link();
        let listener: Listener = Arc::new(|_| {});
        link.begin(Up {
            connection: Arc::new(Connection::open(&link.config.uri, &listener).unwrap()),
            host: HostName {
                name: "hv".into(),
                uuid: Uuid::nil(),
            },
            since: OffsetDateTime::now_utc(),
        });
        link.call(|| {
            assert!(link.up().is_some() && !link.fell_silent());
            link.lock().waits = Instant::now().checked_sub(SILENCE + SILENCE);
            assert!(link.up().is_none());
            assert!(link.fell_silent() && !link.fell_silent());
            assert!(link.last_error().is_some());
        });
        assert!(link.up().is_some());
        assert!(link.went_on() && !link.went_on());
        assert_eq!(link.last_error(), None);
        assert!(link.end("gone".into()).is_some() && link.end("away".into()).is_none());
        assert!(link.up().is_none());
    }

    #[test]
    fn turns_are_taken_one_by_one_and_not_waited_for_for_ever() {
        let link = link();
        let first = link.turn(Duration::ZERO);
        assert!(first.is_some());
        assert!(link.turn(Duration::from_millis(1)).is_none());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| link.turn(Duration::from_secs(60)).is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
        assert!(link.turn(Duration::ZERO).is_some());
    }
}
