//! DHCP for IPv4 (RFC 2131, RFC 2132): what a client sends, and a server's
//! options.

use core::net::Ipv4Addr;

use nve_protocol::Mac;

use super::{array, mac_at, put, u16_at};

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;
/// Bytes in front of the options, magic cookie included.
pub const FIXED: usize = 240;
/// Bytes of the least message (RFC 1542, section 2.1).
pub const LEAST: usize = 300;
/// Most bytes of one instance of an option; a longer value goes into several
/// (RFC 3396).
pub const OPTION_MOST: usize = 255;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BROADCAST: u16 = 0x8000;

/// Option codes.
pub mod option {
    /// Filler.
    pub const PAD: u8 = 0;
    /// Subnet mask.
    pub const MASK: u8 = 1;
    /// Routers.
    pub const ROUTER: u8 = 3;
    /// DNS servers.
    pub const DNS: u8 = 6;
    /// Host name.
    pub const HOST_NAME: u8 = 12;
    /// Interface MTU.
    pub const MTU: u8 = 26;
    /// Broadcast address.
    pub const BROADCAST: u8 = 28;
    /// Address that the client wants.
    pub const REQUESTED: u8 = 50;
    /// Lease time.
    pub const LEASE_TIME: u8 = 51;
    /// Where else options are.
    pub const OVERLOAD: u8 = 52;
    /// Message type.
    pub const MESSAGE: u8 = 53;
    /// Server identifier.
    pub const SERVER: u8 = 54;
    /// Codes of options that the client wants.
    pub const PARAMETERS: u8 = 55;
    /// Largest message that the client takes.
    pub const MOST: u8 = 57;
    /// Time after which the client renews (T1).
    pub const RENEWAL: u8 = 58;
    /// Time after which the client rebinds (T2).
    pub const REBINDING: u8 = 59;
    /// Client identifier.
    pub const CLIENT: u8 = 61;
    /// Name of a TFTP server.
    pub const TFTP_SERVER: u8 = 66;
    /// Name of a boot file.
    pub const BOOT_FILE: u8 = 67;
    /// Relay agent information (RFC 3046).
    pub const RELAY: u8 = 82;
    /// Classless static routes (RFC 3442).
    pub const ROUTES: u8 = 121;
    /// The same as Windows knew it first.
    pub const ROUTES_WINDOWS: u8 = 249;
    /// End of the options.
    pub const END: u8 = 255;
}

/// Message types (RFC 2132, section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// A client asks for an offered address, or to go on with one.
    Request = 3,
    /// A client found the address in use.
    Decline = 4,
    /// A server grants what was asked for.
    Ack = 5,
    /// A server refuses.
    Nak = 6,
    /// A client gives its address back.
    Release = 7,
    /// A client has an address and asks for the rest.
    Inform = 8,
}

impl Kind {
    /// Of the messages that clients send.
    fn of_client(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Discover,
            3 => Kind::Request,
            4 => Kind::Decline,
            7 => Kind::Release,
            8 => Kind::Inform,
            _ => return None,
        })
    }
}

/// A client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it wants.
    pub kind: Kind,
    /// Transaction.
    pub id: u32,
    /// The `flags` field.
    pub flags: u16,
    /// The address that the client has and answers on, or unspecified.
    pub client: Ipv4Addr,
    /// The relay that passed it on, or unspecified.
    pub relay: Ipv4Addr,
    /// The client's MAC address.
    pub mac: Mac,
    /// Address that it wants.
    pub requested: Option<Ipv4Addr>,
    /// The server that it speaks to.
    pub server: Option<Ipv4Addr>,
    /// Codes of the options that it wants.
    pub parameters: Option<&'a [u8]>,
    /// Bytes of the largest message that it takes, IP and UDP headers included.
    pub most: Option<u16>,
    /// Its identifier.
    pub identifier: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Reads a client's message; `None` if it is none, or malformed. Options are
    /// looked for in their own field alone, where clients put them.
    pub fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let [op, hardware, length, _] = array(bytes, 0)?;
        if (op, hardware, length) != (REQUEST, ETHERNET, 6) || array(bytes, 236)? != COOKIE {
            return None;
        }
        let address = |at| array::<4>(bytes, at).map(Ipv4Addr::from);
        let (mut kind, mut requested, mut server) = (None, None, None);
        let (mut parameters, mut most, mut identifier) = (None, None, None);
        for item in Options(bytes.get(FIXED..)?) {
            let (code, value) = item?;
            match code {
                option::MESSAGE => kind = Some(Kind::of_client(array::<1>(value, 0)?[0])?),
                option::REQUESTED => requested = Some(array::<4>(value, 0)?.into()),
                option::SERVER => server = Some(array::<4>(value, 0)?.into()),
                option::PARAMETERS => parameters = Some(value),
                option::MOST => most = Some(u16_at(value, 0)?),
                option::CLIENT => identifier = Some(value),
                _ => {}
            }
        }
        Some(Request {
            kind: kind?,
            id: u32::from_be_bytes(array(bytes, 4)?),
            flags: u16_at(bytes, 10)?,
            client: address(12)?,
            relay: address(24)?,
            mac: mac_at(bytes, 28)?,
            requested,
            server,
            parameters,
            most,
            identifier,
        })
    }

    /// Whether the client cannot take unicast yet.
    pub fn wants_broadcast(&self) -> bool {
        self.flags & BROADCAST != 0
    }
}

/// The options in a message; `None` once if they are malformed.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [option::PAD, ref rest @ ..] => self.0 = rest,
                [] | [option::END, ..] => return None,
                [code, length, ref rest @ ..] => {
                    let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else {
                        self.0 = &[];
                        return Some(None);
                    };
                    self.0 = rest;
                    return Some(Some((code, value)));
                }
                [_] => {
                    self.0 = &[];
                    return Some(None);
                }
            }
        }
    }
}

/// What is in front of the options of a server's reply to `request`. `yours` is
/// the address that the client is given.
pub fn reply_header(request: &Request<'_>, client: Ipv4Addr, yours: Ipv4Addr) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    put(&mut bytes, 0, &[REPLY, ETHERNET, 6, 0]);
    put(&mut bytes, 4, &request.id.to_be_bytes());
    put(&mut bytes, 10, &request.flags.to_be_bytes());
    put(&mut bytes, 12, &client.octets());
    put(&mut bytes, 16, &yours.octets());
    put(&mut bytes, 28, &request.mac.0);
    put(&mut bytes, 236, &COOKIE);
    bytes
}

/// Where a reply header has the next server's address, for network boot.
pub const NEXT_SERVER: usize = 20;
/// Where a reply header has the boot file's name, and how many bytes that may be
/// with its terminator.
pub const FILE: (usize, usize) = (108, 128);
