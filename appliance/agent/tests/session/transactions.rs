//! Transactions: all or nothing, whatever happens on the way.

use nve_agent::{Change, Phase, Replica};
use nve_datapath::{Nanos, Tables};
use nve_protocol::*;
use proptest::prelude::*;

use crate::support::*;

fn refused(generation: u64, reason: Refusal) -> ToShim {
    ToShim::Refused(Refused { generation, reason })
}

fn generation(answer: &ToShim) -> Option<u64> {
    match answer {
        ToShim::Applied(applied) => Some(applied.generation),
        _ => None,
    }
}

/// A pair whose tables are records 0 to 9 at generation 5.
fn filled() -> (Pair, Model) {
    let mut pair = Pair::established();
    let records: Vec<_> = (0..10).map(record).collect();
    let before = Model::of(&records);
    let answer = pair.transact(&puts(5, true, &records, &before));
    assert_eq!(generation(&answer), Some(5));
    (pair, before)
}

#[test]
fn a_full_state_replaces_and_a_change_changes() {
    let (mut pair, mut model) = filled();
    let [add, replace, gone] = [record(10), record(51), record(2)];
    for changed in [add, replace] {
        model.records.insert(changed.key(), changed);
    }
    model.records.remove(&gone.key());
    let mut messages = puts(6, false, &[add, replace], &model);
    messages.insert(1, ToNve::Delete(gone.key()));
    messages.insert(1, ToNve::Delete(record(40).key()));
    let answer = pair.transact(&messages);
    assert_eq!(generation(&answer), Some(6));
    assert_eq!(pair.tables.records, model.records);

    let after = Model::of(&[record(7)]);
    pair.transact(&puts(9, true, &[record(7)], &after));
    assert_eq!(pair.tables.records, after.records);
    assert_eq!((pair.session.generation(), pair.commits), (9, 3));
}

#[test]
fn a_wrong_digest_changes_nothing_and_a_full_state_heals() {
    for full in [false, true] {
        let (mut pair, before) = filled();
        let changes = [record(60), record(11), record(52), record(60)];
        let mut messages = puts(6, full, &changes, &before);
        messages.insert(1, ToNve::Delete(record(3).key()));
        messages.insert(4, ToNve::Delete(record(11).key()));
        let answer = pair.transact(&messages);
        assert_eq!(answer, refused(6, Refusal::DigestMismatch));
        assert_eq!(pair.tables.records, before.records);
        assert_eq!(pair.session.generation(), 5);
        let after = Model::of(&changes);
        let answer = pair.transact(&puts(7, true, &changes, &after));
        assert_eq!(generation(&answer), Some(7));
        assert_eq!(pair.tables.records, after.records);
    }
}

#[test]
fn a_table_that_fills_up_is_rolled_back() {
    let (mut pair, before) = filled();
    pair.tables.limit = 12;
    let records: Vec<_> = (50..63).map(record).collect();
    for full in [false, true] {
        let messages = puts(6, full, &records, &before);
        assert_eq!(pair.transact(&messages), refused(6, Refusal::TableFull));
        assert_eq!(pair.tables.records, before.records);
    }
}

#[test]
fn who_makes_the_steps_that_were_told_has_the_same_tables() {
    let (mut pair, before) = filled();
    let model = Model::of(&(1..12).map(record).collect::<Vec<_>>());
    let mut messages = puts(6, false, &[record(10), record(11)], &model);
    messages.insert(1, ToNve::Delete(record(0).key()));
    assert_eq!(generation(&pair.transact(&messages)), Some(6));
    for full in [false, true] {
        let messages = puts(7, full, &[record(20)], &before);
        assert_eq!(
            pair.transact(&messages),
            refused(7, Refusal::DigestMismatch)
        );
        assert_eq!(pair.tables.told.last(), Some(&Change::Abandon));
    }
    pair.tables.limit = 12;
    let many: Vec<_> = (50..63).map(record).collect();
    let messages = puts(7, true, &many, &before);
    assert_eq!(pair.transact(&messages), refused(7, Refusal::TableFull));
    assert_eq!(pair.tables.told.last(), Some(&Change::Abandon));
    let (mut other, mut replica) = (Model::new(12), Replica::new());
    for change in &pair.tables.told {
        replica.follow(change, Nanos(1), &mut other).unwrap();
    }
    assert_eq!(other.records, pair.tables.records);
    assert_eq!(other.records, model.records);
    let late = Change::Put(record(1));
    let outcome = replica.follow(&late, Nanos(1), &mut other);
    assert_eq!(outcome, Err(Refusal::NoTransaction));
}

