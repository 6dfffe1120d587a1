//! Between the appliance's own sessions and datapaths, over sockets of this machine.

use tokio::net::TcpListener;

use super::*;
use crate::model::{Nve, Port};
use crate::southbound::testing::{NativeConfig, NativeNve};
use crate::southbound::{self, AskError, KeyPair};

/// A shim with two NVEs; VM 1 with port 1 runs at the first.
struct Site {
    fabric: Fabric,
    nves: [NativeConfig; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Site {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Site {
    async fn new() -> Site {
        let store = Box::new(MemoryStore::default());
        let controller = Controller::open(store, Settings::default()).unwrap();
        let fabric = Fabric::new(controller, Arc::default());
        let [shim, one, two] = [(); 3].map(|()| KeyPair::generate().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = |n: u8, keys: &KeyPair| {
            NativeConfig::new(id(3, n), keys.clone(), *shim.public(), address)
        };
        let nves = [config(1, &one), config(2, &two)];
        let mutations = [(1, &one), (2, &two)].map(|(n, keys)| {
            Mutation::PutNve(Nve {
                public_key: keys.public_hex(),
                ..nve(n)
            })
        });
        let guarded = Port {
            port_security_enabled: true,
            ..port(1, 1, 1, true)
        };
        let mut mutations = mutations.to_vec();
        mutations.extend([
            Mutation::PutNetwork(network(1, true)),
            Mutation::PutPort(guarded),
            Mutation::PutVm(vm(1, 1, VmStatus::Running, &[1], 1)),
        ]);
        let plan = Plan {
            mutations,
            result: (),
        };
        let done: Result<(), TransactError> = fabric.controller().transact(|_| Ok(plan)).await;
        done.unwrap();
        let serving = southbound::serve(
            listener,
            shim,
            southbound::Config::default(),
            Arc::new(fabric.clone()),
            Arc::clone(fabric.registry()),
        );
        Site {
            tasks: [
                tokio::spawn(serving),
                tokio::spawn(run(fabric.clone(), TIMING)),
            ],
            fabric,
            nves,
        }
    }

    async fn tell(&self, kind: &str, host: u8, second: i64) {
        let placed = vm(1, host, VmStatus::Running, &[1], second);
        let event = LifecycleEvent {
            event_id: Uuid::new_v4(),
            timestamp: placed.as_of,
            event_type: kind.parse().unwrap(),
            vm: placed.vm,
            destination_host_name: None,
        };
        self.fabric.take_event("lab", event).await.unwrap();
    }

    /// Waits until both NVEs have all that they should.
    async fn in_sync(&self) {
        eventually("in sync", || {
            self.nves.iter().all(|config| {
                let status = self.fabric.registry().status(config.nve);
                status.is_some_and(|status| status.in_sync)
            })
        })
        .await;
    }

    /// How many connections an NVE knows of port 1; none without its VAP.
    async fn knows(&self, nve: u8) -> Option<usize> {
        let (mut cursor, mut count) = (0, 0);
        loop {
            let question = Question::Handover(Handover {
                place: place(1),
                cursor,
                within_ms: u32::MAX,
            });
            match self.fabric.registry().ask(id(3, nve), question).await {
                Ok(reply) => {
                    let is_one = |part: &&Part| matches!(part, Part::Known(Known::Connection(_)));
                    count += reply.parts.iter().filter(is_one).count();
                    cursor = reply.done.next;
                    if !reply.done.more {
                        return Some(count);
                    }
                }
                Err(AskError::Failed(Failure::NoVap)) => return None,
                Err(error) => panic!("NVE {nve} {error}"),
            }
        }
    }

    /// Waits until an NVE knows so many.
    async fn await_known(&self, nve: u8, count: Option<usize>) {
        let begun = Instant::now();
        while self.knows(nve).await != count {
            assert!(begun.elapsed() < LIMIT, "NVE {nve}, {count:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn departed(&self) -> Option<Departed> {
        let find = |state: &crate::intent::State| state.vm(id(5, 1)).cloned();
        self.fabric.controller().read(find).unwrap().departed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_wakes_where_its_connections_are_known_already() {
    let site = Site::new().await;
    let first = NativeNve::start(&site.nves[0]).unwrap();
    let second = NativeNve::start(&site.nves[1]).unwrap();
    site.in_sync().await;
    // It is away for a moment, in which traffic goes on.
    let session = || site.fabric.registry().session(id(3, 1));
    let before = session();
    let mut first = first.stop().unwrap();
    for number in 0..200 {
        let (place, known) = (place(1), connection(number));
        first.take_over(&TakeOver { place, known });
    }
    let _first = first.start().unwrap();
    eventually("connected", || session() > before).await;
    assert_eq!(site.knows(1).await, Some(200));
    assert_eq!(site.knows(2).await, None);

    site.tell("livemigratetestart", 1, 5).await;
    assert_eq!(site.fabric.asides(id(2, 1)).len(), 1);
    site.await_known(2, Some(200)).await;
    let mut second = second.stop().unwrap();
    second.wake(&place(1));
    let _second = second.start().unwrap();
    eventually("awake", || {
        site.fabric.place(id(2, 1)) == Some((id(3, 2), tag(1)))
    })
    .await;
    eventually("forgotten", || site.departed().is_none()).await;
    // Tables follow the state.
    eventually("no VAP aside", || site.fabric.asides(id(2, 1)).is_empty()).await;
    site.await_known(1, None).await;
    assert_eq!(site.knows(2).await, Some(200));
    site.tell("livemigratefinish", 2, 6).await;
    assert_eq!(site.departed(), None);
    assert_eq!(site.fabric.moves().borrow().len(), 0);
}
