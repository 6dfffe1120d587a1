//! An NVE of the lab: its identity, its keys, its boot configuration, its VM.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fabric::{CONTROL_ADDRESS, CONTROL_ADDRESS6, Ports, UNDERLAY_MTU, Underlay};
use crate::netns::Netns;
use crate::qemu::{Accelerator, Machine, Nic, Profile};

/// Memory that an NVE gets, in MiB: what the product promises to be enough.
pub const MEMORY: u32 = 64;

/// MTU of the vSwitch's trunk.
const TRUNK_MTU: u16 = 1500;

/// A static X25519 key pair, each half as 64 hexadecimal digits.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The private half.
    pub private: String,
    /// The public half.
    pub public: String,
}

impl KeyPair {
    /// A new one.
    pub fn generate() -> Result<KeyPair> {
        let pattern = nve_protocol::NOISE_PATTERN.parse()?;
        let pair = snow::Builder::new(pattern).generate_keypair()?;
        Ok(KeyPair {
            private: hex(&pair.private),
            public: hex(&pair.public),
        })
    }
}

/// `bytes` as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an NVE is, apart from its VM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its UUID.
    pub id: Uuid,
    /// Its name, such as `nve-a`.
    pub name: String,
    /// Its VTEP address, whose last number is [`number`](Self::number).
    pub vtep: String,
    /// Number by which its addresses differ from others'.
    pub number: u8,
    /// Version of IP on its uplink.
    pub underlay: Underlay,
    /// Its key pair.
    pub keys: KeyPair,
}

/// An NVE with its VM.
#[derive(Debug)]
pub struct Nve {
    /// What it is.
    pub identity: Identity,
    /// Its VM.
    pub machine: Machine,
}

impl Identity {
    /// Identity of the NVE with that number, whose hypervisor's letter is `letter`.
    pub fn generate(number: u8, letter: char, underlay: Underlay) -> Result<Identity> {
        Ok(Identity {
            id: Uuid::new_v4(),
            name: format!("nve-{letter}"),
            vtep: match underlay {
                Underlay::Ipv4 => format!("192.0.2.{number}"),
                Underlay::Ipv6 => format!("2001:db8::{number}"),
            },
            number,
            underlay,
            keys: KeyPair::generate()?,
        })
    }

    /// MAC address of the trunk or the uplink.
    fn mac(&self, nic: u8) -> String {
        format!("02:00:0e:00:{nic:02x}:{:02x}", self.number)
    }

    /// The boot configuration.
    fn boot_config(&self, shim_public_key: &str) -> Value {
        let (prefix, shim) = match self.underlay {
            Underlay::Ipv4 => (24, CONTROL_ADDRESS.to_owned()),
            Underlay::Ipv6 => (64, format!("[{CONTROL_ADDRESS6}]")),
        };
        json!({
            "nve_id": self.id,
            "name": self.name,
            "log_level": "info",
            "trunk": {"mac": self.mac(1)},
            "uplink": {
                "mac": self.mac(2),
                "address": format!("{}/{prefix}", self.vtep),
                "mtu": UNDERLAY_MTU,
            },
            "shims": [format!("{shim}:{}", nve_protocol::DEFAULT_PORT)],
            "shim_public_key": shim_public_key,
            "private_key": self.keys.private,
        })
    }
}

impl Nve {
    /// Boots `image`, on so many processors, as `identity` on the hypervisor with `ports`.
    pub fn boot(
        identity: Identity,
        shim_public_key: &str,
        (image, processors): (&Path, u8),
        ports: &Ports,
        netns: &Netns,
        dir: &Path,
    ) -> Result<Nve> {
        let config = dir.join(format!("{}.json", identity.name));
        let text = serde_json::to_vec(&identity.boot_config(shim_public_key))?;
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let nic = |tap: &str, number, mtu| Nic {
            tap: tap.to_owned(),
            mac: identity.mac(number),
            mtu,
        };
        let profile = Profile {
            name: identity.name.clone(),
            accelerator: Accelerator::choose(image, dir)?.0,
            image: image.to_owned(),
            config,
            memory: MEMORY * u32::from(processors),
            processors,
            nics: vec![
                nic(&ports.trunk, 1, TRUNK_MTU),
                nic(&ports.uplink, 2, UNDERLAY_MTU),
            ],
        };
        let machine = Machine::start(profile, netns, dir)?;
        Ok(Nve { identity, machine })
    }
}
