//! Questions and their answers on the way.

use nve_protocol::inspect::{Answer, Ask, Done, Failure, MAX_PARTS, Part, Question};
use nve_protocol::*;

use crate::support::*;

fn ask(number: u32, parts: usize) -> ToNve {
    ToNve::Ask(Ask {
        number,
        question: Question::Flows {
            cursor: parts as u32,
            vlan: None,
        },
    })
}

/// The parts that were heard of one answer, and whether it came to its end.
fn heard(pair: &Pair, number: u32) -> (usize, bool) {
    let parts = pair.shim.heard.iter().filter_map(|message| match message {
        ToShim::Answer(answer) if answer.number == number => Some(answer.part),
        _ => None,
    });
    let parts: Vec<Part> = parts.collect();
    let ended = parts.last() == Some(&Part::Done(Done::default()));
    (parts.len(), ended)
}

#[test]
fn an_answer_arrives_whole_however_long() {
    let mut pair = Pair::established();
    for (number, parts) in [(1, 0), (2, 1), (3, MAX_PARTS - 1)] {
        pair.send(&[ask(number, parts)]);
        pair.run_ms(20);
        assert_eq!(heard(&pair, number), (parts + 1, true));
    }
}

#[test]
fn a_question_that_cannot_be_answered_is_told_so() {
    let mut pair = Pair::established();
    let question = Question::Drops { after: 0 };
    pair.send(&[ToNve::Ask(Ask {
        number: 7,
        question,
    })]);
    pair.run_ms(10);
    let answer = Answer {
        number: 7,
        part: Part::Failed(Failure::NoVap),
    };
    assert_eq!(pair.shim.heard.last(), Some(&ToShim::Answer(answer)));
}

#[test]
fn a_new_question_ends_the_answer_to_the_one_before() {
    let mut pair = Pair::established();
    pair.send(&[ask(1, MAX_PARTS - 1), ask(2, 1)]);
    pair.run_ms(20);
    assert!(!heard(&pair, 1).1);
    assert_eq!(heard(&pair, 2), (2, true));
}

#[test]
fn acknowledgements_do_not_wait_for_answers() {
    let mut pair = Pair::established();
    let begin = ToNve::Begin(Begin {
        generation: 1,
        full: true,
    });
    let commit = ToNve::Commit(Commit {
        generation: 1,
        digest: TableDigest::default(),
    });
    pair.send(&[ask(1, MAX_PARTS - 1), begin, commit, ToNve::Ping(5)]);
    pair.run_ms(20);
    let at = |wanted: fn(&ToShim) -> bool| pair.shim.heard.iter().position(wanted).unwrap();
    let applied = at(|message| matches!(message, ToShim::Applied(_)));
    let pong = at(|message| matches!(message, ToShim::Pong(5)));
    let last_part = pair.shim.heard.len() - 1;
    assert!(applied < pong && pong < last_part);
    assert_eq!(heard(&pair, 1), (MAX_PARTS, true));
}

#[test]
fn an_answer_does_not_outlive_its_connection() {
    let mut pair = Pair::established();
    pair.piece = 100;
    pair.send(&[ask(1, MAX_PARTS - 1)]);
    pair.run_ms(1);
    pair.cut();
    pair.run_ms(60_000);
    assert_eq!(pair.session.phase(), nve_agent::Phase::Established);
    assert_eq!(heard(&pair, 1), (0, false));
}
