//! `struct virtio_net_hdr` (virtio 1.2, 5.1.6): in front of each frame.

use crate::checksum::PartialChecksum;

/// Bytes of the header, with `num_buffers`.
pub(crate) const HEADER: usize = 12;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;

/// The header of a frame that is sent and has no checksum to be completed.
pub(crate) const PLAIN: [u8; HEADER] = [0; HEADER];

/// Whether a frame that came in is in one buffer and complete (its checksum may have been
/// verified, which needs no action).
#[inline]
pub(crate) fn is_plain(header: &[u8; HEADER]) -> bool {
    /// Flags but `DATA_VALID`, and the kind of segmentation.
    const SPECIAL: u64 = 0xfffd;

    let (front, back) = header.split_at(8);
    let front = front.first_chunk().copied().map(u64::from_le_bytes);
    let back = back.first_chunk().copied().map(u32::from_le_bytes);
    front.is_some_and(|front| front & SPECIAL == 0) && back.is_some_and(|back| back >> 16 == 1)
}

/// What the device says of a frame that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// The checksum that is yet to be completed; not checked.
    pub(crate) partial: Option<PartialChecksum>,
    /// Whether the frame is one of a size that was not negotiated (GSO).
    pub(crate) segmented: bool,
    /// How many buffers the frame is in; not checked.
    pub(crate) buffers: u16,
}

impl Received {
    /// Reads a header. `DATA_VALID` needs no action: nothing here verifies a
    /// checksum that is not the appliance's own.
    pub(crate) fn parse(header: &[u8; HEADER]) -> Received {
        let [flags, gso, _, _, _, _, s0, s1, o0, o1, n0, n1] = *header;
        Received {
            partial: (flags & NEEDS_CSUM != 0).then(|| PartialChecksum {
                start: u16::from_le_bytes([s0, s1]),
                offset: u16::from_le_bytes([o0, o1]),
            }),
            segmented: gso != GSO_NONE,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_where_the_specification_puts_it() {
        let header = [3, 1, 0, 0, 0, 0, 0x22, 0x01, 0x10, 0, 2, 0];
        let expected = Received {
            partial: Some(PartialChecksum {
                start: 0x122,
                offset: 16,
            }),
            segmented: true,
            buffers: 2,
        };
        assert_eq!(Received::parse(&header), expected);
    }

    #[test]
    fn what_is_sent_reads_back() {
        let partial = Some(PartialChecksum {
            start: 34,
            offset: 6,
        });
        assert_eq!(Received::parse(&emit(partial)).partial, partial);
        assert_eq!(emit(None), PLAIN);
    }
}
