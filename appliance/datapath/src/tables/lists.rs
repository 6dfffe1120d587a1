//! Sorted lists of records, for those that are looked up by a part of their key.

use alloc::vec::Vec;
use core::mem;

use super::TableError;

/// A record with the part of its key that orders it within a list.
pub(super) trait Listed: Copy {
    /// What no two records of one list share.
    type Key: Ord;

    fn key(&self) -> Self::Key;
}

/// Puts a record where it belongs and returns the one that it replaces. Without
/// memory for it, the list is as before.
pub(super) fn put<T: Listed>(list: &mut Vec<T>, record: T) -> Result<Option<T>, TableError> {
    match find(list, &record.key()) {
        Ok(at) => Ok(list.get_mut(at).map(|old| mem::replace(old, record))),
        Err(at) => {
            list.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
            list.insert(at, record);
            Ok(None)
        }
    }
}

/// Takes a record out; memory that is mostly unused goes back.
pub(super) fn take<T: Listed>(list: &mut Vec<T>, key: &T::Key) -> Option<T> {
    let at = find(list, key).ok()?;
    let record = list.remove(at);
    if list.capacity() > 4 && list.len() <= list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
    Some(record)
}

/// Whether there is a record with this key.
pub(super) fn contains<T: Listed>(list: &[T], key: &T::Key) -> bool {
    find(list, key).is_ok()
}

fn find<T: Listed>(list: &[T], key: &T::Key) -> Result<usize, usize> {
    list.binary_search_by(|record| record.key().cmp(key))
}
