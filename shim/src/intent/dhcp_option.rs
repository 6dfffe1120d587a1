//! DHCP options of ports (Neutron's extension `extra_dhcp_opt`), by name or number.
//!
//! What is stored can be told to a VM: names and values are those that
//! [`encode_dhcp_option`] takes, and a few [known names](UNTOLD) that are kept untold.

use nve_protocol::Family;
use serde::Deserialize;

use super::IntentError;
use crate::compile::encode_dhcp_option;
use crate::model::DhcpOption;

/// Most options of a port; Neutron has no limit.
pub const MAX_OPTIONS: usize = 64;

/// Names that Neutron's users give and a VM is not told: what they set is the server's
/// own business, or has no form on the wire here. Ironic sends the first with each
/// port.
const UNTOLD: [(Family, &str); 5] = [
    (Family::Ipv4, "server-ip-address"),
    (Family::Ipv4, "client-id"),
    (Family::Ipv6, "client-id"),
    (Family::Ipv6, "ntp-server"),
    (Family::Ipv6, "bootfile-param"),
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

/// The options `old` with those asked for: set, added, or removed.
pub(super) fn merged(
    old: &[DhcpOption],
    requests: Vec<OptionRequest>,
) -> Result<Vec<DhcpOption>, IntentError> {
    let mut options = old.to_vec();
    for request in requests {
        let OptionRequest {
            opt_name,
            opt_value,
            ip_version,
        } = request;
        let same = |o: &DhcpOption| o.opt_name == opt_name && o.ip_version == ip_version;
        let Some(opt_value) = opt_value else {
            options.retain(|option| !same(option));
            continue;
        };
        check(&opt_name, ip_version, &opt_value)?;
        match options.iter_mut().find(|option| same(option)) {
            Some(option) => option.opt_value = opt_value,
            None => options.push(DhcpOption {
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

fn check(name: &str, ip_version: u8, value: &str) -> Result<(), IntentError> {
    let refused = |reason: &str| IntentError::InvalidInput(format!("extra_dhcp_opts: {reason}"));
    let family = match ip_version {
        4 => Family::Ipv4,
        6 => Family::Ipv6,
        other => return Err(refused(&format!("ip_version is 4 or 6, not {other}"))),
    };
    if value.contains(['\n', '\r', '\0']) {
        return Err(refused(&format!("the value of '{name}' must be one line")));
    }
    if UNTOLD.contains(&(family, name)) {
        return Ok(());
    }
    let encoded = encode_dhcp_option(name, family, value);
    encoded.map(drop).map_err(|reason| refused(&reason))
}
