//! Records that are looked up by their whole key alone.

use hashbrown::HashMap;
use nve_protocol::{Key, Record};

use super::TableError;
use super::macs::Fast;

/// Records by key.
#[derive(Debug, Default)]
pub(super) struct Plain(HashMap<Key, Record, Fast>);

impl Plain {
    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.0.get(key)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn put(&mut self, record: &Record) -> Result<Option<Record>, TableError> {
        self.0.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
        Ok(self.0.insert(record.key(), *record))
    }

    pub(super) fn delete(&mut self, key: &Key) -> Option<Record> {
        self.0.remove(key)
    }
}
