//! Checksums that a sender left to be completed.

/// The 16 bits at `start + offset` hold the pseudo-header's sum, and cover
/// everything from `start` to the frame's end (virtio 1.2, 5.1.6.2,
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Bytes from the frame's first byte to the first one that is covered.
    pub start: u16,
    /// Bytes from `start` to the checksum field.
    pub offset: u16,
}

impl PartialChecksum {
    /// What is in place of one where there is none.
    pub(crate) const NOWHERE: PartialChecksum = PartialChecksum {
        start: 0,
        offset: 0,
    };

    /// Whether the checksum field is within a frame of `length` bytes.
    pub fn fits(self, length: usize) -> bool {
        usize::from(self.start) + usize::from(self.offset) + 2 <= length
    }

    /// Completes the checksum of `frame`. `None`, and no change, if the field is
    /// not in it.
    pub fn complete(self, frame: &mut [u8]) -> Option<()> {
        let covered = frame.get_mut(usize::from(self.start)..)?;
        let at = usize::from(self.offset);
        covered.get(at..at + 2)?;
        let sum = !ones_complement_sum(covered);
        // A sum of zero is sent as ones (RFC 768); for TCP both mean the same.
        let sum = if sum == 0 { 0xffff } else { sum };
        covered
            .get_mut(at..at + 2)?
            .copy_from_slice(&sum.to_be_bytes());
        Some(())
    }
}

/// Sum of big-endian 16-bit words with end-around carry (RFC 1071).
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut words = bytes.chunks_exact(2);
    let mut sum: u64 = 0;
    for word in &mut words {
        if let [high, low] = word {
            sum += u64::from(u16::from_be_bytes([*high, *low]));
        }
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completed_checksum_verifies() {
        for length in [20, 21, 1500] {
            let mut frame: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let partial = PartialChecksum {
                start: 4,
                offset: 6,
            };
            partial.complete(&mut frame).unwrap();
            // With the field's initial content part of the sum, all of it is ones.
            let field = u16::from_be_bytes([frame[10], frame[11]]);
            frame[10..12].copy_from_slice(&[70, 77]);
            let before = ones_complement_sum(&frame[4..]);
            assert_eq!(
                ones_complement_sum(&[before.to_be_bytes(), field.to_be_bytes()].concat()),
                0xffff
            );
        }
    }

    #[test]
    fn a_field_outside_of_the_frame_changes_nothing() {
        let mut frame = [1; 20];
        for (start, offset) in [(19, 0), (20, 0), (0, 19), (65_535, 65_535)] {
            let partial = PartialChecksum { start, offset };
            assert!(!partial.fits(frame.len()));
            assert_eq!(partial.complete(&mut frame), None);
        }
        assert_eq!(frame, [1; 20]);
        assert!(
            PartialChecksum {
                start: 18,
                offset: 0
            }
            .fits(20)
        );
    }
}
