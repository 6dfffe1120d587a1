//! What a VAP with port security may send and get: by the rules of its groups, and
//! by its connections.

use std::net::IpAddr;

use nve_protocol::*;

use super::Model;
use super::groups::{Question, service};
use super::life::State;
use crate::packet::{Frame, Ip, Transport};

/// How many connections are looked at to make room for one.
const LOOK: usize = 8;
/// Nanoseconds for which later fragments follow.
const FRAGMENTS: u64 = 30_000_000_000;

/// What is the same in all packets of a connection, as the VM sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    vlan: Vlan,
    protocol: u8,
    local: IpAddr,
    remote: IpAddr,
    local_port: u16,
    remote_port: u16,
}

/// A connection of a VAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connection {
    /// No other connection's; another after it was cut.
    name: u64,
    ends: Ends,
    opener: Direction,
    state: State,
    seen: u64,
}

/// A first fragment that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    piece: (Vlan, Direction, u8, u16, IpAddr, IpAddr),
    connection: Option<u64>,
    service: u16,
    seen: u64,
}

/// A packet that passes a VAP.
struct Packet<'a> {
    vlan: Vlan,
    direction: Direction,
    ip: &'a Ip,
}

impl Model {
    /// Whether a VAP's groups let a frame pass.
    pub(super) fn admit(
        &mut self,
        vap: &Vap,
        direction: Direction,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        let Some(ip) = frame.ip().filter(|_| vap.port_security) else {
            return Ok(());
        };
        let packet = Packet {
            vlan: vap.vlan,
            direction,
            ip,
        };
        if ip.is_later_fragment() {
            return self.admit_later_fragment(&packet);
        }
        if is_discovery(ip, direction) || is_dhcp(ip, direction) {
            return Ok(());
        }
        let connection = self.admit_packet(&packet)?;
        if ip.fragment.is_some() {
            let first = First {
                piece: packet.piece(),
                connection,
                service: service(ip),
                seen: self.now,
            };
            self.fragments.retain(|other| other.piece != first.piece);
            self.fragments.push(first);
        }
        Ok(())
    }

    /// The connection that the packet is of, or tells of, if it is admitted.
    fn admit_packet(&mut self, packet: &Packet<'_>) -> Result<Option<u64>, DropReason> {
        let ends = packet.ends();
        let known = ends.and_then(|ends| self.place(ends));
        let syn = packet.ip.tcp_flags() & 0x17 == 0x02;
        let over = known.filter(|at| syn && self.connections[*at].state.is_over());
        match (known, over) {
            (Some(at), None) => return self.admit_known(packet, at),
            (None, _) => {
                if let Some(at) = self.related(packet) {
                    return Ok(Some(self.connections[at].name));
                }
            }
            _ => {}
        }
        let question = packet.question();
        match (self.is_allowed(&question, true), ends, packet.opening()) {
            (true, Some(ends), Some(state)) => {
                if let Some(at) = over {
                    self.connections.remove(at);
                }
                self.open(ends, packet.direction, state).map(Some)
            }
            (true, ..) => Ok(None),
            (false, ..) if self.is_allowed(&question, false) => Ok(None),
            _ => Err(DropReason::SecurityGroup),
        }
    }

    fn place(&self, ends: Ends) -> Option<usize> {
        self.connections.iter().position(|known| known.ends == ends)
    }

    fn admit_known(&mut self, packet: &Packet<'_>, at: usize) -> Result<Option<u64>, DropReason> {
        if self.is_still_allowed(at) {
            return Ok(Some(self.follow(at, packet)));
        }
        // What is not TCP, the other side may have sent of its own accord.
        let own = packet.direction != self.connections[at].opener && packet.ip.protocol() != 6;
        let question = packet.question();
        if self.is_allowed(&question, false) || (own && self.is_allowed(&question, true)) {
            return Ok(None);
        }
        self.cut(at)
    }

