//! DHCP options from the words that users give: names as dnsmasq has them, which
//! is what Neutron's `extra_dhcp_opts` takes, values in text.
//!
//! Codes and types are IANA's (RFC 2132 and what extends it for DHCPv4, RFC 8415
//! and what extends it for DHCPv6). An option that is given by number and is not
//! known here is taken by the look of its value.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use nve_protocol::Family;

/// Most bytes of a value: in one DHCPv4 option, and in a DHCPv6 message beside
/// everything else.
const MAX_V4: usize = 255;
const MAX_V6: usize = 1024;

/// How a value goes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Addresses of the option's IP version, separated by commas.
    Addresses,
    /// Text as it is.
    Text,
    /// Domain names separated by commas, as in DNS (RFC 1035, section 3.1).
    Names,
    /// A number of one byte; also `true` and `false`.
    U8,
    /// A number of two bytes.
    U16,
    /// Numbers of two bytes, separated by commas.
    U16s,
    /// A number of four bytes, or `infinite`.
    U32,
    /// `destination,router` pairs of prefixes and addresses (RFC 3442).
    Routes,
    /// Octets in hexadecimal with colons, or else text.
    Octets,
    /// Nothing.
    Empty,
    /// SIP servers: all by name or all by address (RFC 3361).
    Sip,
}

use Kind::{Addresses, Empty, Names, Octets, Routes, Sip, Text, U8, U16, U16s, U32};

