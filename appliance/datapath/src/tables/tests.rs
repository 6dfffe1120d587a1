//! The tables against a plain map of records.

extern crate std;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use nve_protocol::inspect::Place;
use nve_protocol::{
    Dns, HostRoute, Limit, OptionValue, Prefix, Presence, Route, Subnet, Table, Vap,
};

use super::*;

const CAPACITY: TableSizes = TableSizes {
    fdb: 12,
    neighbors: 12,
    ..TableSizes::uniform(8)
};

fn vni() -> impl Strategy<Value = Vni> {
    (1u32..4).prop_map(|id| Vni::new(id).unwrap())
}

fn mac() -> impl Strategy<Value = Mac> {
    (0u8..6).prop_map(|last| Mac([2, 0, 0, 0, 0, last]))
}

fn vtep() -> impl Strategy<Value = IpAddr> {
    (1u8..6).prop_map(|last| IpAddr::from([192, 0, 2, last]))
}

fn presence() -> impl Strategy<Value = Presence> {
    prop_oneof![
        2 => Just(Presence::Active),
        2 => Just(Presence::Standby),
        1 => Just(Presence::Departed),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let vlan = (1u16..12).prop_map(|id| Vlan::new(id).unwrap());
    let port = (0u8..2).prop_map(|last| nve_protocol::PortId([last; 16]));
    prop_oneof![
        (vlan, port, vni(), mac(), presence()).prop_map(|(vlan, port, vni, mac, presence)| {
            Record::Vap(Vap {
                vlan,
                port,
                vni,
                mac,
                port_security: true,
                presence,
            })
        }),
        (vni(), mac(), vtep()).prop_map(|(vni, mac, vtep)| Record::Fdb(Fdb { vni, mac, vtep })),
        (vni(), any::<bool>(), 0u8..9, mac()).prop_map(|(vni, six, last, mac)| {
            let v4 = std::net::Ipv4Addr::new(10, 0, 0, last);
            let ip = if six {
                v4.to_ipv6_mapped().into()
            } else {
                v4.into()
            };
            Record::Neighbor(Neighbor { vni, ip, mac })
        }),
        (vni(), vtep()).prop_map(|(vni, vtep)| Record::Flood(Flood { vni, vtep })),
        (vni(), vtep()).prop_map(|(vni, vtep)| Record::Peer(Peer { vni, vtep })),
        (vni(), address(), 16u8..30, router(), mac()).prop_map(|(vni, ip, length, router, mac)| {
            Record::Gateway(Gateway {
                vni,
                ip,
                prefix: Prefix::around(ip, length).unwrap(),
                mac,
                router,
            })
        }),
        (router(), address(), 0u8..30, address()).prop_map(|(router, ip, length, next_hop)| {
            Record::Route(Route {
                router,
                destination: Prefix::around(ip, length).unwrap(),
                next_hop,
            })
        }),
        (vni(), 1280u16..1300)
            .prop_map(|(vni, mtu)| Record::Network(nve_protocol::Network { vni, mtu })),
        (1u16..12, 0u32..3, 0u32..3, proptest::option::of(0u8..64)).prop_map(
            |(id, kbps, pps, dscp)| Record::Qos(Qos {
                vlan: Vlan::new(id).unwrap(),
                egress: Limit {
                    kbps,
                    ..Limit::default()
                },
                ingress: Limit {
                    pps,
                    ..Limit::default()
                },
                dscp,
            })
        ),
        told(),
    ]
}

/// Records that make what VMs may use and are told.
fn told() -> impl Strategy<Value = Record> {
    let vlan = || (1u16..4).prop_map(|id| Vlan::new(id).unwrap());
    let prefix = || address().prop_map(|ip| Prefix::around(ip, 24).unwrap());
    let family = prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)];
    let value = any::<u8>().prop_map(|byte| OptionValue::new(&[byte]).unwrap());
    prop_oneof![
        (vlan(), mac(), prefix(), any::<bool>()).prop_map(|(vlan, mac, prefix, fixed)| {
            Record::Address(Address {
                vlan,
                mac,
                prefix,
                fixed,
            })
        }),
        (vni(), prefix(), any::<bool>()).prop_map(|(vni, prefix, dhcp)| {
            Record::Subnet(Subnet {
                vni,
                prefix,
                dhcp,
                gateway: None,
                ra_mode: None,
                address_mode: None,
            })
        }),
        (vni(), prefix(), 0u8..3, address()).prop_map(|(vni, subnet, index, server)| {
            Record::Dns(Dns {
                vni,
                subnet,
                index,
                server,
            })
        }),
        (vni(), prefix(), prefix(), address()).prop_map(|(vni, subnet, destination, next_hop)| {
            Record::HostRoute(HostRoute {
                vni,
                subnet,
                destination,
                next_hop,
            })
        }),
        (vlan(), family, 1u16..3, 0u8..3, value).prop_map(|(vlan, family, code, part, value)| {
            Record::DhcpOption(DhcpOption {
                vlan,
                family,
                code,
                part,
                value,
            })
        }),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..3, 0u8..3).prop_map(|(a, b)| IpAddr::from([10, 0, a, b])),
        (0u16..3, 0u16..3).prop_map(|(a, b)| IpAddr::from([0x2001, a, 0, 0, 0, 0, 0, b])),
    ]
}

