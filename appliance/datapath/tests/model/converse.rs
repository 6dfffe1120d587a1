//! What follows from an earlier frame: answers, errors about it, other pieces of the
//! same packet. So that connections, and not only their first packets, are met.

use crate::packet::{Body, Defect, Frame, Ip, Transport};
use crate::rules::{Arrival, Outer, Tag};
use crate::world::{self, VTEPS};

/// How a frame follows from another.
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    /// The same, with these flags of TCP.
    Again { flags: u8 },
    /// What its receiver may answer.
    Answer { flags: u8 },
    /// The same with a wrong header checksum.
    Damaged,
    /// As the first fragment of a packet.
    First,
    /// As a later one.
    Later { offset: u16, more: bool },
    /// An ICMP error of its receiver.
    /// Some go to another address than that of the packet's sender.
    Error {
        kind: u8,
        code: u8,
        shown: usize,
        astray: bool,
    },
}

impl Turn {
    /// Whether the conversation goes on from the frame before it.
    pub fn is_aside(self) -> bool {
        matches!(
            self,
            Turn::Damaged | Turn::First | Turn::Later { .. } | Turn::Error { .. }
        )
    }
}

/// A frame, and where it comes in.
#[derive(Debug, Clone)]
pub enum Entry {
    Trunk { tag: Tag, frame: Frame },
    Uplink(Arrival),
}

impl Entry {
    /// What follows by `turn`, if anything can.
    pub fn follow(&self, turn: Turn) -> Option<Entry> {
        let (network, frame) = self.sent()?;
        let ip = frame.ip().filter(|ip| ip.defect.is_none())?;
        match turn {
            Turn::Again { flags } => self.with(Ip {
                transport: with_flags(&ip.transport, flags),
                ..ip.clone()
            }),
            Turn::Answer { flags } => answer(network, frame, answering(ip, flags)?),
            Turn::Damaged => self.with(Ip {
                defect: Some(Defect::Checksum),
                ..ip.clone()
            }),
            Turn::First => self.with(Ip {
                fragment: Some((0, true)),
                ..ip.clone()
            }),
            Turn::Later { offset, more } => self.with(Ip {
                fragment: Some((offset, more)),
                ..ip.clone()
            }),
            Turn::Error {
                kind,
                code,
                shown,
                astray,
            } => {
                let error = Ip {
                    source: ip.destination,
                    destination: match astray {
                        true => world::address(network, 99, !ip.is_v4()),
                        false => ip.source,
                    },
                    fragment: None,
                    payload: 0,
                    transport: Transport::Error {
                        kind,
                        code,
                        quoted: Box::new(ip.clone()),
                        shown,
                    },
                    ..ip.clone()
                };
                // An error about errors about errors grows, and shows nothing new.
                let nested = matches!(ip.transport, Transport::Error { .. });
                answer(network, frame, error).filter(|_| !nested)
            }
        }
    }

    /// The network of its sender, and the frame.
    fn sent(&self) -> Option<(usize, &Frame)> {
        match self {
            Entry::Trunk {
                tag: Tag::Vlan(tci),
                frame,
            } => Some((usize::from((tci & 0x0fff).checked_sub(101)?) / 2, frame)),
            Entry::Uplink(Arrival::Tunnelled { vni, inner, .. }) => {
                let network = (0..world::NETWORKS).find(|at| world::vni(*at).get() == *vni)?;
                Some((network, inner))
            }
            _ => None,
        }
    }

    /// The same with another packet.
    fn with(&self, ip: Ip) -> Option<Entry> {
        let mut entry = self.clone();
        let (Entry::Trunk { frame, .. } | Entry::Uplink(Arrival::Tunnelled { inner: frame, .. })) =
            &mut entry
        else {
            return None;
        };
        frame.body = Body::Ip(ip);
        Some(entry)
    }
}

fn with_flags(transport: &Transport, flags: u8) -> Transport {
    match transport {
        Transport::Tcp {
            source,
            destination,
            ..
        } => Transport::Tcp {
            source: *source,
            destination: *destination,
            flags,
        },
        other => other.clone(),
    }
}

/// A packet that answers, if there can be one.
fn answering(ip: &Ip, flags: u8) -> Option<Ip> {
    let transport = match ip.transport {
        // Of DHCP, descriptions are no mere datagrams.
        Transport::Ports {
            protocol: 17,
            source: 67 | 547,
            ..
        } => return None,
        Transport::Tcp {
            source,
            destination,
            ..
        } => Transport::Tcp {
            source: destination,
            destination: source,
            flags,
        },
        Transport::Ports {
            protocol,
            source,
            destination,
        } => Transport::Ports {
            protocol,
            source: destination,
            destination: source,
        },
        Transport::Icmp { kind, code, id } => Transport::Icmp {
            kind: match kind {
                0 => 8,
                8 => 0,
                128 => 129,
                129 => 128,
                13 => 14,
                139 => 140,
                other => other,
            },
            code,
            id,
        },
        Transport::Other(protocol) => Transport::Other(protocol),
        _ => return None,
    };
    Some(Ip {
        source: ip.destination,
        destination: ip.source,
        transport,
        ..ip.clone()
    })
}

/// A packet on its way back to the sender of `frame` in `network`, from where its
/// own sender is: what no station here has, comes out of a tunnel.
fn answer(network: usize, frame: &Frame, ip: Ip) -> Option<Entry> {
    let (from, index) = world::owner(ip.source).unwrap_or((network, 2));
    let six = !ip.is_v4();
    let same = from == network;
    // Of two networks next to each other, the router that joins them.
    let router = from.min(network);
    let source = world::mac(world::station(from, index));
    if index < 2 {
        let frame = Frame {
            destination: match same {
                true => frame.source,
                false => world::gateway_mac(router, from, six),
            },
            source,
            body: Body::Ip(ip),
            padding: 0,
        };
        let tag = Tag::Vlan(world::vlan(2 * from + index).get());
        return Some(Entry::Trunk { tag, frame });
    }
    Some(Entry::Uplink(Arrival::Tunnelled {
        source: VTEPS[index - 2],
        vni: world::vni(network).get(),
        inner: Frame {
            destination: frame.source,
            source: match same {
                true => source,
                false => world::gateway_mac(router, network, six),
            },
            body: Body::Ip(ip),
            padding: 0,
        },
        outer: Outer::Right {
            checksum: false,
            padding: 0,
        },
    }))
}
