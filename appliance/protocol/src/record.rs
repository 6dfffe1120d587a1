//! The records that an appliance's tables are made of.
//!
//! A record is a key and what the key maps to. Putting a record whose key is
//! there replaces it; deleting needs the key alone.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::digest::Hasher;
use crate::types::{Mac, PortId, Vlan, Vni};

/// One VM port on this NVE's trunk. Key: `vlan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vap {
    /// Tag of the port's port group on the trunk.
    pub vlan: Vlan,
    /// The Neutron port.
    pub port: PortId,
    /// Network of the port.
    pub vni: Vni,
    /// The only source address that the VM may use.
    pub mac: Mac,
}

/// A MAC address behind another VTEP. Key: `vni` and `mac`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fdb {
    /// Network in which the address lives.
    pub vni: Vni,
    /// Unicast address of the remote port.
    pub mac: Mac,
    /// Where frames for it are tunnelled.
    pub vtep: IpAddr,
}

/// An IP address and its MAC address, for answering ARP. Key: `vni` and `ip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbor {
    /// Network in which the address lives.
    pub vni: Vni,
    /// The port's address, local or remote.
    pub ip: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
}

/// A VTEP that takes part in a network's head-end replication. Key: all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flood {
    /// The network.
    pub vni: Vni,
    /// A remote VTEP that gets a copy of each frame without one receiver.
    pub vtep: IpAddr,
}

/// A record of any table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A local VM port.
    Vap(Vap),
    /// A remote MAC address.
    Fdb(Fdb),
    /// A known address pair.
    Neighbor(Neighbor),
    /// A replication target.
    Flood(Flood),
}

/// What identifies a [`Record`] in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// Key of [`Vap`].
    Vap {
        /// See [`Vap::vlan`].
        vlan: Vlan,
    },
    /// Key of [`Fdb`].
    Fdb {
        /// See [`Fdb::vni`].
        vni: Vni,
        /// See [`Fdb::mac`].
        mac: Mac,
    },
    /// Key of [`Neighbor`].
    Neighbor {
        /// See [`Neighbor::vni`].
        vni: Vni,
        /// See [`Neighbor::ip`].
        ip: IpAddr,
    },
    /// Key of [`Flood`].
    Flood {
        /// See [`Flood::vni`].
        vni: Vni,
        /// See [`Flood::vtep`].
        vtep: IpAddr,
    },
}

impl Record {
    /// What identifies the record in its table.
    pub const fn key(&self) -> Key {
        match *self {
            Record::Vap(Vap { vlan, .. }) => Key::Vap { vlan },
            Record::Fdb(Fdb { vni, mac, .. }) => Key::Fdb { vni, mac },
            Record::Neighbor(Neighbor { vni, ip, .. }) => Key::Neighbor { vni, ip },
            Record::Flood(Flood { vni, vtep }) => Key::Flood { vni, vtep },
        }
    }

    /// Hash over every field, the same on both ends; summed into a
    /// [`TableDigest`](crate::TableDigest).
    pub fn fingerprint(&self) -> u64 {
        let hash = match self {
            Record::Vap(r) => Hasher::new(1)
                .u32(u32::from(r.vlan.get()))
                .bytes(&r.port.0)
                .u32(r.vni.get())
                .bytes(&r.mac.0),
            Record::Fdb(r) => Hasher::new(2).u32(r.vni.get()).bytes(&r.mac.0).ip(r.vtep),
            Record::Neighbor(r) => Hasher::new(3).u32(r.vni.get()).ip(r.ip).bytes(&r.mac.0),
            Record::Flood(r) => Hasher::new(4).u32(r.vni.get()).ip(r.vtep),
        };
        hash.finish()
    }
}