#[test]
fn a_record_that_no_table_takes_refuses_the_transaction() {
    let (mut pair, before) = filled();
    let bad = Record::Fdb(Fdb {
        vni: Vni::new(1).unwrap(),
        mac: Mac::BROADCAST,
        vtep: [192, 0, 2, 1].into(),
    });
    for full in [false, true] {
        let messages = puts(6, full, &[record(20), bad, record(21)], &before);
        assert_eq!(pair.transact(&messages), refused(6, Refusal::BadRecord));
        assert_eq!(pair.tables.records, before.records);
    }
}

#[test]
fn too_many_changes_are_refused_once_and_the_rest_is_passed_over() {
    let (mut pair, before) = filled();
    let many: Vec<_> = (0..MAX_CHANGES as u32 + 500).map(record).collect();
    let mut messages = puts(6, false, &many, &before);
    messages.pop();
    assert_eq!(pair.transact(&messages), refused(6, Refusal::OutOfMemory));
    assert_eq!(pair.tables.records, before.records);
    let answer = pair.transact(&puts(7, false, &[], &before));
    assert_eq!(generation(&answer), Some(7), "the next begin starts over");
}

#[test]
fn generations_only_grow_and_begin_must_match_commit() {
    let (mut pair, before) = filled();
    for old in [0, 4, 5] {
        let answer = pair.transact(&puts(old, true, &[], &before));
        assert_eq!(answer, refused(old, Refusal::WrongGeneration));
    }
    let mut messages = puts(8, true, &[record(1)], &before);
    if let Some(ToNve::Commit(commit)) = messages.last_mut() {
        commit.generation = 9;
    }
    let answer = pair.transact(&messages);
    assert_eq!(answer, refused(8, Refusal::WrongGeneration));
    assert_eq!(pair.tables.records, before.records);
}

#[test]
fn nothing_is_staged_without_begin() {
    let (mut pair, before) = filled();
    let messages = puts(6, true, &[record(30), record(31)], &before);
    let answer = pair.transact(&messages[1..]);
    assert_eq!(answer, refused(5, Refusal::NoTransaction));
    let answer = pair.transact(&messages[3..]);
    assert_eq!(answer, refused(6, Refusal::NoTransaction));
    assert_eq!(pair.tables.records, before.records);
}

#[test]
fn a_second_begin_drops_the_first() {
    let (mut pair, before) = filled();
    let after = Model::of(&[record(4)]);
    let mut messages = puts(6, true, &[record(1), record(2)], &before);
    messages.pop();
    messages.extend(puts(7, true, &[record(4)], &after));
    assert_eq!(generation(&pair.transact(&messages)), Some(7));
    assert_eq!(pair.tables.records, after.records);
}

#[test]
fn a_connection_lost_in_mid_transaction_leaves_the_old_state() {
    for full in [false, true] {
        let (mut pair, before) = filled();
        let messages = puts(6, full, &[record(60), record(20)], &before);
        for cut_after in 1..messages.len() {
            pair.send(&messages[..cut_after]);
            pair.run_ms(5);
            pair.cut();
            assert_eq!(pair.tables.records, before.records);
            while pair.session.phase() != Phase::Established {
                pair.run_ms(10);
            }
            let Some(ToShim::Hello(hello)) = pair.shim.heard.first() else {
                panic!("{:?}", pair.shim.heard);
            };
            let digest: TableDigest = before.records.values().collect();
            assert_eq!((hello.generation, hello.digest), (5, digest));
            let answer = pair.transact(&messages[messages.len() - 1..]);
            assert_eq!(answer, refused(6, Refusal::NoTransaction), "forgotten");
        }
    }
}

#[test]
fn times_are_those_of_the_clock() {
    let (mut pair, before) = filled();
    pair.tick = 10_000;
    let messages = puts(6, true, &[], &Model::of(&[]));
    pair.send(&messages[..1]);
    pair.run_ms(100);
    pair.send(&messages[1..]);
    pair.run_ms(100);
    let Some(ToShim::Applied(applied)) = pair.shim.heard.last() else {
        panic!("{:?}", pair.shim.heard);
    };
    assert_eq!(applied.apply_us, 10, "one look at the clock");
    assert!(
        (100_000..100_100).contains(&applied.total_us),
        "{applied:?}"
    );
    assert_ne!(pair.tables.records, before.records);
}