fn router() -> impl Strategy<Value = RouterId> {
    (0u8..3).prop_map(|id| RouterId([id; 16]))
}

/// The hop by a look at every record.
fn slow_hop(model: &BTreeMap<Key, Record>, id: RouterId, ip: IpAddr) -> Option<(IpAddr, Prefix)> {
    let interfaces = || {
        model.values().filter_map(move |record| match record {
            Record::Gateway(gateway) if gateway.router == id => Some(gateway),
            _ => None,
        })
    };
    let connected = interfaces().filter(|gateway| gateway.prefix.contains(ip));
    let connected = connected.map(|gateway| (gateway.prefix.length(), 1, ip, gateway.prefix));
    let routes = model.values().filter_map(|record| match record {
        Record::Route(route) if route.router == id && route.destination.contains(ip) => Some((
            route.destination.length(),
            0,
            route.next_hop,
            route.destination,
        )),
        _ => None,
    });
    let (_, _, next_hop, prefix) = connected
        .chain(routes)
        .max_by_key(|(length, own, ..)| (*length, *own))?;
    interfaces()
        .any(|gateway| gateway.prefix.contains(next_hop))
        .then_some((next_hop, prefix))
}

fn check_told(tables: &Tables, record: &Record) {
    match record {
        Record::Network(r) => assert_eq!(tables.mtu(r.vni), r.mtu),
        Record::Address(r) => assert!(tables.addresses(r.vlan).contains(r)),
        Record::Subnet(r) => {
            let services = tables.services(r.vni).unwrap();
            assert_eq!(services.subnet_of(r.prefix.address()), Some(r));
        }
        Record::Dns(r) => {
            let dns = tables.services(r.vni).unwrap().dns(r.subnet);
            assert!(dns.contains(r) && dns.is_sorted_by_key(|dns| dns.index));
            assert!(dns.iter().all(|dns| dns.subnet == r.subnet));
        }
        Record::HostRoute(r) => {
            let routes = tables.services(r.vni).unwrap().routes(r.subnet);
            assert!(routes.contains(r));
            assert!(routes.iter().all(|route| route.subnet == r.subnet));
        }
        Record::DhcpOption(r) => {
            let options = tables.dhcp_options(r.vlan, r.family);
            assert!(options.contains(r));
            assert!(options.is_sorted_by_key(|option| (option.code, option.part)));
            assert!(options.iter().all(|option| option.family == r.family));
        }
        _ => {}
    }
}

