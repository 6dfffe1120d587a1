//! The Internet checksum (RFC 1071), as a sum that can be carried on.

use core::net::{Ipv4Addr, Ipv6Addr};

use nve_protocol::DropReason;

use crate::frame::Frame;

/// Ones' complement sum of 16-bit words, not yet folded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds `bytes`; an odd last byte counts as the high half of a word, so only
    /// the last piece may have an odd length.
    #[inline]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        if !blocks.is_empty() {
            self.0 += sum_blocks(blocks);
        }
        let mut words = rest.chunks_exact(4);
        for word in &mut words {
            if let [a, b, c, d] = *word {
                self.0 += u64::from(u32::from_be_bytes([a, b, c, d]));
            }
        }
        let tail = match *words.remainder() {
            [a, b, c] => [a, b, c, 0],
            [a, b] => [a, b, 0, 0],
            [a] => [a, 0, 0, 0],
            _ => [0; 4],
        };
        self.0 += u64::from(u32::from_be_bytes(tail));
        self
    }

    /// Adds the IPv4 pseudo-header (RFC 768).
    pub fn with_pseudo_v4(
        self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        length: u16,
    ) -> Self {
        self.with(&source.octets())
            .with(&destination.octets())
            .with(&[0, protocol])
            .with(&length.to_be_bytes())
    }

    /// Adds the IPv6 pseudo-header (RFC 8200, section 8.1). `length` is that of the
    /// upper-layer packet, which fits 16 bits as no jumbograms are taken.
    pub fn with_pseudo_v6(
        self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        length: usize,
    ) -> Self {
        self.with(&source.octets())
            .with(&destination.octets())
            .with(&(length as u32).to_be_bytes())
            .with(&[0, protocol])
    }

    /// The checksum: the complement of the folded sum.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The loop leaves 16 bits.
        !(sum as u16)
    }
}

/// Bytes that are added at a time.
const BLOCK: usize = 32;

/// Adds whole blocks, in lanes that the compiler turns into vectors. The sum does
/// not depend on the order of bytes, if only its own bytes are swapped at the end
/// (RFC 1071, section 2 (B)).
fn sum_blocks(blocks: &[[u8; BLOCK]]) -> u64 {
    let mut lanes = [0u64; BLOCK / 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_le_bytes(*word));
        }
    }
    // Far from overflow: a block adds less than 2^35.
    let folded = !Sum(lanes.iter().sum()).finish();
    u64::from(folded.swap_bytes())
}

/// Checksum of `bytes`; zero over data that contains its valid checksum.
pub fn of(bytes: &[u8]) -> u16 {
    Sum::default().with(bytes).finish()
}

/// Whether an IPv4 header without options has the checksum that it should (RFC 791,
/// section 3.1).
#[inline]
pub fn is_intact(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    // Five words of 32 bits, then halves: two folds leave 16 bits. The order of bytes
    // does not matter to whether all bits are set (RFC 1071, section 2 (B)).
    let sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// The checksum of data in which the 16-bit word `old` became `new` (RFC 1624,
/// equation 3).
#[inline]
pub fn adjust(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    // Three numbers of 16 bits carry at most twice.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Refuses a checksum yet to be completed that would be written into the first
/// `headers` bytes, which have been or will be judged as they are, or past the
/// frame's end.
pub fn check_partial(frame: &Frame<'_>, headers: usize) -> Result<(), DropReason> {
    let Some(partial) = frame.partial() else {
        return Ok(());
    };
    let start = usize::from(partial.start);
    if start < headers || start + usize::from(partial.offset) + 2 > frame.len() {
        return Err(DropReason::BadOffload);
    }
    Ok(())
}

/// Completes a checksum that the sender left to its NIC. The field already holds
/// the pseudo-header's sum, so the sum over the covered bytes is all there is to
/// do (virtio 1.2, 5.1.6.2.1).
pub fn complete(frame: &mut Frame<'_>) -> Result<(), DropReason> {
    let Some(partial) = frame.partial() else {
        return Ok(());
    };
    let start = usize::from(partial.start);
    let covered = frame
        .bytes_mut()
        .get_mut(start..)
        .ok_or(DropReason::BadOffload)?;
    let sum = match of(covered) {
        // Zero would say that there is no checksum (RFC 768); both are the same number.
        0 => 0xffff,
        sum => sum,
    };
    let at = usize::from(partial.offset);
    covered
        .get_mut(at..at + 2)
        .ok_or(DropReason::BadOffload)?
        .copy_from_slice(&sum.to_be_bytes());
    frame.set_partial(None);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PartialChecksum;

    #[test]
    fn rfc_1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&data), !0xddf2);
        assert_eq!(
            of(&data[..7]),
            Sum::default().with(&data[..4]).with(&data[4..7]).finish()
        );
    }

    proptest::proptest! {
        #[test]
        fn blocks_add_up_to_their_words(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            at in 0usize..300,
        ) {
            let at = at.min(bytes.len()) & !1;
            let words = bytes.chunks(2).map(|word| match *word {
                [a, b] => u64::from(u16::from_be_bytes([a, b])),
                [a] => u64::from(a) << 8,
                _ => 0,
            });
            let sum = Sum(words.sum()).finish();
            proptest::prop_assert_eq!(of(&bytes), sum);
            let parts = Sum::default().with(&bytes[..at]).with(&bytes[at..]);
            proptest::prop_assert_eq!(parts.finish(), sum);
        }
    }

    #[test]
    fn offsets_outside_the_frame_are_refused() {
        let mut buf = [0; 64];
        for (start, offset) in [(65, 0), (60, 4), (63, 0), (u16::MAX, u16::MAX)] {
            let mut frame = Frame::new(&mut buf, 0, 64)
                .unwrap()
                .with_partial(Some(PartialChecksum { start, offset }));
            assert_eq!(complete(&mut frame), Err(DropReason::BadOffload));
        }
    }
}
