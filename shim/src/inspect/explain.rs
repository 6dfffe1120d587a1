//! Steps of a trace in words, with the names of what they are about.

use std::net::IpAddr;

use nve_protocol::inspect::{
    Admitted, Blame, ConnectionState, Receiver, Responder, Source, Step, Via,
};
use nve_protocol::{
    Direction, DropReason, Limit, Mac, PortId, Prefix, RouterId, RuleId, Vlan, Vni,
};
use serde::Serialize;
use uuid::Uuid;

use super::Inspector;
use super::names::{Named, Names, PortName, RuleName};
use crate::intent::State;
use crate::model::Nve;

/// A step as it is told to people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Name of the stage.
    pub stage: &'static str,
    /// What it does, in words.
    pub text: String,
    /// The step as the NVE told it.
    pub step: Step,
    /// What the step is about, by name.
    #[serde(flatten)]
    pub about: About,
    /// Of a frame that leaves for another NVE: the hop that goes on there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop: Option<usize>,
}

/// Names of what a step is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// The security group rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    /// The router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Named>,
    /// The network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Named>,
}

/// Stage, text, and names.
type Words = (&'static str, String, About);

/// Puts the steps of one NVE into words.
pub(super) struct Explainer<'a> {
    inspector: &'a Inspector,
    names: &'a Names<'a>,
    nve: &'a Nve,
    /// Ports by tag, as the NVE told.
    places: Vec<(Vlan, PortId)>,
}

impl<'a> Explainer<'a> {
    pub(super) fn new(
        inspector: &'a Inspector,
        names: &'a Names<'a>,
        nve: &'a Nve,
        steps: &[Step],
    ) -> Self {
        let places = steps.iter().filter_map(|step| match step {
            Step::From(Via::Vap(place)) | Step::Receiver(Receiver::Vap(place)) => {
                Some((place.vlan, place.port))
            }
            Step::Send(leaving) => match leaving.to {
                Via::Vap(place) => Some((place.vlan, place.port)),
                Via::Tunnel(_) => None,
            },
            _ => None,
        });
        Explainer {
            inspector,
            names,
            nve,
            places: places.collect(),
        }
    }

    pub(super) fn tell(&self, step: Step) -> Told {
        let (stage, text, about) = match step {
            Step::From(via) => ("from", self.via(&via), self.about_via(&via)),
            Step::Source(source) => ("source", source_words(&source), About::default()),
            Step::Responder(responder) => (
                "answer",
                responder_words(responder).to_owned(),
                About::default(),
            ),
            Step::Admitted(admitted) => self.admitted(&admitted),
            Step::Router { router, gateway } => self.router(router, gateway),
            Step::Route {
                prefix,
                vni,
                next_hop,
                mac,
                mtu,
            } => {
                let way = self.way(prefix, vni);
                let network = self.names.network_words(vni);
                let text = format!(
                    "{way}: next hop {next_hop}{} in {network}, MTU {mtu}",
                    self.owner(vni, mac)
                );
                ("route", text, self.about_network(vni))
            }
            Step::Receiver(receiver) => self.receiver(&receiver),
            Step::Meter {
                vlan,
                direction,
                limit,
            } => self.meter(vlan, direction, &limit),
            Step::Mark { dscp } => ("mark", format!("DSCP {dscp}"), About::default()),
            Step::Rewrite {
                source,
                destination,
            } => {
                let text =
                    format!("routed: hop limit one less, MAC addresses {source} > {destination}");
                ("rewrite", text, About::default())
            }
            Step::Fragment { mtu } => {
                let text =
                    format!("sent on in pieces: the largest IP packet there has {mtu} bytes");
                ("fragment", text, About::default())
            }
            Step::Send(leaving) => {
                let text = format!("to {}, {} bytes", self.via(&leaving.to), leaving.length);
                ("send", text, self.about_via(&leaving.to))
            }
            Step::Drop { reason, blame } => self.dropped(reason, blame.as_ref()),
        };
        Told {
            stage,
            text,
            step,
            about,
            hop: None,
        }
    }

    fn router(&self, router: RouterId, gateway: IpAddr) -> Words {
        let router = self.names.router(router);
        let text = format!("router {router}, by its gateway {gateway}");
        let about = About {
            router: Some(router),
            ..About::default()
        };
        ("router", text, about)
    }

