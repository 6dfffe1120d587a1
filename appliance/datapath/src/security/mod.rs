//! Security: whether a VAP may send or get a packet, by its groups' rules and by
//! its connections.
//!
//! For VAPs with port security only, after the responders. A packet between two
//! VAPs of this NVE is admitted twice: out of one, into the other.
//!
//! - Rules of stateful groups allow a connection: a packet that they allow opens
//!   one, and what belongs to it passes both ways while rules still allow its
//!   opening. One that they no longer allow is cut: until it has been silent for a
//!   while, or rules allow it again, or a SYN begins another, nothing of it passes
//!   (but for what is not TCP, what the other side may send by rules of its own).
//! - Rules of groups with `stateful=false` allow packets, each by itself. If both
//!   kinds allow a packet, it opens a connection.
//! - TCP in its middle opens a connection if rules allow that packet, so that
//!   connections survive a restart or a move. RST, FIN, SYN with ACK, errors and
//!   other ICMP that is no query open none: they pass if rules allow them.
//! - ICMP errors pass if the packet that they quote is of a connection (RFC 5927,
//!   section 4.1; redirects do not).
//! - Later fragments follow their first fragment; without it, or before it, they
//!   are dropped.
//! - Neighbor discovery, multicast listener discovery, what DHCP clients send and
//!   what they are answered pass without a rule, as with Neutron's Open vSwitch
//!   firewall. Router advertisements do not: the NVE makes them itself.

use nve_protocol::inspect::Tuple;
use nve_protocol::{Direction, DropReason, RuleId, Vlan};

use crate::Nanos;
use crate::connections::{
    Config, Connection, ConnectionKey, Connections, Entry, FirstFragment, Fragments, Fresh, Handle,
    Share, Stale, State,
};
use crate::groups::{Answer, Groups, Question};
use crate::packet::{Ip, protocol};
use crate::tables::{Changes, Rules};

mod packet;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

/// A packet that passes a VAP.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The VAP.
    pub vlan: Vlan,
    /// Towards the VM or from it.
    pub direction: Direction,
    /// The packet's headers.
    pub ip: &'a Ip,
    /// The frame that they were read from.
    pub frame: &'a [u8],
}

/// A packet passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The connection that it is of.
    pub connection: Option<Handle>,
    /// The rule that allows it, or its connection; `None` if it needs none.
    pub rule: Option<RuleId>,
    /// Whether the packets after it with the same addresses, protocol and ports
    /// (ICMP: type, code and identifier) need not be admitted, as long as the rules
    /// are the same and [`Security::touch`] agrees if there is a connection.
    pub lasting: bool,
}

/// A connection that a packet would open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    key: ConnectionKey,
    rule: RuleId,
}

impl Opening {
    /// The rule that allows it, if a packet is of it: one that comes back to the VAP
    /// that it left.
    pub(crate) fn allows(&self, packet: &Packet<'_>) -> Option<RuleId> {
        (packet.key() == Some(self.key)).then_some(self.rule)
    }
}

/// Why a packet would pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// The connection that it is of; `None` if it would open one, or needs none.
    pub connection: Option<Connection>,
    /// The connection that it would open.
    pub opening: Option<Opening>,
    /// The rule that allows it, or its connection; `None` if it needs none.
    pub rule: Option<RuleId>,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// It passes without a rule.
    Given,
    /// It is of a connection, which this rule allows.
    Known {
        slot: u32,
        rule: RuleId,
    },
    /// It tells of a connection, which this rule allows.
    Related {
        slot: u32,
        rule: RuleId,
    },
    /// It opens a connection, in place of one that is over.
    Open {
        key: ConnectionKey,
        state: State,
        rule: RuleId,
        over: Option<u32>,
    },
    /// A rule allows it by itself.
    Alone {
        rule: RuleId,
        lasting: bool,
    },
    /// It is of a connection that no rule allows any more.
    Cut {
        slot: u32,
    },
    Deny(DropReason),
}

/// The stage's state: connections, and first fragments.
#[derive(Debug)]
pub struct Security {
    connections: Connections,
    fragments: Fragments,
}

impl Security {
    /// A stage without connections.
    pub fn new(config: &Config) -> Security {
        Security {
            connections: Connections::new(config),
            fragments: Fragments::new(config.fragments, config.seed),
        }
    }

