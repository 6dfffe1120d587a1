//! What is delivered to the guest, on the trunks of all hypervisors together.

use std::collections::HashMap;

use anyhow::Result;

use super::stage::Stage;
use crate::capture::Frames;

/// Addresses, numbers and lengths by which the peers' packets differ, in Wireshark's
/// words: also what Linux sends again of a TCP connection has another identification.
const IDENTITY: [&str; 8] = [
    "ip.src",
    "ip.id",
    "icmp.type",
    "icmp.ident",
    "icmp.seq",
    "tcp.srcport",
    "tcp.seq_raw",
    "tcp.len",
];

/// How often each packet was delivered.
#[derive(Debug, Default)]
pub(super) struct Deliveries(HashMap<Vec<String>, usize>);

impl Deliveries {
    /// Adds what a hypervisor's trunk has for the guest: behind its tag.
    pub(super) fn read(&mut self, stage: &Stage, frames: &Frames) -> Result<()> {
        let (mac, tag) = (&stage.interface.mac, stage.interface.tag);
        let filter = format!("eth.dst == {mac} && vlan.id == {tag} && (icmp || tcp)");
        for packet in frames.fields(&filter, &IDENTITY)? {
            *self.0.entry(packet).or_default() += 1;
        }
        Ok(())
    }

    /// How many packets there were.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that were delivered more than once.
    pub(super) fn repeated(&self) -> Vec<&[String]> {
        let repeated = self.0.iter().filter(|(_, times)| **times > 1);
        repeated.map(|(packet, _)| packet.as_slice()).collect()
    }
}