    fn meter(&self, vlan: Vlan, direction: Direction, limit: &Limit) -> Words {
        let port = self.port_at(vlan);
        let text = format!(
            "{} limit of {}: {}",
            way_words(direction),
            self.port_words(vlan),
            self.names.limit_words(limit, port)
        );
        ("meter", text, self.about_port(port))
    }

    fn dropped(&self, reason: DropReason, blame: Option<&Blame>) -> Words {
        let mut about = self.about_port(blame.map(|blame| blame.port));
        let rule = blame.and_then(|blame| blame.rule);
        about.rule = rule.map(|rule| self.names.rule(rule));
        ("dropped", dropped_words(self.names, reason, blame), about)
    }

    fn via(&self, via: &Via) -> String {
        let words = self.names.via_words(via);
        match via {
            Via::Tunnel(_) => words,
            Via::Vap(place) => {
                let state = self.state();
                let port = state.port(Uuid::from_bytes(place.port.0));
                let network = port.and_then(|port| state.network(port.network_id));
                match network {
                    Some(network) => format!("{words}, {}", self.names.network_words(network.vni)),
                    None => words,
                }
            }
        }
    }

    fn admitted(&self, admitted: &Admitted) -> Words {
        let Admitted {
            vlan,
            direction,
            checked,
            rule,
            connection,
            opens,
        } = *admitted;
        let way = format!("{} of {}", way_words(direction), self.port_words(vlan));
        let text = match (checked, rule.map(|rule| self.names.rule(rule)), connection) {
            (false, ..) => format!("{way} is not checked: the port has no port security"),
            (true, Some(rule), None) if self.is_stateless(admitted.rule) => {
                format!("{way} allowed by rule {rule}, which is stateless")
            }
            (true, Some(rule), None) if opens => {
                format!("{way} allowed by rule {rule}; opens a connection")
            }
            (true, Some(rule), None) => format!("{way} allowed by rule {rule}; of no connection"),
            (true, Some(rule), Some(state)) => format!(
                "{way} allowed: part of a connection ({}) by rule {rule}",
                connection_words(state)
            ),
            (true, None, Some(state)) => {
                format!(
                    "{way} allowed: part of a connection ({})",
                    connection_words(state)
                )
            }
            (true, None, None) => format!("{way} allowed: needs no rule"),
        };
        let mut about = self.about_port(self.port_at(vlan));
        about.rule = rule.map(|rule| self.names.rule(rule));
        ("groups", text, about)
    }

    fn is_stateless(&self, rule: Option<RuleId>) -> bool {
        let rule = rule.and_then(|rule| self.state().rule(Uuid::from_bytes(rule.0)));
        let group = rule.and_then(|rule| self.state().security_group(rule.security_group_id));
        group.is_some_and(|group| !group.stateful)
    }

    /// What of the router's table matched.
    fn way(&self, prefix: Prefix, vni: Vni) -> String {
        let network = self.state().network_by_vni(vni);
        let is_subnet = network.is_some_and(|network| {
            let mut subnets = self.state().subnets_of(network.common.id);
            subnets.any(|subnet| subnet.cidr.to_string() == prefix.to_string())
        });
        match is_subnet {
            true => format!("{prefix} is a subnet of the router"),
            false => format!("{prefix} is an extra route"),
        }
    }

    fn receiver(&self, receiver: &Receiver) -> Words {
        const STAGE: &str = "receiver";
        match *receiver {
            Receiver::Vap(place) => {
                let port = self.names.port_of(place.port);
                let text = format!("port {port}, VLAN {} of this NVE", place.vlan);
                (STAGE, text, self.about_port(Some(place.port)))
            }
            Receiver::Fdb { vni, mac, vtep } => {
                let text = format!(
                    "FDB: {}{} is behind {}",
                    mac,
                    self.owner(vni, mac),
                    self.names.vtep_words(vtep)
                );
                let mut about = self.about_network(vni);
                about.port = self.port_with(vni, mac);
                (STAGE, text, about)
            }
            Receiver::All { vni } => {
                let text = format!("all members of {}", self.names.network_words(vni));
                (STAGE, text, self.about_network(vni))
            }
            Receiver::Unknown { vni, mac } => {
                let text = format!(
                    "no table has {mac}: whoever may have it in {}",
                    self.names.network_words(vni)
                );
                (STAGE, text, self.about_network(vni))
            }
        }
    }

