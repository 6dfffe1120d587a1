//! Scenarios: what is sent, what must come out, and how devices are set up for it.
//!
//! A [`Traffic`] is one scenario with a number of flows and a mix of sizes. Flow
//! numbers are in the payload, so what came out tells which frame it must be, and
//! each is compared with that. Flow `2 n` is the direction of conversation `n` from
//! its first VM, flow `2 n + 1` the other one.

mod check;
mod control;
mod frames;
mod network;
mod openflow;
mod scenario;
mod tables;

use nve_datapath::Side;

use crate::queue::Put;
use check::{Expected, field};
use frames::{CLASS_AT, Direction, FLOW_AT, MAGIC, OUTER_PORT};

pub use check::Wrong;
pub use control::{Control, control};
pub use frames::Shape;
pub use network::{
    MAX_PAIRS, PEER, PEER_MAC, Place, RED, SHIM, SHIM_MAC, TRUNK_MAC, UPLINK_MAC, VTEP, pair,
};
pub use openflow::{Port, flows as openflow, meters};
pub use scenario::{FCS, Flows, Scenario, Sizes, Unknown};
pub use tables::{NVE_ID, NVE_KEY, SHIM_PORT, boot_configuration, other_records, records};

/// Port of a pair's first VM in its first conversation.
const FIRST_PORT: u16 = 10_000;
/// Port of a pair's second VM in its first conversation.
const SECOND_PORT: u16 = 50_000;
/// How many ports a second VM uses; a power of two.
const SECOND_PORTS: u16 = 4_096;

/// First of the ports that the other VTEP sends from (RFC 6335, dynamic ports).
const ENTROPY_FIRST: u16 = 49_152;
const ENTROPY_MASK: u16 = 16_383;

/// Number of a flow, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

/// One frame that is sent, and what it becomes.
#[derive(Debug)]
struct Template {
    sent: frames::Frame,
    received: Side,
    expected: Expected,
}

/// A scenario's frames.
///
/// Invariant: `templates` holds those of pair `p`, direction `d` and class `c` at
/// `(2 p + d) * classes + c`; the number of pairs is a power of two.
#[derive(Debug)]
pub struct Traffic {
    scenario: Scenario,
    sizes: Sizes,
    conversations: u32,
    pairs_log2: u32,
    classes: usize,
    templates: Vec<Template>,
}

impl Traffic {
    /// The frames of `flows` flows of these sizes.
    pub fn new(scenario: Scenario, flows: Flows, sizes: Sizes) -> Traffic {
        let conversations = flows.conversations();
        let pairs_log2 = conversations.min(MAX_PAIRS).ilog2();
        let mut templates = Vec::new();
        for pair in 0..1 << pairs_log2 {
            for direction in [Direction::Forth, Direction::Back] {
                for (class, length) in (0..).zip(sizes.lengths()) {
                    let [sent, received] =
                        frames::exchange(scenario, pair, direction, class, *length);
                    templates.push(Template {
                        sent,
                        received: received.side,
                        expected: Expected::new(&received),
                    });
                }
            }
        }
        Traffic {
            scenario,
            sizes,
            conversations,
            pairs_log2,
            classes: sizes.lengths().len(),
            templates,
        }
    }

    /// What is measured.
    pub fn scenario(&self) -> Scenario {
        self.scenario
    }

    /// The frames' sizes.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How many pairs of VMs talk to each other.
    pub fn pairs(&self) -> u32 {
        1 << self.pairs_log2
    }

    /// How many flows there are, both directions together.
    pub fn flows(&self) -> u32 {
        2 * self.conversations
    }

    /// What frames look like on a side of the device under test.
    pub fn shape(&self, side: Side) -> Shape {
        match (self.scenario, side) {
            (Scenario::Nve { .. }, Side::Uplink) => Shape::Tunnelled,
            (_, _) => Shape::Tagged,
        }
    }

    /// The flows that are sent on a side, round robin; `None` if none are.
    pub fn rotation(&self, side: Side) -> Option<Rotation> {
        let mut directions = [FlowId(0), FlowId(1)].into_iter();
        let sent_here = |flow: &FlowId| {
            let template = self.template(*flow, 0);
            template.is_some_and(|template| template.sent.side == side)
        };
        let first = directions.find(sent_here)?;
        let step = if directions.any(|flow| sent_here(&flow)) {
            1
        } else {
            2
        };
        Some(Rotation {
            first: first.0,
            step,
            end: self.flows(),
            next: first.0,
            pattern: self.sizes.pattern(),
            beat: 0,
        })
    }

