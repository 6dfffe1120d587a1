//! The daemon's configuration file (TOML).
//!
//! Every key is optional and its default works; a key that is not known is refused.
//! [`EXAMPLE`] shows all of them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nve_protocol::{Vlan, Vni};
use serde::Deserialize;

use crate::auth::{Credentials, Secret, SecretError, UserConfig};
use crate::http::client::check_url;
use crate::intent::{IpVersion, OVERHEAD_IPV6, Settings, TagRules};

/// All keys with their defaults, and one hypervisor manager.
pub const EXAMPLE: &str = r#"# Where intent, placement and keys are kept.
data_dir = "/var/lib/sluice"

[northbound]            # REST: Neutron under /v2.0, operations under /v1
listen = "127.0.0.1:9696"

[southbound]            # NVEs connect here
listen = "0.0.0.0:6653"
#key_file = "/etc/sluice/shim.key"   # made if absent; shim.key in data_dir by default

[network]
underlay_mtu = 1500     # bytes of an IP packet between VTEPs
overlay_ip_version = 4  # 6 if any VTEP has an IPv6 address: its header is longer
vni_range = [4096, 16777215]
base_mac = "fa:16:3e:00:00:00"

[vlan]                  # tags of ports (segmentation_id)
reserved = []           # tags that no port gets, like [[1, 1], [4000, 4094]]
quarantine_seconds = 300    # for which a tag that a port has left is no other's

[log]
level = "info"          # or like "info,shim::northbound=debug"
format = "text"         # or "json"

# One per hypervisor manager whose VM lifecycle events are followed.
#[[managers]]
#name = "lab"
#url = "http://127.0.0.1:9697"
#username = "shim"
#password_file = "/etc/sluice/lab.password"

# One per user who may post events to /v1/controllers/{controller_id}/events.
#[[users]]
#username = "openstack"
#password_file = "/etc/sluice/openstack.password"
"#;

/// IPv4's minimum reassembly size is 576; a network needs that much to be of use.
const MIN_UNDERLAY_MTU: u16 = 576 + OVERHEAD_IPV6;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no TOML of the right shape.
    #[error("{path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what, over several lines.
        reason: String,
    },
    /// A value is impossible.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A manager's password is missing.
    #[error("managers: {0}")]
    Manager(#[from] SecretError),
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of durable state.
    pub data_dir: PathBuf,
    /// REST interfaces.
    pub northbound: Northbound,
    /// Interface to NVEs.
    pub southbound: Southbound,
    /// Networks' limits.
    pub network: Network,
    /// VLAN tags of ports.
    pub vlan: Vlans,
    /// Hypervisor managers.
    pub managers: Vec<Manager>,
    /// Who may post events.
    pub users: Vec<UserConfig>,
    /// Log.
    pub log: Log,
}

/// `[northbound]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Northbound {
    /// Where the REST interfaces are.
    pub listen: SocketAddr,
}

/// `[southbound]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Southbound {
    /// Where NVEs connect to.
    pub listen: SocketAddr,
    /// The shim's private key, made at the first start; `shim.key` in `data_dir` if
    /// absent.
    pub key_file: Option<PathBuf>,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Bytes of an IP packet that the underlay carries.
    pub underlay_mtu: u16,
    /// Newest version of IP that VTEPs have; networks leave room for its header.
    pub overlay_ip_version: IpVersion,
    /// First and last VNI that is allocated by itself.
    pub vni_range: [u32; 2],
    /// Generated MAC addresses begin with its first three octets.
    pub base_mac: nve_protocol::Mac,
}

/// `[vlan]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vlans {
    /// First and last of each range of tags that no port gets.
    pub reserved: Vec<[u16; 2]>,
    /// For how long a tag that a port has left is no other's, seconds.
    pub quarantine_seconds: u32,
}

/// `[[managers]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manager {
    /// Name for people; unique, and the same for ever: the store remembers by it how
    /// far its events were taken.
    pub name: String,
    /// Root of its event interface.
    pub url: String,
    /// User name for digest authentication.
    pub username: String,
    /// Password; or give `password_file`.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged, as `tracing`'s filters say it.
    pub level: String,
    /// How.
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: "/var/lib/sluice".into(),
            northbound: Northbound::default(),
            southbound: Southbound::default(),
            network: Network::default(),
            vlan: Vlans::default(),
            managers: Vec::new(),
            users: Vec::new(),
            log: Log::default(),
        }
    }
}

impl Default for Northbound {
    fn default() -> Self {
        Northbound {
            listen: SocketAddr::from(([127, 0, 0, 1], 9696)),
        }
    }
}

