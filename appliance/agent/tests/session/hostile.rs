//! A peer that is broken or not who it should be.

use nve_agent::{Action, CloseReason, Phase, Session};
use nve_datapath::Nanos;
use nve_protocol::frame::MAX_ACCEPTED;
use nve_protocol::*;
use proptest::prelude::*;

use crate::support::*;

/// What an established session makes of these bytes.
fn closes_with(bytes: Vec<u8>) -> Vec<CloseReason> {
    let mut pair = Pair::established();
    pair.send_bytes(bytes);
    pair.run_ms(10);
    pair.closes
}

#[test]
fn garbage_ends_the_connection() {
    assert_eq!(
        closes_with(vec![0, 5, 1, 2, 3, 4, 5]),
        [CloseReason::NotAuthentic]
    );
    assert_eq!(closes_with(vec![0, 0]), [CloseReason::NotAuthentic]);
    assert_eq!(closes_with(vec![0xff; 100]), [CloseReason::FrameTooLong]);
}

#[test]
fn a_frame_too_long_ends_the_connection_before_it_comes() {
    let mut pair = Pair::established();
    let header = u16::try_from(MAX_ACCEPTED + 1).unwrap().to_be_bytes();
    pair.send_bytes(header.to_vec());
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::FrameTooLong]);
    let mut pair = Pair::new(1);
    pair.latency = 100 * MILLI;
    pair.run_ms(250);
    assert_eq!(pair.session.phase(), Phase::Handshake);
    pair.send_bytes(vec![0, 49]);
    pair.run_ms(150);
    assert_eq!(pair.closes, [CloseReason::FrameTooLong]);
}

#[test]
fn a_frame_that_is_repeated_skipped_or_changed_is_refused() {
    let mut pair = Pair::established();
    let bytes = pair.shim.seal(&[ToNve::Ping(1)]);
    pair.send_bytes(bytes.clone());
    pair.send_bytes(bytes);
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::NotAuthentic], "repeated");

    let mut pair = Pair::established();
    pair.shim.seal(&[ToNve::Ping(1)]);
    pair.send(&[ToNve::Ping(2)]);
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::NotAuthentic], "skipped");

    let mut pair = Pair::established();
    let mut bytes = pair.shim.seal(&[ToNve::Ping(1)]);
    *bytes.last_mut().unwrap() ^= 1;
    pair.send_bytes(bytes);
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::NotAuthentic], "changed");
}

#[test]
fn an_answer_to_another_handshake_is_refused() {
    let mut pair = Pair::new(1);
    pair.latency = 100 * MILLI;
    pair.run_ms(250);
    let mut other = Shim::new(SHIM_KEY, 99);
    let mut session: Session<Model, Seeded> = Session::new(config(1), Seeded(7));
    assert_eq!(session.poll(Nanos(1)), Action::Dial(0));
    session.connected(Nanos(1));
    let mut room = [0; 200];
    let count = session.transmit(&mut room);
    let recorded = other.receive(&room[..count]).unwrap();
    pair.send_bytes(recorded);
    pair.run_ms(120);
    assert_eq!(pair.closes, [CloseReason::WrongShim]);
}

#[test]
fn plaintext_that_is_no_message_ends_the_session() {
    for text in [
        &b"x"[..],
        b"{\"ping\":1}",
        b"\n",
        b"{\"ping\":1}\n{\"ping\":-1}\n",
    ] {
        let mut pair = Pair::established();
        let bytes = pair.shim.seal_bytes(text);
        pair.send_bytes(bytes);
        pair.run_ms(10);
        assert_eq!(pair.closes, [CloseReason::Malformed], "{text:?}");
    }
}

#[test]
fn messages_out_of_order_end_the_session() {
    let mut pair = Pair::established();
    let welcome = ToNve::Welcome(pair.shim.welcome.unwrap());
    pair.send(&[welcome]);
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::Unexpected], "welcomed twice");

    let mut pair = Pair::new(1);
    pair.shim.welcome = None;
    pair.run_ms(10);
    let before = pair.tables.clone();
    let mut messages = puts(1, true, &[record(1)], &Model::of(&[record(1)]));
    messages.push(welcome);
    pair.send(&messages);
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::Unexpected], "before welcome");
    assert_eq!(pair.tables, before);
}

