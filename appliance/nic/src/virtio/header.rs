//! `struct virtio_net_hdr` (virtio 1.2, 5.1.6): in front of each frame.

use crate::checksum::PartialChecksum;
use crate::pool::large::Segmentation;

/// Bytes of the header, with `num_buffers`.
pub(crate) const HEADER: usize = 12;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The header of a frame that is sent and has no checksum to be completed.
pub(crate) const PLAIN: [u8; HEADER] = [0; HEADER];

/// Whether a frame that came in is in one buffer and complete (its checksum may have been
/// verified, which needs no action).
#[inline]
pub(crate) fn is_plain(header: &[u8; HEADER]) -> bool {
    /// Flags but `DATA_VALID`, and the kind of segmentation.
    const SPECIAL: u16 = 0xfffd;

    let [flags, gso, .., n0, n1] = *header;
    u16::from_le_bytes([flags, gso]) & SPECIAL == 0 && u16::from_le_bytes([n0, n1]) == 1
}

/// What the device says of a frame that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// The checksum that is yet to be completed; not checked.
    pub(crate) partial: Option<PartialChecksum>,
    /// Whether it is to be cut into segments.
    pub(crate) shape: Shape,
    /// How many buffers the frame is in; not checked.
    pub(crate) buffers: u16,
}

/// Whether a frame that came in is a large one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// It is not.
    Ordinary,
    /// To be cut so; not checked but for the size, which is not 0.
    Large(Segmentation),
    /// To be cut in a way that is never negotiated.
    Unknown,
}

impl Shape {
    fn parse(gso: u8, size: u16) -> Shape {
        let is_ipv4 = match gso {
            GSO_NONE => return Shape::Ordinary,
            GSO_TCPV4 => true,
            GSO_TCPV6 => false,
            _ => return Shape::Unknown,
        };
        match size {
            0 => Shape::Unknown,
            _ => Shape::Large(Segmentation { size, is_ipv4 }),
        }
    }
}

impl Received {
    /// Reads a header. `DATA_VALID` needs no action: nothing here verifies a
    /// checksum that is not the appliance's own.
    pub(crate) fn parse(header: &[u8; HEADER]) -> Received {
        let [flags, gso, _, _, g0, g1, s0, s1, o0, o1, n0, n1] = *header;
        Received {
            partial: (flags & NEEDS_CSUM != 0).then(|| PartialChecksum {
                start: u16::from_le_bytes([s0, s1]),
                offset: u16::from_le_bytes([o0, o1]),
            }),
            shape: Shape::parse(gso, u16::from_le_bytes([g0, g1])),
            buffers: u16::from_le_bytes([n0, n1]),
        }
    }
}

/// The header of a frame to be sent.
pub(crate) fn emit(partial: Option<PartialChecksum>) -> [u8; HEADER] {
    let mut header = PLAIN;
    if let Some(partial) = partial {
        let [s0, s1] = partial.start.to_le_bytes();
        let [o0, o1] = partial.offset.to_le_bytes();
        header = [NEEDS_CSUM, GSO_NONE, 0, 0, 0, 0, s0, s1, o0, o1, 0, 0];
    }
    header
}

/// The header of a large frame to be sent, whose own headers have `headers` bytes.
pub(crate) fn emit_large(
    partial: PartialChecksum,
    headers: u16,
    segmentation: Segmentation,
) -> [u8; HEADER] {
    let mut header = emit(Some(partial));
    let gso = match segmentation.is_ipv4 {
        true => GSO_TCPV4,
        false => GSO_TCPV6,
    };
    let [h0, h1] = headers.to_le_bytes();
    let [g0, g1] = segmentation.size.to_le_bytes();
    for (place, byte) in header.iter_mut().skip(1).zip([gso, h0, h1, g0, g1]) {
        *place = byte;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTATION: Segmentation = Segmentation {
        size: 0x05a8,
        is_ipv4: true,
    };

    #[test]
    fn a_header_is_read_where_the_specification_puts_it() {
        let header = [3, 1, 0, 0, 0xa8, 0x05, 0x22, 0x01, 0x10, 0, 2, 0];
        let expected = Received {
            partial: Some(PartialChecksum {
                start: 0x122,
                offset: 16,
            }),
            shape: Shape::Large(SEGMENTATION),
            buffers: 2,
        };
        assert_eq!(Received::parse(&header), expected);
        // UDP, in both ways; TCP with congestion marks, which is asked for by itself; no
        // size.
        for (gso, size) in [(3, 1), (5, 1), (0x81, 1), (1, 0), (4, 0)] {
            assert_eq!(Shape::parse(gso, size), Shape::Unknown);
        }
        assert_eq!(Shape::parse(0, 1448), Shape::Ordinary);
    }

    #[test]
    fn a_plain_frame_is_whole_in_one_buffer() {
        let plain = [0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 1, 0];
        assert!(is_plain(&plain));
        for bit in 0..16 {
            let mut header = plain;
            header[bit / 8] |= 1 << (bit % 8);
            // The checksum was verified.
            assert_eq!(is_plain(&header), bit == 1, "{bit}");
        }
        for buffers in [0u16, 2, 0x100, 0x101, u16::MAX] {
            let mut header = plain;
            header[10..].copy_from_slice(&buffers.to_le_bytes());
            assert!(!is_plain(&header), "{buffers}");
        }
    }

    #[test]
    fn what_is_sent_reads_back() {
        let open = PartialChecksum {
            start: 34,
            offset: 6,
        };
        let partial = Some(open);
        assert_eq!(Received::parse(&emit(partial)).partial, partial);
        assert_eq!(emit(None), PLAIN);
        for is_ipv4 in [true, false] {
            let segmentation = Segmentation {
                is_ipv4,
                ..SEGMENTATION
            };
            let header = emit_large(open, 0x0142, segmentation);
            let read = Received::parse(&header);
            assert_eq!(
                (read.partial, read.shape),
                (partial, Shape::Large(segmentation))
            );
            assert_eq!(header[2..4], [0x42, 1]);
        }
    }
}
