//! What would become of a frame: it goes through the pipeline's own stages, with a
//! witness that writes down what they find and lets nothing change.

use alloc::vec::Vec;

use nve_protocol::inspect::{
    Blame, Done, Failure, Head, Leaving, MAX_PARTS, MAX_PROBE, Origin, Part, Probe, Step,
};

use super::{Parts, steps};
use crate::frame::{Frame, HEADROOM};
use crate::pipeline::Way;
use crate::security::Opening;
use crate::tables::Tables;
use crate::wire::{ethernet, vxlan};
use crate::witness::Witness;
use crate::{Datapath, Nanos, NoBuffer, PartialChecksum, Side, Sink, Verdict, trunk, uplink};

/// What is written down.
#[derive(Debug, Clone, Copy)]
enum Found {
    Step(Step),
    /// A frame that leaves.
    Left {
        side: Side,
        length: u16,
        head: Head,
    },
}

/// Goes with a traced frame.
#[derive(Debug, Default)]
struct Tracer {
    found: Vec<Found>,
    lost: u64,
    blame: Option<Blame>,
    opening: Option<Opening>,
}

impl Tracer {
    fn write(&mut self, found: Found) {
        if self.found.len() < MAX_PARTS && self.found.try_reserve(1).is_ok() {
            self.found.push(found);
        } else {
            self.lost += 1;
        }
    }

    /// A frame leaves, in these parts.
    fn leave(&mut self, side: Side, parts: &[&[u8]]) {
        let mut head = [0; Head::MAX];
        let bytes = parts.iter().flat_map(|part| part.iter());
        let kept = head.iter_mut().zip(bytes).map(|(place, byte)| {
            *place = *byte;
        });
        let kept = kept.count();
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.write(Found::Left {
            side,
            length: u16::try_from(length).unwrap_or(u16::MAX),
            head: Head::front(head.get(..kept).unwrap_or_default()),
        });
    }

    /// Tells all of it.
    fn tell(self, tables: &Tables, parts: &mut Parts) -> Done {
        for found in self.found {
            let step = match found {
                Found::Step(step) => Some(step),
                Found::Left { side, length, head } => {
                    let to = steps::way_out(tables, side, head.bytes());
                    to.map(|to| Step::Send(Leaving { to, length, head }))
                }
            };
            if let Some(step) = step {
                parts.push(Part::Step(step));
            }
        }
        Done {
            lost: self.lost,
            ..Done::default()
        }
    }
}

impl Sink for Tracer {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        _: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        self.leave(side, parts);
        Ok(())
    }
}

impl Witness for Tracer {
    fn is_tracing(&self) -> bool {
        true
    }

    fn opening(&mut self) -> Option<&mut Option<Opening>> {
        Some(&mut self.opening)
    }

    fn note<S: Into<Option<Step>>>(&mut self, step: impl FnOnce() -> S) {
        if let Some(step) = step().into() {
            self.write(Found::Step(step));
        }
    }

    fn blame(&mut self, blame: impl FnOnce() -> Option<Blame>) {
        self.blame = blame();
    }

    fn take_blame(&mut self) -> Option<Blame> {
        self.blame.take()
    }
}

impl Datapath {
    /// Tells what would become of a frame now.
    pub(super) fn trace(
        &mut self,
        now: Nanos,
        probe: &Probe,
        parts: &mut Parts,
    ) -> Result<Done, Failure> {
        let (mut buffer, length) = frame_of(probe)?;
        let start = HEADROOM + ethernet::TAG;
        let mut frame = Frame::new(&mut buffer, start, length).ok_or(Failure::BadProbe)?;
        let mut tracer = Tracer::default();
        let verdict = match probe.origin {
            Origin::Vap { vlan } => {
                self.tables.vap(vlan.get()).ok_or(Failure::NoVap)?;
                trunk::tag(&mut frame, vlan).map_err(|_| Failure::BadProbe)?;
                self.process_one(now, Side::Trunk, &mut frame, &mut tracer)
            }
            Origin::Tunnel(tunnel) => match uplink::sender(&self.tables, tunnel.vni, tunnel.vtep) {
                Ok(vtep) => {
                    let (vni, hops) = (tunnel.vni, vxlan::HOPS);
                    let way = Way { vni, vtep, hops };
                    self.process_tunnelled(now, &way, &mut frame, &mut tracer)
                }
                Err(reason) => {
                    tracer.note(|| steps::dropped(reason));
                    Verdict::Drop(reason)
                }
            },
        };
        if let Verdict::Send(side) = verdict {
            tracer.leave(side, &[frame.bytes()]);
        }
        Ok(tracer.tell(&self.tables, parts))
    }
}

/// A buffer with the frame behind headroom and room for a tag, and its length.
fn frame_of(probe: &Probe) -> Result<(Vec<u8>, usize), Failure> {
    let (length, head) = (usize::from(probe.length), probe.head.bytes());
    if probe.length > MAX_PROBE || length < ethernet::HEADER || head.len() > length {
        return Err(Failure::BadProbe);
    }
    let (start, mut buffer) = (HEADROOM + ethernet::TAG, Vec::new());
    let room = buffer.try_reserve_exact(start + length);
    room.map_err(|_| Failure::OutOfMemory)?;
    buffer.resize(start, 0);
    buffer.extend_from_slice(head);
    buffer.resize(start + length, 0);
    Ok((buffer, length))
}
