//! Questions to NVEs, and NVEs that answer otherwise than they should.

use nve_protocol::inspect::{
    Answer, Ask, Done, Failure, MAX_PARTS, Part, Question, Responder, Step,
};
use nve_protocol::{TableDigest, ToNve, ToShim};
use tokio::task::JoinHandle;

use super::peer::Peer;
use super::*;
use crate::southbound::{AskError, MAX_WAITING, Reply};

const DROPS: Question = Question::Drops { after: 0 };
const FLOWS: Question = Question::Flows {
    cursor: 0,
    vlan: None,
};
const DONE: Done = Done {
    next: 0,
    lost: 0,
    more: false,
};

type Pending = JoinHandle<Result<Reply, AskError>>;

/// An NVE in sync whose end the test plays.
struct Scene {
    shim: Shim,
    config: NativeConfig,
    peer: Peer,
}

impl Scene {
    async fn new() -> Scene {
        let shim = Shim::start(Config::default()).await;
        let tables = stations(5);
        let config = shim.add(&tables);
        let peer = Peer::greet(&shim, &config, tables.digest()).await;
        shim.wait_in_sync(config.nve, &tables).await;
        Scene { shim, config, peer }
    }

    fn ask(&self, question: Question, limit: Duration) -> Pending {
        let (registry, nve) = (Arc::clone(&self.shim.registry), self.config.nve);
        tokio::spawn(async move { registry.ask_within(nve, question, limit).await })
    }

    /// The next question that comes.
    async fn asked(&mut self) -> Ask {
        loop {
            for message in self.peer.receive().await.unwrap() {
                if let ToNve::Ask(ask) = message {
                    return ask;
                }
            }
        }
    }

    async fn answer(&mut self, number: u32, part: Part) {
        let answer = Answer { number, part };
        self.peer.send(&ToShim::Answer(answer)).await;
    }

    /// Waits until the shim has closed the session.
    async fn closed(mut self) {
        while self.peer.receive().await.is_some() {}
        self.shim.wait_gone(self.config.nve).await;
        self.shim.assert_serves().await;
    }
}

fn step() -> Part {
    Part::Step(Step::Responder(Responder::Arp))
}