type Known = (&'static str, u16, Kind);

/// DHCPv4 options.
const V4: &[Known] = &[
    ("netmask", 1, Addresses),
    ("time-offset", 2, U32),
    ("router", 3, Addresses),
    ("dns-server", 6, Addresses),
    ("log-server", 7, Addresses),
    ("lpr-server", 9, Addresses),
    ("hostname", 12, Text),
    ("boot-file-size", 13, U16),
    ("domain-name", 15, Text),
    ("swap-server", 16, Addresses),
    ("root-path", 17, Text),
    ("extension-path", 18, Text),
    ("ip-forward-enable", 19, U8),
    ("non-local-source-routing", 20, U8),
    ("policy-filter", 21, Addresses),
    ("max-datagram-reassembly", 22, U16),
    ("default-ttl", 23, U8),
    ("mtu", 26, U16),
    ("all-subnets-local", 27, U8),
    ("broadcast", 28, Addresses),
    ("router-discovery", 31, U8),
    ("router-solicitation", 32, Addresses),
    ("static-route", 33, Addresses),
    ("trailer-encapsulation", 34, U8),
    ("arp-timeout", 35, U32),
    ("ethernet-encap", 36, U8),
    ("tcp-ttl", 37, U8),
    ("tcp-keepalive", 38, U32),
    ("nis-domain", 40, Text),
    ("nis-server", 41, Addresses),
    ("ntp-server", 42, Addresses),
    ("vendor-encap", 43, Octets),
    ("netbios-ns", 44, Addresses),
    ("netbios-dd", 45, Addresses),
    ("netbios-nodetype", 46, U8),
    ("netbios-scope", 47, Text),
    ("x-windows-fs", 48, Addresses),
    ("x-windows-dm", 49, Addresses),
    ("lease-time", 51, U32),
    ("T1", 58, U32),
    ("T2", 59, U32),
    ("vendor-class", 60, Octets),
    ("nis+-domain", 64, Text),
    ("nis+-server", 65, Addresses),
    ("tftp-server", 66, Text),
    ("bootfile-name", 67, Text),
    ("mobile-ip-home", 68, Addresses),
    ("smtp-server", 69, Addresses),
    ("pop3-server", 70, Addresses),
    ("nntp-server", 71, Addresses),
    ("irc-server", 74, Addresses),
    ("user-class", 77, Octets),
    ("rapid-commit", 80, Empty),
    ("client-arch", 93, U16s),
    ("client-interface-id", 94, Octets),
    ("client-machine-id", 97, Octets),
    ("posix-timezone", 100, Text),
    ("tzdb-timezone", 101, Text),
    ("ipv6-only", 108, U32),
    ("domain-search", 119, Names),
    ("sip-server", 120, Sip),
    ("classless-static-route", 121, Routes),
    ("vendor-id-encap", 125, Octets),
    ("tftp-server-address", 150, Addresses),
    ("ms-classless-static-route", 249, Routes),
];

/// DHCPv4 options that are the server's alone: padding and end (RFC 2132, section
/// 3), and those that say which message of which exchange it is.
const SERVERS_V4: &[u16] = &[0, 50, 52, 53, 54, 55, 57, 61, 82, 255];

/// DHCPv4 options that an empty value keeps the server from sending: routers and
/// classless routes.
const SUPPRESSIBLE: &[u16] = &[3, 121];

/// DHCPv6 options.
const V6: &[Known] = &[
    ("user-class", 15, Octets),
    ("vendor-class", 16, Octets),
    ("vendor-opts", 17, Octets),
    ("sip-server-domain", 21, Names),
    ("sip-server", 22, Addresses),
    ("dns-server", 23, Addresses),
    ("domain-search", 24, Names),
    ("nis-server", 27, Addresses),
    ("nis+-server", 28, Addresses),
    ("nis-domain", 29, Names),
    ("nis+-domain", 30, Names),
    ("sntp-server", 31, Addresses),
    ("information-refresh-time", 32, U32),
    ("posix-timezone", 41, Text),
    ("tzdb-timezone", 42, Text),
    ("bootfile-url", 59, Text),
];

/// DHCPv6 options that are the server's alone (RFC 8415, section 21).
const SERVERS_V6: &[u16] = &[0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 14, 25, 26];

/// The code of an option and its value as it goes on the wire. `name` is
/// dnsmasq's name of the option or its number, `text` the value as dnsmasq takes
/// it.
///
/// # Errors
/// What is wrong with name or value, as a clause for users.
///
/// # Examples
/// ```
/// use nve_protocol::Family;
/// use shim::compile::encode_dhcp_option as encode;
///
/// assert_eq!(encode("mtu", Family::Ipv4, "1400"), Ok((26, vec![5, 120])));
/// assert!(encode("mtu", Family::Ipv4, "large").is_err());
/// ```
pub fn encode(name: &str, family: Family, text: &str) -> Result<(u16, Vec<u8>), String> {
    let (code, kind) = find(name, family)?;
    let text = text.trim();
    // As with dnsmasq: not even the one that follows from the subnet is told.
    if text.is_empty() && family == Family::Ipv4 && SUPPRESSIBLE.contains(&code) {
        return Ok((code, Vec::new()));
    }
    let kind = kind.unwrap_or_else(|| guess(text, family));
    let bytes = value(kind, family, text)
        .map_err(|expected| format!("DHCP option {name} takes {expected}, not \"{text}\""))?;
    let most = match family {
        Family::Ipv4 => MAX_V4,
        Family::Ipv6 => MAX_V6,
    };
    if bytes.len() > most {
        return Err(format!("DHCP option {name} takes at most {most} bytes"));
    }
    Ok((code, bytes))
}

fn find(name: &str, family: Family) -> Result<(u16, Option<Kind>), String> {
    let (known, servers, last) = match family {
        Family::Ipv4 => (V4, SERVERS_V4, 254),
        Family::Ipv6 => (V6, SERVERS_V6, u16::MAX),
    };
    let name = name.trim();
    if let Ok(code) = name.parse::<u16>() {
        if servers.contains(&code) || code > last {
            return Err(format!("DHCP option {code} cannot be set"));
        }
        let kind = known.iter().find(|(_, other, _)| *other == code);
        return Ok((code, kind.map(|(_, _, kind)| *kind)));
    }
    known
        .iter()
        .find(|(other, _, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, code, kind)| (*code, Some(*kind)))
        .ok_or_else(|| format!("there is no DHCP option \"{name}\""))
}

/// As dnsmasq takes the value of an option that it does not know.
fn guess(text: &str, family: Family) -> Kind {
    if value(Addresses, family, text).is_ok() {
        return Addresses;
    }
    match text.parse::<u32>() {
        Ok(0..=0xff) => U8,
        Ok(0x100..=0xffff) => U16,
        Ok(_) => U32,
        Err(_) => Octets,
    }
}

/// Bytes of a value, or what it should have been.
fn value(kind: Kind, family: Family, text: &str) -> Result<Vec<u8>, &'static str> {
    match kind {
        Addresses => match family {
            Family::Ipv4 => each(text, ipv4).ok_or("IPv4 addresses separated by commas"),
            Family::Ipv6 => each(text, ipv6).ok_or("IPv6 addresses separated by commas"),
        },
        Text if text.is_empty() => Err("text"),
        Text => Ok(text.into()),
        Names => each(text, dns_name).ok_or("domain names separated by commas"),
        U8 => flag(text)
            .or_else(|| text.parse().ok())
            .map(|number: u8| vec![number])
            .ok_or("a number from 0 to 255"),
        U16 => u16_bytes(text).ok_or("a number from 0 to 65535"),
        U16s => each(text, u16_bytes).ok_or("numbers from 0 to 65535 separated by commas"),
        U32 if text == "infinite" => Ok(u32::MAX.to_be_bytes().into()),
        U32 => u32_bytes(text).ok_or("a number of 32 bits"),
        Routes => routes(text).ok_or("pairs of prefix and router, all separated by commas"),
        Octets if text.is_empty() => Err("octets in hexadecimal with colons, or text"),
        Octets => Ok(octets(text).unwrap_or_else(|| text.into())),
        Empty if text.is_empty() => Ok(Vec::new()),
        Empty => Err("no value"),
        Sip => sip(text).ok_or("domain names or IPv4 addresses separated by commas"),
    }
}

