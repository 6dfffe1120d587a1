//! Large frames from the trunk: into another VAP as they are, and anywhere else in
//! segments.

use nve_protocol::{Direction, DropReason, Vlan};

use super::{AGED_PER_BURST, Datapath};
use crate::frame::Frame;
use crate::inspect::Tap;
use crate::packet::Headers;
use crate::segment::{Cut, Large};
use crate::trunk;
use crate::wire::ethernet;
use crate::witness::{Entrance, Live};
use crate::{Nanos, NoBuffer, Side, Sink, Verdict};

impl Datapath {
    /// Processes a large frame that came in on the trunk. What becomes of it is what would
    /// become of its segments, but that those behind one which exceeds a limit exceed it
    /// too. Returns how many bytes of it are to be sent on the trunk as a large frame;
    /// `None` if nothing is left to do with it.
    #[inline(never)]
    pub fn process_large(
        &mut self,
        now: Nanos,
        large: &mut Large<'_>,
        sink: &mut impl Sink,
    ) -> Option<usize> {
        self.security.age(now, AGED_PER_BURST);
        let cut = match Cut::new(large) {
            Ok(cut) => cut,
            Err(reason) => {
                self.count_drop(now, reason);
                return None;
            }
        };
        let mut capture = self.capture.take();
        // Who looks at it sees what a VM without offloads would send.
        let may_stay = capture.is_none() && cut.is_uniform() && cut.count() > 1;
        let mut tap = Tap::new(sink, capture.as_mut(), now);
        let whole = self.process_cut(now, &cut, large, may_stay, &mut tap);
        self.capture = capture;
        whole
    }

    fn process_cut<S: Sink>(
        &mut self,
        now: Nanos,
        cut: &Cut,
        large: &mut Large<'_>,
        may_stay: bool,
        tap: &mut Tap<'_, S>,
    ) -> Option<usize> {
        cut.place(0, large);
        let mut verdict = self.process_tapped(now, Side::Trunk, &mut large.head, tap);
        let head = &large.head;
        // The segment is as it was but for what its receiver is to see, and has no other.
        let stays = may_stay
            && verdict == Verdict::Send(Side::Trunk)
            && tap.sent() == 0
            && head.partial().is_some()
            && head.start() == cut.start();
        let mut last = cut.count();
        if stays {
            last = self.admit_rest(now, cut, head, tap);
            if last > 1 {
                return Some(cut.rejoin(last, &mut large.head));
            }
        }
        for number in 0..last {
            if number > 0 {
                cut.place(number, large);
                verdict = self.process_tapped(now, Side::Trunk, &mut large.head, tap);
            }
            if send(verdict, &large.head, tap.sink()).is_err() {
                for _ in number..last {
                    self.count_drop(now, DropReason::QueueFull);
                }
                return None;
            }
        }
        None
    }

    /// Passes the segments of a frame behind the first, which is `head` by now, through
    /// the meters that it passed. Returns how many may pass with it.
    fn admit_rest<S: Sink>(
        &mut self,
        now: Nanos,
        cut: &Cut,
        head: &Frame<'_>,
        tap: &mut Tap<'_, S>,
    ) -> usize {
        let Ok(vap) = trunk::sender(&self.tables, cut.headers()).copied() else {
            return 1;
        };
        let tag = ethernet::parse_tag(head.bytes()).and_then(Result::ok);
        let receiver = tag.and_then(|(tag, _)| Vlan::new(tag));
        let meters = [
            self.tables.meter(vap.vlan, Direction::Egress),
            receiver.and_then(|vlan| self.tables.meter(vlan, Direction::Ingress)),
        ];
        let mut witness = Live::new(tap);
        for number in 1..cut.count() {
            let length = cut.frame_length(number) - ethernet::TAG;
            let admitted = meters
                .iter()
                .try_for_each(|meter| self.admit_rate(now, *meter, length, &mut witness));
            if let Err(reason) = admitted {
                let headers = Headers::parse(head.bytes()).ok();
                let from = Entrance::Vap(&vap);
                self.lose(now, from, headers.as_ref(), reason, &mut witness);
                for _ in number + 1..cut.count() {
                    self.counters.count_drop(reason);
                }
                return number;
            }
        }
        cut.count()
    }
}

/// Sends a segment where it goes, if anywhere; patiently, since the segments of some large
/// frames fill a queue.
fn send(verdict: Verdict, frame: &Frame<'_>, sink: &mut impl Sink) -> Result<(), NoBuffer> {
    let Verdict::Send(side) = verdict else {
        return Ok(());
    };
    if sink.emit(side, &[frame.bytes()], frame.partial()).is_ok() {
        return Ok(());
    }
    sink.wait(side);
    sink.emit(side, &[frame.bytes()], frame.partial())
}
