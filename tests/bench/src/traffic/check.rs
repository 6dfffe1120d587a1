//! Whether a frame that came out is the one that must come out.

use std::fmt;

use super::frames::{Frame, OUTER_IP, OUTER_PORT, Shape};
use super::scenario::FCS;

/// Bytes of the longest head.
const LONGEST: usize = Shape::Tunnelled.head();
const TAGGED: usize = Shape::Tagged.head();

/// Lowest UDP source port that a VTEP may use: that of Open vSwitch; RFC 7348
/// recommends the dynamic ports, which are above.
const LOWEST_ENTROPY: u16 = 32_768;

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Not a frame of the generator.
    Stranger,
    /// Of a flow or class that there is none of.
    Flow,
    /// On the wrong side.
    Side,
    /// Of another length, in bytes without FCS.
    Length {
        /// As it must be.
        expected: usize,
        /// As it is.
        found: usize,
    },
    /// A byte of headers or payload is another one.
    Byte {
        /// Where, in bytes from the frame's front.
        at: usize,
        /// As it must be.
        expected: u8,
        /// As it is.
        found: u8,
    },
    /// UDP ports of the VMs.
    Ports,
    /// The outer IPv4 header's checksum.
    OuterChecksum,
    /// The outer UDP source port.
    OuterPort,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Wrong::Stranger => f.write_str("not a frame of the generator"),
            Wrong::Flow => f.write_str("no such flow"),
            Wrong::Side => f.write_str("on the wrong side"),
            Wrong::Length { expected, found } => {
                write!(f, "{} bytes instead of {}", found + FCS, expected + FCS)
            }
            Wrong::Byte {
                at,
                expected,
                found,
            } => write!(f, "byte {at} is {found:#04x} instead of {expected:#04x}"),
            Wrong::Ports => f.write_str("UDP ports of another flow"),
            Wrong::OuterChecksum => f.write_str("outer IPv4 checksum"),
            Wrong::OuterPort => f.write_str("outer UDP source port out of range"),
        }
    }
}

/// What a frame must look like, but for what depends on its flow.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    shape: Shape,
    length: usize,
    head: [u8; LONGEST],
}

/// Which bits of a tagged head are compared.
const TAGGED_MASK: [u8; TAGGED] = mask(Shape::Tagged);
/// Which bits of a tunnelled head are compared.
const TUNNELLED_MASK: [u8; LONGEST] = {
    let mut mask = mask(Shape::Tunnelled);
    // Identification is a sender's business, and so is whether to set DF.
    mask = without(mask, OUTER_IP + 4, 2);
    mask[OUTER_IP + 6] = 0xbf;
    mask = without(mask, OUTER_IP + 10, 2);
    without(mask, OUTER_PORT, 2)
};

/// All but ports, flow and time stamp.
const fn mask<const N: usize>(shape: Shape) -> [u8; N] {
    let mask = without([0xff; N], shape.ports(), 4);
    without(mask, shape.payload() + super::frames::FLOW_AT, 12)
}

const fn without<const N: usize>(mut mask: [u8; N], at: usize, length: usize) -> [u8; N] {
    let mut next = at;
    while next < at + length {
        mask[next] = 0;
        next += 1;
    }
    mask
}

impl Expected {
    pub(super) fn new(frame: &Frame) -> Expected {
        let mut head = [0; LONGEST];
        for (place, byte) in head.iter_mut().zip(&frame.bytes) {
            *place = *byte;
        }
        Expected {
            shape: frame.shape,
            length: frame.bytes.len(),
            head,
        }
    }

    /// Compares a frame of `length` bytes that starts with `head`, of which there
    /// are at least as many as its shape's head has; ports must be `ports`.
    #[inline]
    pub(super) fn check(&self, head: &[u8], length: usize, ports: [u8; 4]) -> Result<(), Wrong> {
        let same = match self.shape {
            Shape::Tagged => same::<TAGGED>(head, &self.head, &TAGGED_MASK),
            Shape::Tunnelled => same::<LONGEST>(head, &self.head, &TUNNELLED_MASK),
        };
        if !same || length != self.length {
            return Err(self.explain(head, length));
        }
        if field(head, self.shape.ports()) != Some(ports) {
            return Err(Wrong::Ports);
        }
        if self.shape == Shape::Tunnelled {
            check_outer(head)?;
        }
        Ok(())
    }

    #[cold]
    fn explain(&self, head: &[u8], length: usize) -> Wrong {
        let mask: &[u8] = match self.shape {
            Shape::Tagged => &TAGGED_MASK,
            Shape::Tunnelled => &TUNNELLED_MASK,
        };
        let bytes = head.iter().zip(&self.head).zip(mask).enumerate();
        let mut wrong = bytes.filter_map(|(at, ((found, expected), mask))| {
            let differs = (found ^ expected) & mask != 0;
            differs.then_some(Wrong::Byte {
                at,
                expected: *expected,
                found: *found,
            })
        });
        wrong.next().unwrap_or(Wrong::Length {
            expected: self.length,
            found: length,
        })
    }
}

/// Whether the first `N` bytes are the same as far as the mask says. Without a
/// branch per byte, so that it becomes a few vector instructions.
#[inline]
fn same<const N: usize>(head: &[u8], expected: &[u8], mask: &[u8; N]) -> bool {
    let (Some(head), Some(expected)) = (head.first_chunk::<N>(), expected.first_chunk::<N>())
    else {
        return false;
    };
    let bytes = head.iter().zip(expected).zip(mask);
    bytes.fold(0, |all, ((a, b), mask)| all | (a ^ b) & mask) == 0
}

/// What depends on more than the template in outer headers.
#[inline]
fn check_outer(head: &[u8]) -> Result<(), Wrong> {
    let header: [u8; 20] = field(head, OUTER_IP).ok_or(Wrong::OuterChecksum)?;
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|w| u32::from(u16::from_be_bytes(*w)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    if sum != 0xffff {
        return Err(Wrong::OuterChecksum);
    }
    let port = field(head, OUTER_PORT).map(u16::from_be_bytes);
    if port.is_none_or(|port| port < LOWEST_ENTROPY) {
        return Err(Wrong::OuterPort);
    }
    Ok(())
}

/// `N` bytes at an offset.
#[inline]
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
