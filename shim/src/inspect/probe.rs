//! From what an operator asks to the frame that a VM would send: its source from the
//! port, and its destination MAC address as the VM would learn it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use nve_protocol::inspect::{MAX_PROBE, Origin, Probe, ProbeHead, Tunnel};
use nve_protocol::{Mac, Vni};
use serde::{Deserialize, Deserializer, de};

use super::frame::{self, Content, FrameError, Packet};
use super::{InspectError, Inspector};
use crate::model::{Network, Nve, Port, Subnet};

/// Source port unless another is asked for.
const SOURCE_PORT: u16 = 49_152;
const HOP_LIMIT: u8 = 64;

/// What is asked: where a packet comes from, and what it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceRequest {
    /// The port that sends it, by name or UUID.
    pub port: Option<String>,
    /// Instead of a port: the VTEP that sends it,
    pub from_vtep: Option<IpAddr>,
    /// and its network's VNI.
    pub vni: Option<Vni>,
    /// A TCP segment to there.
    pub tcp: Option<SocketAddr>,
    /// A UDP datagram to there.
    pub udp: Option<SocketAddr>,
    /// An echo request to there.
    pub icmp: Option<IpAddr>,
    /// An ARP request (IPv6: a neighbor solicitation) for that address.
    pub arp: Option<IpAddr>,
    /// A packet of that protocol number,
    pub protocol: Option<u8>,
    /// to there.
    pub to: Option<IpAddr>,
    /// A whole frame in hexadecimal, without tag and FCS.
    pub frame: Option<String>,
    /// The sender's address and port; the port's first fixed IP if absent.
    pub from: Option<Source>,
    /// The sender's MAC address; the port's if absent.
    pub from_mac: Option<Text<Mac>>,
    /// The receiver's MAC address; as the VM would learn it if absent.
    pub to_mac: Option<Text<Mac>>,
    /// TCP flags by their letters; `S` if absent.
    pub flags: Option<String>,
    /// Hop limit; IPv4: TTL.
    pub ttl: Option<u8>,
    /// Bytes of the IP packet.
    pub size: Option<u16>,
    /// Whether IPv4 routers may fragment it.
    pub may_fragment: bool,
}

/// An address, with a port or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: Option<u16>,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let with_port = |address: SocketAddr| Source {
            ip: address.ip(),
            port: Some(address.port()),
        };
        let bare = text.parse().map(|ip| Source { ip, port: None });
        bare.or_else(|_| text.parse().map(with_port)).map_err(|_| {
            de::Error::custom("an address is written 10.0.0.11, 10.0.0.11:40000 or [fd00::1]:40000")
        })
    }
}

/// A value that is read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<'de, T: std::str::FromStr<Err: std::fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map(Text).map_err(de::Error::custom)
    }
}

/// A question that is ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The question.
    pub probe: Probe,
    /// The packet in words.
    pub packet: String,
    /// How the destination's MAC address was found, in words; `None` if it was given.
    pub next_hop: Option<String>,
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
struct Sender<'a> {
    origin: Origin,
    network: &'a Network,
    port: Option<&'a Port>,
}

/// What is sent to whom, and which field says so.
#[derive(Debug, Clone, Copy)]
struct Target {
    field: &'static str,
    ip: IpAddr,
    content: Content,
}

/// A frame that was given whole.
fn given(text: &str) -> Result<(u16, ProbeHead, String), InspectError> {
    let invalid = |reason: String| InspectError::invalid("frame", reason);
    let digits: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .collect();
    let bytes = hex::decode(digits)
        .map_err(|error| invalid(format!("a frame is given in hexadecimal: {error}")))?;
    let length = u16::try_from(bytes.len()).ok();
    let length = length.filter(|length| (14..=MAX_PROBE).contains(length));
    let length = length.ok_or_else(|| {
        invalid(format!(
            "a frame has 14 to {MAX_PROBE} bytes, without tag and FCS"
        ))
    })?;
    let rest = bytes.get(ProbeHead::MAX..).unwrap_or_default();
    if rest.iter().any(|byte| *byte != 0) {
        return Err(invalid(format!(
            "only zeros may follow the first {} bytes",
            ProbeHead::MAX
        )));
    }
    let words = format!("a given frame of {length} bytes");
    Ok((length, ProbeHead::front(&bytes), words))
}

