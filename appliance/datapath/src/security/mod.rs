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

use nve_protocol::{Direction, DropReason, Family, RuleId, Vlan};

use crate::Nanos;
use crate::connections::{
    Config, Connection, ConnectionKey, Connections, Entry, FirstFragment, Fragments, Handle, Piece,
    Share, Stale, State,
};
use crate::groups::{Answer, Groups, Question};
use crate::packet::{self, Ip, L4, protocol};

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
    /// (ICMP: type, code and identifier) need not be admitted in this epoch, as
    /// long as [`Security::touch`] agrees if there is a connection.
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

    /// Whether a packet may pass, by the rules of this epoch: `epoch` must differ
    /// after each change of `groups`.
    pub fn admit(
        &mut self,
        groups: &Groups,
        packet: &Packet<'_>,
        now: Nanos,
        epoch: u32,
    ) -> Result<Admission, DropReason> {
        let decision = self.decide(groups, packet, now, epoch);
        let mut admission = self.enact(decision, packet, now, epoch)?;
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

    /// Whether a packet would pass, and why. Changes nothing.
    pub fn judge(
        &self,
        groups: &Groups,
        packet: &Packet<'_>,
        now: Nanos,
        epoch: u32,
    ) -> Result<Judgement, DropReason> {
        let decision = self.decide(groups, packet, now, epoch);
        let (slot, rule) = match decision {
            Decision::Given => (None, None),
            Decision::Known { slot, rule } | Decision::Related { slot, rule } => {
                (Some(slot), Some(rule))
            }
            Decision::Open { over: None, .. }
                if !self.connections.has_room(packet.vlan.get(), now) =>
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

    /// Follows one more packet of a connection that was admitted in this epoch: the
    /// quick way for known flows. `flags` are those of TCP, 0 for all else. After an
    /// error the packet must be [admitted](Self::admit).
    #[inline]
    pub fn touch(
        &mut self,
        handle: Handle,
        direction: Direction,
        flags: u8,
        now: Nanos,
        epoch: u32,
    ) -> Result<(), Stale> {
        self.connections.touch(handle, direction, flags, now, epoch)
    }

    /// Removes connections that have expired, looking at no more than `budget`;
    /// returns how many. To be called with every burst or so.
    pub fn age(&mut self, now: Nanos, budget: usize) -> usize {
        self.connections.age(now, budget)
    }

    /// Removes all connections of a VAP that is no more.
    pub fn forget(&mut self, vlan: Vlan) {
        self.connections.forget(vlan);
    }

    /// Connections of a VAP.
    pub fn connections(&self, vlan: Vlan, now: Nanos) -> impl Iterator<Item = Connection> + '_ {
        self.connections.of_vap(vlan, now)
    }

    /// Takes over a connection from another NVE, as it lists it. The next packet of
    /// it asks the rules.
    pub fn import(
        &mut self,
        connection: &Connection,
        now: Nanos,
        epoch: u32,
    ) -> Result<(), DropReason> {
        self.connections.import(connection, now, epoch)
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
    fn decide(&self, groups: &Groups, packet: &Packet<'_>, now: Nanos, epoch: u32) -> Decision {
        if packet.is_discovery() || packet.is_dhcp() {
            return Decision::Given;
        }
        if packet.ip.is_later_fragment() {
            return self.decide_later_fragment(groups, packet, now, epoch);
        }
        let key = packet.key();
        if let Some(key) = &key
            && let Some(slot) = self.connections.find(key)
            && let Some(entry) = self.connections.entry(slot)
        {
            let over = self.connections.is_expired(entry, now)
                || entry.state.is_reopened_by(packet.flags());
            return match over {
                true => decide_new(groups, packet, Some(*key), Some(slot)),
                false => self.decide_known(groups, packet, slot, entry, epoch),
            };
        }
        if let Some((slot, rule)) = self.related(groups, packet, now, epoch) {
            return Decision::Related { slot, rule };
        }
        decide_new(groups, packet, key, None)
    }

    fn decide_known(
        &self,
        groups: &Groups,
        packet: &Packet<'_>,
        slot: u32,
        entry: &Entry,
        epoch: u32,
    ) -> Decision {
        if let Some(rule) = self.allowed_by(groups, packet.vlan, slot, entry, epoch) {
            return Decision::Known { slot, rule };
        }
        let answer = groups.judge(packet.vlan, &packet.question());
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

    /// The rule that allows a connection in this epoch.
    fn allowed_by(
        &self,
        groups: &Groups,
        vlan: Vlan,
        slot: u32,
        entry: &Entry,
        epoch: u32,
    ) -> Option<RuleId> {
        match (entry.epoch == epoch, entry.state) {
            (true, State::Cut) => None,
            (true, _) => self.connections.rule(slot),
            (false, _) => groups.judge(vlan, &opening_question(entry)).stateful,
        }
    }

    /// The connection that the packet is of which an ICMP error tells, and the rule
    /// that allows it.
    fn related(
        &self,
        groups: &Groups,
        packet: &Packet<'_>,
        now: Nanos,
        epoch: u32,
    ) -> Option<(u32, RuleId)> {
        let quoted = packet.quoted()?;
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
        let rule = self.allowed_by(groups, packet.vlan, slot, entry, epoch)?;
        Some((slot, rule))
    }

    fn decide_later_fragment(
        &self,
        groups: &Groups,
        packet: &Packet<'_>,
        now: Nanos,
        epoch: u32,
    ) -> Decision {
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
            let answer = groups.judge(packet.vlan, &question);
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
        match self.allowed_by(groups, packet.vlan, slot, entry, epoch) {
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
                    self.connections.remove(slot);
                }
                let opener = packet.direction;
                let handle = self
                    .connections
                    .insert(key, opener, state, rule, now, epoch)?;
                (Some(handle), Some(rule), true)
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

/// Types of ICMP (RFC 792) and ICMPv6 (IANA, ICMPv6 Parameters).
mod icmp {
    pub(super) const ECHO: u8 = 8;
    pub(super) const TIMESTAMP: u8 = 13;
    pub(super) const INFORMATION: u8 = 15;
    pub(super) const ADDRESS_MASK: u8 = 17;
    pub(super) const V6_ECHO: u8 = 128;
    pub(super) const V6_NODE_INFORMATION: u8 = 139;
    pub(super) const V6_ROUTER_SOLICITATION: u8 = 133;
}

/// Bytes in front of the packet that an ICMP error quotes.
const ICMP_ERROR_HEADER: usize = 8;

impl Packet<'_> {
    /// Whether it is neighbor discovery (RFC 4861) or multicast listener discovery
    /// (RFC 2710, RFC 3810). Neither is ever routed: the hop limit says so.
    fn is_discovery(&self) -> bool {
        let L4::Icmp { kind, code: 0, .. } = self.ip.l4 else {
            return false;
        };
        if self.ip.protocol != protocol::ICMPV6 || self.ip.family() != Family::Ipv6 {
            return false;
        }
        match kind {
            130..=132 | 143 => self.ip.hop_limit == 1,
            135 | 136 => self.ip.hop_limit == 255,
            icmp::V6_ROUTER_SOLICITATION => {
                self.ip.hop_limit == 255 && self.direction == Direction::Egress
            }
            _ => false,
        }
    }

    /// Whether it is from a VM as a client of DHCP or DHCPv6, or to it as such.
    fn is_dhcp(&self) -> bool {
        let L4::Ports {
            source,
            destination,
        } = self.ip.l4
        else {
            return false;
        };
        let (client, server) = match self.direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        self.ip.protocol == protocol::UDP
            && self.ip.fragment.is_none()
            && match self.ip.family() {
                Family::Ipv4 => (client, server) == (68, 67),
                Family::Ipv6 => (client, server) == (546, 547),
            }
    }

    /// Flags of TCP, 0 for all else.
    fn flags(&self) -> u8 {
        match self.ip.l4 {
            L4::Tcp { flags, .. } => flags,
            _ => 0,
        }
    }

    /// What rules know as ports.
    fn service(&self) -> u16 {
        match self.ip.l4 {
            L4::Tcp { destination, .. } | L4::Ports { destination, .. } => destination,
            L4::Icmp { kind, code, .. } => u16::from(kind) << 8 | u16::from(code),
            L4::None => 0,
        }
    }

    fn question(&self) -> Question {
        Question {
            direction: self.direction,
            remote: match self.direction {
                Direction::Ingress => self.ip.source,
                Direction::Egress => self.ip.destination,
            },
            protocol: self.ip.protocol,
            service: self.service(),
        }
    }

    fn piece(&self, id: u32) -> Piece {
        Piece {
            vlan: self.vlan,
            direction: self.direction,
            protocol: self.ip.protocol,
            id,
            source: self.ip.source,
            destination: self.ip.destination,
        }
    }

    /// What its connection goes by; `None` if it can be of none.
    fn key(&self) -> Option<ConnectionKey> {
        let ports = match self.ip.l4 {
            L4::Tcp {
                source,
                destination,
                ..
            }
            | L4::Ports {
                source,
                destination,
            } => match self.direction {
                Direction::Ingress => (destination, source),
                Direction::Egress => (source, destination),
            },
            L4::Icmp { kind, code: 0, id } => (id, u16::from(query(self.ip.protocol, kind)?)),
            L4::Icmp { .. } => return None,
            L4::None => (0, 0),
        };
        let addresses = match self.direction {
            Direction::Ingress => (self.ip.destination, self.ip.source),
            Direction::Egress => (self.ip.source, self.ip.destination),
        };
        let protocol = self.ip.protocol;
        Some(ConnectionKey::new(self.vlan, protocol, addresses, ports))
    }

    /// The state of a connection that it opens.
    fn opening(&self) -> Option<State> {
        match self.ip.l4 {
            // An answer opens nothing.
            L4::Icmp { kind, .. } if query(self.ip.protocol, kind) != Some(kind) => None,
            _ => State::opening(self.ip.protocol, self.flags()),
        }
    }

    /// The packet that it quotes, if it is an ICMP error about one that its receiver
    /// has sent.
    fn quoted(&self) -> Option<Ip> {
        let L4::Icmp { kind, .. } = self.ip.l4 else {
            return None;
        };
        let is_error = match (self.ip.protocol, self.ip.family()) {
            (protocol::ICMP, Family::Ipv4) => matches!(kind, 3 | 4 | 11 | 12),
            (protocol::ICMPV6, Family::Ipv6) => matches!(kind, 1..=4),
            _ => false,
        };
        if !is_error {
            return None;
        }
        let bytes = self.frame.get(..self.ip.end)?;
        let quoted = packet::quoted(bytes, self.ip.transport + ICMP_ERROR_HEADER).ok()?;
        // The header alone names both ends; a later fragment has no ports.
        let fits = quoted.source == self.ip.destination && !quoted.is_later_fragment();
        fits.then_some(quoted)
    }
}

/// The type of the query that an ICMP message is, or that it answers.
fn query(number: u8, kind: u8) -> Option<u8> {
    match (number, kind) {
        (protocol::ICMP, icmp::ECHO | 0) => Some(icmp::ECHO),
        (protocol::ICMP, icmp::TIMESTAMP | icmp::INFORMATION | icmp::ADDRESS_MASK) => Some(kind),
        (protocol::ICMP, 14 | 16 | 18) => Some(kind - 1),
        (protocol::ICMPV6, icmp::V6_ECHO | 129) => Some(icmp::V6_ECHO),
        (protocol::ICMPV6, icmp::V6_NODE_INFORMATION | 140) => Some(icmp::V6_NODE_INFORMATION),
        _ => None,
    }
}
