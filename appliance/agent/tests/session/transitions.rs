//! Every event in every phase leads where the diagram says.

use nve_agent::{Action, Phase};
use nve_protocol::*;

use crate::support::*;

const PHASES: [Phase; 6] = [
    Phase::Waiting,
    Phase::Dialing,
    Phase::Handshake,
    Phase::Greeting,
    Phase::Established,
    Phase::Closing,
];

#[derive(Debug, Clone, Copy)]
enum Event {
    Connected,
    Disconnected,
    PollNow,
    PollLater,
    Report,
    Garbage,
    Answer,
    Welcome,
    Commit,
}

const EVENTS: [Event; 9] = [
    Event::Connected,
    Event::Disconnected,
    Event::PollNow,
    Event::PollLater,
    Event::Report,
    Event::Garbage,
    Event::Answer,
    Event::Welcome,
    Event::Commit,
];

/// The diagram. `Answer`, `Welcome` and `Commit` are the bytes that would be
/// right in the phase before the one they lead to, and noise in any other.
fn expected(phase: Phase, event: Event) -> Phase {
    use Event::*;
    match (phase, event) {
        (_, Disconnected) => Phase::Waiting,
        (Phase::Waiting, PollLater) => Phase::Dialing,
        (Phase::Waiting, _) => Phase::Waiting,
        (Phase::Dialing, Connected) => Phase::Handshake,
        (Phase::Dialing, PollLater) => Phase::Closing,
        (Phase::Dialing, _) => Phase::Dialing,
        (Phase::Handshake, Answer) => Phase::Greeting,
        (Phase::Greeting, Welcome) => Phase::Established,
        (Phase::Established, Commit) => Phase::Established,
        (Phase::Handshake | Phase::Greeting | Phase::Established, Connected | PollNow | Report) => {
            phase
        }
        (Phase::Handshake | Phase::Greeting | Phase::Established, _) => Phase::Closing,
        (Phase::Closing, _) => Phase::Closing,
    }
}

/// A session in `phase`, at a time when `poll` leaves it there, with the shim
/// that it talks to and the answer that the shim gave to its handshake.
fn in_phase(phase: Phase) -> (Pair, Vec<u8>) {
    let mut pair = Pair::new(1);
    let mut answer = Vec::new();
    let mut room = [0; 2_000];
    let path = [
        Phase::Dialing,
        Phase::Handshake,
        Phase::Greeting,
        Phase::Established,
    ];
    if phase == Phase::Waiting {
        pair.session.poll(pair.nanos());
        pair.session.disconnected(pair.nanos());
    }
    for step in path {
        if pair.session.phase() == phase || phase == Phase::Waiting {
            break;
        }
        match step {
            Phase::Dialing => {
                pair.session.poll(pair.nanos());
            }
            Phase::Handshake => {
                pair.session.connected(pair.nanos());
                let count = pair.session.transmit(&mut room);
                answer = pair.shim.receive(&room[..count]).unwrap();
            }
            Phase::Greeting => give(&mut pair, &answer),
            _ => {
                let welcome = pair.shim.welcome.unwrap();
                let bytes = pair.shim.seal(&[ToNve::Welcome(welcome)]);
                give(&mut pair, &bytes);
            }
        }
    }
    if phase == Phase::Closing {
        give(&mut pair, &[0xff; 2]);
    }
    assert_eq!(pair.session.phase(), phase);
    (pair, answer)
}

fn give(pair: &mut Pair, mut bytes: &[u8]) {
    let now = pair.nanos();
    while !bytes.is_empty() {
        match pair.session.receive(&|| now, bytes, &mut pair.tables) {
            Ok(received) => bytes = &bytes[received.consumed..],
            Err(_) => return,
        }
    }
}

fn happen(pair: &mut Pair, event: Event, answer: &[u8]) {
    let welcome = ToNve::Welcome(pair.shim.welcome.unwrap());
    let commit = puts(1, true, &[], &Model::of(&[]));
    let sealed = match event {
        Event::Welcome => Some(vec![welcome]),
        Event::Commit => Some(commit),
        _ => None,
    };
    if let Some(messages) = sealed {
        let bytes = match answer.is_empty() {
            true => vec![0, 1, 2],
            false => pair.shim.seal(&messages),
        };
        return give(pair, &bytes);
    }
    match event {
        Event::Connected => pair.session.connected(pair.nanos()),
        Event::Disconnected => pair.session.disconnected(pair.nanos()),
        Event::PollNow => {
            pair.session.poll(pair.nanos());
        }
        Event::PollLater => {
            pair.now.set(pair.now.get() + 60_000 * MILLI);
            pair.session.poll(pair.nanos());
        }
        Event::Report => pair.session.report(pair.nanos(), &stats()),
        Event::Garbage => give(pair, &[0xff; 2]),
        _ if answer.is_empty() => give(pair, &[0, 1, 2]),
        _ => give(pair, answer),
    }
}

#[test]
fn every_event_in_every_phase_leads_where_it_should() {
    for phase in PHASES {
        for event in EVENTS {
            let (mut pair, answer) = in_phase(phase);
            happen(&mut pair, event, &answer);
            let (reached, wanted) = (pair.session.phase(), expected(phase, event));
            assert_eq!(reached, wanted, "{event:?} in {phase:?}");
            let closing = matches!(pair.session.poll(pair.nanos()), Action::Close(_));
            assert_eq!(closing, wanted == Phase::Closing, "{event:?} in {phase:?}");
            if wanted != Phase::Established {
                assert!(!closing || pair.session.transmit(&mut [0; 100]) == 0);
            }
            pair.session.disconnected(pair.nanos());
            assert_eq!(pair.session.phase(), Phase::Waiting, "and back from there");
        }
    }
}
