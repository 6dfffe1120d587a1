//! DHCP for IPv6 (RFC 8415): what a client sends, and a server's options.

use core::net::Ipv6Addr;

use nve_protocol::Mac;

use super::{array, put, u16_at};

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 546;
/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 547;
/// All servers and relays of a link (section 7.1).
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Bytes of an option's code and length.
pub const OPTION_HEADER: usize = 4;

/// Bytes of a DUID of a link-layer address (section 11.4).
const DUID: usize = 10;
/// Most bytes of a DUID (section 11.1).
const DUID_MOST: usize = 130;
/// Bytes in front of the options of an IA_NA.
const ASSOCIATION: usize = 12;
/// Bytes of an address option's value without options.
const ADDRESS: usize = 24;

/// Option codes (section 21, and RFC 3646).
pub mod option {
    /// Client identifier.
    pub const CLIENT: u16 = 1;
    /// Server identifier.
    pub const SERVER: u16 = 2;
    /// Association of addresses (IA_NA).
    pub const ASSOCIATION: u16 = 3;
    /// Association of temporary addresses (IA_TA).
    pub const TEMPORARY: u16 = 4;
    /// Address.
    pub const ADDRESS: u16 = 5;
    /// Codes of options that the client wants.
    pub const PARAMETERS: u16 = 6;
    /// Preference.
    pub const PREFERENCE: u16 = 7;
    /// Status code.
    pub const STATUS: u16 = 13;
    /// Rapid commit.
    pub const RAPID_COMMIT: u16 = 14;
    /// DNS servers.
    pub const DNS: u16 = 23;
    /// Association of prefixes (IA_PD).
    pub const DELEGATION: u16 = 25;
}

/// Status codes (section 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// All is well.
    Success = 0,
    /// No address for the association.
    NoAddresses = 2,
    /// The association is not known.
    NoBinding = 3,
    /// An address does not fit the link.
    NotOnLink = 4,
}

/// Message types (section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client looks for servers.
    Solicit = 1,
    /// A server tells what it would give.
    Advertise = 2,
    /// A client asks for what was advertised.
    Request = 3,
    /// A client asks whether its addresses fit the link.
    Confirm = 4,
    /// A client asks its server to go on.
    Renew = 5,
    /// A client asks any server to go on.
    Rebind = 6,
    /// A server answers.
    Reply = 7,
    /// A client gives its addresses back.
    Release = 8,
    /// A client found an address in use.
    Decline = 9,
    /// A client has addresses and asks for the rest.
    InformationRequest = 11,
}

impl Kind {
    /// Of the messages that clients send.
    fn of_client(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Solicit,
            3 => Kind::Request,
            4 => Kind::Confirm,
            5 => Kind::Renew,
            6 => Kind::Rebind,
            8 => Kind::Release,
            9 => Kind::Decline,
            11 => Kind::InformationRequest,
            _ => return None,
        })
    }
}

/// A client's message, valid as section 16 wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it wants.
    pub kind: Kind,
    /// Transaction.
    pub id: [u8; 3],
    /// The client's identifier.
    pub client: Option<&'a [u8]>,
    /// The identifier of the server that it speaks to.
    pub server: Option<&'a [u8]>,
    /// Codes of the options that it wants, two bytes each.
    pub parameters: Option<&'a [u8]>,
    /// Whether it takes a reply at once for a solicitation.
    pub rapid: bool,
    options: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a client's message; `None` if it is none, or not valid.
    pub fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let [kind, a, b, c] = array(bytes, 0)?;
        let options = bytes.get(4..)?;
        let mut request = Request {
            kind: Kind::of_client(kind)?,
            id: [a, b, c],
            client: None,
            server: None,
            parameters: None,
            rapid: false,
            options,
        };
        let mut associations = 0;
        for item in Options(options) {
            let (code, value) = item?;
            match code {
                option::CLIENT => request.client = Some(identifier(value)?),
                option::SERVER => request.server = Some(identifier(value)?),
                option::PARAMETERS => request.parameters = Some(value),
                option::RAPID_COMMIT => request.rapid = true,
                option::ASSOCIATION => {
                    associations += 1;
                    check_association(value)?;
                }
                option::TEMPORARY | option::DELEGATION => associations += 1,
                _ => {}
            }
        }
        request.is_valid(associations).then_some(request)
    }

    /// Which identifiers there must and must not be (sections 16.2 to 16.12).
    fn is_valid(&self, associations: usize) -> bool {
        let (client, server) = (self.client.is_some(), self.server.is_some());
        match self.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => client && !server,
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => client && server,
            Kind::InformationRequest => associations == 0,
            Kind::Advertise | Kind::Reply => false,
        }
    }

    /// The associations of addresses that it asks for.
    pub fn associations(&self) -> impl Iterator<Item = Association<'a>> {
        let options = Options(self.options).flatten();
        let own = options.filter(|(code, _)| *code == option::ASSOCIATION);
        own.filter_map(|(_, value)| {
            Some(Association {
                id: array(value, 0)?,
                options: value.get(ASSOCIATION..)?,
            })
        })
    }

    /// Whether it wants an option, as all do that do not say.
    pub fn wants(&self, code: u16) -> bool {
        let listed = |list: &[u8]| list.chunks(2).any(|pair| pair == code.to_be_bytes());
        self.parameters.is_none_or(listed)
    }
}

