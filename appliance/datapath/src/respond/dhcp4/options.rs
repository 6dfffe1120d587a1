//! The options of a DHCPv4 reply (RFC 2132).

use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr};

use nve_protocol::{DhcpOption, DropReason, Family, Prefix};

use super::{Lease, Outcome, Reply, Server};
use crate::wire::array;
use crate::wire::dhcpv4::{self, Kind, option};

/// Seconds of a lease, as in Neutron.
const LEASE: u32 = 86_400;
/// Options that tell how long a lease is.
const TIMES: [u8; 3] = [option::LEASE_TIME, option::RENEWAL, option::REBINDING];
/// Options of the protocol itself, which no port has of its own.
const PROTOCOL: [u8; 9] = [
    option::PAD,
    option::REQUESTED,
    option::OVERLOAD,
    option::MESSAGE,
    option::SERVER,
    option::PARAMETERS,
    option::CLIENT,
    option::RELAY,
    option::END,
];

impl<'a> Server<'a> {
    /// The port's own options stand in for the subnet's of the same code. What a
    /// client cannot do without goes first, so that too little room costs the least.
    pub(super) fn options(
        &self,
        outcome: Outcome,
        lease: &Lease<'_>,
        end: usize,
        reply: &mut Reply,
    ) -> Result<(), DropReason> {
        // One byte is left for the end.
        let mut out = Options {
            end: end.saturating_sub(1),
            reply,
        };
        self.all(outcome, lease, &mut out);
        reply.push(&[option::END])
    }

    fn all(&self, outcome: Outcome, lease: &Lease<'_>, out: &mut Options<'_>) {
        let kind = match outcome {
            Outcome::Offer => Kind::Offer,
            Outcome::Ack | Outcome::Inform => Kind::Ack,
            Outcome::Nak => Kind::Nak,
        };
        out.put(option::MESSAGE, &[kind as u8]);
        out.put(option::SERVER, &lease.server().octets());
        if let Some(identifier) = self.message.identifier {
            out.put(option::CLIENT, identifier);
        }
        if matches!(outcome, Outcome::Nak) {
            return;
        }
        if !matches!(outcome, Outcome::Inform) {
            self.times(out);
        }
        self.unless_own(out, option::MASK, |out| {
            let length = u32::from(lease.subnet.prefix.length());
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            out.put(option::MASK, &mask.to_be_bytes());
        });
        self.network(lease, out);
        self.own(out, |code| self.is_wanted(code) && !TIMES.contains(&code));
        self.own(out, |code| !self.is_wanted(code) && !TIMES.contains(&code));
    }

    /// Lease time, T1 and T2 (RFC 2131, section 4.4.5).
    fn times(&self, out: &mut Options<'_>) {
        let own = self.pieces(option::LEASE_TIME).next();
        let own = own.and_then(|piece| array(piece.value.bytes(), 0));
        let lease = own.map_or(LEASE, u32::from_be_bytes);
        let eighths = |count: u64| ((u64::from(lease) * count / 8) as u32).to_be_bytes();
        for (code, value) in [
            (option::LEASE_TIME, lease.to_be_bytes()),
            (option::RENEWAL, eighths(4)),
            (option::REBINDING, eighths(7)),
        ] {
            self.unless_own(out, code, |out| out.put(code, &value));
        }
        self.own(out, |code| TIMES.contains(&code));
    }

    /// What the network and the subnet announce.
    fn network(&self, lease: &Lease<'_>, out: &mut Options<'_>) {
        let prefix = lease.subnet.prefix;
        if let Some(mtu) = self.services.mtu() {
            // Always told: a client with another would lose large packets.
            self.unless_own(out, option::MTU, |out| {
                out.put(option::MTU, &mtu.to_be_bytes());
            });
        }
        self.if_wanted(out, option::ROUTER, |out| {
            if let Some(IpAddr::V4(gateway)) = lease.subnet.gateway {
                out.put(option::ROUTER, &gateway.octets());
            }
        });
        self.if_wanted(out, option::DNS, |out| {
            let mut servers = heapless::Vec::<u8, 64>::new();
            for dns in self.services.dns(prefix) {
                if let IpAddr::V4(server) = dns.server {
                    // Sixteen are more than any client asks.
                    let _full = servers.extend_from_slice(&server.octets());
                }
            }
            out.put(option::DNS, &servers);
        });
        self.if_wanted(out, option::HOST_NAME, |out| {
            out.put(option::HOST_NAME, host_name(lease.ip).as_bytes());
        });
        self.if_wanted(out, option::BROADCAST, |out| {
            if let (IpAddr::V4(first), 0..=30) = (prefix.address(), prefix.length()) {
                let hosts = u32::MAX >> prefix.length();
                let last = first.to_bits() | hosts;
                out.put(option::BROADCAST, &last.to_be_bytes());
            }
        });
        for code in [option::ROUTES, option::ROUTES_WINDOWS] {
            self.if_wanted(out, code, |out| {
                out.put(code, &self.routes(lease));
            });
        }
    }

