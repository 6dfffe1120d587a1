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
    number: u32,
    parts: Vec<Part>,
    sent: usize,
}

impl Answers {
    pub(crate) fn begin(&mut self, number: u32, parts: Vec<Part>) {
        *self = Answers {
            number,
            parts,
            sent: 0,
        };
    }

    /// Queues as many parts as there is room for.
    pub(crate) fn fill(&mut self, outbox: &mut Outbox) {
        while let Some(part) = self.parts.get(self.sent) {
            let answer = ToShim::Answer(Answer {
                number: self.number,
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