#[test]
fn a_shim_that_asks_more_than_it_reads_is_cut_off() {
    let mut pair = Pair::established();
    let pings: Vec<_> = (0..1_000).map(ToNve::Ping).collect();
    pair.send(&pings);
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::Flooded]);
}

#[test]
fn an_empty_message_keeps_the_session() {
    let mut pair = Pair::established();
    for _ in 0..4 {
        let bytes = pair.shim.seal_bytes(b"");
        pair.send_bytes(bytes);
        pair.run_ms(10_000);
    }
    assert_eq!(pair.closes, []);
}

#[test]
fn absurd_times_are_bounded() {
    let mut pair = Pair::new(1);
    pair.shim.welcome = Some(Welcome {
        api_version: API_VERSION,
        stats_interval_ms: 1,
        dead_after_ms: 0,
    });
    pair.run_ms(995);
    assert_eq!(
        (pair.session.phase(), pair.reports),
        (Phase::Established, 10)
    );
    pair.run_ms(15);
    assert_eq!(pair.closes, [CloseReason::DeadPeer]);
}

#[test]
fn without_random_numbers_there_is_no_handshake() {
    let mut session: Session<Model, _> = Session::new(config(1), Dry);
    assert_eq!(session.poll(Nanos(1)), Action::Dial(0));
    session.connected(Nanos(1));
    assert_eq!(session.transmit(&mut [0; 200]), 0);
    assert_eq!(
        session.poll(Nanos(1)),
        Action::Close(CloseReason::NoEntropy)
    );
    session.disconnected(Nanos(1));
    assert!(matches!(session.poll(Nanos(1)), Action::WaitUntil(_)));
}

proptest! {
    /// Random bytes in any phase, in any pieces: no panic, no change, no answer.
    #[test]
    fn random_bytes_do_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        piece in 1usize..100,
        phase in 0u64..3,
    ) {
        let mut pair = Pair::new(1);
        pair.shim.welcome = pair.shim.welcome.filter(|_| phase == 2);
        pair.latency = 10 * MILLI;
        pair.run_ms(if phase == 0 { 25 } else { 200 });
        pair.piece = piece;
        let (before, heard) = (pair.tables.clone(), pair.shim.heard.len());
        pair.send_bytes(bytes);
        pair.run_ms(30);
        prop_assert_eq!(&pair.tables, &before);
        prop_assert!(pair.shim.heard.len() <= heard + 1);
    }

    /// Random plaintext under the right key: no panic, and no table changes
    /// without a commit.
    #[test]
    fn random_plaintext_does_nothing(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut pair = Pair::established();
        let frame = pair.shim.seal_bytes(&bytes);
        pair.send_bytes(frame);
        pair.run_ms(10);
        prop_assert!(pair.tables.records.is_empty());
    }

    /// Any messages in any order: no panic, and the tables agree with the last
    /// digest that was acknowledged.
    #[test]
    fn any_messages_leave_what_was_acknowledged(
        codes in prop::collection::vec((0u8..6, 0u32..20, 0u64..6), 0..60),
    ) {
        let mut pair = Pair::established();
        let mut known = TableDigest::default();
        for (code, n, generation) in codes {
            let message = match code {
                0 => ToNve::Begin(Begin { generation, full: n % 2 == 0 }),
                1 | 2 => ToNve::Put(record(n)),
                3 => ToNve::Delete(record(n).key()),
                4 => ToNve::Commit(Commit { generation, digest: known }),
                _ => ToNve::Ping(u64::from(n)),
            };
            let heard = pair.shim.heard.len();
            pair.send(&[message]);
            pair.run_ms(3);
            for answer in &pair.shim.heard[heard..] {
                if let ToShim::Applied(applied) = answer {
                    known = applied.digest;
                }
            }
            let digest: TableDigest = pair.tables.records.values().collect();
            prop_assert_eq!(digest, known);
        }
    }
}
