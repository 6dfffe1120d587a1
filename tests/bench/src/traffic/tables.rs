//! What our NVE is told: its tables and its boot configuration.

use std::net::{IpAddr, Ipv4Addr};

use nve_protocol::{
    Address, Binding, Direction, Family, Fdb, Gateway, Group, GroupId, Limit, Mac, Member,
    Neighbor, Peer, PortId, Prefix, Presence, Qos, Record, Remote, RouterId, Rule, RuleId, Vap,
    Vlan, Vni,
};
use serde_json::json;

use super::network::{
    BLUE, MAX_PAIRS, Network, PEER, Pair, RED, SHIM, TRUNK_MAC, UPLINK_MAC, VTEP, Vm, pair,
};
use super::scenario::Scenario;

/// The group of all VMs in stateful scenarios.
const GROUP: GroupId = GroupId([0xaa; 16]);
/// The router between the networks.
const ROUTER: RouterId = RouterId([0xbb; 16]);

/// Kilobits per second that a VM may send, or get: never reached.
pub(super) const LIMIT_KBPS: u32 = 100_000_000;

const UDP: u8 = 17;

/// Bits of the networks' prefixes.
const PREFIX: u8 = 24;

/// The records of our NVE in this scenario; none in the one without work.
///
/// In stateful scenarios each packet passes one meter: that of its sender where
/// that is on our NVE, else that of its receiver.
pub fn records(scenario: Scenario) -> Vec<Record> {
    let Scenario::Nve { place, stateful } = scenario else {
        return Vec::new();
    };
    let mut records = Vec::new();
    for number in 0..MAX_PAIRS {
        let Pair { first, second } = pair(place, number);
        for vm in [first, second] {
            records.extend(station(&vm));
            if let Some(vlan) = vm.vlan.and_then(Vlan::new) {
                records.push(vap(&vm, vlan, stateful));
                if stateful {
                    records.extend(restrictions(&vm, vlan, place.is_across()));
                }
            }
        }
    }
    if stateful {
        records.extend(group());
    }
    if place.is_routed() {
        records.extend([RED, BLUE].map(|network| gateway(&network)));
    }
    if place.is_across() {
        records.extend([RED, BLUE].map(|network| peer(&network)));
    }
    records
}

/// VMs whose coming and going changes the tables, and how many of them are here; the
/// first one's tag.
const OTHERS: u16 = 550;
const OTHERS_HERE: u16 = 50;
const OTHERS_VLAN: u16 = 2_000;

/// What other VMs of the same network and the same group bring with them: none of it is
/// in [`records`]. Most of them are behind the other NVE: MAC address, neighbor, member.
pub fn other_records() -> Vec<Record> {
    (0..OTHERS).flat_map(other_vm).collect()
}

fn other_vm(number: u16) -> Vec<Record> {
    let [high, low] = number.to_be_bytes();
    let vm = Vm {
        network: RED,
        mac: Mac([0xfa, 0x16, 0x3e, 0xee, high, low]),
        ip: Ipv4Addr::new(10, 9, high, low),
        vlan: (number < OTHERS_HERE).then_some(OTHERS_VLAN + number),
    };
    let prefix = Prefix::host(vm.ip.into());
    let member = Member {
        group: GROUP,
        prefix,
    };
    let mut records = station(&vm);
    records.push(Record::Member(member));
    if let Some(vlan) = vm.vlan.and_then(Vlan::new) {
        records.push(self::vap(&vm, vlan, true));
        records.extend(restrictions(&vm, vlan, true));
    }
    records
}

fn vni(network: &Network) -> Vni {
    Vni::new(network.vni).expect("the networks' identifiers have 24 bits")
}

/// Where a VM is, for switching and routing to it.
fn station(vm: &Vm) -> Vec<Record> {
    let (vni, mac) = (vni(&vm.network), vm.mac);
    let ip = vm.ip.into();
    let neighbor = Record::Neighbor(Neighbor { vni, ip, mac });
    let vtep = PEER.into();
    match vm.vlan {
        Some(_) => vec![neighbor],
        None => vec![neighbor, Record::Fdb(Fdb { vni, mac, vtep })],
    }
}

fn vap(vm: &Vm, vlan: Vlan, port_security: bool) -> Record {
    let [low, high] = vlan.get().to_be_bytes();
    let mut port = [0xcc; 16];
    port[14..].copy_from_slice(&[low, high]);
    Record::Vap(Vap {
        vlan,
        port: PortId(port),
        vni: vni(&vm.network),
        mac: vm.mac,
        port_security,
        presence: Presence::Active,
    })
}

/// What holds a VM in: its addresses, its group, its meter.
fn restrictions(vm: &Vm, vlan: Vlan, across: bool) -> [Record; 3] {
    let limit = Limit {
        kbps: LIMIT_KBPS,
        ..Limit::default()
    };
    [
        Record::Address(Address {
            vlan,
            mac: vm.mac,
            prefix: Prefix::host(vm.ip.into()),
            fixed: true,
        }),
        Record::Binding(Binding { vlan, group: GROUP }),
        Record::Qos(Qos {
            vlan,
            egress: limit,
            ingress: if across { limit } else { Limit::default() },
            dscp: None,
        }),
    ]
}

/// A stateful group that allows UDP both ways.
fn group() -> Vec<Record> {
    let rule = |direction, id| {
        Record::Rule(Rule {
            id: RuleId([id; 16]),
            group: GROUP,
            direction,
            family: Family::Ipv4,
            protocol: Some(UDP),
            low: 0,
            high: u16::MAX,
            remote: Remote::Any,
        })
    };
    vec![
        Record::Group(Group {
            group: GROUP,
            stateful: true,
        }),
        rule(Direction::Ingress, 1),
        rule(Direction::Egress, 2),
    ]
}

fn gateway(network: &Network) -> Record {
    let ip = IpAddr::from(network.gateway());
    Record::Gateway(Gateway {
        vni: vni(network),
        ip,
        prefix: Prefix::around(ip, PREFIX).expect("an IPv4 address has 24 bits"),
        mac: network.gateway_mac,
        router: ROUTER,
    })
}

/// The other NVE may send into the network.
fn peer(network: &Network) -> Record {
    Record::Peer(Peer {
        vni: vni(network),
        vtep: PEER.into(),
    })
}

/// The identity of our NVE, a UUID.
pub const NVE_ID: &str = "9c1e3a52-0000-4000-8000-0000000000be";
/// Its private key, 64 hexadecimal digits.
pub const NVE_KEY: &str = "2222222222222222222222222222222222222222222222222222222222222222";
/// Port at which the shim listens.
pub const SHIM_PORT: u16 = 6653;

/// The boot configuration of our NVE, as JSON. Its NICs are told by
/// [`TRUNK_MAC`] and [`UPLINK_MAC`]; its shim is at [`SHIM`] and has this public key,
/// 64 hexadecimal digits, if there is one.
pub fn boot_configuration(shim_key: Option<&str>) -> String {
    let nobody = "11".repeat(32);
    json!({
        "nve_id": NVE_ID,
        "name": "bench",
        "log_level": "warn",
        "trunk": { "mac": TRUNK_MAC.to_string() },
        "uplink": {
            "mac": UPLINK_MAC.to_string(),
            "address": format!("{VTEP}/{PREFIX}"),
            "mtu": 1600,
        },
        "shims": [format!("{SHIM}:{SHIM_PORT}")],
        "shim_public_key": shim_key.unwrap_or(&nobody),
        "private_key": NVE_KEY,
    })
    .to_string()
}
