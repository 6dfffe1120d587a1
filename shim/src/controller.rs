//! The one place where the state changes.
//!
//! A change goes: plan against the newest state, store durably, apply in memory,
//! tell the hook, acknowledge. Writers go one after the other; readers work on
//! snapshots and wait for nobody.
//!
//! Invariant: memory holds what the store holds, in the order of the store's commits.
//! A change that has begun is carried to its end even if the requester goes away. If the
//! store cannot tell whether a change is in it, no other is taken until it can; then that
//! change is applied late, or never was.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::intent::{Context, IntentError, Plan, Settings, State};
use crate::model::Mutation;
use crate::store::{Store, StoreError};

/// Told of every change once it is durable and visible: the state after it, and what
/// changed. Called by one writer at a time, so it should be quick.
pub type OnApplied = Box<dyn Fn(&State, &[Mutation]) + Send + Sync>;

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TransactError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] IntentError),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shim failed while it carried the change out.
    #[error("the shim failed on this request; its log says why")]
    Interrupted,
}

/// Shared handle on state and store.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    store: Box<dyn Store>,
    state: RwLock<Arc<State>>,
    /// The writers' turn, and the change before it if that is in doubt.
    writer: Arc<Mutex<Option<Vec<Mutation>>>>,
    on_applied: OnceLock<OnApplied>,
}

impl Controller {
    /// Loads what the store has.
    pub fn open(store: Box<dyn Store>, settings: Settings) -> Result<Controller, StoreError> {
        let state = State::replay(&store.load()?);
        Ok(Controller {
            shared: Arc::new(Shared {
                settings,
                store,
                state: RwLock::new(Arc::new(state)),
                writer: Arc::default(),
                on_applied: OnceLock::new(),
            }),
        })
    }

    /// Has `hook` told of every change from now on; only the first hook counts.
    pub fn on_applied(&self, hook: OnApplied) {
        if self.shared.on_applied.set(hook).is_err() {
            tracing::error!("a second hook for applied changes is ignored");
        }
    }

    /// What planning depends on besides the state.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The rules and the present moment.
    pub fn context(&self) -> Context<'_> {
        Context {
            settings: &self.shared.settings,
            now: OffsetDateTime::now_utc(),
        }
    }

    /// The state as it is now; it does not change any more.
    pub fn snapshot(&self) -> Arc<State> {
        self.shared.snapshot()
    }

    /// Looks at the state as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.snapshot())
    }

    /// Plans and carries out a change; returns the plan's result once the change is
    /// durable and visible.
    pub async fn transact<T, E, F>(&self, plan: F) -> Result<T, E>
    where
        F: FnOnce(&State) -> Result<Plan<T>, E> + Send + 'static,
        T: Send + 'static,
        E: From<TransactError> + Send + 'static,
    {
        let turn = self.shared.writer.clone().lock_owned().await;
        let shared = self.shared.clone();
        let work = move || {
            let mut turn = turn;
            shared.transact(&mut turn, plan)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "a change was interrupted");
                Err(TransactError::Interrupted.into())
            }
        }
    }
}

impl Shared {
    fn snapshot(&self) -> Arc<State> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state)
    }

    /// One change from plan to hook, in the writers' turn.
    fn transact<T, E: From<TransactError>>(
        &self,
        in_doubt: &mut Option<Vec<Mutation>>,
        plan: impl FnOnce(&State) -> Result<Plan<T>, E>,
    ) -> Result<T, E> {
        self.settle(in_doubt).map_err(TransactError::Store)?;
        let Plan { mutations, result } = plan(&self.snapshot())?;
        if mutations.is_empty() {
            return Ok(result);
        }
        if let Err(error) = self.store.commit(&mutations) {
            tracing::error!(%error, "a change could not be stored");
            if matches!(error, StoreError::InDoubt(_)) {
                *in_doubt = Some(mutations);
            }
            return Err(TransactError::Store(error).into());
        }
        self.apply(&mutations);
        Ok(result)
    }

    /// Finds out whether a change that was in doubt is in the store.
    fn settle(&self, in_doubt: &mut Option<Vec<Mutation>>) -> Result<(), StoreError> {
        let Some(mutations) = in_doubt else {
            return Ok(());
        };
        let is_in = self.store.settle().inspect_err(|error| {
            tracing::error!(%error, "no change is taken: one before it is in doubt");
        })?;
        tracing::warn!(
            is_in,
            "it is known whether a change that was in doubt is made"
        );
        if is_in {
            self.apply(mutations);
        }
        *in_doubt = None;
        Ok(())
    }

    /// What is in the store comes into memory and is told.
    fn apply(&self, mutations: &[Mutation]) {
        let mut after = State::clone(&self.snapshot());
        for mutation in mutations {
            after.apply(mutation);
        }
        let after = Arc::new(after);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&after);
        if let Some(hook) = self.on_applied.get() {
            hook(&after, mutations);
        }
    }
}

#[cfg(test)]
mod tests;
