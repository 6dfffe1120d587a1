//! Questions about an NVE with several processors: who is asked, and one answer of all
//! that they say.
//!
//! A trace is made where the packet would be processed. The flow caches are listed one
//! after the other, and so are connections for another NVE. Drops of the others come into the first one's log before that is
//! read. A capture runs on all of them, and frames are told whole, so that their pieces
//! do not mix.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use nve_datapath::steering::{Place, Steering};
use nve_datapath::{Datapath, Nanos};
use nve_protocol::handover::Handover;
use nve_protocol::inspect::{Captured, Done, Dropped, Failure, MAX_PARTS, Part, Question};

use super::team::Team;

/// Bits of a flow cache's cursor; above them is the number of its processor.
const FLOWS: u32 = 28;
/// Bits of the cursor of a VAP's connections; above them is the same.
const CONNECTIONS: u32 = 56;

/// What is being asked, and what is kept of answers.
pub struct Inquiry {
    team: Arc<Team>,
    steering: Steering,
    /// Questions are numbered, so that no answer is taken for another's.
    number: u32,
    open: Option<Open>,
    /// Of each processor, the last of its drops that is in the first one's log.
    drops_seen: Vec<u64>,
    /// The capture that the last question was for.
    capture: u32,
    /// Of each processor, pieces of a captured frame that has not come to its end.
    pieces: Vec<Vec<Part>>,
    /// Pieces of a capture that had no room in its last answer.
    kept: Vec<Part>,
}

/// A question that was put to others.
struct Open {
    question: Question,
    missing: Vec<usize>,
    /// The answers, with who gave them.
    answers: Vec<(usize, Vec<Part>)>,
}

impl Inquiry {
    /// Nothing was asked yet.
    pub fn new(team: Arc<Team>, steering: Steering) -> Self {
        let count = team.processors();
        Inquiry {
            team,
            steering,
            number: 0,
            open: None,
            drops_seen: alloc::vec![0; count],
            capture: 0,
            pieces: alloc::vec![Vec::new(); count],
            kept: Vec::new(),
        }
    }

    /// Whether answers are missing.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Asks; returns the answer if it needs nobody else. What was asked before is
    /// forgotten.
    pub fn ask(
        &mut self,
        now: Nanos,
        question: &Question,
        datapath: &mut Datapath,
    ) -> Option<Vec<Part>> {
        self.open = None;
        self.forget_other_captures(question);
        let others: Vec<usize> = match question {
            Question::Trace(probe) => match self.steering.place_of(probe) {
                Place::Owner(number) => alloc::vec![number],
                Place::Anywhere | Place::First => alloc::vec![0],
            },
            Question::Flows { .. } | Question::Handover(_) => {
                let (cursor, bits) = cursor_of(question);
                alloc::vec![usize::try_from(cursor >> bits).unwrap_or(usize::MAX)]
            }
            Question::Drops { .. } | Question::Capture(_) => (1..self.team.processors()).collect(),
        };
        if others == [0] {
            let mut parts = datapath.answer(now, question).into_list();
            self.point_on(question, 0, &mut parts);
            return Some(parts);
        }
        self.number = self.number.wrapping_add(1);
        for number in &others {
            let question = self.put_to(*number, question);
            if self.team.ask(*number, self.number, &question).is_err() {
                return Some(alloc::vec![Part::Failed(Failure::OutOfMemory)]);
            }
        }
        self.open = Some(Open {
            question: *question,
            missing: others,
            answers: Vec::new(),
        });
        None
    }

    /// The answer to the last question, once everybody has said what there is.
    pub fn poll(&mut self, now: Nanos, datapath: &mut Datapath) -> Option<Vec<Part>> {
        let open = self.open.as_mut()?;
        let (team, asked) = (&self.team, self.number);
        let answers = &mut open.answers;
        open.missing.retain(|number| {
            let answer = team.take_answer(*number, asked);
            let is_there = answer.is_some();
            answers.extend(answer.map(|parts| (*number, parts)));
            !is_there
        });
        if !open.missing.is_empty() {
            return None;
        }
        let Open {
            question, answers, ..
        } = self.open.take()?;
        Some(self.join(now, &question, answers, datapath))
    }

    /// Pieces of another capture's frames are nobody's.
    fn forget_other_captures(&mut self, question: &Question) {
        if let Question::Capture(wanted) = question
            && wanted.id != self.capture
        {
            self.capture = wanted.id;
            self.kept.clear();
            self.pieces.iter_mut().for_each(Vec::clear);
        }
    }

