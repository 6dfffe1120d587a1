//! Drops that NVEs remember, and entries of their flow caches.

use nve_protocol::inspect::{Dropped, Flow, Part, Question, Via};
use nve_protocol::{PortId, Vlan};
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::explain::{connection_words, dropped_words};
use super::names::{Names, PortName, RuleName, tuple_words};
use super::{InspectError, Inspector};

/// Most answers of an NVE that one list of drops takes: its whole memory.
const DROP_PAGES: usize = 32;
/// Most flows of one list.
pub const MAX_FLOWS: usize = 8192;
/// Most answers of an NVE that one list of flows takes.
const FLOW_PAGES: usize = 256;

/// Drops of an NVE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// Oldest first.
    pub drops: Vec<DropTold>,
    /// What to give as `after` to go on.
    pub next: u64,
    /// Drops that the NVE forgot before it was asked.
    pub lost: u64,
    /// Whether there is more at once.
    pub more: bool,
}

/// A drop with names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DropTold {
    /// As the NVE told it.
    #[serde(flatten)]
    pub drop: Dropped,
    /// When, if the NVE's uptime is known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    /// Where the frame came from, in words.
    pub from_text: Option<String>,
    /// The packet in words.
    pub packet_text: Option<String>,
    /// Why, in words.
    pub text: String,
    /// The port that it was from, or whose policy dropped it.
    pub port: Option<PortName>,
    /// The rule that allowed the connection before.
    pub rule: Option<RuleName>,
}

/// Entries of an NVE's flow cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// In the cache's order.
    pub flows: Vec<FlowTold>,
    /// Whether there are more than the list may have.
    pub truncated: bool,
}

/// A flow with names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowTold {
    /// As the NVE told it.
    #[serde(flatten)]
    pub flow: Flow,
    /// What makes packets this flow, in words.
    pub tuple_text: String,
    /// Where its packets come from, in words.
    pub from_text: String,
    /// Where they leave, in words.
    pub to_text: String,
    /// The sender's connection, in words.
    pub sender_text: Option<String>,
    /// The receiver's connection, in words.
    pub receiver_text: Option<String>,
}

impl Inspector {
    /// The drops of an NVE after the one with that number; of one port if that is
    /// given.
    ///
    /// # Errors
    /// When there is no such port there, or the NVE does not answer.
    pub async fn drops(
        &self,
        nve: Uuid,
        after: u64,
        port: Option<&str>,
    ) -> Result<Drops, InspectError> {
        let nve = self.nve(nve)?;
        let port = port.map(|key| self.port_at(nve, key)).transpose()?;
        let port = port.map(|at| PortId(at.port.common.id.into_bytes()));
        let names = self.names();
        let mut list = Drops {
            drops: Vec::new(),
            next: after,
            lost: 0,
            more: true,
        };
        for _ in 0..DROP_PAGES {
            let reply = self.ask(nve, Question::Drops { after: list.next }).await?;
            let booted = self.booted_at(nve.id);
            let drops = reply.parts.iter().filter_map(|part| match part {
                Part::Drop(drop) => Some(*drop),
                _ => None,
            });
            let wanted = drops.filter(|drop| port.is_none_or(|port| is_of(drop, port)));
            list.drops
                .extend(wanted.map(|drop| tell_drop(&names, drop, booted)));
            list.next = reply.done.next;
            list.lost = list.lost.saturating_add(reply.done.lost);
            list.more = reply.done.more;
            if !list.more {
                break;
            }
        }
        Ok(list)
    }

    /// The flows of an NVE; from and to one port if that is given.
    ///
    /// # Errors
    /// When there is no such port there, or the NVE does not answer.
    pub async fn flows(&self, nve: Uuid, port: Option<&str>) -> Result<Flows, InspectError> {
        let nve = self.nve(nve)?;
        let port = port.map(|key| self.port_at(nve, key)).transpose()?;
        let vlan: Option<Vlan> = port.map(|at| at.vlan);
        let names = self.names();
        let (mut flows, mut cursor) = (Vec::new(), 0);
        for _ in 0..FLOW_PAGES {
            let reply = self.ask(nve, Question::Flows { cursor, vlan }).await?;
            flows.extend(reply.parts.iter().filter_map(|part| match part {
                Part::Flow(flow) => Some(tell_flow(&names, *flow)),
                _ => None,
            }));
            cursor = u32::try_from(reply.done.next).unwrap_or(0);
            if cursor == 0 || flows.len() >= MAX_FLOWS {
                break;
            }
        }
        let truncated = cursor != 0 || flows.len() > MAX_FLOWS;
        flows.truncate(MAX_FLOWS);
        Ok(Flows { flows, truncated })
    }
}

fn is_of(drop: &Dropped, port: PortId) -> bool {
    let from = matches!(drop.from, Some(Via::Vap(place)) if place.port == port);
    from || drop.blame.is_some_and(|blame| blame.port == port)
}

fn tell_drop(names: &Names<'_>, drop: Dropped, booted: Option<OffsetDateTime>) -> DropTold {
    let after = i64::try_from(drop.at_ms).ok().map(Duration::milliseconds);
    let at = booted
        .zip(after)
        .and_then(|(booted, after)| booted.checked_add(after));
    let sender = match drop.from {
        Some(Via::Vap(place)) => Some(place.port),
        _ => None,
    };
    let port = sender.or(drop.blame.map(|blame| blame.port));
    let packet_text = drop.packet.map(|packet| match &packet.ip {
        Some(tuple) => tuple_words(tuple),
        None => format!(
            "ethertype {:#06x} {} > {}",
            packet.ethertype, packet.source_mac, packet.destination_mac
        ),
    });
    DropTold {
        at,
        from_text: drop.from.map(|via| names.via_words(&via)),
        packet_text,
        text: dropped_words(names, drop.reason, drop.blame.as_ref()),
        port: port.map(|port| names.port_of(port)),
        rule: drop
            .blame
            .and_then(|blame| blame.rule)
            .map(|rule| names.rule(rule)),
        drop,
    }
}

fn tell_flow(names: &Names<'_>, flow: Flow) -> FlowTold {
    let tracked = |tracked: nve_protocol::inspect::Tracked| {
        format!(
            "{}, rule {}",
            connection_words(tracked.state),
            names.rule(tracked.rule)
        )
    };
    let mut tuple_text = tuple_words(&flow.tuple);
    if let Some(echo) = flow.echo {
        tuple_text += &format!(", id {echo}");
    }
    FlowTold {
        tuple_text,
        from_text: names.via_words(&flow.from),
        to_text: names.via_words(&flow.to),
        sender_text: flow.sender.map(tracked),
        receiver_text: flow.receiver.map(tracked),
        flow,
    }
}