    /// Whether a packet may pass, by the rules that there are.
    pub fn admit(
        &mut self,
        rules: Rules<'_>,
        packet: &Packet<'_>,
        now: Nanos,
    ) -> Result<Admission, DropReason> {
        let decision = self.decide(rules, packet, now);
        let mut admission = self.enact(decision, packet, now, rules.changes.epoch())?;
        if let Some(fragment) = packet.ip.fragment {
            admission.lasting = false;
            if fragment.offset == 0 && decision != Decision::Given {
                let first = FirstFragment {
                    connection: admission.connection,
                    service: packet.service(),
                };
                self.fragments.insert(packet.piece(fragment.id), first, now);
            }
        }
        Ok(admission)
    }

    /// Whether a packet would pass, and why, if the same frame has opened `before`
    /// already, at another VAP or at this one. Changes nothing.
    pub fn judge(
        &self,
        rules: Rules<'_>,
        packet: &Packet<'_>,
        now: Nanos,
        before: Option<&Opening>,
    ) -> Result<Judgement, DropReason> {
        let decision = self.decide(rules, packet, now);
        let (slot, rule) = match decision {
            Decision::Given => (None, None),
            Decision::Known { slot, rule } | Decision::Related { slot, rule } => {
                (Some(slot), Some(rule))
            }
            Decision::Open { over: None, .. }
                if !self.connections.has_room(
                    packet.vlan.get(),
                    before.map(|opening| opening.key.vlan()),
                    now,
                ) =>
            {
                return Err(DropReason::ConnectionLimit);
            }
            Decision::Open { rule, .. } | Decision::Alone { rule, .. } => (None, Some(rule)),
            Decision::Cut { .. } => return Err(DropReason::SecurityGroup),
            Decision::Deny(reason) => return Err(reason),
        };
        Ok(Judgement {
            connection: slot.and_then(|slot| self.connections.export(slot, now)),
            opening: match decision {
                Decision::Open { key, rule, .. } => Some(Opening { key, rule }),
                _ => None,
            },
            rule,
        })
    }

    /// The rule that allowed the connection of a packet, when it still was allowed.
    pub fn former_rule(&self, packet: &Packet<'_>, now: Nanos) -> Option<RuleId> {
        let slot = self.connections.find(&packet.key()?)?;
        let entry = self.connections.entry(slot)?;
        match self.connections.is_expired(entry, now) {
            true => None,
            false => self.connections.rule(slot),
        }
    }

    /// The connection of a handle that is still good.
    pub fn connection(&self, handle: Handle, now: Nanos) -> Option<Connection> {
        let slot = self.connections.slot(handle)?;
        self.connections.export(slot, now)
    }

    /// What packets that are followed now are fresh by; see [`touch`](Self::touch).
    #[inline]
    pub(crate) fn freshness(&self, now: Nanos) -> Fresh {
        self.connections.freshness(now)
    }

    /// Has the memory fetched that [`Security::touch`] reads.
    #[inline]
    pub(crate) fn prefetch(&self, handle: Handle) {
        self.connections.prefetch(handle);
    }

    /// Has the memory fetched in which the connection is looked for first of a packet that
    /// passes a VAP; not of ICMP.
    pub(crate) fn prefetch_bucket(&self, vlan: Vlan, direction: Direction, tuple: &Tuple) {
        let (source, destination) = (
            (tuple.source, tuple.source_port),
            (tuple.destination, tuple.destination_port),
        );
        let (local, remote) = match direction {
            Direction::Egress => (source, destination),
            Direction::Ingress => (destination, source),
        };
        let (addresses, ports) = ((local.0, remote.0), (local.1, remote.1));
        let key = ConnectionKey::new(vlan, tuple.protocol, addresses, ports);
        self.connections.prefetch_bucket(&key);
    }

    /// Follows one more packet of a connection that was admitted by the rules that there
    /// are: the quick way for known flows. `flags` are those of TCP, 0 for all else. After
    /// an error the packet must be [admitted](Self::admit). Returns whether packets after
    /// it need not be followed as long as `freshness` stays the same
    /// and their flags have none of [`CHANGES`](crate::connections::CHANGES).
    #[inline]
    pub fn touch(
        &mut self,
        handle: Handle,
        direction: Direction,
        flags: u8,
        now: Nanos,
        changes: &Changes,
    ) -> Result<bool, Stale> {
        self.connections
            .touch(handle, direction, flags, now, changes)
    }

    /// To be called in each epoch; see [`Connections::sweep`].
    pub(crate) fn sweep(&mut self, changes: &Changes) {
        self.connections.sweep(changes);
    }

