//! Between NVEs that answer by a script.

use std::time::Instant;

use nve_protocol::handover::{Connection, Handover, Known, Level, TakeOver};
use nve_protocol::inspect::{ConnectionState, Done, Failure, Part, Place, Question};
use nve_protocol::{Direction, PortId, RuleId};
use tokio::task::JoinHandle;

use super::*;
use crate::compile::tests::{id, network, nve, port, tag, vm};
use crate::controller::{Controller, TransactError};
use crate::events::types::{LifecycleEvent, VmStatus};
use crate::intent::{Plan, Settings};
use crate::model::Mutation;
use crate::southbound::testing::ScriptedNve;
use crate::southbound::{NveDirectory, Reply};
use crate::store::MemoryStore;

mod native;

/// Longest wait for what should come soon.
const LIMIT: Duration = Duration::from_secs(20);
/// Connections that an NVE tells at once.
const PAGE: u64 = 3;

const TIMING: Timing = Timing {
    interval: Duration::from_millis(40),
    overlap: Duration::from_millis(30),
    poll: Duration::from_millis(5),
    last_copy: Duration::from_secs(10),
    patience: Duration::from_secs(30),
    in_flight: Duration::from_millis(10),
};

/// VM 1 with ports 1 and 2 on host 1; VM 2 with port 3 in the same network on host 3.
struct Bench {
    fabric: Fabric,
    asked: Arc<Mutex<Vec<Handover>>>,
    /// Port of which NVE 1 says that it has no such VAP.
    mute: Option<Uuid>,
    second: i64,
    running: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Bench {
    async fn new(timing: Timing) -> Bench {
        let store = Box::new(MemoryStore::default());
        let controller = Controller::open(store, Settings::default()).unwrap();
        let fabric = Fabric::new(controller, Arc::default());
        let running = tokio::spawn(run(fabric.clone(), timing));
        let bench = Bench {
            fabric,
            asked: Arc::default(),
            mute: None,
            second: 1,
            running,
        };
        let mut mutations = vec![Mutation::PutNetwork(network(1, true))];
        mutations.extend((1..4).map(|n| Mutation::PutNve(nve(n))));
        mutations.extend((1..4).map(|n| Mutation::PutPort(port(n, 1, 1, true))));
        mutations.push(Mutation::PutVm(vm(1, 1, VmStatus::Running, &[1, 2], 1)));
        mutations.push(Mutation::PutVm(vm(2, 3, VmStatus::Running, &[3], 1)));
        let plan = Plan {
            mutations,
            result: (),
        };
        let done: Result<(), TransactError> =
            bench.fabric.controller().transact(|_| Ok(plan)).await;
        done.unwrap();
        bench
    }

    /// Connects an NVE that tells of seven connections of each VAP.
    fn connect(&self, nve: u8) -> ScriptedNve {
        let (asked, mute) = (Arc::clone(&self.asked), self.mute);
        let script = move |question: &Question| {
            let Question::Handover(handover) = question else {
                panic!("{question:?}");
            };
            lock(&asked).push(*handover);
            let is_mute = mute.is_some_and(|port| handover.place.port.0 == port.into_bytes());
            Some(match is_mute {
                true => Err(Failure::NoVap),
                false => Ok(page(handover.cursor)),
            })
        };
        ScriptedNve::start(self.fabric.registry(), id(3, nve), script)
    }

    /// NVEs have in force what they should.
    fn acknowledge(&self, nves: &[u8]) {
        for n in nves {
            let tables = self.fabric.desired_tables(id(3, *n)).unwrap();
            self.fabric.registry().acknowledge(id(3, *n), tables);
        }
    }

    async fn tell(&mut self, kind: &str, host: u8, to: Option<u8>) {
        self.second += 1;
        let placed = vm(1, host, VmStatus::Running, &[1, 2], self.second);
        let event = LifecycleEvent {
            event_id: Uuid::new_v4(),
            timestamp: placed.as_of,
            event_type: kind.parse().unwrap(),
            vm: placed.vm,
            destination_host_name: to.map(|n| format!("hv-{n}")),
        };
        self.fabric.take_event("lab", event).await.unwrap();
    }

    async fn awake(&self, nve: u8) {
        self.fabric.awake(id(3, nve), place(1)).await;
    }

    fn asked(&self) -> Vec<Handover> {
        lock(&self.asked).clone()
    }

    fn placed(&self) -> PlacedVm {
        let find = |state: &crate::intent::State| state.vm(id(5, 1)).cloned();
        self.fabric.controller().read(find).unwrap()
    }

    fn has_left(&self) -> bool {
        self.placed().departed.is_some()
    }
}

fn place(port: u8) -> Place {
    Place {
        vlan: tag(port % 3),
        port: PortId(id(2, port).into_bytes()),
    }
}

/// The answer from that cursor on; each connection is told by its port.
fn page(cursor: u64) -> Reply {
    const ALL: u64 = 7;
    let level = Known::Level(Level {
        direction: Direction::Egress,
        bits: -5,
        packets: 7,
    });
    let next = (cursor + PAGE).min(ALL);
    let levels = (cursor == 0).then_some(level);
    let connections = (cursor..next).map(connection);
    Reply {
        parts: levels
            .into_iter()
            .chain(connections)
            .map(Part::Known)
            .collect(),
        done: Done {
            next: if next == ALL { 0 } else { next },
            lost: 0,
            more: next < ALL,
        },
    }
}

fn connection(number: u64) -> Known {
    Known::Connection(Connection {
        opener: Direction::Ingress,
        protocol: 6,
        local: [10, 0, 1, 1].into(),
        remote: [10, 0, 1, 9].into(),
        local_port: 22,
        remote_port: number as u16,
        state: ConnectionState::Established,
        idle_ms: 1,
        rule: RuleId([1; 16]),
    })
}

/// All that there is of a port, as it is told.
fn all(port: u8) -> Vec<TakeOver> {
    let pages = [0, PAGE, 2 * PAGE].map(page);
    let parts = pages.iter().flat_map(|page| &page.parts);
    let known = parts.filter_map(|part| match part {
        Part::Known(known) => Some(*known),
        _ => None,
    });
    let place = place(port);
    known.map(|known| TakeOver { place, known }).collect()
}

fn of(told: &[TakeOver], port: u8) -> Vec<TakeOver> {
    let told = told.iter().filter(|told| told.place == place(port));
    told.copied().collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn a_while() {
    tokio::time::sleep(Duration::from_millis(150)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_goes_along_and_the_old_place_is_forgotten_last() {
    let mut bench = Bench::new(TIMING).await;
    let [first, second, third] = [1, 2, 3].map(|n| bench.connect(n));
    bench.acknowledge(&[1, 2, 3]);
    bench.tell("livemigratetestart", 1, Some(2)).await;
    a_while().await;
    assert_eq!(bench.asked(), [], "the destination has no VAP yet");
    bench.acknowledge(&[1, 2, 3]);
    eventually("copied", || {
        let told = second.taken_over();
        [1, 2]
            .iter()
            .all(|port| of(&told, *port).len() >= all(*port).len())
    })
    .await;
    let told = second.taken_over();
    for port in [1, 2] {
        let (told, all) = (of(&told, port), all(port));
        assert_eq!(told[..all.len()], all, "port {port}");
    }
    let asked = bench.asked();
    let everything = asked.iter().filter(|asked| asked.within_ms == u32::MAX);
    assert_eq!(everything.count(), 6, "three pages of each port");
    let before = asked.len();
    eventually("again", || bench.asked().len() >= before + 12).await;
    let again = bench.asked();
    assert!(
        again[6..].iter().all(|asked| asked.within_ms < 10_000),
        "{again:?}"
    );

    // The VM comes up before its manager says so.
    let before = bench.asked().len();
    bench.awake(2).await;
    assert!(bench.has_left());
    assert_eq!(bench.fabric.place(id(2, 1)), Some((id(3, 2), tag(1))));
    eventually("the last copy", || bench.asked().len() > before).await;
    bench.acknowledge(&[1, 2]);
    a_while().await;
    assert!(bench.has_left(), "NVE 3 still sends to the old place");
    bench.acknowledge(&[3]);
    eventually("forgotten", || !bench.has_left()).await;
    bench.tell("livemigratefinish", 2, None).await;
    assert!(!bench.has_left());
    assert!(bench.placed().migration.is_none());
    let after = bench.asked().len();
    a_while().await;
    assert_eq!(bench.asked().len(), after, "nobody asks any more");
    assert_eq!(first.taken_over(), []);
    assert_eq!(third.taken_over(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_connected_is_waited_for_but_not_for_ever() {
    let timing = Timing {
        patience: Duration::from_millis(600),
        ..TIMING
    };
    let mut bench = Bench::new(timing).await;
    let [_first, _second] = [1, 2].map(|n| bench.connect(n));
    bench.acknowledge(&[1, 2, 3]);
    bench.tell("livemigratetestart", 1, Some(2)).await;
    bench.acknowledge(&[1, 2]);
    let moved = Instant::now();
    bench.tell("livemigratefinish", 2, None).await;
    bench.acknowledge(&[1, 2]);
    a_while().await;
    assert!(bench.has_left());
    eventually("forgotten", || !bench.has_left()).await;
    assert!(moved.elapsed() >= timing.patience);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_nobody_announced_is_copied_too() {
    let mut bench = Bench::new(TIMING).await;
    let [_first, second, _third] = [1, 2, 3].map(|n| bench.connect(n));
    bench.acknowledge(&[1, 2, 3]);
    bench.tell("livemigratefinish", 2, None).await;
    bench.acknowledge(&[1, 2, 3]);
    eventually("forgotten", || !bench.has_left()).await;
    for port in [1, 2] {
        assert_eq!(of(&second.taken_over(), port), all(port));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_fails_stops_no_other_and_holds_nothing_up_for_ever() {
    let timing = Timing {
        last_copy: Duration::from_millis(300),
        ..TIMING
    };
    let mut bench = Bench::new(timing).await;
    bench.mute = Some(id(2, 1));
    let [_first, second, _third] = [1, 2, 3].map(|n| bench.connect(n));
    bench.tell("livemigratetestart", 1, Some(2)).await;
    bench.acknowledge(&[1, 2, 3]);
    let all_of_2 = || of(&second.taken_over(), 2).len() >= all(2).len();
    eventually("port 2", all_of_2).await;
    assert_eq!(of(&second.taken_over(), 1), []);
    bench.tell("livemigratefinish", 2, None).await;
    bench.acknowledge(&[1, 2, 3]);
    eventually("forgotten", || !bench.has_left()).await;
    assert_eq!(of(&second.taken_over(), 1), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_again_starts_from_the_state_and_copies_everything_again() {
    let mut bench = Bench::new(TIMING).await;
    let [_first, second, _third] = [1, 2, 3].map(|n| bench.connect(n));
    bench.tell("livemigratetestart", 1, Some(2)).await;
    bench.acknowledge(&[1, 2, 3]);
    let everything = |bench: &Bench| {
        let asked = bench.asked();
        asked
            .iter()
            .filter(|asked| asked.within_ms == u32::MAX)
            .count()
    };
    eventually("copied", || everything(&bench) == 6).await;
    bench.running.abort();
    bench.running = tokio::spawn(run(bench.fabric.clone(), TIMING));
    eventually("after the shim", || everything(&bench) == 12).await;
    // So does a destination that was away: it may have been booted.
    drop(second);
    eventually("gone", || {
        bench.fabric.registry().session(id(3, 2)).is_none()
    })
    .await;
    let second = bench.connect(2);
    eventually("after the NVE", || everything(&bench) == 18).await;
    eventually("copied to it", || {
        of(&second.taken_over(), 1).len() >= all(1).len()
    })
    .await;
    bench.tell("livemigratefinish", 2, None).await;
    bench.running.abort();
    bench.acknowledge(&[1, 2, 3]);
    a_while().await;
    assert!(bench.has_left());
    bench.running = tokio::spawn(run(bench.fabric.clone(), TIMING));
    eventually("forgotten", || !bench.has_left()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_migration_is_left_alone() {
    let mut bench = Bench::new(TIMING).await;
    let [_first, second, _third] = [1, 2, 3].map(|n| bench.connect(n));
    bench.tell("livemigratetestart", 1, Some(2)).await;
    bench.acknowledge(&[1, 2, 3]);
    eventually("copied", || !second.taken_over().is_empty()).await;
    bench.tell("livemigratefinish", 1, None).await;
    a_while().await;
    let asked = bench.asked().len();
    a_while().await;
    assert_eq!(bench.asked().len(), asked);
    assert!(!bench.has_left());
}