/// The elements of a list one after the other; at least one.
fn each(text: &str, element: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let elements = text
        .split(',')
        .map(|part| element(unbracketed(part.trim())));
    elements.collect::<Option<Vec<_>>>().map(|all| all.concat())
}

/// dnsmasq writes IPv6 addresses in brackets.
fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text)
}

fn ipv4(text: &str) -> Option<Vec<u8>> {
    Some(text.parse::<Ipv4Addr>().ok()?.octets().into())
}

fn ipv6(text: &str) -> Option<Vec<u8>> {
    match text.parse().ok()? {
        IpAddr::V6(ip) => Some(ip.octets().into()),
        IpAddr::V4(_) => None,
    }
}

fn flag(text: &str) -> Option<u8> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(1),
        "false" => Some(0),
        _ => None,
    }
}

fn u16_bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.parse::<u16>().ok()?.to_be_bytes().into())
}

/// Also a negative number, such as an offset of time west of Greenwich.
fn u32_bytes(text: &str) -> Option<Vec<u8>> {
    let unsigned = text.parse::<u32>().map(u32::to_be_bytes);
    let bytes = unsigned.or_else(|_| text.parse::<i32>().map(i32::to_be_bytes));
    Some(bytes.ok()?.into())
}

/// Labels with their lengths and the root at the end.
fn dns_name(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    for label in text.strip_suffix('.').unwrap_or(text).split('.') {
        let is_label = (1..=63).contains(&label.len()) && label.bytes().all(is_name_byte);
        bytes.push(u8::try_from(label.len()).ok().filter(|_| is_label)?);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Each: length of the prefix, its octets that count, the router.
fn routes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut parts = text.split(',').map(str::trim);
    while let Some(destination) = parts.next() {
        let net = match destination.parse::<Ipv4Net>() {
            Ok(net) => net,
            Err(_) => Ipv4Net::from(destination.parse::<Ipv4Addr>().ok()?),
        };
        let router: Ipv4Addr = parts.next()?.parse().ok()?;
        let length = net.prefix_len();
        bytes.push(length);
        let octets = net.network().octets();
        bytes.extend(octets.into_iter().take(usize::from(length.div_ceil(8))));
        bytes.extend(router.octets());
    }
    Some(bytes)
}

/// Octets with colons between them; a single one is text or a number.
fn octets(text: &str) -> Option<Vec<u8>> {
    let octet = |part: &str| match part.len() {
        1 | 2 => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
    octets.filter(|octets| octets.len() > 1)
}

fn sip(text: &str) -> Option<Vec<u8>> {
    let (encoding, servers) = match each(text, ipv4) {
        Some(addresses) => (1, addresses),
        None => (0, each(text, dns_name)?),
    };
    Some([vec![encoding], servers].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(name: &str, text: &str) -> Result<(u16, Vec<u8>), String> {
        encode(name, Family::Ipv4, text)
    }

    #[test]
    fn values_go_by_the_type_of_their_option() {
        let cases: &[(&str, &str, u16, &[u8])] = &[
            (
                "dns-server",
                "192.0.2.1, 192.0.2.2",
                6,
                &[192, 0, 2, 1, 192, 0, 2, 2],
            ),
            ("bootfile-name", "pxelinux.0", 67, b"pxelinux.0"),
            ("67", "7", 67, b"7"),
            ("MTU", "1400", 26, &[5, 120]),
            ("default-ttl", "64", 23, &[64]),
            ("ip-forward-enable", "true", 19, &[1]),
            ("lease-time", "infinite", 51, &[255; 4]),
            ("time-offset", "-3600", 2, &[0xff, 0xff, 0xf1, 0xf0]),
            ("domain-search", "a.bc,d.", 119, b"\x01a\x02bc\0\x01d\0"),
            ("vendor-encap", "1:2:ff", 43, &[1, 2, 255]),
            ("vendor-class", "text", 60, b"text"),
            ("rapid-commit", "", 80, &[]),
            ("router", "", 3, &[]),
            ("sip-server", "192.0.2.9", 120, &[1, 192, 0, 2, 9]),
            ("sip-server", "a.b", 120, b"\0\x01a\x01b\0"),
            (
                "121",
                "10.8.0.0/13,192.0.2.1,0.0.0.0/0,192.0.2.2",
                121,
                &[13, 10, 8, 192, 0, 2, 1, 0, 192, 0, 2, 2],
            ),
            (
                "249",
                "192.0.2.7,192.0.2.1",
                249,
                &[32, 192, 0, 2, 7, 192, 0, 2, 1],
            ),
        ];
        for (name, text, code, bytes) in cases {
            assert_eq!(v4(name, text), Ok((*code, bytes.to_vec())), "{name}={text}");
        }
    }

    #[test]
    fn unknown_numbers_go_by_their_value() {
        assert_eq!(v4("200", "192.0.2.1"), Ok((200, vec![192, 0, 2, 1])));
        assert_eq!(v4("200", "7"), Ok((200, vec![7])));
        assert_eq!(v4("200", "256"), Ok((200, vec![1, 0])));
        assert_eq!(v4("200", "65536"), Ok((200, vec![0, 1, 0, 0])));
        assert_eq!(v4("200", "a:b"), Ok((200, vec![10, 11])));
        assert_eq!(v4("200", "some text"), Ok((200, b"some text".to_vec())));
    }

    #[test]
    fn dhcpv6_has_options_of_its_own() {
        let dns = encode("dns-server", Family::Ipv6, "[2001:db8::1],2001:db8::2");
        let (code, bytes) = dns.unwrap();
        assert_eq!((code, bytes.len(), bytes[15], bytes[31]), (23, 32, 1, 2));
        assert!(encode("dns-server", Family::Ipv6, "192.0.2.1").is_err());
        assert!(encode("hostname", Family::Ipv6, "a").is_err());
        let url = encode("59", Family::Ipv6, "tftp://[2001:db8::1]/a");
        assert_eq!(url, Ok((59, b"tftp://[2001:db8::1]/a".to_vec())));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let long = "x".repeat(256);
        for (name, text) in [
            ("", ""),
            ("no-such-option", "1"),
            ("0", "1"),
            ("53", "1"),
            ("255", "192.0.2.1"),
            ("256", "1"),
            ("65536", "1"),
            ("-1", "1"),
            ("mtu", "65536"),
            ("mtu", ""),
            ("router", "192.0.2.1,"),
            ("router", "2001:db8::1"),
            ("default-ttl", "yes"),
            ("hostname", ""),
            ("hostname", &long),
            ("domain-search", "a..b"),
            ("domain-search", "a b"),
            ("121", "10.0.0.0/8"),
            ("121", "10.0.0.0/33,192.0.2.1"),
            ("rapid-commit", "1"),
        ] {
            assert!(v4(name, text).is_err(), "{name}={text}");
        }
        assert_eq!(
            v4("mtu", "x").unwrap_err(),
            "DHCP option mtu takes a number from 0 to 65535, not \"x\""
        );
    }
}