    /// The subnet's routes, and as Neutron has it, the other subnets of the network
    /// as reached directly. As clients then ignore the router option (RFC 3442), the
    /// default route comes along.
    fn routes(&self, lease: &Lease<'_>) -> heapless::Vec<u8, 1024> {
        let mut out = heapless::Vec::new();
        let own = lease.subnet.prefix;
        for route in self.services.routes(own) {
            if let IpAddr::V4(next_hop) = route.next_hop {
                push_route(&mut out, route.destination, next_hop);
            }
        }
        for subnet in self.services.subnets() {
            if subnet.prefix != own {
                push_route(&mut out, subnet.prefix, Ipv4Addr::UNSPECIFIED);
            }
        }
        let default = Prefix::around(Ipv4Addr::UNSPECIFIED.into(), 0);
        let mut routes = self.services.routes(own).iter();
        let told = routes.any(|route| Some(route.destination) == default);
        if let (Some(IpAddr::V4(gateway)), Some(default)) = (lease.subnet.gateway, default)
            && !out.is_empty()
            && !told
        {
            push_route(&mut out, default, gateway);
        }
        out
    }

    /// For network boot: clients that know no options 66 and 67 find the same in
    /// the header.
    pub(super) fn boot(&self, start: usize, reply: &mut Reply) {
        let server = self.pieces(option::TFTP_SERVER).next();
        let server = server.and_then(|piece| core::str::from_utf8(piece.value.bytes()).ok());
        if let Some(server) = server.and_then(|text| text.parse::<Ipv4Addr>().ok()) {
            reply.patch(start + dhcpv4::NEXT_SERVER, &server.octets());
        }
        // A part of the name would be another file's.
        let (mut at, most) = dhcpv4::FILE;
        let name = || {
            self.pieces(option::BOOT_FILE)
                .map(|piece| piece.value.bytes())
        };
        if name().map(<[u8]>::len).sum::<usize>() >= most {
            return;
        }
        for value in name() {
            reply.patch(start + at, value);
            at += value.len();
        }
    }

    fn is_wanted(&self, code: u8) -> bool {
        match self.message.parameters {
            Some(list) => list.contains(&code),
            // Windows' code is for those who ask.
            None => code != option::ROUTES_WINDOWS,
        }
    }

    fn if_wanted(&self, out: &mut Options<'_>, code: u8, put: impl FnOnce(&mut Options<'_>)) {
        if self.is_wanted(code) {
            self.unless_own(out, code, put);
        }
    }

    fn unless_own(&self, out: &mut Options<'_>, code: u8, put: impl FnOnce(&mut Options<'_>)) {
        if self.pieces(code).next().is_none() {
            put(out);
        }
    }

    /// All pieces of the port's own options, by code.
    fn all_pieces(&self) -> &'a [DhcpOption] {
        let vlan = self.request.vap.vlan;
        self.request.tables.dhcp_options(vlan, Family::Ipv4)
    }

    fn pieces(&self, code: u8) -> impl Iterator<Item = &'a DhcpOption> {
        let code = u16::from(code);
        self.all_pieces().iter().filter(move |o| o.code == code)
    }

    /// The port's own options whose code is `chosen`; an empty one is not sent, and
    /// so takes the subnet's away.
    fn own(&self, out: &mut Options<'_>, chosen: impl Fn(u8) -> bool) {
        let same = |a: &DhcpOption, b: &DhcpOption| a.code == b.code;
        for pieces in self.all_pieces().chunk_by(same) {
            let code = pieces.first().and_then(|o| u8::try_from(o.code).ok());
            if let Some(code) = code.filter(|code| !PROTOCOL.contains(code) && chosen(*code)) {
                out.join(code, pieces);
            }
        }
    }
}

/// Options as far as they fit.
struct Options<'r> {
    reply: &'r mut Reply,
    /// Where the frame must end.
    end: usize,
}

impl Options<'_> {
    /// Appends an option, in several instances if it is long; nothing if it is
    /// empty or does not fit.
    fn put(&mut self, code: u8, value: &[u8]) {
        let most = dhcpv4::OPTION_MOST;
        let size = value.len() + 2 * value.len().div_ceil(most);
        if self.reply.len() + size > self.end {
            return;
        }
        for chunk in value.chunks(most) {
            // A chunk is at most 255 bytes, and there is room for all of them.
            let head = [code, chunk.len() as u8];
            let _fits = self.reply.push(&head).and(self.reply.push(chunk));
        }
    }

    /// Appends an option that comes in pieces.
    fn join(&mut self, code: u8, pieces: &[DhcpOption]) {
        let mut value = heapless::Vec::<u8, { Reply::CAPACITY }>::new();
        let whole = pieces
            .iter()
            .try_for_each(|piece| value.extend_from_slice(piece.value.bytes()));
        if whole.is_ok() {
            self.put(code, &value);
        }
    }
}

/// Appends a route as RFC 3442 writes it; nothing for what is not IPv4, or for one
/// more than any reply holds.
fn push_route(out: &mut heapless::Vec<u8, 1024>, destination: Prefix, next_hop: Ipv4Addr) {
    let IpAddr::V4(network) = destination.address() else {
        return;
    };
    let significant = usize::from(destination.length()).div_ceil(8);
    let octets = network.octets();
    let octets = octets.get(..significant).unwrap_or_default();
    if out.len() + 5 + significant <= out.capacity() {
        let _fits = out
            .push(destination.length())
            .map_err(|_| ())
            .and_then(|()| out.extend_from_slice(octets).map_err(|_| ()))
            .and_then(|()| out.extend_from_slice(&next_hop.octets()).map_err(|_| ()));
    }
}

/// The name that Neutron gives a host which has none of its own.
fn host_name(ip: Ipv4Addr) -> heapless::String<20> {
    let [a, b, c, d] = ip.octets();
    let mut name = heapless::String::new();
    // Twenty characters are the most that this can have.
    let _fits = write!(name, "host-{a}-{b}-{c}-{d}");
    name
}
