//! A store that forgets, for tests and trials.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::record::{Kind, Record};
use super::{Store, StoreError};
use crate::model::Mutation;

/// Rows by table and key.
type Rows = BTreeMap<(&'static str, String), (Kind, Vec<u8>)>;

/// Keeps everything in memory, through the same encoding as the durable stores.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: Mutex<Rows>,
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Vec<Mutation>, StoreError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter()
            .map(|((_, key), (kind, value))| kind.decode(key, value))
            .collect()
    }

    fn commit(&self, mutations: &[Mutation]) -> Result<(), StoreError> {
        let records: Vec<Record> = mutations.iter().map(Record::of).collect::<Result<_, _>>()?;
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            let key = (record.kind.table(), record.key);
            match record.value {
                Some(value) => rows.insert(key, (record.kind, value)),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn settle(&self) -> Result<bool, StoreError> {
        // It cannot fail after it has begun, so nothing is ever in doubt.
        Ok(false)
    }
}