/// Which addresses are here, and which were.
fn check_stations(tables: &Tables, model: &BTreeMap<Key, Record>) {
    let all = || {
        model.values().filter_map(|record| match record {
            Record::Vap(vap) => Some(vap),
            _ => None,
        })
    };
    for vni in (1..4).map(|id| Vni::new(id).unwrap()) {
        for mac in (0..6).map(|last| Mac([2, 0, 0, 0, 0, last])) {
            let mut own = all().filter(|vap| (vap.vni, vap.mac) == (vni, mac));
            let is_here = own.clone().any(|vap| tables.is_here(vap));
            assert_eq!(tables.local(vni, mac).is_some(), is_here);
            let was_here = own.any(|vap| vap.presence == Presence::Departed);
            assert_eq!(tables.is_departed(vni, mac), was_here);
        }
    }
}

fn check(tables: &Tables, model: &BTreeMap<Key, Record>) {
    assert_eq!(tables.digest(), model.values().collect());
    let mut named = Vec::new();
    for record in model.values() {
        match record {
            Record::Vap(r) => {
                assert_eq!(tables.vap(r.vlan.get()), Some(r));
                let here = tables.is_here(r);
                assert!(here || r.presence != Presence::Active);
                assert!(!here || r.presence != Presence::Departed);
                assert!(!here || tables.local(r.vni, r.mac).is_some());
                let network = tables.network(r.vni);
                let members = network.map(Network::vaps).unwrap_or_default();
                assert_eq!(members.contains(&r.vlan), here);
            }
            Record::Fdb(r) => {
                let index = tables.remote(r.vni, r.mac).unwrap();
                assert_eq!(tables.vtep(index), Some(r.vtep));
                named.push(r.vtep);
            }
            Record::Neighbor(r) => assert_eq!(tables.neighbor(r.vni, r.ip), Some(r.mac)),
            Record::Flood(r) => {
                let index = tables.vtep_index(r.vtep).unwrap();
                assert!(tables.network(r.vni).unwrap().has_vtep(index));
                named.push(r.vtep);
            }
            Record::Peer(r) => {
                let index = tables.vtep_index(r.vtep).unwrap();
                assert!(tables.network(r.vni).unwrap().accepts(index));
                named.push(r.vtep);
            }
            Record::Gateway(r) => {
                assert_eq!(tables.gateway(r.vni, r.ip), Some(r));
                assert!(tables.gateways(r.vni).contains(r));
                assert!(tables.is_router_address(r.router, r.ip));
            }
            Record::Qos(r) => {
                assert_eq!(tables.qos(r.vlan), Some(r));
                let egress = tables.meter(r.vlan, Direction::Egress);
                assert_eq!(egress.is_some(), r.egress.kbps > 0);
                let ingress = tables.meter(r.vlan, Direction::Ingress);
                assert_eq!(ingress.is_some(), r.ingress.pps > 0);
            }
            other => check_told(tables, other),
        }
    }
    check_stations(tables, model);
    for id in (0..3).map(|id| RouterId([id; 16])) {
        for ip in [[10, 0, 1, 1], [10, 0, 2, 200], [10, 9, 0, 1]].map(IpAddr::from) {
            let hop = tables.hop(id, ip).map(|hop| (hop.next_hop, hop.prefix));
            assert_eq!(hop, slow_hop(model, id, ip));
        }
    }
    named.sort();
    named.dedup();
    let mut slots: Vec<IpAddr> = tables.vteps().flatten().collect();
    slots.sort();
    assert_eq!(slots, named);
    for table in Table::ALL {
        let records = model.values().filter(|record| record.table() == *table);
        assert_eq!(tables.sizes().get(*table), records.count() as u32);
    }
}

