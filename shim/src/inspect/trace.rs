//! Follows a packet from NVE to NVE until it is delivered, dropped or out of sight.
//!
//! What leaves for another NVE is asked about there: the frame is taken out of its
//! tunnel as the NVE told its front, with zeros behind. What is copied to many goes
//! on at all of them, as far as [`MAX_HOPS`] reach.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::future::join_all;
use nve_protocol::DropReason;
use nve_protocol::inspect::{
    Leaving, Origin, Part, Probe, ProbeHead, Question, Responder, Step, Tunnel, Via,
};
use serde::Serialize;
use uuid::Uuid;

use super::explain::{Explainer, Told, dropped_words};
use super::names::{Named, Names, PortName};
use super::probe::TraceRequest;
use super::{InspectError, Inspector};
use crate::model::Nve;

/// Most NVEs that one trace asks.
pub const MAX_HOPS: usize = 17;
/// Most NVEs one behind the other: an egress NVE sends nothing on into tunnels.
const MAX_DEPTH: usize = 4;
/// Ethernet, IP, UDP and VXLAN headers around a frame in its tunnel.
const OUTER_V4: usize = 14 + 20 + 8 + 8;
const OUTER_V6: usize = 14 + 40 + 8 + 8;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// The packet in words.
    pub packet: String,
    /// How the VM finds the destination's MAC address, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// The NVEs that see it.
    pub hops: Vec<Hop>,
    /// Copies that were not followed, since there are too many.
    pub not_followed: usize,
    /// What becomes of it in the end.
    pub outcome: Outcome,
}

/// What one NVE does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// The NVE.
    pub nve: Named,
    /// The hop that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<usize>,
    /// Its stages, in order.
    pub steps: Vec<Told>,
    /// Steps that the NVE left out.
    pub lost: u64,
    /// Why the NVE did not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a trace ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A VM gets it.
    Delivered,
    /// An NVE answers it.
    Answered,
    /// It goes to a VTEP that is no NVE.
    Left,
    /// An NVE takes it, without an answer.
    Taken,
    /// Nobody gets it.
    Dropped,
    /// An NVE did not tell.
    Unknown,
}

/// What becomes of a packet in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The best that becomes of any copy of it.
    pub result: Ending,
    /// The same in words.
    pub text: String,
    /// Ports that get it.
    pub delivered: Vec<PortName>,
    /// VTEPs that are no NVEs and get it.
    pub left: BTreeSet<IpAddr>,
    /// Drops, of it or of copies.
    pub dropped: Vec<DroppedAt>,
    /// NVEs that did not tell, and why.
    pub unknown: Vec<String>,
}

/// Where and why it is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedAt {
    /// The NVE.
    pub nve: Named,
    /// Why.
    pub reason: DropReason,
    /// In words, with whose policy it was.
    pub text: String,
    /// Whose security groups or limits are the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
}

/// A question to be asked.
struct Task<'a> {
    nve: &'a Nve,
    probe: Probe,
    /// The hop and the step that it goes on from.
    after: Option<(usize, usize)>,
}

impl Inspector {
    /// Tells what would become of the packet that is asked for, now.
    ///
    /// # Errors
    /// When there is no such packet, or the first NVE does not answer. What cannot be
    /// found out behind it is in the outcome.
    pub async fn trace(&self, nve: Uuid, request: &TraceRequest) -> Result<Trace, InspectError> {
        let nve = self.nve(nve)?;
        let prepared = self.prepare(nve, request)?;
        let first = Task {
            nve,
            probe: prepared.probe,
            after: None,
        };
        let names = self.names();
        let mut walk = Walk {
            inspector: self,
            names: &names,
            hops: Vec::new(),
            not_followed: 0,
        };
        let mut level = vec![first];
        for depth in 0..MAX_DEPTH {
            let asked = level
                .iter()
                .map(|task| self.ask(task.nve, Question::Trace(task.probe)));
            let answers = join_all(asked).await;
            let tasks = std::mem::take(&mut level);
            for (task, answer) in tasks.into_iter().zip(answers) {
                match answer {
                    Err(error) if depth == 0 => return Err(error),
                    Err(error) => walk.failed(&task, error.to_string()),
                    Ok(reply) => walk.told(&task, &reply.parts, reply.done.lost, &mut level),
                }
            }
            if level.is_empty() {
                break;
            }
        }
        walk.not_followed += level.len();
        let outcome = walk.outcome();
        Ok(Trace {
            packet: prepared.packet,
            next_hop: prepared.next_hop,
            hops: walk.hops,
            not_followed: walk.not_followed,
            outcome,
        })
    }
}

