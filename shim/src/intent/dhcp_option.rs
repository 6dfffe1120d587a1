//! DHCP options of ports (Neutron's extension `extra_dhcp_opt`), by name or number.
//!
//! Names are those that dnsmasq has for the options of DHCP (RFC 2132 and later,
//! IANA's `bootp-dhcp-parameters`) and DHCPv6 (IANA's `dhcpv6-parameters`), since
//! Neutron's users write them for it.

use serde::Deserialize;

use super::IntentError;
use crate::model::DhcpOption;

/// Most options of a port; Neutron has no limit.
pub const MAX_OPTIONS: usize = 64;

/// Not an option: the address of the boot server in the header (`siaddr`), for which
/// dnsmasq uses the number of the end mark.
pub const SERVER_ADDRESS: u16 = 255;

const V4: [(&str, u16); 59] = [
    ("netmask", 1),
    ("time-offset", 2),
    ("router", 3),
    ("dns-server", 6),
    ("log-server", 7),
    ("lpr-server", 9),
    ("hostname", 12),
    ("boot-file-size", 13),
    ("domain-name", 15),
    ("swap-server", 16),
    ("root-path", 17),
    ("extension-path", 18),
    ("ip-forward-enable", 19),
    ("non-local-source-routing", 20),
    ("policy-filter", 21),
    ("max-datagram-reassembly", 22),
    ("default-ttl", 23),
    ("mtu", 26),
    ("all-subnets-local", 27),
    ("broadcast", 28),
    ("router-discovery", 31),
    ("router-solicitation", 32),
    ("static-route", 33),
    ("trailer-encapsulation", 34),
    ("arp-timeout", 35),
    ("ethernet-encap", 36),
    ("tcp-ttl", 37),
    ("tcp-keepalive", 38),
    ("nis-domain", 40),
    ("nis-server", 41),
    ("ntp-server", 42),
    ("vendor-encap", 43),
    ("netbios-ns", 44),
    ("netbios-dd", 45),
    ("netbios-nodetype", 46),
    ("netbios-scope", 47),
    ("x-windows-fs", 48),
    ("x-windows-dm", 49),
    ("lease-time", 51),
    ("T1", 58),
    ("T2", 59),
    ("vendor-class", 60),
    ("client-id", 61),
    ("nis+-domain", 64),
    ("nis+-server", 65),
    ("tftp-server", 66),
    ("bootfile-name", 67),
    ("mobile-ip-home", 68),
    ("smtp-server", 69),
    ("pop3-server", 70),
    ("nntp-server", 71),
    ("irc-server", 74),
    ("posix-timezone", 100),
    ("tzdb-timezone", 101),
    ("domain-search", 119),
    ("sip-server", 120),
    ("classless-static-route", 121),
    ("tftp-server-address", 150),
    ("server-ip-address", SERVER_ADDRESS),
];

const V6: [(&str, u16); 14] = [
    ("client-id", 1),
    ("sip-server-domain", 21),
    ("sip-server", 22),
    ("dns-server", 23),
    ("domain-search", 24),
    ("nis-server", 27),
    ("nis+-server", 28),
    ("nis-domain", 29),
    ("nis+-domain", 30),
    ("sntp-server", 31),
    ("information-refresh-time", 32),
    ("ntp-server", 56),
    ("bootfile-url", 59),
    ("bootfile-param", 60),
];

/// An element of `extra_dhcp_opts` as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OptionRequest {
    /// Name or number.
    pub opt_name: String,
    /// Value; none removes the option.
    pub opt_value: Option<String>,
    /// 4 or 6.
    #[serde(default = "four")]
    pub ip_version: u8,
}

const fn four() -> u8 {
    4
}

/// The option's number: 1 to 254, or [`SERVER_ADDRESS`], for IP version 4, 16 bits
/// for 6.
pub fn number(name: &str, ip_version: u8) -> Option<u16> {
    let (names, last) = match ip_version {
        6 => (&V6[..], u16::MAX),
        _ => (&V4[..], 254),
    };
    let known = names
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, number)| *number);
    let numbered = || {
        let number = name.parse().ok();
        number.filter(|number| (1..=last).contains(number))
    };
    known.or_else(numbered)
}

/// The options `old` with those asked for: set, added, or removed.
pub(super) fn merged(
    old: &[DhcpOption],
    requests: Vec<OptionRequest>,
) -> Result<Vec<DhcpOption>, IntentError> {
    let mut options = old.to_vec();
    for request in requests {
        check(&request)?;
        let OptionRequest {
            opt_name,
            opt_value,
            ip_version,
        } = request;
        let same = |o: &DhcpOption| o.opt_name == opt_name && o.ip_version == ip_version;
        let place = options.iter().position(same);
        match (place.and_then(|at| options.get_mut(at)), opt_value) {
            (Some(option), Some(value)) => option.opt_value = value,
            (Some(_), None) => options.retain(|option| !same(option)),
            (None, None) => {}
            (None, Some(opt_value)) => options.push(DhcpOption {
                opt_name,
                opt_value,
                ip_version,
            }),
        }
    }
    match options.len() > MAX_OPTIONS {
        true => Err(IntentError::InvalidInput(format!(
            "a port has at most {MAX_OPTIONS} extra_dhcp_opts"
        ))),
        false => Ok(options),
    }
}

fn check(request: &OptionRequest) -> Result<(), IntentError> {
    let OptionRequest {
        opt_name: name,
        opt_value: value,
        ip_version,
    } = request;
    if number(name, *ip_version).is_none() {
        return Err(IntentError::InvalidInput(format!(
            "extra_dhcp_opts: there is no DHCP option '{name}' for IP version {ip_version}; \
             give dnsmasq's name for it, or its number"
        )));
    }
    // An empty value keeps a DHCP server from sending these.
    let may_be_empty = matches!(name.as_str(), "router" | "classless-static-route");
    let text = value.as_deref().unwrap_or("-");
    if text.contains(['\n', '\r', '\0']) || (text.is_empty() && !may_be_empty) {
        return Err(IntentError::InvalidInput(format!(
            "extra_dhcp_opts: the value of '{name}' must be one line that is not empty"
        )));
    }
    Ok(())
}
