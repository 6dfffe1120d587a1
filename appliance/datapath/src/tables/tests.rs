//! The tables against a plain map of records.

extern crate std;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::vec::Vec;

use proptest::prelude::*;

use nve_protocol::Table;

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

fn record() -> impl Strategy<Value = Record> {
    let vlan = (1u16..12).prop_map(|id| Vlan::new(id).unwrap());
    let port = any::<u8>().prop_map(|last| nve_protocol::PortId([last; 16]));
    prop_oneof![
        (vlan, port, vni(), mac()).prop_map(|(vlan, port, vni, mac)| Record::Vap(Vap {
            vlan,
            port,
            vni,
            mac,
            port_security: true,
        })),
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
        (vni(), 1280u16..1300)
            .prop_map(|(vni, mtu)| Record::Network(nve_protocol::Network { vni, mtu })),
    ]
}

fn check(tables: &Tables, model: &BTreeMap<Key, Record>) {
    assert_eq!(tables.digest(), model.values().collect());
    let mut named = Vec::new();
    for record in model.values() {
        match record {
            Record::Vap(r) => {
                assert_eq!(tables.vap(r.vlan.get()), Some(r));
                assert!(tables.local(r.vni, r.mac).is_some());
                assert!(tables.network(r.vni).unwrap().vaps().contains(&r.vlan));
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
            _ => {}
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
    fn agree_with_a_map(operations in proptest::collection::vec((any::<bool>(), record()), 1..200)) {
        let mut tables = Tables::new(CAPACITY);
        let mut model = BTreeMap::new();
        for (put, record) in operations {
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
    ] {
        assert_eq!(tables.put(&bad), Err(TableError::BadRecord));
    }
    assert_eq!(tables.sizes(), TableSizes::default());
}