    /// Removes connections that have expired, looking at no more than `budget`;
    /// returns how many. To be called with every burst or so.
    pub fn age(&mut self, now: Nanos, budget: usize) -> usize {
        self.connections.age(now, budget)
    }

    /// The same, to be called as often as one likes: it has an effect now and then.
    pub(crate) fn age_by_time(&mut self, now: Nanos, budget: usize) {
        self.connections.age_by_time(now, budget);
    }

    /// Removes all connections of a VAP that is no more.
    pub fn forget(&mut self, vlan: Vlan) {
        self.connections.forget(vlan);
    }

    /// Connections of a VAP.
    pub fn connections(&self, vlan: Vlan, now: Nanos) -> impl Iterator<Item = Connection> + '_ {
        self.connections.of_vap(vlan, now)
    }

    /// Tells a page of a VAP's connections, for another NVE; see [`Connections::page`].
    pub(crate) fn page(
        &self,
        vlan: Vlan,
        cursor: u64,
        now: Nanos,
        within: Nanos,
        tell: impl FnMut(Connection),
    ) -> u64 {
        self.connections.page(vlan, cursor, now, within, tell)
    }

    /// Takes over a connection from another NVE, as it lists it, unless it was seen here
    /// later than there. The next packet of it asks the rules.
    pub fn import(&mut self, connection: &Connection, now: Nanos) -> Result<(), DropReason> {
        self.connections.import(connection, now)
    }

    /// How much of the table a VAP has.
    pub fn share(&self, vlan: Vlan) -> Share {
        self.connections.share(vlan)
    }

    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.connections.count()
    }

    /// How many connections fit.
    pub fn capacity(&self) -> usize {
        self.connections.capacity()
    }
}

/// What is decided, without change.
impl Security {
    fn decide(&self, rules: Rules<'_>, packet: &Packet<'_>, now: Nanos) -> Decision {
        if packet.is_discovery() || packet.is_dhcp() {
            return Decision::Given;
        }
        if packet.ip.is_later_fragment() {
            return self.decide_later_fragment(rules, packet, now);
        }
        let key = packet.key();
        if let Some(key) = &key
            && let Some(slot) = self.connections.find(key)
            && let Some(entry) = self.connections.entry(slot)
        {
            let over = self.connections.is_expired(entry, now)
                || entry.state.is_reopened_by(packet.flags());
            return match over {
                true => decide_new(rules.groups, packet, Some(*key), Some(slot)),
                false => self.decide_known(rules, packet, slot, entry),
            };
        }
        if let Some((slot, rule)) = self.related(rules, packet, now) {
            return Decision::Related { slot, rule };
        }
        decide_new(rules.groups, packet, key, None)
    }

    fn decide_known(
        &self,
        rules: Rules<'_>,
        packet: &Packet<'_>,
        slot: u32,
        entry: &Entry,
    ) -> Decision {
        if let Some(rule) = self.allowed_by(rules, packet.vlan, slot, entry) {
            return Decision::Known { slot, rule };
        }
        let answer = rules.groups.judge(packet.vlan, &packet.question());
        // What the other side sends, it may have sent of its own accord: with TCP a
        // SYN would tell.
        let own = packet.direction != entry.opener && packet.ip.protocol != protocol::TCP;
        match answer.stateless.or(answer.stateful.filter(|_| own)) {
            Some(rule) => Decision::Alone {
                rule,
                lasting: false,
            },
            None => Decision::Cut { slot },
        }
    }

    /// The rule that allows a connection now.
    fn allowed_by(&self, rules: Rules<'_>, vlan: Vlan, slot: u32, entry: &Entry) -> Option<RuleId> {
        match (entry.is_asked(rules.changes), entry.state) {
            (true, State::Cut) => None,
            (true, _) => self.connections.rule(slot),
            (false, _) => rules.groups.judge(vlan, &opening_question(entry)).stateful,
        }
    }

    /// The connection that the packet is of which an ICMP error tells, and the rule
    /// that allows it.
    fn related(&self, rules: Rules<'_>, packet: &Packet<'_>, now: Nanos) -> Option<(u32, RuleId)> {
        let quoted = packet.ip.quoted(packet.frame)?;
        let quoted = Packet {
            direction: match packet.direction {
                Direction::Ingress => Direction::Egress,
                Direction::Egress => Direction::Ingress,
            },
            ip: &quoted,
            ..*packet
        };
        let slot = self.connections.find(&quoted.key()?)?;
        let entry = self.connections.entry(slot)?;
        if self.connections.is_expired(entry, now) {
            return None;
        }
        let rule = self.allowed_by(rules, packet.vlan, slot, entry)?;
        Some((slot, rule))
    }