fn a_drop(number: u64) -> Part {
    Part::Drop(nve_protocol::inspect::Dropped {
        number,
        at_ms: 0,
        reason: nve_protocol::DropReason::Untagged,
        from: None,
        blame: None,
        packet: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_asked_one_at_a_time_and_answered_in_parts() {
    let mut scene = Scene::new().await;
    let first = scene.ask(DROPS, LIMIT);
    let ask = scene.asked().await;
    assert_eq!(ask.question, DROPS);
    let second = scene.ask(FLOWS, LIMIT);
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.answer(ask.number, a_drop(1)).await;
    scene.answer(ask.number, a_drop(2)).await;
    let done = Done { next: 2, ..DONE };
    scene.answer(ask.number, Part::Done(done)).await;
    let reply = first.await.unwrap().unwrap();
    assert_eq!(reply.parts, [a_drop(1), a_drop(2)]);
    assert_eq!(reply.done, done);
    let next = scene.asked().await;
    assert_eq!((next.number, next.question), (ask.number + 1, FLOWS));
    scene
        .answer(next.number, Part::Failed(Failure::OutOfMemory))
        .await;
    assert_eq!(
        second.await.unwrap(),
        Err(AskError::Failed(Failure::OutOfMemory))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_passes_a_full_state_that_is_being_sent() {
    // More than the sockets hold, so the shim is not done before it is read.
    const STATIONS: u32 = 150_000;
    let shim = Shim::start(Config::default()).await;
    let config = shim.add(&stations(STATIONS));
    let mut peer = Peer::greet(&shim, &config, TableDigest(1)).await;
    shim.wait(config.nve, |s| s.connection.is_some()).await;
    let registry = Arc::clone(&shim.registry);
    let asking = tokio::spawn(async move { registry.ask_within(config.nve, DROPS, LIMIT).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (mut puts, mut puts_before) = (0, None);
    loop {
        let messages = peer.receive().await.unwrap();
        for message in messages {
            match message {
                ToNve::Put(_) => puts += 1,
                ToNve::Ask(Ask { number, .. }) => {
                    puts_before = Some(puts);
                    let part = Part::Done(DONE);
                    peer.send(&ToShim::Answer(Answer { number, part })).await;
                }
                _ => {}
            }
        }
        if puts == STATIONS {
            break;
        }
    }
    assert!(puts_before.unwrap() < STATIONS, "{puts_before:?}");
    assert_eq!(asking.await.unwrap().unwrap().done, DONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_told_in_time() {
    let mut scene = Scene::new().await;
    let nobody = scene.shim.registry.ask(Uuid::new_v4(), DROPS).await;
    assert_eq!(nobody, Err(AskError::NotConnected));

    let limit = Duration::from_millis(200);
    let slow = scene.ask(DROPS, limit);
    let ask = scene.asked().await;
    assert_eq!(slow.await.unwrap(), Err(AskError::TimedOut));
    let next = scene.ask(FLOWS, LIMIT);
    let later = scene.asked().await;
    // The first answer comes late, and harms nobody.
    scene.answer(ask.number, a_drop(1)).await;
    scene.answer(ask.number, Part::Done(DONE)).await;
    scene.answer(later.number, Part::Done(DONE)).await;
    assert_eq!(next.await.unwrap().unwrap().done, DONE);

    let open = scene.ask(DROPS, LIMIT);
    scene.asked().await;
    let waiting: Vec<Pending> = (0..MAX_WAITING).map(|_| scene.ask(DROPS, LIMIT)).collect();
    let deadline = Instant::now() + LIMIT;
    while scene
        .shim
        .registry
        .ask_within(scene.config.nve, DROPS, limit)
        .await
        != Err(AskError::TooMany)
    {
        assert!(Instant::now() < deadline);
    }
    let Scene { shim, config, peer } = scene;
    drop(peer);
    assert_eq!(open.await.unwrap(), Err(AskError::Ended));
    for asked in waiting {
        let outcome = asked.await.unwrap();
        assert!(
            matches!(outcome, Err(AskError::Ended | AskError::TooMany)),
            "{outcome:?}"
        );
    }
    shim.wait_gone(config.nve).await;
    let gone = shim.registry.ask(config.nve, DROPS).await;
    assert_eq!(gone, Err(AskError::NotConnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_question_ends_the_session() {
    let mut scene = Scene::new().await;
    scene.answer(0, Part::Done(DONE)).await;
    scene.closed().await;

    let mut scene = Scene::new().await;
    let asked = scene.ask(DROPS, LIMIT);
    let ask = scene.asked().await;
    scene.answer(ask.number, Part::Done(DONE)).await;
    asked.await.unwrap().unwrap();
    scene.answer(ask.number, Part::Done(DONE)).await;
    scene.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_kind_or_number_or_without_end_ends_the_session() {
    for case in 0..3 {
        let mut scene = Scene::new().await;
        let asked = scene.ask(DROPS, LIMIT);
        let ask = scene.asked().await;
        match case {
            0 => scene.answer(ask.number, step()).await,
            1 => scene.answer(ask.number + 1, a_drop(1)).await,
            _ => {
                for number in 0..MAX_PARTS {
                    scene.answer(ask.number, a_drop(number as u64)).await;
                }
            }
        }
        assert_eq!(asked.await.unwrap(), Err(AskError::Ended), "{case}");
        scene.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_answer_is_taken() {
    let mut scene = Scene::new().await;
    let asked = scene.ask(DROPS, LIMIT);
    let ask = scene.asked().await;
    for number in 1..MAX_PARTS {
        scene.answer(ask.number, a_drop(number as u64)).await;
    }
    scene.answer(ask.number, Part::Done(DONE)).await;
    assert_eq!(asked.await.unwrap().unwrap().parts.len(), MAX_PARTS - 1);
}