fn identifier(value: &[u8]) -> Option<&[u8]> {
    (3..=DUID_MOST).contains(&value.len()).then_some(value)
}

fn check_association(value: &[u8]) -> Option<()> {
    for item in Options(value.get(ASSOCIATION..)?) {
        let (code, value) = item?;
        if code == option::ADDRESS && value.len() < ADDRESS {
            return None;
        }
    }
    Some(())
}

/// An IA_NA: addresses that a client has or wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Association<'a> {
    /// The client's name for it.
    pub id: [u8; 4],
    options: &'a [u8],
}

impl<'a> Association<'a> {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> + use<'a> {
        let options = Options(self.options).flatten();
        let own = options.filter(|(code, _)| *code == option::ADDRESS);
        own.filter_map(|(_, value)| array::<16>(value, 0).map(Ipv6Addr::from))
    }
}

/// Options one after the other; `None` once if they are malformed.
#[derive(Clone)]
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.take();
        if item.is_none() {
            self.0 = &[];
        }
        Some(item)
    }
}

impl<'a> Options<'a> {
    fn take(&mut self) -> Option<(u16, &'a [u8])> {
        let code = u16_at(self.0, 0)?;
        let length = usize::from(u16_at(self.0, 2)?);
        let value = self.0.get(OPTION_HEADER..)?;
        let (value, rest) = value.split_at_checked(length)?;
        self.0 = rest;
        Some((code, value))
    }
}

/// The identifier of a server with this MAC address.
pub fn server_identifier(mac: Mac) -> [u8; DUID] {
    let mut bytes = [0; DUID];
    put(&mut bytes, 0, &[0, 3, 0, 1]);
    put(&mut bytes, 4, &mac.0);
    bytes
}

/// Code and length of an option.
pub fn option_header(code: u16, length: u16) -> [u8; OPTION_HEADER] {
    let ([a, b], [c, d]) = (code.to_be_bytes(), length.to_be_bytes());
    [a, b, c, d]
}

/// An address option. A lifetime of zero says that the client must not use it.
pub fn address(ip: Ipv6Addr, lifetime: u32) -> [u8; OPTION_HEADER + ADDRESS] {
    let mut bytes = [0; OPTION_HEADER + ADDRESS];
    put(
        &mut bytes,
        0,
        &option_header(option::ADDRESS, ADDRESS as u16),
    );
    put(&mut bytes, 4, &ip.octets());
    put(&mut bytes, 20, &lifetime.to_be_bytes());
    put(&mut bytes, 24, &lifetime.to_be_bytes());
    bytes
}

/// A status option without text.
pub fn status(status: Status) -> [u8; OPTION_HEADER + 2] {
    let [a, b, c, d] = option_header(option::STATUS, 2);
    let [high, low] = (status as u16).to_be_bytes();
    [a, b, c, d, high, low]
}

/// What is in front of an IA_NA's options: who it is, and when to renew and rebind,
/// in seconds. The option's length is zero.
pub fn association(id: [u8; 4], renew: u32, rebind: u32) -> [u8; OPTION_HEADER + ASSOCIATION] {
    let mut bytes = [0; OPTION_HEADER + ASSOCIATION];
    put(&mut bytes, 0, &option_header(option::ASSOCIATION, 0));
    put(&mut bytes, 4, &id);
    put(&mut bytes, 8, &renew.to_be_bytes());
    put(&mut bytes, 12, &rebind.to_be_bytes());
    bytes
}
