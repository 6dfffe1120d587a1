//! Setup, loss and timers.

use nve_agent::{CloseReason, Phase};
use nve_protocol::*;

use crate::support::*;

#[test]
fn hello_names_the_tables_in_force() {
    let mut pair = Pair::new(1);
    pair.tables = Model::of(&[record(1), record(2)]);
    pair.run_ms(10);
    assert_eq!(pair.session.phase(), Phase::Established);
    let [ToShim::Hello(hello)] = &pair.shim.heard[..] else {
        panic!("{:?}", pair.shim.heard);
    };
    assert_eq!(hello.nve, NveId([1; 16]));
    assert_eq!(hello.generation, 0);
    assert_eq!(hello.digest, [record(1), record(2)].iter().collect());
    assert_eq!(hello.boot_us, 42_000);
}

#[test]
fn pieces_of_any_size_and_latency_make_no_difference() {
    for (piece, latency) in [(1, 0), (2, 1), (3, 50 * MILLI), (17, MILLI), (1000, MILLI)] {
        let mut pair = Pair::new(1);
        (pair.piece, pair.latency) = (piece, latency);
        pair.run_ms(1000);
        assert_eq!(
            pair.session.phase(),
            Phase::Established,
            "{piece} {latency}"
        );
        let records: Vec<_> = (0..50).map(record).collect();
        let after = Model::of(&records);
        for message in puts(1, true, &records, &after) {
            pair.send(&[message]);
        }
        pair.run_ms(1000);
        assert_eq!(pair.tables.records, after.records);
        assert_eq!(pair.commits, 1);
    }
}

#[test]
fn an_unreachable_shim_is_dialed_with_backoff_and_each_in_turn() {
    let mut pair = Pair::new(2);
    pair.reachable = false;
    pair.run_ms(60_000);
    let order: Vec<_> = pair.dials.iter().map(|(index, _)| *index).collect();
    assert!(order.iter().enumerate().all(|(n, index)| *index == n % 2));
    let gaps: Vec<_> = pair.dials.windows(2).map(|w| w[1].1 - w[0].1).collect();
    assert!(gaps.iter().all(|gap| *gap >= 50 * MILLI), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 10_002 * MILLI), "{gaps:?}");
    assert!((15..40).contains(&gaps.len()), "{}", gaps.len());
    pair.reachable = true;
    pair.run_ms(11_000);
    assert_eq!(pair.session.phase(), Phase::Established);
}

#[test]
fn a_lost_connection_is_dialed_again_soon() {
    let mut pair = Pair::established();
    for _ in 0..15 {
        pair.run_ms(1000);
        pair.send(&[ToNve::Ping(1)]);
    }
    let lost = pair.now.get();
    pair.cut();
    assert_eq!(pair.session.phase(), Phase::Waiting);
    pair.run_ms(200);
    assert_eq!(pair.session.phase(), Phase::Established);
    let (_, dialed) = *pair.dials.last().unwrap();
    assert!((50 * MILLI..=100 * MILLI).contains(&(dialed - lost)));
}

#[test]
fn a_shim_that_drops_each_session_at_once_is_dialed_ever_more_rarely() {
    let mut pair = Pair::new(1);
    for _ in 0..20 {
        while pair.session.phase() != Phase::Established {
            pair.run_ms(1);
        }
        pair.cut();
    }
    let gaps: Vec<_> = pair.dials.windows(2).map(|w| w[1].1 - w[0].1).collect();
    assert!(gaps.last().unwrap() >= &(5_000 * MILLI), "{gaps:?}");
}

#[test]
fn a_shim_with_another_key_is_refused_and_nothing_is_said_to_it() {
    let mut pair = Pair::new(1);
    pair.shim_key = [8; 32];
    pair.run_ms(1000);
    assert!(pair.dials.len() > 1);
    assert!(pair.shim.heard.is_empty());
    assert_ne!(pair.session.phase(), Phase::Established);
}

#[test]
fn a_silent_shim_is_given_up() {
    let mut pair = Pair::established();
    pair.run_ms(14_980);
    assert_eq!(pair.closes, []);
    pair.run_ms(50);
    assert_eq!(pair.closes, [CloseReason::DeadPeer]);
}

#[test]
fn pings_are_answered_and_keep_the_session() {
    let mut pair = Pair::established();
    for number in 0..10 {
        pair.send(&[ToNve::Ping(number)]);
        pair.run_ms(10_000);
        assert_eq!(pair.shim.heard.last(), Some(&ToShim::Pong(number)));
    }
    assert_eq!(pair.closes, []);
}

#[test]
fn a_shim_that_never_answers_hello_is_given_up() {
    let mut pair = Pair::new(1);
    pair.shim.welcome = None;
    pair.run_ms(4_990);
    assert_eq!(pair.session.phase(), Phase::Greeting);
    pair.run_ms(20);
    assert_eq!(pair.closes, [CloseReason::SetupTimeout]);
}

#[test]
fn another_version_of_the_messages_ends_the_session() {
    let mut pair = Pair::new(1);
    let welcome = pair.shim.welcome.as_mut().unwrap();
    welcome.api_version = API_VERSION + 1;
    pair.run_ms(10);
    assert_eq!(pair.closes, [CloseReason::Version(API_VERSION + 1)]);
}

#[test]
fn reports_come_at_the_interval_asked_for_and_carry_the_generation() {
    let mut pair = Pair::new(1);
    let welcome = pair.shim.welcome.as_mut().unwrap();
    welcome.stats_interval_ms = 1000;
    pair.run_ms(10);
    let after = Model::of(&[record(1)]);
    pair.transact(&puts(7, true, &[record(1)], &after));
    pair.run_ms(5_000);
    assert_eq!(pair.reports, 6);
    let Some(ToShim::Stats(stats)) = pair.shim.heard.last() else {
        panic!("{:?}", pair.shim.heard);
    };
    assert_eq!((stats.generation, stats.uptime_ms), (7, 1));
}
