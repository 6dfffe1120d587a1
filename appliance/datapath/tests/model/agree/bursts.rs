//! Frames that come in one after another on one side at one moment, taken as one burst.

use std::cell::RefCell;

use nve_datapath::*;

use super::{Node, Recorder};
use crate::generate::Case;
use crate::rules::{Outcome, Sent, hex};

/// Frames that a datapath takes at once.
const BURST: usize = 32;
/// Entries of its flow cache: so few that some go within a burst.
const FLOWS: u32 = 8;

/// A frame that is yet to be processed.
struct Waiting {
    bytes: Vec<u8>,
    partial: Option<PartialChecksum>,
    /// What is to become of it.
    want: Outcome,
}

/// A datapath that takes frames in bursts, and those that wait for theirs.
pub(super) struct Bursts {
    pub(super) node: Node,
    /// Where they came in.
    side: Side,
    waiting: Vec<Waiting>,
    /// Whether there is little room for connections.
    is_limited: bool,
}

impl Bursts {
    pub(super) fn new(case: &Case) -> Bursts {
        Bursts {
            node: Node::new("fast path in bursts", case, FLOWS),
            side: Side::Trunk,
            waiting: Vec::new(),
            is_limited: case.limit.is_some(),
        }
    }

    /// Has a frame wait for a burst, after those that cannot be in the same one.
    pub(super) fn add(
        &mut self,
        now: Nanos,
        side: Side,
        bytes: &[u8],
        partial: Option<PartialChecksum>,
        want: &Outcome,
    ) -> Result<(), String> {
        if side != self.side || self.waiting.len() == BURST {
            self.flush(now)?;
        }
        self.side = side;
        self.waiting.push(Waiting {
            bytes: bytes.to_vec(),
            partial,
            want: want.clone(),
        });
        Ok(())
    }

    /// Processes all that wait; the error says what of it is not as it should be.
    pub(super) fn flush(&mut self, now: Nanos) -> Result<(), String> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        // As for the other nodes.
        if self.is_limited {
            self.node.tick(now);
        }
        let (frames, all) = self.node.process_burst(now, self.side, &waiting);
        let (side, name) = (self.side, self.node.name);
        for (at, (frame, (verdict, sent))) in waiting.iter().zip(&frames).enumerate() {
            let want = &frame.want;
            let is_same = want.host == (*verdict == Verdict::Host)
                && want.sent == *sent
                && !matches!(verdict, Verdict::Drop(reason) if !want.drops.contains_key(reason));
            if !is_same {
                let of = waiting.len();
                let bytes: Vec<String> = waiting.iter().map(|frame| hex(&frame.bytes)).collect();
                let bytes = bytes.join("\n");
                return Err(format!(
                    "{side:?}\n{bytes}\n{name}: frame {at} of {of}: {verdict:?} {sent:#?}\nmodel: {want:#?}"
                ));
            }
        }
        let mut want = Outcome::default();
        for frame in &waiting {
            want.answers += frame.want.answers;
            for (reason, count) in &frame.want.drops {
                *want.drops.entry(*reason).or_default() += count;
            }
        }
        match (&want.drops, want.answers) == (&all.drops, all.answers) {
            true => Ok(()),
            false => Err(format!(
                "{side:?}, {} frames\n{name}: {all:#?}\nmodel: {want:#?}",
                waiting.len()
            )),
        }
    }
}

impl Node {
    /// Processes frames as one burst. What became of each, and what was counted for all.
    fn process_burst(
        &mut self,
        now: Nanos,
        side: Side,
        waiting: &[Waiting],
    ) -> (Vec<(Verdict, Vec<Sent>)>, Outcome) {
        let buffer = |frame: &Waiting| [&[0xa5; HEADROOM], &frame.bytes[..]].concat();
        let mut buffers: Vec<Vec<u8>> = waiting.iter().map(buffer).collect();
        let frames = buffers.iter_mut().zip(waiting).map(|(buffer, frame)| {
            let made = Frame::new(buffer, HEADROOM, frame.bytes.len());
            made.unwrap().with_partial(frame.partial)
        });
        let mut frames: Vec<Frame<'_>> = frames.collect();
        let mut verdicts = vec![Verdict::Done; frames.len()];
        let emitted = RefCell::new(Recorder::default());
        let mut burst = Noting {
            frames: (&mut frames[..], &mut verdicts[..]),
            emitted: &emitted,
            copies: Vec::new(),
        };
        self.datapath
            .process(now, side, &mut burst, &mut Shared(&emitted));
        let copies = burst.copies;
        assert_eq!(copies.len(), waiting.len(), "each frame comes back once");
        assert!(emitted.into_inner().0.is_empty());
        let ends = frames.iter_mut().zip(verdicts).zip(copies);
        let ends = ends.map(|((frame, verdict), mut sent)| {
            sent.extend(self.leaves(verdict, frame));
            sent.sort();
            (verdict, sent)
        });
        (ends.collect(), self.outcome(Verdict::Done, Vec::new()))
    }
}

/// A burst that notes for each frame what was emitted for it: all there is when it is
/// given back. They are in the order in which they came.
struct Noting<'a, 'b> {
    frames: (&'a mut [Frame<'b>], &'a mut [Verdict]),
    emitted: &'a RefCell<Recorder>,
    copies: Vec<Vec<Sent>>,
}

impl Noting<'_, '_> {
    fn note(&mut self, at: usize) {
        assert_eq!(at, self.copies.len(), "in order");
        self.copies
            .push(std::mem::take(&mut self.emitted.borrow_mut().0));
    }
}

impl Burst for Noting<'_, '_> {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn bytes(&self, at: usize) -> &[u8] {
        self.frames.bytes(at)
    }

    fn frame(&mut self, at: usize) -> Option<Frame<'_>> {
        self.frames.frame(at)
    }

    fn fetch_headroom(&self, at: usize) {
        self.frames.fetch_headroom(at);
    }

    fn is_complete(&self, at: usize, room: usize) -> bool {
        self.frames.is_complete(at, room)
    }

    fn leave(&mut self, at: usize, verdict: Verdict) {
        self.note(at);
        self.frames.leave(at, verdict);
    }

    fn give_back(&mut self, at: usize, extent: Extent, verdict: Verdict) {
        self.note(at);
        self.frames.give_back(at, extent, verdict);
    }
}

/// A recorder that the burst reads while the datapath emits.
struct Shared<'a>(&'a RefCell<Recorder>);

impl Sink for Shared<'_> {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        self.0.borrow_mut().emit(side, parts, partial)
    }
}