proptest! {
    #[test]
    fn agree_with_a_map(
        operations in proptest::collection::vec((any::<bool>(), record(), 0u16..12), 1..200),
    ) {
        let mut tables = Tables::new(CAPACITY);
        let mut model = BTreeMap::new();
        for (put, record, heard) in operations {
            if let Some(vap) = tables.vap(heard).copied() {
                tables.wake(&place(&vap)).unwrap();
                assert_eq!(tables.is_here(&vap), vap.presence != Presence::Departed);
            }
            if put {
                match tables.put(&record) {
                    Ok(replaced) => assert_eq!(replaced, model.insert(record.key(), record)),
                    Err(error) => {
                        assert_eq!(error, TableError::Full);
                        assert!(!model.contains_key(&record.key()));
                    }
                }
            } else {
                assert_eq!(tables.delete(&record.key()), model.remove(&record.key()));
            }
            check(&tables, &model);
        }
        for key in model.keys() {
            tables.delete(key);
        }
        assert_eq!(tables.digest(), TableDigest::default());
        assert!(tables.network(Vni::new(1).unwrap()).is_none());
        assert!(tables.services(Vni::new(1).unwrap()).is_none());
    }
}

fn place(vap: &Vap) -> Place {
    Place {
        vlan: vap.vlan,
        port: vap.port,
    }
}

#[test]
fn useless_records_are_refused() {
    let mut tables = Tables::new(CAPACITY);
    let vni = Vni::new(1).unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let vtep = IpAddr::from([192, 0, 2, 1]);
    for bad in [
        Record::Fdb(Fdb {
            vni,
            mac: Mac::BROADCAST,
            vtep,
        }),
        Record::Fdb(Fdb {
            vni,
            mac,
            vtep: IpAddr::from([0, 0, 0, 0]),
        }),
        Record::Flood(Flood {
            vni,
            vtep: IpAddr::from([224, 0, 0, 1]),
        }),
        Record::Neighbor(Neighbor {
            vni,
            ip: vtep,
            mac: Mac([0; 6]),
        }),
        Record::Qos(Qos {
            dscp: Some(64),
            ..limited(1, 1)
        }),
    ] {
        assert_eq!(tables.put(&bad), Err(TableError::BadRecord));
    }
    assert_eq!(tables.sizes(), TableSizes::default());
}

fn limited(vlan: u16, packets: u32) -> Qos {
    let limit = Limit {
        pps: 1,
        burst_packets: packets,
        ..Limit::default()
    };
    Qos {
        vlan: Vlan::new(vlan).unwrap(),
        egress: limit,
        ingress: Limit::default(),
        dscp: None,
    }
}

#[test]
fn meters_go_by_vap_and_direction() {
    let mut tables = Tables::new(CAPACITY);
    let put = |tables: &mut Tables, qos| tables.put(&Record::Qos(qos)).unwrap();
    let passing = |tables: &mut Tables, vlan| {
        let vlan = Vlan::new(vlan).unwrap();
        let meter = tables.meter(vlan, Direction::Egress).unwrap();
        (0..).find(|_| !tables.admit(meter, Nanos(1), 60))
    };
    put(&mut tables, limited(1, 3));
    put(&mut tables, limited(2, 5));
    let [first, second] = [1, 2].map(|vlan| Vlan::new(vlan).unwrap());
    assert_eq!(tables.meter(first, Direction::Ingress), None);
    assert_eq!(passing(&mut tables, 1), Some(3));
    assert_eq!(passing(&mut tables, 2), Some(5));
    put(&mut tables, limited(1, 30));
    assert_eq!(passing(&mut tables, 1), Some(0), "as empty as before");
    let mut other = Tables::new(CAPACITY);
    put(&mut other, limited(3, 3));
    put(&mut other, limited(1, 3));
    tables.replace(other);
    assert_eq!(passing(&mut tables, 1), Some(0), "in a full state, too");
    assert_eq!(passing(&mut tables, 3), Some(3));
    put(&mut tables, limited(2, 5));
    let gone = tables.meter(second, Direction::Egress).unwrap();
    tables.delete(&Key::Qos { vlan: second });
    assert!(tables.admit(gone, Nanos(1), 60));
    assert_eq!(tables.meter(second, Direction::Egress), None);
}
