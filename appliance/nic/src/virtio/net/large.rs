//! Large frames: whether there are any, in and out.

use virtio_drivers::transport::Transport;

use super::super::Features;
use super::super::header::{self, HEADER};
use super::{MIN_FRAME, VirtioNet};
use crate::pool::Packet;
use crate::pool::large::{Assembly, Segmentation};
use crate::{Burst, PartialChecksum};

/// Bytes of a TCP header without options; of it, the place of the checksum, and of the
/// header's length in words (RFC 9293, section 3.1).
const TCP: usize = 20;
const TCP_CHECKSUM: u16 = 16;
const TCP_WORDS: usize = 12;

impl<T: Transport> VirtioNet<T> {
    /// What large frames need: several buffers both ways, and checksums that are yet to
    /// be completed (virtio 1.2, 5.1.3.1).
    const BASIS: Features = Features::CSUM
        .union(Features::GUEST_CSUM)
        .union(Features::MRG_RXBUF)
        .union(Features::INDIRECT_DESC);

    /// What large frames of one version of IP need both ways: what comes in has to go out
    /// again as it is.
    const LARGE: [Features; 2] = [
        Features::GUEST_TSO4.union(Features::HOST_TSO4),
        Features::GUEST_TSO6.union(Features::HOST_TSO6),
    ];

    /// What to ask for beside [`Self::FEATURES`] so that large frames come in and go out.
    pub(in crate::virtio) fn large_features(offered: Features) -> Features {
        let mut features = Features::empty();
        for both in Self::LARGE {
            if offered.contains(both.union(Self::BASIS)) {
                features |= both | Features::INDIRECT_DESC;
            }
        }
        features
    }

    /// Whether large frames that are to be cut so were negotiated, both ways.
    fn takes_large(&self, segmentation: Segmentation) -> bool {
        let [v4, v6] = Self::LARGE;
        let needed = if segmentation.is_ipv4 { v4 } else { v6 };
        self.features.contains(needed)
    }

    /// Takes the other buffers of a large frame, of which there are `buffers`, and all of
    /// them even if the frame is none.
    pub(super) fn take_large(
        &mut self,
        mut packet: Packet,
        segmentation: Segmentation,
        partial: Option<PartialChecksum>,
        buffers: u16,
    ) -> Option<Packet> {
        // Whoever is to cut it finds its headers in the first buffer.
        let is_whole = partial.is_some_and(|partial| {
            let transport = usize::from(partial.start);
            partial.offset == TCP_CHECKSUM
                && transport >= MIN_FRAME
                && transport + TCP <= packet.len()
        });
        packet.set_partial(partial);
        let mut assembly = Assembly::new(packet, segmentation);
        let mut complete = is_whole && self.takes_large(segmentation);
        for _ in 1..buffers {
            let more = self.take_more();
            complete &= more.is_some_and(|more| assembly.add(more).is_some());
        }
        complete.then(|| assembly.finish())
    }

    /// The next buffer, which is not the first of its frame: data starts where that has
    /// its header.
    fn take_more(&mut self) -> Option<Packet> {
        let (mut more, length) = self.take_buffer()?;
        let start = more.start().checked_sub(HEADER)?;
        more.set_range(start, usize::try_from(length).ok()?)?;
        (!more.is_empty()).then_some(more)
    }

    /// Sends a large frame, if the device takes such; the frame has its headers in its
    /// first buffer.
    #[inline(never)]
    pub(super) fn send_large(&mut self, mut packet: Packet) -> Result<(), Packet> {
        let (Some(segmentation), Some(partial)) = (packet.segmentation(), packet.partial()) else {
            return Err(packet);
        };
        let headers = packet.large().and_then(|large| {
            let transport = large.start + usize::from(partial.start);
            let words = large.space.get(transport + TCP_WORDS)? >> 4;
            u16::try_from(usize::from(partial.start) + usize::from(words) * 4).ok()
        });
        let Some(headers) = headers.filter(|_| self.takes_large(segmentation)) else {
            return Err(packet);
        };
        *packet.header_mut::<HEADER>().0 = header::emit_large(partial, headers, segmentation);
        let length = packet.large_len();
        let refused = match self.transmit.post_large(packet) {
            Ok(()) => None,
            Err(packet) => {
                self.make_room();
                self.transmit.post_large(packet).err()
            }
        };
        refused.map_or(Ok(()), Err)?;
        self.count_sent(1, length);
        self.statistics.tx_large += 1;
        Ok(())
    }

    /// Hands the large frame over that is held back, unless there are others before it.
    #[cold]
    pub(super) fn hand_over(&mut self, burst: &mut Burst) {
        let held = if burst.is_empty() {
            self.held.take()
        } else {
            None
        };
        let Some(frame) = held else { return };
        self.statistics.rx_packets += 1;
        self.statistics.rx_bytes += frame.large_len() as u64;
        self.statistics.rx_large += 1;
        // There is room: it is empty.
        let _ = burst.push(frame);
    }
}