#[derive(Debug, Clone)]
enum Op {
    Put(u32),
    Delete(u32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        2 => (0u32..3_000).prop_map(Op::Put),
        1 => (0u32..60).prop_map(Op::Delete),
    ];
    prop::collection::vec(op, 0..40)
}

fn any_record() -> impl Strategy<Value = Record> {
    let vni = (1u32..4).prop_map(|n| Vni::new(n).unwrap());
    let mac = (0u8..4).prop_map(|n| Mac([2, 0, 0, 0, 0, n]));
    let ip = (1u8..4).prop_map(|n| [192, 0, 2, n].into());
    let vap = (1u16..5, 0u8..3, vni.clone(), mac.clone());
    prop_oneof![
        vap.prop_map(|(vlan, port, vni, mac)| {
            let (vlan, port) = (Vlan::new(vlan).unwrap(), PortId([port; 16]));
            Record::Vap(Vap {
                vlan,
                port,
                vni,
                mac,
                port_security: true,
                presence: Presence::Active,
            })
        }),
        (vni.clone(), mac.clone(), ip.clone()).prop_map(|(vni, mac, vtep)| Record::Fdb(Fdb {
            vni,
            mac,
            vtep
        })),
        (vni.clone(), ip.clone(), mac).prop_map(|(vni, ip, mac)| Record::Neighbor(Neighbor {
            vni,
            ip,
            mac
        })),
        (vni, ip).prop_map(|(vni, vtep)| Record::Flood(Flood { vni, vtep })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of transactions, some with a wrong digest, leaves what a map
    /// would hold.
    #[test]
    fn transactions_do_what_a_map_does(
        transactions in prop::collection::vec((any::<bool>(), any::<bool>(), ops()), 1..6),
        limit in 10usize..60,
    ) {
        let mut pair = Pair::established();
        pair.tables.limit = limit;
        for (n, (full, wrong, ops)) in transactions.into_iter().enumerate() {
            let generation = n as u64 + 1;
            let mut after = pair.tables.clone();
            if full {
                after.records.clear();
            }
            let mut messages = vec![ToNve::Begin(Begin { generation, full })];
            let mut fits = true;
            for op in ops {
                match op {
                    Op::Put(n) => {
                        let record = record(n);
                        after.records.insert(record.key(), record);
                        fits &= after.records.len() <= limit;
                        messages.push(ToNve::Put(record));
                    }
                    Op::Delete(n) => {
                        let key = record(n).key();
                        after.records.remove(&key);
                        messages.push(ToNve::Delete(key));
                    }
                }
            }
            let mut digest: TableDigest = after.records.values().collect();
            digest.0 ^= u64::from(wrong);
            messages.push(ToNve::Commit(Commit { generation, digest }));
            let before = pair.tables.clone();
            let answer = pair.transact(&messages);
            let applied = matches!(answer, ToShim::Applied(_));
            prop_assert_eq!(applied, fits && !wrong, "{:?}", answer);
            let expected = if applied { after } else { before };
            prop_assert_eq!(&pair.tables.records, &expected.records);
        }
    }

    /// The same with the datapath's own tables: rolling back restores them.
    #[test]
    fn the_datapaths_tables_are_rolled_back(
        start in prop::collection::vec(any_record(), 0..30),
        change in prop::collection::vec((any::<bool>(), any_record()), 0..30),
    ) {
        let capacity = TableSizes {
            vaps: 3,
            fdb: 6,
            neighbors: 5,
            ..TableSizes::uniform(4)
        };
        let mut tables = Tables::new(capacity);
        for record in &start {
            // Some do not fit.
            let _ = tables.put(record);
        }
        let (digest, sizes) = (tables.digest(), tables.sizes());
        let mut datapath = datapath(tables);
        let mut wire = Wire::established(&mut datapath);
        let mut messages = vec![ToNve::Begin(Begin { generation: 1, full: false })];
        messages.extend(change.iter().map(|(put, record)| match put {
            true => ToNve::Put(*record),
            false => ToNve::Delete(record.key()),
        }));
        // No set of these records has this digest but by chance.
        let wrong = TableDigest(0x0123_4567_89ab_cdef);
        messages.push(ToNve::Commit(Commit { generation: 1, digest: wrong }));
        wire.send(&messages, &mut datapath);
        let is_refused = matches!(wire.answers()[..], [ToShim::Refused(_)]);
        prop_assert!(is_refused);
        prop_assert_eq!(datapath.tables().digest(), digest);
        prop_assert_eq!(datapath.tables().sizes(), sizes);
    }
}
