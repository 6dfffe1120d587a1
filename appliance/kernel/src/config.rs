//! The appliance's configuration: a JSON text handed over as a boot module.
//!
//! Parse, don't validate: a [`Config`] that exists is complete and in range. The
//! first thing that is wrong is reported with the path of its field.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::str::FromStr;

use heapless::{String, Vec};
use log::LevelFilter;
use nve_agent::{KEY_LEN, PrivateKey, from_hex};
use nve_protocol::{Mac, NveId, Prefix};
use serde_json_core::de::from_slice;

use crate::json::{Malformed, Members};

/// Most shims that the appliance can be given.
pub const MAX_SHIMS: usize = 8;

/// Most bytes of a name.
pub const MAX_NAME: usize = 64;

/// Smallest MTU of an uplink with an IPv4 address: what IPv6 hosts need (RFC 8200,
/// section 5) and the VXLAN headers.
pub const MIN_MTU_V4: u16 = 1330;

/// Smallest MTU of an uplink with an IPv6 address.
pub const MIN_MTU_V6: u16 = 1350;

/// Largest MTU that the uplink's buffers are made for.
pub const MAX_MTU: u16 = 9216;

/// Everything that distinguishes one appliance from another.
#[derive(Debug, Clone)]
pub struct Config {
    /// Identity towards the shim.
    pub nve_id: NveId,
    /// Name for people.
    pub name: String<MAX_NAME>,
    /// Least severe messages that the console shows.
    pub log_level: LevelFilter,
    /// The NIC on the vSwitch's trunk port group.
    pub trunk: Trunk,
    /// The NIC towards other VTEPs.
    pub uplink: Uplink,
    /// Where shims listen, in the order in which they are tried; of the uplink's
    /// address family.
    pub shims: Vec<SocketAddr, MAX_SHIMS>,
    /// Static public key of the shims.
    pub shim_public_key: [u8; KEY_LEN],
    /// Static private key of this appliance.
    pub private_key: PrivateKey,
}

/// Configuration of the trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trunk {
    /// Which NIC.
    pub nic: NicSelector,
    /// Whether large TCP frames are taken and given, if the NIC can.
    pub offloads: bool,
}

/// Configuration of the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uplink {
    /// Which NIC.
    pub nic: NicSelector,
    /// Address of the VTEP.
    pub address: IpAddr,
    /// Bits of the address that name the subnet, 1 to 30 or, of IPv6, 127.
    pub prefix: u8,
    /// Next hop to other subnets, of the same family.
    pub gateway: Option<IpAddr>,
    /// Longest IP packet in bytes; left out, the device's or 1600.
    pub mtu: Option<u16>,
}

/// How a NIC is told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicSelector {
    /// By its MAC address.
    Mac(Mac),
    /// By its place on the PCI bus.
    Pci(PciAddress),
}

impl NicSelector {
    /// Name of the field.
    fn field(self) -> &'static str {
        match self {
            NicSelector::Mac(_) => "mac",
            NicSelector::Pci(_) => "pci",
        }
    }
}

impl fmt::Display for NicSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NicSelector::Mac(mac) => write!(f, "mac {mac}"),
            NicSelector::Pci(address) => write!(f, "pci {address}"),
        }
    }
}

/// Place on the PCI bus, written `0000:00:03.0`. Only segment 0 is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number, below 32.
    pub device: u8,
    /// Function number, below 8.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "0000:{:02x}:{:02x}.{}",
            self.bus, self.device, self.function
        )
    }
}

impl FromStr for PciAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [b'0', b'0', b'0', b'0', b':', b1, b0, b':', d1, d0, b'.', f] = text.as_bytes() else {
            return Err(());
        };
        let bus = hex_octet(*b1, *b0).ok_or(())?;
        let device = hex_octet(*d1, *d0)
            .filter(|device| *device < 32)
            .ok_or(())?;
        let function = hex_octet(b'0', *f)
            .filter(|function| *function < 8)
            .ok_or(())?;
        Ok(PciAddress {
            bus,
            device,
            function,
        })
    }
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Object that the field is in; empty for the outermost.
    parent: &'static str,
    /// Name of the field; empty if it is the object itself that is wrong.
    field: String<32>,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Required and not there.
    Missing,
    /// Not a field of a configuration.
    Unknown,
    /// There twice.
    Duplicate,
    /// Not a JSON object.
    NotAnObject,
    /// Not what the text says that it has to be.
    Expected(&'static str),
}

