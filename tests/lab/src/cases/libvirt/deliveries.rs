//! What stations send, and what is delivered to them, on the trunks of all hypervisors
//! together.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

use anyhow::Result;

use crate::capture::Frames;
use crate::vm::Interface;

/// When and where a frame was.
const WHERE: [&str; 4] = ["frame.time_epoch", "vlan.id", "eth.src", "eth.dst"];
/// Addresses, numbers and lengths by which packets differ, in Wireshark's words: also
/// what Linux sends again of a TCP connection has another identification.
const IDENTITY: [&str; 9] = [
    "ip.src",
    "ip.dst",
    "ip.id",
    "icmp.type",
    "icmp.ident",
    "icmp.seq",
    "tcp.srcport",
    "tcp.seq_raw",
    "tcp.len",
];

/// When and how often a packet was on a trunk.
#[derive(Debug, Default)]
struct Times {
    /// From its sender to the NVE.
    sent: Vec<f64>,
    /// From the NVE to its receiver.
    delivered: Vec<f64>,
}

/// What became of each packet.
#[derive(Debug, Default)]
pub(super) struct Deliveries(HashMap<Vec<String>, Times>);

/// A packet that was delivered more than once.
#[derive(Debug)]
pub(super) struct Repeated<'a> {
    packet: &'a [String],
    times: &'a Times,
}

impl Deliveries {
    /// Adds what a hypervisor's trunk has from and for stations: behind their tags.
    pub(super) fn read(&mut self, stations: &[&Interface], frames: &Frames) -> Result<()> {
        let fields = [&WHERE[..], &IDENTITY].concat();
        for mut row in frames.fields("vlan && (icmp || tcp)", &fields)? {
            let packet = row.split_off(WHERE.len());
            let [at, tag, source, destination] = row.as_slice() else {
                continue;
            };
            let is_at = |mac: &String| {
                let is_it = |station: &&&Interface| station.mac == *mac;
                let station = stations.iter().find(is_it);
                station.is_some_and(|station| station.tag.to_string() == *tag)
            };
            let at = at.parse()?;
            let times = self.0.entry(packet).or_default();
            if is_at(source) {
                times.sent.push(at);
            }
            if is_at(destination) {
                times.delivered.push(at);
            }
        }
        Ok(())
    }

    /// How many packets were delivered.
    pub(super) fn count(&self) -> usize {
        let all = self.0.values();
        all.filter(|times| !times.delivered.is_empty()).count()
    }

    /// Those that were delivered more than once.
    pub(super) fn repeated(&self) -> Vec<Repeated<'_>> {
        let repeated = self.0.iter().filter(|(_, times)| times.delivered.len() > 1);
        let repeated = repeated.map(|(packet, times)| Repeated { packet, times });
        repeated.collect()
    }
}

impl Display for Repeated<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let fields = IDENTITY.iter().zip(self.packet);
        for (name, value) in fields.filter(|(_, value)| !value.is_empty()) {
            write!(f, "{name} {value}, ")?;
        }
        write!(
            f,
            "sent at {:?}, delivered at {:?}",
            self.times.sent, self.times.delivered
        )
    }
}