impl TraceRequest {
    /// What is sent, if it is not a whole frame.
    fn target(&self) -> Result<Option<Target>, InspectError> {
        let flags = self
            .flags
            .as_deref()
            .map_or(Some(frame::Flags::SYN), frame::Flags::parse);
        let flags = flags.ok_or_else(|| {
            InspectError::invalid("flags", "TCP flags are letters of FSRPAUEC, such as SA")
        })?;
        let source = self.from.and_then(|from| from.port).unwrap_or(SOURCE_PORT);
        let of = |field, ip, content| Some(Target { field, ip, content });
        let tcp = self.tcp.and_then(|to| {
            let destination = to.port();
            of(
                "tcp",
                to.ip(),
                Content::Tcp {
                    source,
                    destination,
                    flags,
                },
            )
        });
        let udp = self.udp.and_then(|to| {
            let destination = to.port();
            of(
                "udp",
                to.ip(),
                Content::Udp {
                    source,
                    destination,
                },
            )
        });
        let icmp = self.icmp.and_then(|to| of("icmp", to, Content::Echo));
        let arp = self.arp.and_then(|to| of("arp", to, Content::Solicitation));
        let other = match (self.protocol, self.to) {
            (Some(number), Some(to)) => of("to", to, Content::Other(number)),
            (None, None) => None,
            _ => {
                return Err(InspectError::invalid(
                    "protocol",
                    "protocol and to go together",
                ));
            }
        };
        let all = [tcp, udp, icmp, arp, other];
        let mut targets = all.into_iter().flatten();
        match (targets.next(), targets.next(), &self.frame) {
            (Some(target), None, None) => Ok(Some(target)),
            (None, None, Some(_)) => Ok(None),
            _ => Err(InspectError::invalid(
                "tcp",
                "give exactly one of tcp, udp, icmp, arp, protocol with to, frame",
            )),
        }
    }

    /// Refuses what would be passed over.
    fn check(&self, target: Option<&Target>) -> Result<(), InspectError> {
        let is_tcp = matches!(
            target,
            Some(Target {
                content: Content::Tcp { .. },
                ..
            })
        );
        if self.flags.is_some() && !is_tcp {
            return Err(InspectError::invalid("flags", "only TCP has flags"));
        }
        let is_ip = target.is_some_and(|target| target.content != Content::Solicitation);
        if !is_ip && (self.ttl.is_some() || self.size.is_some() || self.may_fragment) {
            let field = if self.ttl.is_some() { "ttl" } else { "size" };
            return Err(InspectError::invalid(
                field,
                "hop limit, size and fragmentation are for tcp, udp, icmp and protocol",
            ));
        }
        let given = self.from.is_some() || self.from_mac.is_some() || self.to_mac.is_some();
        if target.is_none() && given {
            return Err(InspectError::invalid(
                "frame",
                "a given frame has its addresses in it",
            ));
        }
        Ok(())
    }
}

impl Inspector {
    /// The question about the frame that is asked for, to be asked at `nve`.
    ///
    /// # Errors
    /// When there is no such frame, or the VM would not send it: the text says why.
    pub fn prepare(&self, nve: &Nve, request: &TraceRequest) -> Result<Prepared, InspectError> {
        let target = request.target()?;
        request.check(target.as_ref())?;
        let sender = self.sender(nve, request)?;
        let (length, head, packet, next_hop) = match (target, &request.frame) {
            (Some(target), _) => self.built(&sender, request, &target)?,
            (None, frame) => {
                let (length, head, words) = given(frame.as_deref().unwrap_or_default())?;
                (length, head, words, None)
            }
        };
        let origin = sender.origin;
        Ok(Prepared {
            probe: Probe {
                origin,
                length,
                head,
            },
            packet,
            next_hop,
        })
    }