impl Error {
    fn new(parent: &'static str, field: &str, problem: Problem) -> Error {
        let mut name = String::new();
        for c in field.chars().filter(|c| !c.is_control()) {
            // A long name is cut: the message stays one line.
            if name.push(c).is_err() {
                break;
            }
        }
        Error {
            parent,
            field: name,
            problem,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("config: ")?;
        match (self.parent.is_empty(), self.field.is_empty()) {
            (true, true) => {}
            (true, false) => write!(f, "{}: ", self.field)?,
            (false, true) => write!(f, "{}: ", self.parent)?,
            (false, false) => write!(f, "{}.{}: ", self.parent, self.field)?,
        }
        match self.problem {
            Problem::Missing => f.write_str("missing"),
            Problem::Unknown => f.write_str("unknown field"),
            Problem::Duplicate => f.write_str("given twice"),
            Problem::NotAnObject => f.write_str("expected a JSON object"),
            Problem::Expected(what) => write!(f, "expected {what}"),
        }
    }
}

/// The members of one object whose names are known.
struct Fields<'a, const N: usize> {
    parent: &'static str,
    names: [&'static str; N],
    values: [Option<&'a [u8]>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    fn parse(
        parent: &'static str,
        names: [&'static str; N],
        text: &'a [u8],
    ) -> Result<Self, Error> {
        let malformed = |Malformed| Error::new(parent, "", Problem::NotAnObject);
        let mut values = [None; N];
        for member in Members::new(text).map_err(malformed)? {
            let (key, value) = member.map_err(malformed)?;
            let slot = names
                .iter()
                .zip(&mut values)
                .find_map(|(name, slot)| (*name == key).then_some(slot))
                .ok_or_else(|| Error::new(parent, key, Problem::Unknown))?;
            if slot.replace(value).is_some() {
                return Err(Error::new(parent, key, Problem::Duplicate));
            }
        }
        Ok(Fields {
            parent,
            names,
            values,
        })
    }

    fn raw(&self, name: &'static str) -> Option<&'a [u8]> {
        let at = self.names.iter().position(|known| *known == name)?;
        self.values.get(at).copied().flatten()
    }

    fn error(&self, name: &str, problem: Problem) -> Error {
        Error::new(self.parent, name, problem)
    }

    /// A field that `parse` turns into its type, if it is there.
    fn optional<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        match parse(raw) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(name, Problem::Expected(expected))),
        }
    }

    /// As [`Fields::optional`], for a field that has to be there.
    fn required<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, Error> {
        self.optional(name, expected, parse)?
            .ok_or_else(|| self.error(name, Problem::Missing))
    }
}

const MAC_TEXT: &str = "a unicast MAC address like \"02:00:00:00:00:01\"";
const PCI_TEXT: &str = "a PCI address like \"0000:00:03.0\"";
const KEY_TEXT: &str = "64 hexadecimal digits";

impl Config {
    /// Reads a configuration.
    pub fn parse(text: &[u8]) -> Result<Config, Error> {
        let names = [
            "nve_id",
            "name",
            "log_level",
            "trunk",
            "uplink",
            "shims",
            "shim_public_key",
            "private_key",
        ];
        let fields = Fields::parse("", names, text)?;
        let object = |raw| Some(raw);
        let trunk = trunk(fields.required("trunk", "", object)?)?;
        let uplink = uplink(fields.required("uplink", "", object)?)?;
        if uplink.nic == trunk.nic {
            let problem = Problem::Expected("another NIC than the trunk's");
            return Err(Error::new("uplink", uplink.nic.field(), problem));
        }
        Ok(Config {
            nve_id: fields.required("nve_id", "a UUID", text_as)?,
            name: fields
                .optional("name", "a text of at most 64 bytes", text_as)?
                .unwrap_or_default(),
            log_level: fields
                .optional("log_level", "error, warn, info or debug", level)?
                .unwrap_or(LevelFilter::Info),
            trunk,
            uplink,
            shims: fields.required("shims", shims_text(&uplink), |raw| shims(raw, &uplink))?,
            shim_public_key: fields.required("shim_public_key", KEY_TEXT, key)?,
            private_key: PrivateKey::new(fields.required("private_key", KEY_TEXT, key)?),
        })
    }
}

fn trunk(text: &[u8]) -> Result<Trunk, Error> {
    let fields = Fields::parse("trunk", ["mac", "pci", "offloads"], text)?;
    Ok(Trunk {
        nic: selector(&fields)?,
        offloads: fields
            .optional("offloads", "true or false", flag)?
            .unwrap_or(true),
    })
}

fn uplink(text: &[u8]) -> Result<Uplink, Error> {
    let names = ["mac", "pci", "address", "gateway", "mtu"];
    let fields = Fields::parse("uplink", names, text)?;
    let nic = selector(&fields)?;
    let (address, prefix) = fields.required(
        "address",
        "a host's address and prefix length like \"192.0.2.11/24\" or \"2001:db8::11/64\"",
        interface_address,
    )?;
    let (least, mtu_text) = match address {
        IpAddr::V4(_) => (MIN_MTU_V4, "1330 to 9216"),
        IpAddr::V6(_) => (MIN_MTU_V6, "1350 to 9216"),
    };
    let gateway = fields.optional("gateway", "another address of the uplink's subnet", |raw| {
        text_as::<IpAddr>(raw).filter(|gateway| is_gateway(*gateway, address, prefix))
    })?;
    let mtu = fields.optional("mtu", mtu_text, |raw| {
        number(raw).filter(|mtu| (least..=MAX_MTU).contains(mtu))
    })?;
    Ok(Uplink {
        nic,
        address,
        prefix,
        gateway,
        mtu,
    })
}