    /// The question as one processor gets it.
    fn put_to(&self, number: usize, question: &Question) -> Question {
        match question {
            Question::Flows { cursor, vlan } => Question::Flows {
                cursor: cursor & ((1 << FLOWS) - 1),
                vlan: *vlan,
            },
            Question::Handover(asked) => Question::Handover(Handover {
                cursor: asked.cursor & ((1 << CONNECTIONS) - 1),
                ..*asked
            }),
            Question::Drops { .. } => Question::Drops {
                after: self.drops_seen.get(number).copied().unwrap_or(0),
            },
            Question::Trace(_) | Question::Capture(_) => *question,
        }
    }

    fn join(
        &mut self,
        now: Nanos,
        question: &Question,
        answers: Vec<(usize, Vec<Part>)>,
        datapath: &mut Datapath,
    ) -> Vec<Part> {
        match question {
            Question::Drops { .. } => self.join_drops(now, question, answers, datapath),
            Question::Capture(_) => self.join_captures(now, question, answers, datapath),
            Question::Trace(_) | Question::Flows { .. } | Question::Handover(_) => {
                let mut answers = answers.into_iter();
                let Some((number, mut parts)) = answers.next() else {
                    return alloc::vec![Part::Done(Done::default())];
                };
                self.point_on(question, number, &mut parts);
                parts
            }
        }
    }

    /// Where a list goes on: on the same processor, or on the next one.
    fn point_on(&self, question: &Question, number: usize, parts: &mut [Part]) {
        let (_, bits) = cursor_of(question);
        if bits == 0 {
            return;
        }
        let Some(Part::Done(done)) = parts.last_mut() else {
            return;
        };
        let limit = 1 << bits;
        if (1..limit).contains(&done.next) {
            done.next |= (number as u64) << bits;
        } else if number + 1 < self.team.processors() {
            done.next = (number as u64 + 1) << bits;
            done.more = true;
        } else {
            done.next = 0;
        }
    }

    fn join_drops(
        &mut self,
        now: Nanos,
        question: &Question,
        answers: Vec<(usize, Vec<Part>)>,
        datapath: &mut Datapath,
    ) -> Vec<Part> {
        let mut drops: Vec<Dropped> = Vec::new();
        let (mut lost, mut more) = (0, false);
        for (number, parts) in answers {
            for part in parts {
                match part {
                    Part::Drop(dropped) => drops.push(dropped),
                    Part::Done(done) => {
                        if let Some(seen) = self.drops_seen.get_mut(number) {
                            *seen = done.next;
                        }
                        lost += done.lost;
                        more |= done.more;
                    }
                    _ => {}
                }
            }
        }
        drops.sort_by_key(|dropped| dropped.at_ms);
        datapath.take_over_drops(drops);
        let mut parts = datapath.answer(now, question).into_list();
        if let Some(Part::Done(done)) = parts.last_mut() {
            done.lost += lost;
            done.more |= more;
        }
        parts
    }

    fn join_captures(
        &mut self,
        now: Nanos,
        question: &Question,
        answers: Vec<(usize, Vec<Part>)>,
        datapath: &mut Datapath,
    ) -> Vec<Part> {
        let own = datapath.answer(now, question).into_list();
        let count = self.team.processors() as u64;
        let (mut whole, mut end) = (mem::take(&mut self.kept), Done::default());
        for (number, parts) in [(0, own)].into_iter().chain(answers) {
            let Some(pieces) = self.pieces.get_mut(number) else {
                continue;
            };
            for part in parts {
                match part {
                    Part::Frame(mut piece) => {
                        piece.number = piece.number * count + number as u64;
                        let is_last = ends_frame(&piece);
                        // A frame of another capture, of which there is no more.
                        if piece.offset == 0 {
                            pieces.clear();
                        }
                        pieces.push(Part::Frame(piece));
                        if is_last {
                            whole.append(pieces);
                        }
                    }
                    Part::Done(done) => {
                        end.next += done.next;
                        end.lost += done.lost;
                        end.more |= done.more;
                    }
                    failed => return alloc::vec![failed],
                }
            }
        }
        if whole.len() >= MAX_PARTS {
            self.kept = whole.split_off(MAX_PARTS - 1);
            end.more = true;
        }
        whole.push(Part::Done(end));
        whole
    }
}

/// Where a list goes on, and how many bits of that are the processor's own; none, if it
/// is no list of one processor after the other.
fn cursor_of(question: &Question) -> (u64, u32) {
    match question {
        Question::Flows { cursor, .. } => ((*cursor).into(), FLOWS),
        Question::Handover(asked) => (asked.cursor, CONNECTIONS),
        Question::Trace(_) | Question::Drops { .. } | Question::Capture(_) => (0, 0),
    }
}

/// Whether nothing of the frame follows.
fn ends_frame(piece: &Captured) -> bool {
    usize::from(piece.offset) + mem::size_of_val(piece.piece.bytes()) >= usize::from(piece.kept)
}