    /// `" (port such-and-such)"`, if a port of the network has the MAC address.
    fn owner(&self, vni: Vni, mac: Mac) -> String {
        let port = self.port_with(vni, mac);
        port.map_or_else(String::new, |port| format!(" (port {port})"))
    }

    fn port_with(&self, vni: Vni, mac: Mac) -> Option<PortName> {
        let network = self.state().network_by_vni(vni)?;
        let port = self.state().port_by_mac(network.common.id, mac)?;
        Some(self.names.port(port.common.id))
    }

    fn port_at(&self, vlan: Vlan) -> Option<PortId> {
        let told = self.places.iter().find(|(at, _)| *at == vlan);
        let told = told.map(|(_, port)| *port);
        told.or_else(|| self.inspector.port_behind(self.nve, vlan))
    }

    fn port_words(&self, vlan: Vlan) -> String {
        match self.port_at(vlan) {
            Some(port) => format!("port {}", self.names.port_of(port)),
            None => format!("VLAN {vlan}"),
        }
    }

    fn about_port(&self, port: Option<PortId>) -> About {
        About {
            port: port.map(|port| self.names.port_of(port)),
            ..About::default()
        }
    }

    fn about_network(&self, vni: Vni) -> About {
        About {
            network: self.names.network(vni),
            ..About::default()
        }
    }

    fn about_via(&self, via: &Via) -> About {
        match via {
            Via::Vap(place) => self.about_port(Some(place.port)),
            Via::Tunnel(tunnel) => self.about_network(tunnel.vni),
        }
    }

    fn state(&self) -> &State {
        &self.inspector.state
    }
}

/// A drop's reason, with whose policy it was.
pub(super) fn dropped_words(
    names: &Names<'_>,
    reason: DropReason,
    blame: Option<&Blame>,
) -> String {
    let text = reason.text().trim_end_matches('.');
    let mut words = format!("{}: {text}", reason.name());
    if let Some(blame) = blame {
        let port = names.port_of(blame.port);
        let groups = match reason {
            DropReason::SecurityGroup => names.groups_of(blame.port),
            _ => String::new(),
        };
        words += &format!(" ({} of port {port}{groups})", way_words(blame.direction));
        if let Some(rule) = blame.rule {
            let rule = names.rule(rule);
            words += &format!("; rule {rule} allowed the connection until it was cut");
        }
    }
    words
}

fn source_words(source: &Source) -> String {
    match source {
        Source::Unchecked => "not checked: the port has no port security".to_owned(),
        Source::Address { mac, prefix, fixed } => {
            let what = match prefix.is_host() {
                true => prefix.address().to_string(),
                false => prefix.to_string(),
            };
            match fixed {
                true => format!("{what} with {mac} is the port's fixed IP"),
                false => format!("{what} with {mac} is an allowed address pair of the port"),
            }
        }
        Source::LinkLocal => "the port's link-local address".to_owned(),
        Source::Mac => "the port's MAC address; the protocol has no IP address".to_owned(),
        Source::Unspecified => "no address yet: asks for one, or tests it".to_owned(),
    }
}

const fn responder_words(responder: Responder) -> &'static str {
    match responder {
        Responder::Arp => "the NVE itself takes care of it: ARP",
        Responder::NeighborDiscovery => "the NVE itself takes care of it: neighbor discovery",
        Responder::Dhcpv4 => "the NVE itself takes care of it: DHCPv4",
        Responder::Dhcpv6 => "the NVE itself takes care of it: DHCPv6",
        Responder::Echo => "the gateway is pinged, and answers",
        Responder::Icmp => "the gateway tells the sender by ICMP why it does not forward",
    }
}

const fn way_words(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// Where a connection stands, in words.
pub(super) const fn connection_words(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::SynSent => "SYN sent",
        ConnectionState::SynReceived => "SYN received",
        ConnectionState::Established => "established",
        ConnectionState::PickedUp => "picked up in its middle",
        ConnectionState::OpenerClosed => "closed by its opener",
        ConnectionState::AnswererClosed => "closed by its answerer",
        ConnectionState::Closed => "closed",
        ConnectionState::Reset => "reset",
        ConnectionState::Unanswered => "not answered yet",
        ConnectionState::Answered => "answered",
        ConnectionState::Query => "query and answers",
        ConnectionState::Other => "by addresses",
        ConnectionState::Cut => "cut: no rule allows it any more",
    }
}