    #[inline]
    fn template(&self, flow: FlowId, class: u8) -> Option<&Template> {
        let pair = flow.0 >> 1 & (self.pairs() - 1);
        let row = (pair << 1 | flow.0 & 1) as usize;
        self.templates.get(row * self.classes + usize::from(class))
    }

    /// UDP source and destination port of a flow, as they are in a frame.
    #[inline]
    fn ports(&self, flow: FlowId) -> [u8; 4] {
        let number = (flow.0 >> 1 >> self.pairs_log2) as u16;
        let [a, b] = (FIRST_PORT + number).to_be_bytes();
        let [c, d] = (SECOND_PORT + (number & (SECOND_PORTS - 1))).to_be_bytes();
        if flow.0 & 1 == 0 {
            [a, b, c, d]
        } else {
            [c, d, a, b]
        }
    }

    /// Writes the frame of a flow and a class, with a time stamp, and returns its
    /// length in bytes; 0, and nothing is written, for what there is none of.
    #[inline]
    pub fn emit<P: Put + ?Sized>(&self, frame: Next, stamp: u64, to: &mut P) -> usize {
        let Some(template) = self.template(frame.flow, frame.class) else {
            return 0;
        };
        let sent = &template.sent;
        to.put(0, &sent.bytes);
        to.put(sent.shape.ports(), &self.ports(frame.flow));
        let mut own = [0; 12];
        let (flow, rest) = own.split_at_mut(4);
        flow.copy_from_slice(&frame.flow.0.to_le_bytes());
        rest.copy_from_slice(&stamp.to_le_bytes());
        to.put(sent.shape.payload() + FLOW_AT, &own);
        if sent.shape == Shape::Tunnelled {
            let port = ENTROPY_FIRST + (spread(frame.flow.0) & ENTROPY_MASK);
            to.put(OUTER_PORT, &port.to_be_bytes());
        }
        sent.bytes.len()
    }

    /// Checks a whole frame that came out on a side; see [`Traffic::check_head`].
    pub fn check(&self, side: Side, frame: &[u8]) -> Result<Arrival, Wrong> {
        self.check_head(side, frame, frame.len())
    }

    /// Checks a frame of `length` bytes that came out on a side, by its first bytes:
    /// all headers, and the payload up to its filling.
    #[inline]
    pub fn check_head(&self, side: Side, head: &[u8], length: usize) -> Result<Arrival, Wrong> {
        let shape = self.shape(side);
        let payload = head.get(shape.payload()..shape.head());
        let payload = payload.ok_or(Wrong::Stranger)?;
        if payload.first_chunk() != Some(&MAGIC) {
            return Err(Wrong::Stranger);
        }
        let class = payload.get(CLASS_AT).copied().ok_or(Wrong::Flow)?;
        let flow = field(payload, FLOW_AT).map(u32::from_le_bytes);
        let stamp = field(payload, FLOW_AT + 4).map(u64::from_le_bytes);
        let (Some(flow), Some(stamp)) = (flow, stamp) else {
            return Err(Wrong::Flow);
        };
        if flow >= self.flows() || usize::from(class) >= self.classes {
            return Err(Wrong::Flow);
        }
        let flow = FlowId(flow);
        let template = self.template(flow, class).ok_or(Wrong::Flow)?;
        if template.received != side {
            return Err(Wrong::Side);
        }
        template.expected.check(head, length, self.ports(flow))?;
        Ok(Arrival { flow, stamp })
    }
}

/// Spreads flow numbers over 16 bits.
#[inline]
fn spread(flow: u32) -> u16 {
    (flow.wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// A frame that came out right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its flow.
    pub flow: FlowId,
    /// The time stamp that it was sent with.
    pub stamp: u64,
}

/// A frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Its flow.
    pub flow: FlowId,
    /// The class of its length: an index of [`Sizes::lengths`].
    pub class: u8,
}

/// Flows of one side in turn, and sizes in their pattern.
#[derive(Debug, Clone)]
pub struct Rotation {
    first: u32,
    step: u32,
    end: u32,
    next: u32,
    pattern: &'static [u8],
    beat: usize,
}

impl Rotation {
    /// How many flows take turns.
    pub fn flows(&self) -> u32 {
        (self.end - self.first).div_ceil(self.step)
    }

    /// The next frame to send.
    #[inline]
    pub fn advance(&mut self) -> Next {
        let flow = FlowId(self.next);
        self.next += self.step;
        if self.next >= self.end {
            self.next = self.first;
        }
        let class = self.pattern.get(self.beat).copied().unwrap_or_default();
        self.beat += 1;
        if self.beat == self.pattern.len() {
            self.beat = 0;
        }
        Next { flow, class }
    }
}
