use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::intent::network;
use crate::model::Network;
use crate::store::MemoryStore;

/// A store shared with the test, which can be told to fail and to be slow.
#[derive(Clone, Default)]
struct Probe {
    store: Arc<MemoryStore>,
    fails: Arc<AtomicBool>,
    doubt: Arc<StdMutex<Doubt>>,
    slow: bool,
}

/// How a store leaves a commit in doubt.
#[derive(Clone, Copy, Default)]
struct Doubt {
    /// Whether it does.
    begins: bool,
    /// Whether the commit is made nevertheless.
    makes: bool,
    /// What it then finds out, if it can.
    found: Option<bool>,
}

impl Store for Probe {
    fn load(&self) -> Result<Vec<Mutation>, StoreError> {
        self.store.load()
    }

    fn commit(&self, mutations: &[Mutation]) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Failed("no space left on device".into()));
        }
        if self.slow {
            std::thread::sleep(Duration::from_millis(50));
        }
        let doubt = *self.doubt.lock().unwrap();
        if doubt.makes || !doubt.begins {
            self.store.commit(mutations)?;
        }
        match doubt.begins {
            true => Err(StoreError::InDoubt("input/output error".into())),
            false => Ok(()),
        }
    }

    fn settle(&self) -> Result<bool, StoreError> {
        let found = self.doubt.lock().unwrap().found;
        found.ok_or_else(|| StoreError::Failed("it cannot be opened".into()))
    }
}

fn open(probe: &Probe) -> Controller {
    Controller::open(Box::new(probe.clone()), Settings::default()).unwrap()
}

async fn create(controller: &Controller) -> Result<Network, TransactError> {
    let planner = controller.clone();
    controller
        .transact(move |state| {
            let request = json!({"admin_state_up": true, "shared": false, "mtu": 0,
                "port_security_enabled": true});
            let request = serde_json::from_value(request).expect("a full request");
            Ok(network::create(state, planner.context(), request)?)
        })
        .await
}

#[tokio::test]
async fn an_acknowledged_change_is_durable_visible_and_told() {
    let probe = Probe::default();
    let controller = open(&probe);
    let told = Arc::new(StdMutex::new(Vec::new()));
    let ears = told.clone();
    controller.on_applied(Box::new(move |state, mutations| {
        ears.lock()
            .unwrap()
            .push((state.networks().count(), mutations.to_vec()));
    }));
    let made = create(&controller).await.unwrap();
    let put = vec![Mutation::PutNetwork(made.clone())];
    assert_eq!(probe.load().unwrap(), put);
    assert_eq!(
        controller.read(|s| s.network(made.common.id).cloned()),
        Some(made)
    );
    assert_eq!(*told.lock().unwrap(), [(1, put)]);
    assert_eq!(*open(&probe).snapshot(), *controller.snapshot());
}

#[tokio::test]
async fn a_change_that_is_refused_or_cannot_be_stored_changes_nothing() {
    let probe = Probe::default();
    let controller = open(&probe);
    controller.on_applied(Box::new(|_, _| panic!("nothing was applied")));
    let refused: Result<(), TransactError> = controller
        .transact(|state| Ok(network::delete(state, Uuid::nil())?))
        .await;
    assert!(matches!(refused, Err(TransactError::Refused(_))));
    probe.fails.store(true, Ordering::SeqCst);
    let failed = create(&controller).await;
    assert!(matches!(failed, Err(TransactError::Store(_))));
    assert_eq!(*controller.snapshot(), State::default());
}

#[tokio::test]
async fn while_a_change_is_in_doubt_no_other_is_taken() {
    for makes in [true, false] {
        let probe = Probe::default();
        let controller = open(&probe);
        let told = Arc::new(StdMutex::new(0));
        let ears = told.clone();
        controller.on_applied(Box::new(move |_, _| *ears.lock().unwrap() += 1));
        let doubt = |begins, found| {
            *probe.doubt.lock().unwrap() = Doubt {
                begins,
                makes,
                found,
            };
        };
        doubt(true, None);
        let failed = create(&controller).await;
        let error = failed.unwrap_err();
        assert!(matches!(
            error,
            TransactError::Store(StoreError::InDoubt(_))
        ));
        // The store could take the next, but what that is to be planned on is not known.
        doubt(false, None);
        assert!(create(&controller).await.is_err());
        assert_eq!(controller.read(|s| s.networks().count()), 0);
        doubt(false, Some(makes));
        create(&controller).await.unwrap();
        let changes = 1 + usize::from(makes);
        assert_eq!(controller.read(|s| s.networks().count()), changes);
        assert_eq!(*told.lock().unwrap(), changes);
        assert_eq!(*open(&probe).snapshot(), *controller.snapshot());
        // It is asked once.
        doubt(false, None);
        create(&controller).await.unwrap();
    }
}

#[tokio::test]
async fn a_requester_that_goes_away_leaves_memory_and_store_agreeing() {
    let probe = Probe {
        slow: true,
        ..Probe::default()
    };
    let controller = open(&probe);
    let gone = tokio::time::timeout(Duration::from_millis(10), create(&controller)).await;
    assert!(gone.is_err(), "the requester did not wait");
    let second = create(&controller).await.unwrap();
    assert_eq!(controller.read(|s| s.networks().count()), 2);
    assert_eq!(*open(&probe).snapshot(), *controller.snapshot());
    assert!(controller.read(|s| s.network(second.common.id).is_some()));
}

#[tokio::test]
async fn a_planner_that_panics_hurts_only_its_request() {
    let controller = open(&Probe::default());
    let failed: Result<(), TransactError> =
        controller.transact(|_| panic!("a planner failed")).await;
    assert!(matches!(failed, Err(TransactError::Interrupted)));
    create(&controller).await.unwrap();
}