    /// Whether rules allow what opened the connection; if they do again, it goes on.
    fn is_still_allowed(&mut self, at: usize) -> bool {
        let known = &self.connections[at];
        let (ends, opener) = (known.ends, known.opener);
        let question = Question {
            vlan: ends.vlan,
            direction: opener,
            remote: ends.remote,
            protocol: ends.protocol,
            service: match (ends.protocol, opener) {
                (1 | 58, _) => 256 * ends.remote_port,
                (_, Direction::Egress) => ends.remote_port,
                (_, Direction::Ingress) => ends.local_port,
            },
        };
        let allowed = self.is_allowed(&question, true);
        let known = &mut self.connections[at];
        if allowed && known.state == State::Cut {
            known.state = State::resuming(ends.protocol);
        }
        allowed
    }

    fn follow(&mut self, at: usize, packet: &Packet<'_>) -> u64 {
        let known = &mut self.connections[at];
        let opener = known.opener == packet.direction;
        known.state = known.state.after(opener, packet.ip.tcp_flags());
        known.seen = self.now;
        known.name
    }

    fn cut(&mut self, at: usize) -> Result<Option<u64>, DropReason> {
        let name = self.name();
        let known = &mut self.connections[at];
        if known.state != State::Cut {
            known.state = State::Cut;
            known.name = name;
        }
        known.seen = self.now;
        Err(DropReason::SecurityGroup)
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// The connection, still allowed, that an ICMP error tells of.
    fn related(&mut self, packet: &Packet<'_>) -> Option<usize> {
        let quoted = Packet {
            vlan: packet.vlan,
            direction: match packet.direction {
                Direction::Ingress => Direction::Egress,
                Direction::Egress => Direction::Ingress,
            },
            ip: packet.quoted()?,
        };
        let at = self.place(quoted.ends()?)?;
        self.is_still_allowed(at).then_some(at)
    }

    fn admit_later_fragment(&mut self, packet: &Packet<'_>) -> Result<(), DropReason> {
        const REFUSED: Result<(), DropReason> = Err(DropReason::Fragment);
        let offset = packet.ip.fragment.map_or(0, |(offset, _)| 8 * offset);
        if packet.ip.protocol() == 6 && offset < 20 {
            return REFUSED;
        }
        let alive = |first: &&First| self.now - first.seen <= FRAGMENTS;
        let mut firsts = self.fragments.iter().filter(alive);
        let Some(first) = firsts.find(|first| first.piece == packet.piece()) else {
            return REFUSED;
        };
        let Some(name) = first.connection else {
            let question = Question {
                service: first.service,
                ..packet.question()
            };
            let allowed = [true, false].map(|kind| self.is_allowed(&question, kind));
            return match allowed.contains(&true) {
                true => Ok(()),
                false => REFUSED,
            };
        };
        let Some(at) = self.connections.iter().position(|known| known.name == name) else {
            return REFUSED;
        };
        match self.is_still_allowed(at) {
            true => {
                self.follow(at, packet);
                Ok(())
            }
            false => self.cut(at).map(|_| ()),
        }
    }

    /// Opens a connection, if the VAP may have one more.
    fn open(&mut self, ends: Ends, opener: Direction, state: State) -> Result<u64, DropReason> {
        let of_vap = |known: &Connection| known.ends.vlan == ends.vlan;
        if self
            .connections
            .iter()
            .filter(|known| of_vap(known))
            .count()
            >= self.limit
        {
            // One that is over makes room. Those looked at go to the end of the list.
            let mut over = None;
            for _ in 0..LOOK {
                let Some(at) = self.connections.iter().position(of_vap) else {
                    break;
                };
                let looked_at = self.connections.remove(at);
                let name = looked_at.name;
                over = over.or(looked_at.state.has_ended().then_some(name));
                self.connections.push(looked_at);
            }
            let name = over.ok_or(DropReason::ConnectionLimit)?;
            self.connections.retain(|known| known.name != name);
        }
        let name = self.name();
        self.connections.push(Connection {
            name,
            ends,
            opener,
            state,
            seen: self.now,
        });
        Ok(name)
    }

    /// Forgets what has been idle for too long. Time is counted in steps.
    pub(super) fn expire(&mut self) {
        const STEP: u64 = 1 << 29;
        let now = self.now / STEP;
        self.connections
            .retain(|known| now - known.seen / STEP <= known.state.idle().div_ceil(STEP));
    }

    /// Forgets the connections of ports that are no more behind their tag.
    pub(super) fn forget(&mut self, vlan: Vlan) {
        self.connections.retain(|known| known.ends.vlan != vlan);
    }
}

impl Packet<'_> {
    fn question(&self) -> Question {
        Question::of(self.vlan, self.direction, self.ip)
    }