/// A trace on its way.
struct Walk<'a> {
    inspector: &'a Inspector,
    names: &'a Names<'a>,
    hops: Vec<Hop>,
    not_followed: usize,
}

impl<'a> Walk<'a> {
    fn hop(&mut self, task: &Task<'_>, steps: Vec<Told>, lost: u64, error: Option<String>) {
        let number = self.hops.len();
        let from = task
            .after
            .and_then(|(hop, step)| self.hops.get_mut(hop)?.steps.get_mut(step));
        if let Some(told) = from {
            told.hop = Some(number);
        }
        self.hops.push(Hop {
            nve: Named {
                id: task.nve.id,
                name: task.nve.name.clone(),
            },
            after: task.after.map(|(hop, _)| hop),
            steps,
            lost,
            error,
        });
    }

    fn failed(&mut self, task: &Task<'_>, error: String) {
        self.hop(task, Vec::new(), 0, Some(error));
    }

    /// Takes an NVE's answer, and finds where the packet goes on.
    fn told(&mut self, task: &Task<'_>, parts: &[Part], lost: u64, next: &mut Vec<Task<'a>>) {
        let steps: Vec<Step> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Step(step) => Some(*step),
                _ => None,
            })
            .collect();
        let explainer = Explainer::new(self.inspector, self.names, task.nve, &steps);
        let told = steps.iter().map(|step| explainer.tell(*step)).collect();
        let hop = self.hops.len();
        self.hop(task, told, lost, None);
        let mut followed = BTreeSet::new();
        for (at, step) in steps.iter().enumerate() {
            let Step::Send(leaving) = step else { continue };
            let Via::Tunnel(tunnel) = leaving.to else {
                continue;
            };
            let Some(nve) = self.nve_behind(task.nve, &tunnel) else {
                continue;
            };
            // Of the pieces of a packet the first stands for all: the others would
            // not find its connection, for tracing makes none.
            if !followed.insert((tunnel.vni, tunnel.vtep)) {
                continue;
            }
            match decapsulate(leaving) {
                _ if self.hops.len() + next.len() >= MAX_HOPS => self.not_followed += 1,
                Some((length, head)) => next.push(Task {
                    nve,
                    probe: Probe {
                        origin: Origin::Tunnel(Tunnel {
                            vni: tunnel.vni,
                            vtep: task.nve.vtep,
                        }),
                        length,
                        head,
                    },
                    after: Some((hop, at)),
                }),
                None => {
                    if let Some(hop) = self.hops.get_mut(hop) {
                        hop.error = Some("tells of a frame in a tunnel that is none".to_owned());
                    }
                }
            }
        }
    }

    /// The other NVE that a tunnel leads to.
    fn nve_behind(&self, from: &Nve, tunnel: &Tunnel) -> Option<&'a Nve> {
        let inspector: &'a Inspector = self.inspector;
        inspector
            .nve_at(tunnel.vtep)
            .filter(|nve| nve.id != from.id)
    }

    fn outcome(&self) -> Outcome {
        let mut ends = Ends::default();
        for hop in &self.hops {
            self.ends_of(hop, &mut ends);
        }
        let result = ends.result(self.not_followed);
        Outcome {
            text: ends.text(result, self.names, self.not_followed),
            result,
            delivered: ends.delivered.into_iter().map(|(port, _)| port).collect(),
            left: ends.left,
            dropped: ends.dropped,
            unknown: ends.unknown,
        }
    }

    fn ends_of(&self, hop: &Hop, ends: &mut Ends) {
        if let Some(error) = &hop.error {
            ends.unknown.push(error.clone());
        }
        let mut responder = None;
        let mut ended = hop.error.is_some();
        for told in &hop.steps {
            match told.step {
                Step::Responder(found) => responder = Some(found),
                Step::Send(leaving) => {
                    ended = true;
                    match (responder, leaving.to) {
                        // What explains a drop is no answer.
                        (Some(Responder::Icmp), _) => {}
                        (Some(_), _) => ends.answered.push(hop.nve.clone()),
                        (None, Via::Vap(place)) => {
                            let port = self.names.port_of(place.port);
                            ends.delivered.push((port, hop.nve.clone()));
                        }
                        (None, Via::Tunnel(tunnel))
                            if self.inspector.nve_at(tunnel.vtep).is_none() =>
                        {
                            ends.left.insert(tunnel.vtep);
                        }
                        (None, Via::Tunnel(_)) => {}
                    }
                }
                Step::Drop { reason, blame } => {
                    ended = true;
                    ends.dropped.push(DroppedAt {
                        nve: hop.nve.clone(),
                        reason,
                        text: dropped_words(self.names, reason, blame.as_ref()),
                        port: blame.map(|blame| self.names.port_of(blame.port)),
                    });
                }
                _ => {}
            }
        }
        match responder {
            _ if ended => {}
            Some(_) => ends.taken.push(hop.nve.clone()),
            None => ends
                .unknown
                .push(format!("NVE {} does not tell what becomes of it", hop.nve)),
        }
    }
}

