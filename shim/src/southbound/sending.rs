//! What a session has to send, most urgent first.

use std::future::pending;

use nve_protocol::handover::TakeOver;
use nve_protocol::inspect::Ask;
use nve_protocol::{ToNve, Welcome};

use super::push::Push;
use super::take_over::Tray;

/// After so many messages of a transaction comes one of what other NVEs knew, if any: a
/// long transaction does not hold it up for good.
const RUN: u32 = 8;

/// What is to be sent. A question is one message, and the next one waits for its
/// answer, so it does not hold up a transaction.
pub(super) struct Sending {
    welcome: Option<Welcome>,
    pub(super) ping: Option<u64>,
    pub(super) ask: Option<Ask>,
    pub(super) push: Option<Push>,
    tray: Tray,
    /// The next of the tray.
    taken: Option<TakeOver>,
    /// Messages of transactions since the last of the tray.
    run: u32,
}

impl Sending {
    /// A welcome, and what comes into the tray.
    pub(super) fn new(welcome: Welcome, tray: Tray) -> Self {
        Sending {
            welcome: Some(welcome),
            ping: None,
            ask: None,
            push: None,
            tray,
            taken: None,
            run: 0,
        }
    }

    /// Waits for something new in the tray. The future can be dropped and called again
    /// without loss.
    pub(super) async fn receive(&mut self) {
        let next = match self.taken {
            Some(_) => None,
            None => self.tray.recv().await,
        };
        match next {
            Some(next) => self.taken = Some(next),
            // It has to be sent first, or the session is being replaced.
            None => pending().await,
        }
    }

    fn next_push(&mut self) -> Option<ToNve> {
        self.push.as_mut()?.next()
    }

    /// What is not urgent.
    fn next_bulk(&mut self) -> Option<ToNve> {
        if self.run < RUN
            && let Some(message) = self.next_push()
        {
            self.run += 1;
            return Some(message);
        }
        self.run = 0;
        let taken = self.taken.take().or_else(|| self.tray.try_recv().ok());
        taken.map(ToNve::TakeOver).or_else(|| self.next_push())
    }
}

impl Iterator for Sending {
    type Item = ToNve;

    fn next(&mut self) -> Option<ToNve> {
        let welcome = self.welcome.take().map(ToNve::Welcome);
        welcome
            .or_else(|| self.ping.take().map(ToNve::Ping))
            .or_else(|| self.ask.take().map(ToNve::Ask))
            .or_else(|| self.next_bulk())
    }
}
