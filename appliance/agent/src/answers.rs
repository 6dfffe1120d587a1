//! The answer to the shim's last question, until all of it is sent.
//!
//! Acknowledgements and counters go first: parts of an answer only take the room
//! that is left in a frame.

use alloc::vec::Vec;

use nve_protocol::ToShim;
use nve_protocol::inspect::{Answer, Part};

use crate::wire::{Full, Outbox};

/// Parts that wait. Those of an earlier question go when another is asked: who asked
/// it has given up.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The question's; `None` before the first one.
    number: Option<u32>,
    parts: Vec<Part>,
    sent: usize,
}

impl Answers {
    /// A question was asked; what is left of the answer before is dropped.
    pub(crate) fn expect(&mut self, number: u32) {
        *self = Answers {
            number: Some(number),
            ..Answers::default()
        };
    }

    /// Its answer; nothing, if who asked is gone.
    pub(crate) fn begin(&mut self, parts: Vec<Part>) {
        if self.number.is_some() {
            self.parts = parts;
            self.sent = 0;
        }
    }

    /// Queues as many parts as there is room for.
    pub(crate) fn fill(&mut self, outbox: &mut Outbox) {
        while let (Some(part), Some(number)) = (self.parts.get(self.sent), self.number) {
            let answer = ToShim::Answer(Answer {
                number,
                part: *part,
            });
            if let Err(Full) = outbox.queue_behind(&answer) {
                return;
            }
            self.sent += 1;
        }
        self.parts = Vec::new();
        self.sent = 0;
    }
}
