//! Control messages, as they come out of the Noise channel: any bytes are messages
//! or an error, what is decoded is encoded to the same, any records at all keep the
//! tables' digest and sizes right, and any question has a bounded answer.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use nve_datapath::{Config, Datapath, Nanos, TableError, Tables, Uplink, connections};
use nve_protocol::inspect::{Answer, Ask, MAX_PARTS, Part};
use nve_protocol::{Key, Mac, Record, TableDigest, TableSizes, ToNve, ToShim, codec};

/// Few, so that tables get full.
const CAPACITY: u32 = 8;

fn datapath() -> Datapath {
    let config = Config {
        uplink: Uplink {
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            address: [192, 0, 2, 11].into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
        },
        trunk_mtu: 1500,
        trunk_checksum: false,
        flows: 64,
        seed: 7,
        connections: connections::Config {
            connections: 64,
            connections_per_vap: 32,
            fragments: 16,
            seed: 8,
            timeouts: connections::Timeouts::default(),
        },
    };
    Datapath::new(config, Tables::new(TableSizes::uniform(CAPACITY)))
}

fn check_answer(datapath: &mut Datapath, ask: &Ask) {
    let parts = datapath.answer(Nanos(1), &ask.question).into_list();
    assert!(parts.len() <= MAX_PARTS);
    let is_end = |part: &Part| matches!(part, Part::Done(_) | Part::Failed(_));
    assert_eq!(parts.iter().position(is_end), Some(parts.len() - 1));
    for part in parts {
        let number = ask.number;
        let mut room = [0; codec::MAX_MESSAGE];
        let message = ToShim::Answer(Answer { number, part });
        codec::encode(&message, &mut room).expect("every message fits");
    }
}

fn check_to_shim(bytes: &[u8]) {
    if let Ok(Some((message, _))) = codec::decode::<ToShim>(bytes) {
        let mut room = [0; codec::MAX_MESSAGE];
        let length = codec::encode(&message, &mut room).expect("every message fits");
        let again = codec::decode::<ToShim>(&room[..length]);
        assert!(matches!(again, Ok(Some((same, []))) if same == message));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check_to_shim(bytes);
    let mut datapath = datapath();
    let mut records: BTreeMap<Key, Record> = BTreeMap::new();
    let mut rest = bytes;
    while let Ok(Some((message, next))) = codec::decode::<ToNve>(rest) {
        rest = next;
        let mut room = [0; codec::MAX_MESSAGE];
        let length = codec::encode(&message, &mut room).expect("every message fits");
        let again = codec::decode::<ToNve>(&room[..length]);
        assert!(matches!(again, Ok(Some((same, []))) if same == message));
        match message {
            ToNve::Put(record) => match datapath.update(Nanos(1), |tables| tables.put(&record)) {
                Ok(replaced) => assert_eq!(replaced, records.insert(record.key(), record)),
                Err(TableError::Full) => assert!(!records.contains_key(&record.key())),
                Err(TableError::BadRecord | TableError::OutOfMemory) => {}
            },
            ToNve::Delete(key) => {
                let deleted = datapath.update(Nanos(1), |tables| tables.delete(&key));
                assert_eq!(deleted, records.remove(&key));
            }
            ToNve::Ask(ask) => check_answer(&mut datapath, &ask),
            ToNve::TakeOver(told) => datapath.take_over(Nanos(1), &told),
            ToNve::Welcome(_) | ToNve::Begin(_) | ToNve::Commit(_) | ToNve::Ping(_) => {}
        }
        let digest: TableDigest = records.values().collect();
        assert_eq!(datapath.tables().digest(), digest);
    }
});