    fn sender(&self, nve: &Nve, request: &TraceRequest) -> Result<Sender<'_>, InspectError> {
        match (&request.port, request.from_vtep, request.vni) {
            (Some(key), None, None) => {
                let at = self.port_at(nve, key)?;
                let network = self.state.network(at.port.network_id);
                Ok(Sender {
                    origin: Origin::Vap { vlan: at.vlan },
                    network: network.ok_or_else(|| {
                        InspectError::Conflict("the port's network is gone".to_owned())
                    })?,
                    port: Some(at.port),
                })
            }
            (None, Some(vtep), Some(vni)) => {
                let network = self.state.network_by_vni(vni);
                Ok(Sender {
                    origin: Origin::Tunnel(Tunnel { vni, vtep }),
                    network: network.ok_or_else(|| {
                        InspectError::invalid("vni", format!("no network has VNI {vni}"))
                    })?,
                    port: None,
                })
            }
            _ => Err(InspectError::invalid(
                "port",
                "say where the frame comes from: port, or from_vtep with vni",
            )),
        }
    }

    fn built(
        &self,
        sender: &Sender<'_>,
        request: &TraceRequest,
        target: &Target,
    ) -> Result<(u16, ProbeHead, String, Option<String>), InspectError> {
        let source = self.source(sender, request, target)?;
        let source_mac = self.source_mac(sender, request, source)?;
        let (destination_mac, next_hop) = match request.to_mac {
            Some(Text(mac)) => (mac, None),
            None => {
                let (mac, words) = self.destination_mac(sender, source, target)?;
                (mac, Some(words))
            }
        };
        let packet = Packet {
            source_mac,
            destination_mac,
            source,
            destination: target.ip,
            hop_limit: request.ttl.unwrap_or(HOP_LIMIT),
            may_fragment: request.may_fragment,
            content: target.content,
            size: request.size,
        };
        let bytes = packet.frame().map_err(|error| {
            let field = match error {
                FrameError::Versions => "from",
                FrameError::TooSmall { .. } | FrameError::TooLong => "size",
            };
            InspectError::invalid(field, error.to_string())
        })?;
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let words = format!("{packet}, {} bytes", bytes.len() - frame::ETHERNET);
        Ok((length, ProbeHead::front(&bytes), words, next_hop))
    }

    fn source(
        &self,
        sender: &Sender<'_>,
        request: &TraceRequest,
        target: &Target,
    ) -> Result<IpAddr, InspectError> {
        if let Some(from) = request.from {
            return Ok(from.ip);
        }
        let port = sender.port.ok_or_else(|| {
            InspectError::invalid(
                "from",
                "say from which address the frame out of the tunnel is",
            )
        })?;
        if let IpAddr::V6(ip) = target.ip
            && ip.is_unicast_link_local()
        {
            return Ok(frame::link_local(port.mac_address).into());
        }
        let same = |ip: &IpAddr| ip.is_ipv4() == target.ip.is_ipv4();
        let first = port
            .fixed_ips
            .iter()
            .map(|fixed| fixed.ip_address)
            .find(same);
        first.ok_or_else(|| {
            let version = if target.ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let name = self.names().port(port.common.id);
            InspectError::invalid(
                target.field,
                format!(
                    "port {name} has no {version} address to send from; give from to use another"
                ),
            )
        })
    }

    fn source_mac(
        &self,
        sender: &Sender<'_>,
        request: &TraceRequest,
        source: IpAddr,
    ) -> Result<Mac, InspectError> {
        let given = request.from_mac.map(|Text(mac)| mac);
        let own = sender.port.map(|port| port.mac_address);
        let found = given
            .or(own)
            .or_else(|| self.station(sender.network, source).map(|(mac, _)| mac));
        found.ok_or_else(|| {
            InspectError::invalid(
                "from_mac",
                format!("nobody has {source}; give from_mac as well"),
            )
        })
    }

    /// Where the sender sends a packet for the target, and why, in words.
    fn destination_mac(
        &self,
        sender: &Sender<'_>,
        source: IpAddr,
        target: &Target,
    ) -> Result<(Mac, String), InspectError> {
        if target.content == Content::Solicitation {
            return Ok((
                frame::solicitation_mac(target.ip),
                "all that listen".to_owned(),
            ));
        }
        if let Some(mac) = frame::group_mac(target.ip) {
            return Ok((mac, "the group's MAC address".to_owned()));
        }
        let subnets = self.subnets(sender);
        let on_link = subnets
            .iter()
            .find(|subnet| subnet.cidr.contains(&target.ip));
        if let Some(subnet) = on_link
            && is_broadcast(subnet.cidr, target.ip)
        {
            return Ok((Mac::BROADCAST, "the subnet's broadcast address".to_owned()));
        }
        let link_local = matches!(target.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if on_link.is_some() || link_local {
            let (mac, owner) = self.learned(sender, target.ip, target)?;
            return Ok((mac, format!("{mac} of {owner}, on link")));
        }
        let (gateway, by) = self.gateway(&subnets, source, target)?;
        let (mac, owner) = self.learned(sender, gateway, target)?;
        Ok((mac, format!("{mac} of {owner}, {by} {gateway}")))
    }

    /// Subnets that the sender knows to be on its link.
    fn subnets<'a>(&'a self, sender: &Sender<'a>) -> Vec<&'a Subnet> {
        match sender.port {
            Some(port) => {
                let ids = port.fixed_ips.iter().map(|fixed| fixed.subnet_id);
                ids.filter_map(|id| self.state.subnet(id)).collect()
            }
            None => self.state.subnets_of(sender.network.common.id).collect(),
        }
    }

    /// The next hop for what is not on link: the subnet's host route, or its gateway.
    fn gateway(
        &self,
        subnets: &[&Subnet],
        source: IpAddr,
        target: &Target,
    ) -> Result<(IpAddr, &'static str), InspectError> {
        let refuse = |reason: String| Err(InspectError::invalid(target.field, reason));
        let same = |subnet: &&&Subnet| subnet.cidr.addr().is_ipv4() == target.ip.is_ipv4();
        let own = subnets.iter().find(|subnet| subnet.cidr.contains(&source));
        let Some(subnet) = own.or_else(|| subnets.iter().find(same)) else {
            return refuse(format!(
                "the sender has no subnet of the IP version of {}; give to_mac to trace the frame anyway",
                target.ip
            ));
        };
        let routes = subnet.host_routes.iter();
        let route = routes
            .filter(|route| route.destination.contains(&target.ip))
            .max_by_key(|route| route.destination.prefix_len());
        match (route, subnet.gateway_ip) {
            (Some(route), _) => Ok((route.nexthop, "by a host route of the subnet via")),
            (None, Some(gateway)) => Ok((gateway, "gateway")),
            (None, None) => refuse(format!(
                "subnet {} has no gateway, so the VM has no route to {}; give to_mac to trace the frame anyway",
                subnet.cidr, target.ip
            )),
        }
    }

    /// The MAC address that ARP or neighbor discovery would find, and whose it is.
    fn learned(
        &self,
        sender: &Sender<'_>,
        ip: IpAddr,
        target: &Target,
    ) -> Result<(Mac, String), InspectError> {
        self.station(sender.network, ip).ok_or_else(|| {
            let protocol = if ip.is_ipv4() { "ARP" } else { "neighbor discovery" };
            let gateway = match ip == target.ip {
                true => "",
                false => ", the next hop,",
            };
            InspectError::invalid(
                target.field,
                format!(
                    "nobody on the network has {ip}{gateway} so the VM would get no answer to its {protocol}; give to_mac to trace the frame anyway"
                ),
            )
        })
    }

    /// Who has an address on a network.
    fn station(&self, network: &Network, ip: IpAddr) -> Option<(Mac, String)> {
        let id = network.common.id;
        let named = |port: &Port| match port.router() {
            Some(router) => {
                let router = nve_protocol::RouterId(router.into_bytes());
                format!("router {}", self.names().router(router))
            }
            None => format!("port {}", self.names().port(port.common.id)),
        };
        let mut subnets = self.state.subnets_of(id);
        if let Some(port) =
            subnets.find_map(|subnet| self.state.port_by_address(subnet.common.id, ip))
        {
            return Some((port.mac_address, named(port)));
        }
        let by_pair = self.state.ports_of(id).find_map(|port| {
            let pair = port
                .allowed_address_pairs
                .iter()
                .find(|pair| pair.ip_address == IpNet::from(ip))?;
            Some((
                pair.mac_address,
                format!("{}, by an allowed address pair", named(port)),
            ))
        });
        let by_link_local = || {
            let mut ports = self.state.ports_of(id);
            let port = ports.find(|port| IpAddr::V6(frame::link_local(port.mac_address)) == ip)?;
            Some((port.mac_address, named(port)))
        };
        let by_endpoint = || {
            self.state.vteps().find_map(|vtep| {
                let mut endpoints = vtep.endpoints.iter();
                let found = endpoints.find(|e| e.network_id == id && e.ip_address == Some(ip))?;
                Some((
                    found.mac_address,
                    format!("a station behind VTEP {}", vtep.address),
                ))
            })
        };
        by_pair.or_else(by_link_local).or_else(by_endpoint)
    }
}

fn is_broadcast(cidr: IpNet, ip: IpAddr) -> bool {
    matches!((cidr, ip), (IpNet::V4(net), IpAddr::V4(ip)) if net.prefix_len() < 31 && net.broadcast() == ip)
}
