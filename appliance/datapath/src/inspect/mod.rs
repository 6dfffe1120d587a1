//! What operators ask of a running NVE: would this packet pass, what was dropped,
//! which flows are there, what passes this VAP.
//!
//! Answers come from the tables and the state that packets are decided by, and
//! asking changes none of it. Each is bounded, whatever is asked.

use alloc::vec::Vec;

use nve_protocol::inspect::{Done, Dropped, Failure, MAX_PARTS, Part, Question};

use crate::{Datapath, Nanos};

mod capture;
mod drops;
mod flows;
pub(crate) mod steps;
mod trace;

pub(crate) use capture::{Capture, Tap};
pub(crate) use drops::DropLog;

/// The parts of an answer, as many as there may be.
#[derive(Debug, Default)]
pub struct Parts {
    list: Vec<Part>,
    /// Parts that were left out.
    lost: u64,
}

impl Parts {
    /// None yet.
    pub const fn new() -> Parts {
        Parts {
            list: Vec::new(),
            lost: 0,
        }
    }

    /// All of them; the last one is the answer's end.
    pub fn into_list(self) -> Vec<Part> {
        self.list
    }

    /// Adds a part, if there is room for it and for the last one.
    pub(crate) fn push(&mut self, part: Part) {
        if self.list.len() + 1 < MAX_PARTS && self.list.try_reserve(2).is_ok() {
            self.list.push(part);
        } else {
            self.lost += 1;
        }
    }

    fn end(&mut self, outcome: Result<Done, Failure>) {
        let part = match outcome {
            Ok(done) => Part::Done(Done {
                lost: done.lost + self.lost,
                ..done
            }),
            Err(failure) => Part::Failed(failure),
        };
        // Without memory even for this, the asker's patience ends.
        if self.list.try_reserve(1).is_ok() {
            self.list.push(part);
        }
    }
}

impl Datapath {
    /// Remembers drops of other processors, oldest first, beside the own ones.
    pub fn take_over_drops(&mut self, drops: Vec<Dropped>) {
        for dropped in drops {
            self.drops.push(dropped);
        }
    }

    /// Answers a question.
    pub fn answer(&mut self, now: Nanos, question: &Question) -> Parts {
        let mut parts = Parts::new();
        let outcome = match question {
            Question::Trace(probe) => self.trace(now, probe, &mut parts),
            Question::Drops { after } => Ok(self.drops.read(*after, &mut parts)),
            Question::Flows { cursor, vlan } => {
                Ok(self.list_flows(now, *cursor, *vlan, &mut parts))
            }
            Question::Capture(wanted) => self.read_capture(now, wanted, &mut parts),
            Question::Handover(asked) => self.hand_over(now, asked, &mut parts),
        };
        parts.end(outcome);
        parts
    }
}