    fn piece(&self) -> (Vlan, Direction, u8, u16, IpAddr, IpAddr) {
        let ip = self.ip;
        let number = ip.protocol();
        let (source, destination) = (ip.source, ip.destination);
        (
            self.vlan,
            self.direction,
            number,
            ip.id,
            source,
            destination,
        )
    }

    /// `None` of what is of no connection: ICMP that is neither query nor answer.
    fn ends(&self) -> Option<Ends> {
        let ip = self.ip;
        let (source, destination) = match (ip.icmp(), &ip.transport) {
            // In place of the VM's port the identifier of echo messages, and in place
            // of the other end's the type of the query.
            (Some((kind, 0)), Transport::Icmp { id, .. }) => {
                let query = u16::from(query(ip.is_v4(), kind)?);
                let id = if matches!(kind, 0 | 8 | 128 | 129) {
                    *id
                } else {
                    0
                };
                match self.direction {
                    Direction::Egress => (id, query),
                    Direction::Ingress => (query, id),
                }
            }
            (Some(_), _) => return None,
            (None, _) => ip.ports().unwrap_or((0, 0)),
        };
        let ends = |(local, local_port), (remote, remote_port)| Ends {
            vlan: self.vlan,
            protocol: ip.protocol(),
            local,
            remote,
            local_port,
            remote_port,
        };
        let (from, to) = ((ip.source, source), (ip.destination, destination));
        Some(match self.direction {
            Direction::Egress => ends(from, to),
            Direction::Ingress => ends(to, from),
        })
    }

    /// The state of the connection that the packet opens, if it does.
    fn opening(&self) -> Option<State> {
        let answers = |(kind, _)| query(self.ip.is_v4(), kind) != Some(kind);
        match self.ip.icmp().is_some_and(answers) {
            true => None,
            false => State::opening(self.ip.protocol(), self.ip.tcp_flags()),
        }
    }

    /// The packet that an ICMP error quotes, if its receiver may have sent that, and
    /// enough of it is there.
    fn quoted(&self) -> Option<&Ip> {
        let Transport::Error {
            kind,
            quoted,
            shown,
            ..
        } = &self.ip.transport
        else {
            return None;
        };
        let error = match self.ip.is_v4() {
            true => matches!(kind, 3 | 4 | 11 | 12),
            false => matches!(kind, 1..=4),
        };
        let known = quoted.ports().is_some() || quoted.icmp().is_some();
        let enough = !known || *shown >= 8;
        let from = quoted.source == self.ip.destination;
        (error && enough && from && !quoted.is_later_fragment()).then_some(quoted)
    }
}

/// The type of the query that an ICMP message is, or answers.
fn query(v4: bool, kind: u8) -> Option<u8> {
    match (v4, kind) {
        (true, 0 | 8) => Some(8),
        (true, 13 | 15 | 17) => Some(kind),
        (true, 14 | 16 | 18) => Some(kind - 1),
        (false, 128 | 129) => Some(128),
        (false, 139 | 140) => Some(139),
        _ => None,
    }
}

/// Neighbor and multicast listener discovery, which is never routed.
fn is_discovery(ip: &Ip, direction: Direction) -> bool {
    match ip.icmp() {
        Some((130..=132 | 143, 0)) => !ip.is_v4() && ip.hop_limit == 1,
        Some((135 | 136, 0)) => !ip.is_v4() && ip.hop_limit == 255,
        Some((133, 0)) => !ip.is_v4() && ip.hop_limit == 255 && direction == Direction::Egress,
        _ => false,
    }
}

/// What a client of DHCP sends, and what it is told.
fn is_dhcp(ip: &Ip, direction: Direction) -> bool {
    let (client, server) = if ip.is_v4() { (68, 67) } else { (546, 547) };
    let ports = match direction {
        Direction::Egress => (client, server),
        Direction::Ingress => (server, client),
    };
    ip.udp_ports() == Some(ports) && ip.fragment.is_none()
}
