//! What the datapath counts.

use nve_protocol::DropReason;

/// Counters since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Dropped frames, by [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
    /// Requests of VMs that were answered: ARP, neighbor discovery, DHCP, ICMP to
    /// gateways.
    pub answers: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            drops: [0; DropReason::COUNT],
            answers: 0,
        }
    }
}

impl Counters {
    /// Counts a dropped frame.
    pub fn count_drop(&mut self, reason: DropReason) {
        if let Some(counter) = self.drops.get_mut(reason.index()) {
            *counter += 1;
        }
    }

    /// How many frames were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).copied().unwrap_or_default()
    }
}
