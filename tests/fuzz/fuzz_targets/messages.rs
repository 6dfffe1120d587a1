//! Control messages, as they come out of the Noise channel: any bytes are messages
//! or an error, what is decoded is encoded to the same, and any records at all
//! keep the tables' digest and sizes right.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use nve_datapath::{TableError, Tables};
use nve_protocol::{Key, Record, TableDigest, TableSizes, ToNve, ToShim, codec};

/// Few, so that tables get full.
const CAPACITY: u32 = 8;

fuzz_target!(|bytes: &[u8]| {
    let _ = codec::decode::<ToShim>(bytes);
    let mut tables = Tables::new(TableSizes::uniform(CAPACITY));
    let mut records: BTreeMap<Key, Record> = BTreeMap::new();
    let mut rest = bytes;
    while let Ok(Some((message, next))) = codec::decode::<ToNve>(rest) {
        rest = next;
        let mut room = [0; codec::MAX_MESSAGE];
        let length = codec::encode(&message, &mut room).expect("every message fits");
        let again = codec::decode::<ToNve>(&room[..length]);
        assert!(matches!(again, Ok(Some((same, []))) if same == message));
        match message {
            ToNve::Put(record) => match tables.put(&record) {
                Ok(replaced) => assert_eq!(replaced, records.insert(record.key(), record)),
                Err(TableError::Full) => assert!(!records.contains_key(&record.key())),
                Err(TableError::BadRecord | TableError::OutOfMemory) => {}
            },
            ToNve::Delete(key) => assert_eq!(tables.delete(&key), records.remove(&key)),
            ToNve::Welcome(_) | ToNve::Begin(_) | ToNve::Commit(_) | ToNve::Ping(_) => {}
        }
        let digest: TableDigest = records.values().collect();
        assert_eq!(tables.digest(), digest);
    }
});