    fn decide_later_fragment(&self, rules: Rules<'_>, packet: &Packet<'_>, now: Nanos) -> Decision {
        const REFUSED: Decision = Decision::Deny(DropReason::Fragment);
        let Some(fragment) = packet.ip.fragment else {
            return REFUSED;
        };
        // It would write over the header that was judged (RFC 3128).
        if packet.ip.protocol == protocol::TCP && fragment.offset < TCP_HEADER {
            return REFUSED;
        }
        let Some(first) = self.fragments.find(&packet.piece(fragment.id), now) else {
            return REFUSED;
        };
        let Some(handle) = first.connection else {
            let question = Question {
                service: first.service,
                ..packet.question()
            };
            let answer = rules.groups.judge(packet.vlan, &question);
            return match answer.stateful.or(answer.stateless) {
                Some(rule) => Decision::Alone {
                    rule,
                    lasting: false,
                },
                None => REFUSED,
            };
        };
        let slot = self.connections.slot(handle);
        let Some((slot, entry)) = slot.and_then(|slot| Some((slot, self.connections.entry(slot)?)))
        else {
            return REFUSED;
        };
        if self.connections.is_expired(entry, now) {
            return REFUSED;
        }
        match self.allowed_by(rules, packet.vlan, slot, entry) {
            Some(rule) => Decision::Known { slot, rule },
            None => Decision::Cut { slot },
        }
    }
}

/// Bytes of the shortest TCP header.
const TCP_HEADER: u16 = 20;

/// What rules must allow for a connection to be allowed: its first packet.
fn opening_question(entry: &Entry) -> Question {
    let key = &entry.key;
    let service = match (key.protocol(), entry.opener) {
        (protocol::ICMP | protocol::ICMPV6, _) => key.remote_port() << 8,
        (_, Direction::Ingress) => key.local_port(),
        (_, Direction::Egress) => key.remote_port(),
    };
    Question {
        direction: entry.opener,
        remote: key.remote(),
        protocol: key.protocol(),
        service,
    }
}

/// By the rules; `over` is a connection on the same ports that is no more.
fn decide_new(
    groups: &Groups,
    packet: &Packet<'_>,
    key: Option<ConnectionKey>,
    over: Option<u32>,
) -> Decision {
    let answer = groups.judge(packet.vlan, &packet.question());
    let opening = key.and_then(|key| Some((key, packet.opening()?)));
    match (answer, opening) {
        (
            Answer {
                stateful: Some(rule),
                ..
            },
            Some((key, state)),
        ) => Decision::Open {
            key,
            state,
            rule,
            over,
        },
        (
            Answer {
                stateful: Some(rule),
                ..
            },
            None,
        ) => Decision::Alone {
            rule,
            lasting: false,
        },
        (
            Answer {
                stateless: Some(rule),
                ..
            },
            _,
        ) => Decision::Alone {
            rule,
            lasting: over.is_none(),
        },
        _ => Decision::Deny(DropReason::SecurityGroup),
    }
}

/// What is done about it.
impl Security {
    fn enact(
        &mut self,
        decision: Decision,
        packet: &Packet<'_>,
        now: Nanos,
        epoch: u32,
    ) -> Result<Admission, DropReason> {
        let (connection, rule, lasting) = match decision {
            Decision::Given => (None, None, false),
            Decision::Known { slot, rule } => {
                self.connections.allow(slot, rule, epoch);
                self.connections
                    .follow(slot, packet.direction, packet.flags(), now);
                (self.connections.handle(slot), Some(rule), true)
            }
            Decision::Related { slot, rule } => {
                self.connections.allow(slot, rule, epoch);
                (self.connections.handle(slot), Some(rule), false)
            }
            Decision::Open {
                key,
                state,
                rule,
                over,
            } => {
                if let Some(slot) = over {
                    self.connections.evict(slot);
                }
                let opener = packet.direction;
                let handle = self
                    .connections
                    .insert(key, opener, state, rule, now, epoch)?;
                // A flood of first packets must not fill caches: the next one lasts.
                (Some(handle), Some(rule), false)
            }
            Decision::Alone { rule, lasting } => (None, Some(rule), lasting),
            Decision::Cut { slot } => {
                self.connections.cut(slot, now, epoch);
                return Err(DropReason::SecurityGroup);
            }
            Decision::Deny(reason) => return Err(reason),
        };
        Ok(Admission {
            connection,
            rule,
            lasting,
        })
    }
}
