//! Both NICs and the pool that they share.

use nve_datapath::{NoBuffer, PartialChecksum, Side, Sink};
use nve_nic::{Nic, Packet, Pool, Statistics};

/// Bytes of a frame from the trunk that the fast path reads: a tag, IPv4, and TCP up to
/// its flags. Of IPv6 it reads more, and waits for it.
pub(super) const TRUNK_FRONT: usize = 18 + 20 + 14;

/// The same of a frame from the uplink, in front of which are 50 bytes of IPv4 and VXLAN.
pub(super) const UPLINK_FRONT: usize = 50 + 14 + 20 + 14;

/// Both NICs and the pool that they share.
#[derive(Debug)]
pub struct Ports<N> {
    trunk: N,
    uplink: N,
    pool: &'static Pool,
}

impl<N: Nic> Ports<N> {
    /// The NICs of an NVE, both with buffers of `pool`.
    pub fn new(trunk: N, uplink: N, pool: &'static Pool) -> Self {
        Ports {
            trunk,
            uplink,
            pool,
        }
    }

    /// The NIC of a side.
    #[inline]
    pub fn nic(&mut self, side: Side) -> &mut N {
        match side {
            Side::Trunk => &mut self.trunk,
            Side::Uplink => &mut self.uplink,
        }
    }

    /// Counters of trunk and uplink.
    pub fn both_statistics(&self) -> [Statistics; 2] {
        [self.trunk.statistics(), self.uplink.statistics()]
    }

    /// Whether there are free buffers.
    #[inline]
    pub fn has_free(&self) -> bool {
        self.pool.available() > 0
    }

    /// The pool.
    #[inline]
    pub fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// An empty frame.
    pub fn take(&self) -> Option<Packet> {
        self.pool.take()
    }

    /// Finds out what has come in on both sides, and has the front of it fetched. Returns
    /// whether there is anything, be it only to be dropped.
    #[inline]
    pub fn fetch(&mut self) -> bool {
        let trunk = self.trunk.fetch(TRUNK_FRONT);
        let uplink = self.uplink.fetch(UPLINK_FRONT);
        trunk || uplink
    }

    /// Notifies both devices of what they were shown, if they want to be.
    #[inline]
    pub fn notify(&mut self) {
        self.trunk.notify();
        self.uplink.notify();
    }

    /// Shows both devices what is queued.
    pub fn flush(&mut self) {
        self.trunk.flush();
        self.uplink.flush();
    }
}

impl<N: Nic> Sink for Ports<N> {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        let mut packet = self.pool.take().ok_or(NoBuffer)?;
        packet.append(parts).ok_or(NoBuffer)?;
        packet.set_partial(partial.map(to_nic));
        self.nic(side).send(packet).map_err(|_| NoBuffer)
    }

    fn wait(&mut self, side: Side) {
        self.nic(side).wait();
    }
}

/// The driver's form of a checksum that is to be completed.
pub(super) fn to_nic(partial: PartialChecksum) -> nve_nic::PartialChecksum {
    let PartialChecksum { start, offset } = partial;
    nve_nic::PartialChecksum { start, offset }
}

/// The datapath's form of a checksum that is to be completed.
pub(super) fn from_nic(partial: nve_nic::PartialChecksum) -> PartialChecksum {
    let nve_nic::PartialChecksum { start, offset } = partial;
    PartialChecksum { start, offset }
}