impl Default for Southbound {
    fn default() -> Self {
        Southbound {
            listen: SocketAddr::from(([0, 0, 0, 0], 6653)),
            key_file: None,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        let Settings {
            underlay_mtu,
            overlay,
            vni_range,
            base_mac: [a, b, c],
            tags: _,
        } = Settings::default();
        Network {
            underlay_mtu,
            overlay_ip_version: overlay,
            vni_range: [*vni_range.start(), *vni_range.end()],
            base_mac: nve_protocol::Mac([a, b, c, 0, 0, 0]),
        }
    }
}

impl Default for Vlans {
    fn default() -> Self {
        let TagRules {
            reserved,
            quarantine,
        } = Settings::default().tags;
        let reserved = reserved.iter().map(|range| [*range.start(), *range.end()]);
        Vlans {
            reserved: reserved.collect(),
            quarantine_seconds: quarantine.whole_seconds().try_into().unwrap_or(u32::MAX),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// With the key and, for malformed text, its line.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let config: Config = read(path)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let network = &self.network;
        if network.underlay_mtu < MIN_UNDERLAY_MTU {
            return Err(ConfigError::Value {
                key: "network.underlay_mtu",
                reason: format!("{MIN_UNDERLAY_MTU} is the least"),
            });
        }
        let [first, last] = network.vni_range;
        if first > last || last > Vni::MAX {
            return Err(ConfigError::Value {
                key: "network.vni_range",
                reason: format!("give [first, last] with first <= last <= {}", Vni::MAX),
            });
        }
        if !network.base_mac.is_unicast() {
            return Err(ConfigError::Value {
                key: "network.base_mac",
                reason: format!("{} is not the address of a station", network.base_mac),
            });
        }
        self.check_vlans()?;
        self.check_managers()
    }

    fn check_vlans(&self) -> Result<(), ConfigError> {
        let is_usable = |[first, last]: &[u16; 2]| first <= last && *last <= Vlan::MAX;
        let tags = self.settings().tags;
        let all = (1..=Vlan::MAX).filter_map(Vlan::new);
        let reason = if !self.vlan.reserved.iter().all(is_usable) {
            format!("give [first, last] with first <= last <= {}", Vlan::MAX)
        } else if all.into_iter().all(|tag| tags.is_reserved(tag)) {
            "it leaves no tag for ports".to_owned()
        } else {
            return Ok(());
        };
        Err(ConfigError::Value {
            key: "vlan.reserved",
            reason,
        })
    }

    fn check_managers(&self) -> Result<(), ConfigError> {
        let mut names = HashSet::new();
        for manager in &self.managers {
            if manager.name.is_empty() || !names.insert(&manager.name) {
                return Err(ConfigError::Value {
                    key: "managers.name",
                    reason: format!("{:?} is empty or there twice", manager.name),
                });
            }
            check_url(&manager.url).map_err(|error| ConfigError::Value {
                key: "managers.url",
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// What planning depends on.
    pub fn settings(&self) -> Settings {
        let [first, last] = self.network.vni_range;
        let nve_protocol::Mac([a, b, c, ..]) = self.network.base_mac;
        Settings {
            underlay_mtu: self.network.underlay_mtu,
            overlay: self.network.overlay_ip_version,
            vni_range: first..=last,
            base_mac: [a, b, c],
            tags: TagRules {
                reserved: self.vlan.reserved.iter().map(|[a, b]| *a..=*b).collect(),
                quarantine: time::Duration::seconds(self.vlan.quarantine_seconds.into()),
            },
        }
    }
}

impl Manager {
    /// Reads the password.
    ///
    /// # Errors
    /// If it is given not at all, twice, or in a file that is of no use.
    pub fn credentials(&self) -> Result<Credentials, SecretError> {
        let whose = format!("manager {:?}", self.name);
        let password = Secret::resolve(
            &whose,
            self.password.as_ref(),
            self.password_file.as_deref(),
        )?;
        Credentials::new(&self.username, password)
    }
}

/// Reads a configuration file of any kind.
///
/// # Errors
/// When it cannot be read, and when it has not the right shape: with the line.
pub fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        Config::load(file.path())
    }

    #[test]
    fn nothing_and_the_example_give_the_defaults() {
        assert_eq!(load("").unwrap(), Config::default());
        assert_eq!(load(EXAMPLE).unwrap(), Config::default());
        assert_eq!(Config::default().settings(), Settings::default());
    }

    #[test]
    fn the_examples_manager_and_user_are_such() {
        // Explanations have a space after the `#`, entries have none.
        let uncommented = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(entry) if !entry.starts_with(' ') => entry,
            _ => line,
        });
        let config = load(&uncommented.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(config.managers[0].name, "lab");
        assert!(config.managers[0].credentials().is_err(), "no such file");
        assert_eq!(config.users[0].username, "openstack");
    }

    #[test]
    fn mistakes_are_told_with_their_key() {
        let manager = |rest: &str| {
            format!("[[managers]]\nname = \"a\"\nusername = \"u\"\npassword = \"p\"\n{rest}")
        };
        for (text, expected) in [
            ("typo = 1", "typo"),
            ("[northbound]\nport = 1", "port"),
            ("[northbound]\nlisten = \"here\"", "listen"),
            ("[network]\nvni_range = [5, 4]", "network.vni_range"),
            ("[network]\nvni_range = [5, 16777216]", "network.vni_range"),
            ("[network]\nunderlay_mtu = 100", "network.underlay_mtu"),
            ("[network]\noverlay_ip_version = 5", "4 or 6"),
            (
                "[network]\nbase_mac = \"01:00:00:00:00:00\"",
                "network.base_mac",
            ),
            ("[vlan]\nreserved = [[9, 4095]]", "vlan.reserved"),
            ("[vlan]\nreserved = [[1, 4094]]", "vlan.reserved"),
            ("[log]\nformat = \"xml\"", "format"),
            (&manager("url = \"ftp://x\""), "managers.url"),
            (&manager("url = \"http://u:p@x\""), "managers.url"),
            (
                &manager(&format!(
                    "url = \"http://x\"\n{}",
                    manager("url = \"http://y\"")
                )),
                "managers.name",
            ),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = Config::load(Path::new("/nonexistent/shim.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/shim.toml"));
    }

    #[test]
    fn passwords_are_not_shown() {
        let text = "[[managers]]\nname = \"a\"\nurl = \"http://u:hunter2@x\"\n\
                    username = \"u\"\npassword = \"p\"";
        let error = load(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        let text = "[[managers]]\nname = \"a\"\nurl = \"http://x\"\n\
                    username = \"u\"\npassword = \"hunter2\"";
        let config = load(text).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
