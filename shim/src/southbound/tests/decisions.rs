//! What is sent when, without a connection.

use std::time::Duration;

use nve_protocol::{Applied, Begin, MAX_CHANGES, Refusal, Refused, TableDigest, ToNve};
use tokio::time::Instant;

use super::*;
use crate::southbound::push::Push;
use crate::southbound::sync::{Step, Sync, SyncError};

/// Whether the step sends a full state, and what.
fn sent(step: Step) -> (bool, Vec<ToNve>) {
    match step {
        Step::Send { push, full } => (full, Push::collect(push)),
        Step::InSync(_) => panic!("in sync"),
        Step::Nothing => panic!("nothing"),
    }
}

fn applied(generation: u64, tables: &NveTables) -> Applied {
    Applied {
        generation,
        digest: tables.digest(),
        apply_us: 1,
        total_us: 2,
    }
}

fn refused(generation: u64) -> Refused {
    Refused {
        generation,
        reason: Refusal::DigestMismatch,
    }
}

#[test]
fn equal_digests_send_nothing_and_are_told_once() {
    let (tables, now) = (stations(5), Instant::now());
    let mut sync = Sync::new(9, tables.digest(), &[]);
    assert!(matches!(sync.next(&tables, now), Ok(Step::InSync(_))));
    assert!(matches!(sync.next(&tables, now), Ok(Step::Nothing)));
}

#[test]
fn unknown_tables_get_everything_and_known_ones_the_changes() {
    let (old, new, now) = (stations(5), stations(6), Instant::now());
    let mut sync = Sync::new(9, TableDigest(1), &[Arc::clone(&old)]);
    let (full, messages) = sent(sync.next(&new, now).unwrap());
    assert!(full);
    assert_eq!(messages.len(), 6 + 2);
    let begin = Begin {
        generation: 10,
        full,
    };
    assert_eq!(messages.first(), Some(&ToNve::Begin(begin)));

    let mut sync = Sync::new(9, old.digest(), &[stations(1), Arc::clone(&old)]);
    let (full, messages) = sent(sync.next(&new, now).unwrap());
    assert!(!full);
    assert_eq!(messages.len(), 1 + 2);
}

#[test]
fn what_changes_meanwhile_waits_for_the_answer() {
    let (one, two, now) = (stations(1), stations(2), Instant::now());
    let mut sync = Sync::new(0, TableDigest::default(), &[]);
    sent(sync.next(&one, now).unwrap());
    assert!(matches!(sync.next(&two, now), Ok(Step::Nothing)));
    let (_, tables) = sync.applied(&applied(1, &one), now).unwrap();
    assert!(Arc::ptr_eq(&tables, &one));
    let (full, messages) = sent(sync.next(&two, now).unwrap());
    assert_eq!((full, messages.len()), (false, 3));
    sync.applied(&applied(2, &two), now).unwrap();
    assert!(matches!(sync.next(&two, now), Ok(Step::InSync(_))));
    assert!(matches!(sync.next(&two, now), Ok(Step::Nothing)));
}

#[test]
fn a_refused_change_is_followed_by_everything() {
    let (one, two, now) = (stations(1), stations(2), Instant::now());
    let mut sync = Sync::new(4, one.digest(), &[Arc::clone(&one)]);
    assert!(!sent(sync.next(&two, now).unwrap()).0);
    sync.refused(&refused(5), now).unwrap();
    let (full, messages) = sent(sync.next(&two, now).unwrap());
    assert!(full);
    let begin = Begin {
        generation: 6,
        full,
    };
    assert_eq!(messages.first(), Some(&ToNve::Begin(begin)));
    sync.applied(&applied(6, &two), now).unwrap();
    assert!(!sent(sync.next(&one, now).unwrap()).0, "changes do again");
}

#[test]
fn a_refused_full_state_waits_unless_it_changes() {
    let (one, two, now) = (stations(1), stations(2), Instant::now());
    let mut sync = Sync::new(0, TableDigest(1), &[]);
    sent(sync.next(&one, now).unwrap());
    sync.refused(&refused(1), now).unwrap();
    assert!(matches!(sync.next(&one, now), Ok(Step::Nothing)));
    let retry_at = sync.retry_at().unwrap();
    assert!(retry_at >= now + Duration::from_secs(1));
    sent(sync.next(&one, retry_at).unwrap());
    assert_eq!(sync.retry_at(), None, "while one is on its way");
    sync.refused(&refused(2), retry_at).unwrap();
    sent(sync.next(&two, retry_at).unwrap());
}

#[test]
fn too_many_changes_become_a_full_state() {
    let most = u32::try_from(MAX_CHANGES).unwrap();
    let (empty, now) = (stations(0), Instant::now());
    for (count, full) in [(most, false), (most + 1, true)] {
        let mut sync = Sync::new(0, empty.digest(), &[Arc::clone(&empty)]);
        assert_eq!(sent(sync.next(&stations(count), now).unwrap()).0, full);
    }
}

#[test]
fn answers_that_nobody_asked_for_end_the_session() {
    let (one, now) = (stations(1), Instant::now());
    let mut sync = Sync::new(0, TableDigest::default(), &[]);
    let unasked = Some(SyncError::Unasked);
    assert_eq!(sync.applied(&applied(1, &one), now).err(), unasked);
    assert_eq!(sync.refused(&refused(1), now).err(), unasked);
    sent(sync.next(&one, now).unwrap());
    assert_eq!(sync.applied(&applied(2, &one), now).err(), unasked);
    assert_eq!(sync.applied(&applied(1, &stations(9)), now).err(), unasked);
    let mut sync = Sync::new(u64::MAX, TableDigest::default(), &[]);
    assert_eq!(sync.next(&one, now).err(), Some(SyncError::Exhausted));
}
