//! What a trace says of a frame, to be held against what becomes of it.

use std::collections::BTreeMap;

use nve_datapath::{Datapath, Nanos};
use nve_protocol::inspect::{Origin, Part, Probe, ProbeHead, Question, Step};
use nve_protocol::{DropReason, Vlan};

use crate::rules::{Outcome, Tag};

/// How many frames leave, and how many are dropped for which reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Forecast {
    sent: usize,
    drops: BTreeMap<DropReason, u64>,
}

impl Forecast {
    /// By a trace of an untagged frame from behind a tag; `None` if that cannot be
    /// asked: there is no VAP, or the frame is longer than its front that is told.
    pub fn of(datapath: &mut Datapath, now: Nanos, tag: Tag, frame: &[u8]) -> Option<Forecast> {
        let Tag::Vlan(tci) = tag else { return None };
        let probe = Probe {
            origin: Origin::Vap {
                vlan: Vlan::new(tci & 0xfff)?,
            },
            length: frame.len().try_into().ok()?,
            head: ProbeHead::new(frame)?,
        };
        let parts = datapath.answer(now, &Question::Trace(probe)).into_list();
        let Some((Part::Done(_), steps)) = parts.split_last() else {
            return None;
        };
        let mut forecast = Forecast {
            sent: 0,
            drops: BTreeMap::new(),
        };
        for step in steps {
            match step {
                Part::Step(Step::Send(_)) => forecast.sent += 1,
                Part::Step(Step::Drop { reason, .. }) => {
                    *forecast.drops.entry(*reason).or_default() += 1;
                }
                _ => {}
            }
        }
        Some(forecast)
    }

    /// Whether it came true.
    pub fn holds(&self, outcome: &Outcome) -> bool {
        self.sent == outcome.sent.len() && self.drops == outcome.drops
    }
}
