//! Counters as a line of JSON.

use std::collections::BTreeMap;

use nve_protocol::{DropReason, NicStats, Stats};
use serde::Serialize;

/// What the loop counts, and what the last line said.
#[derive(Debug, Default)]
pub struct Report {
    /// Ticks of the time-stamp counter in turns of the loop that had something to do.
    pub busy_cycles: u64,
    /// Those turns.
    pub busy_turns: u64,
    told: (u64, u64),
}

#[derive(Serialize)]
struct Line<'s> {
    uptime_ms: u64,
    /// Frames that came in.
    packets: u64,
    busy_cycles: u64,
    busy_turns: u64,
    /// Of the time since the line before.
    cycles_per_packet: f64,
    trunk: &'s NicStats,
    uplink: &'s NicStats,
    answers: u64,
    /// Transactions that changed the tables.
    generation: u64,
    drops: BTreeMap<&'static str, u64>,
}

impl Report {
    /// The next line.
    pub fn line(&mut self, stats: &Stats) -> serde_json::Result<String> {
        let packets = stats.trunk.rx_packets + stats.uplink.rx_packets;
        let before = std::mem::replace(&mut self.told, (packets, self.busy_cycles));
        let more = (packets - before.0, self.busy_cycles - before.1);
        let drops = DropReason::ALL.iter().zip(stats.drops);
        serde_json::to_string(&Line {
            uptime_ms: stats.uptime_ms,
            packets,
            busy_cycles: self.busy_cycles,
            busy_turns: self.busy_turns,
            cycles_per_packet: more.1 as f64 / (more.0.max(1)) as f64,
            trunk: &stats.trunk,
            uplink: &stats.uplink,
            answers: stats.answers,
            generation: stats.generation,
            drops: drops
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.name(), count))
                .collect(),
        })
    }
}