/// Exactly one of `mac` and `pci`.
fn selector<const N: usize>(fields: &Fields<'_, N>) -> Result<NicSelector, Error> {
    let mac = fields.optional("mac", MAC_TEXT, |raw| {
        text_as::<Mac>(raw).filter(|mac| mac.is_unicast())
    })?;
    let pci = fields.optional("pci", PCI_TEXT, text_as)?;
    match (mac, pci) {
        (Some(mac), None) => Ok(NicSelector::Mac(mac)),
        (None, Some(pci)) => Ok(NicSelector::Pci(pci)),
        (None, None) => Err(fields.error("mac", Problem::Missing)),
        (Some(_), Some(_)) => {
            Err(fields.error("pci", Problem::Expected("either mac or pci, not both")))
        }
    }
}

/// The JSON string that `raw` is, without escapes.
fn text(raw: &[u8]) -> Option<&str> {
    let (text, used) = from_slice::<&str>(raw).ok()?;
    (used == raw.len() && !text.contains('\\') && !text.contains(char::is_control)).then_some(text)
}

fn text_as<T: FromStr>(raw: &[u8]) -> Option<T> {
    text(raw)?.parse().ok()
}

fn number(raw: &[u8]) -> Option<u16> {
    let (number, used) = from_slice::<u16>(raw).ok()?;
    (used == raw.len()).then_some(number)
}

fn flag(raw: &[u8]) -> Option<bool> {
    let (flag, used) = from_slice::<bool>(raw).ok()?;
    (used == raw.len()).then_some(flag)
}

fn level(raw: &[u8]) -> Option<LevelFilter> {
    match text(raw)? {
        "error" => Some(LevelFilter::Error),
        "warn" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        _ => None,
    }
}

fn shims_text(uplink: &Uplink) -> &'static str {
    match uplink.address {
        IpAddr::V4(_) => "1 to 8 addresses like \"192.0.2.1:6653\"",
        IpAddr::V6(_) => "1 to 8 addresses like \"[2001:db8::1]:6653\"",
    }
}

fn shims(raw: &[u8], uplink: &Uplink) -> Option<Vec<SocketAddr, MAX_SHIMS>> {
    let (texts, used) = from_slice::<Vec<&str, MAX_SHIMS>>(raw).ok()?;
    if used != raw.len() || texts.is_empty() {
        return None;
    }
    texts
        .iter()
        .map(|text| {
            let address: SocketAddr = text.parse().ok()?;
            let reachable = address.is_ipv4() == uplink.address.is_ipv4();
            (reachable && is_host(address.ip()) && address.port() != 0).then_some(address)
        })
        .collect()
}

fn interface_address(raw: &[u8]) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text(raw)?.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let most = if address.is_ipv4() { 30 } else { 127 };
    if !(1..=most).contains(&prefix) || !is_host(address) {
        return None;
    }
    is_in_subnet(address, prefix).then_some((address, prefix))
}

/// Whether an address is neither its subnet's own (RFC 4291, section 2.6.1: the
/// anycast address of its routers, but for RFC 6164) nor its broadcast address.
fn is_in_subnet(address: IpAddr, prefix: u8) -> bool {
    let first = Prefix::around(address, prefix).map(|subnet| subnet.address());
    match address {
        IpAddr::V4(ip) => {
            let broadcast = Ipv4Addr::from_bits(ip.to_bits() | u32::MAX >> prefix);
            first != Some(address) && ip != broadcast
        }
        IpAddr::V6(_) => first != Some(address) || prefix == 127,
    }
}

/// A gateway is in the subnet of `address`, or link-local.
fn is_gateway(gateway: IpAddr, address: IpAddr, prefix: u8) -> bool {
    let subnet = Prefix::around(address, prefix);
    let on_link = subnet.is_some_and(|subnet| subnet.contains(gateway));
    let link_local =
        matches!((gateway, address), (IpAddr::V6(ip), IpAddr::V6(_)) if ip.is_unicast_link_local());
    (on_link || link_local) && gateway != address
}

/// Whether an address can be that of a VTEP or of a shim. A link-local one cannot:
/// it means nothing to hosts of other links.
fn is_host(address: IpAddr) -> bool {
    let usable = !(address.is_unspecified() || address.is_loopback() || address.is_multicast());
    usable
        && match address {
            IpAddr::V4(ip) => ip.octets()[0] < 240,
            IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
        }
}

fn key(raw: &[u8]) -> Option<[u8; KEY_LEN]> {
    let key = from_hex(text(raw)?).ok()?;
    (key != [0; KEY_LEN]).then_some(key)
}

fn hex_octet(high: u8, low: u8) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high << 4 | low).ok()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
