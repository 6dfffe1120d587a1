//! Which event types each user has registered (the paper, TABLE I).
//!
//! Invariant: what [`Registrations::change`] has answered is on the disk.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::store::{Registered, Store, StoreError};
use crate::events::types::EventType;

/// The registrations of all users.
#[derive(Debug)]
pub struct Registrations {
    store: Arc<Store>,
    /// Held over a change, so that changes of one user do not undo each other.
    writer: Mutex<()>,
    registered: RwLock<Registered>,
}

impl Registrations {
    /// Reads them from `store`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(store: Arc<Store>) -> Result<Self, StoreError> {
        Ok(Registrations {
            registered: RwLock::new(store.registrations()?),
            writer: Mutex::default(),
            store,
        })
    }

    /// The types that `user` has registered.
    pub fn of(&self, user: &str) -> BTreeSet<EventType> {
        let registered = self
            .registered
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        registered.get(user).cloned().unwrap_or_default()
    }

    /// Whether `user` has registered `kind`.
    pub fn contain(&self, user: &str, kind: EventType) -> bool {
        let registered = self
            .registered
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        registered
            .get(user)
            .is_some_and(|types| types.contains(&kind))
    }

    /// Registers (`wanted`) or deregisters a type; done already is no error. Blocks.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub fn change(&self, user: &str, kind: EventType, wanted: bool) -> Result<(), StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut types = self.of(user);
        let changed = match wanted {
            true => types.insert(kind),
            false => types.remove(&kind),
        };
        if !changed {
            return Ok(());
        }
        self.store.put_registrations(user, &types)?;
        self.registered
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(user.to_owned(), types);
        Ok(())
    }
}
