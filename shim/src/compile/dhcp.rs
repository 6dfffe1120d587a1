//! DHCP options of a port: its own, and its name and domain.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nve_protocol::{DhcpOption, Family, OptionValue, Vlan};

use super::dhcp_options::encode;
use crate::model::{Network, Port};

/// DHCPv4 options of host name and domain name (RFC 2132, sections 3.14 and 3.17).
const HOST_NAME: u16 = 12;
const DOMAIN_NAME: u16 = 15;

/// The options of a port that is attached with that tag, in pieces. What the user
/// set wins over what follows from the port's name; an option that makes no sense
/// was refused before it was stored, except by older versions: it is left out.
pub(super) fn options(port: &Port, network: &Network, vlan: Vlan) -> Vec<DhcpOption> {
    let mut values: BTreeMap<(Family, u16), Vec<u8>> = BTreeMap::new();
    for option in &port.extra_dhcp_opts {
        let family = match option.ip_version {
            6 => Family::Ipv6,
            _ => Family::Ipv4,
        };
        if let Ok((code, value)) = encode(&option.opt_name, family, &option.opt_value) {
            values.insert((family, code), value);
        }
    }
    let domain = network.dns_domain.trim_end_matches('.');
    let defaults = [(HOST_NAME, host_name(port)), (DOMAIN_NAME, some(domain))];
    for (code, text) in defaults {
        if let Some(text) = text {
            values
                .entry((Family::Ipv4, code))
                .or_insert_with(|| text.into_bytes());
        }
    }
    values
        .iter()
        .flat_map(|((family, code), value)| pieces(vlan, *family, *code, value))
        .collect()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The port's name, or else one like `host-10-0-0-5` of its first IPv4 address, as
/// Neutron has it.
fn host_name(port: &Port) -> Option<String> {
    some(&port.dns_name).or_else(|| {
        let mut addresses = port.fixed_ips.iter().map(|fixed| fixed.ip_address);
        let ipv4 = addresses.find(IpAddr::is_ipv4)?;
        Some(format!("host-{}", ipv4.to_string().replace('.', "-")))
    })
}

/// At least one, also of a value without bytes.
fn pieces(vlan: Vlan, family: Family, code: u16, value: &[u8]) -> impl Iterator<Item = DhcpOption> {
    let empty = value.is_empty().then_some(&[][..]);
    let chunks = value.chunks(OptionValue::MAX).chain(empty);
    (0..=u8::MAX).zip(chunks).filter_map(move |(part, bytes)| {
        let value = OptionValue::new(bytes)?;
        Some(DhcpOption {
            vlan,
            family,
            code,
            part,
            value,
        })
    })
}