/// What becomes of all copies.
#[derive(Default)]
struct Ends {
    delivered: Vec<(PortName, Named)>,
    answered: Vec<Named>,
    left: BTreeSet<IpAddr>,
    taken: Vec<Named>,
    dropped: Vec<DroppedAt>,
    unknown: Vec<String>,
}

impl Ends {
    fn result(&self, not_followed: usize) -> Ending {
        if !self.delivered.is_empty() {
            Ending::Delivered
        } else if !self.answered.is_empty() {
            Ending::Answered
        } else if !self.left.is_empty() {
            Ending::Left
        } else if !self.unknown.is_empty() || not_followed > 0 {
            Ending::Unknown
        } else if !self.dropped.is_empty() {
            Ending::Dropped
        } else if !self.taken.is_empty() {
            Ending::Taken
        } else {
            Ending::Unknown
        }
    }

    fn text(&self, result: Ending, names: &Names<'_>, not_followed: usize) -> String {
        let delivered = self
            .delivered
            .iter()
            .map(|(port, nve)| format!("port {port} on {nve}"));
        let left = self.left.iter().map(|vtep| names.vtep_words(*vtep));
        let dropped = self
            .dropped
            .iter()
            .map(|at| format!("on {}: {}", at.nve, at.text));
        let mut text = match result {
            Ending::Delivered => format!("delivered to {}", listed(delivered)),
            Ending::Answered => format!("answered by {}", listed(self.answered.iter())),
            Ending::Left => format!("left the overlay at {}", listed(left.clone())),
            Ending::Taken => format!("taken by {}, without an answer", listed(self.taken.iter())),
            Ending::Dropped => format!("dropped {}", listed(dropped.clone())),
            Ending::Unknown => "nobody is known to get it".to_owned(),
        };
        let mut also = |what: &str, some: String| {
            if !some.is_empty() {
                text += &format!("; {what} {some}");
            }
        };
        if result == Ending::Delivered || result == Ending::Answered {
            also("also left the overlay at", listed(left));
        }
        if result != Ending::Dropped {
            also("a copy is dropped", listed(dropped));
        }
        also("unknown:", listed(self.unknown.iter()));
        if not_followed > 0 {
            also("copies that were not followed:", not_followed.to_string());
        }
        text
    }
}

fn listed(items: impl Iterator<Item: ToString>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}

/// The frame in a tunnel's packet: its length, and its front.
fn decapsulate(leaving: &Leaving) -> Option<(u16, ProbeHead)> {
    let bytes = leaving.head.bytes();
    let outer = match bytes.get(12..14)? {
        [0x08, 0x00] => OUTER_V4,
        [0x86, 0xdd] => OUTER_V6,
        _ => return None,
    };
    let length = usize::from(leaving.length).checked_sub(outer)?;
    let front = bytes.get(outer..)?;
    let front = front.get(..length).unwrap_or(front);
    Some((u16::try_from(length).ok()?, ProbeHead::front(front)))
}
