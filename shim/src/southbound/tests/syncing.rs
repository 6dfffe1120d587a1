//! Tables get to NVEs, whole and in parts, over many connections.

use super::*;
use crate::southbound::testing::Stopped;

fn quick() -> Config {
    Config {
        ping_interval: Duration::from_millis(50),
        stats_interval: Duration::from_millis(100),
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_nve_gets_everything_and_then_only_changes() {
    let shim = Shim::start(quick()).await;
    let tables = snapshot((1..=100).map(vap).chain((0..2_000).map(|n| fdb(n, 1))));
    let config = shim.add(&tables);
    let mut acked = shim.registry.acked(config.nve);
    assert!(acked.borrow_and_update().is_none());
    let nve = NativeNve::start(&config).unwrap();
    let status = shim.wait_in_sync(config.nve, &tables).await;
    assert_eq!(nve.state().sizes, tables.sizes());
    assert_eq!((status.counts.syncs_full, status.generation), (1, 1));
    assert!(status.connect_to_applied_us.is_some());
    let in_force = acked.borrow_and_update().clone().unwrap();
    assert!(Arc::ptr_eq(&in_force, &tables));

    let before = nve.state().received;
    let changed = snapshot((1..=100).map(vap).chain((0..2_001).map(|n| fdb(n, 1))));
    shim.directory.set(config.nve, Arc::clone(&changed));
    let status = shim.wait_in_sync(config.nve, &changed).await;
    assert_eq!(status.counts.syncs_incremental, 1);
    assert!(nve.state().received - before < 2_000, "one record");
    assert!(acked.has_changed().unwrap());
    shim.wait(config.nve, |s| {
        let reported = s.last_stats.is_some_and(|l| l.stats.tables.fdb == 2_001);
        let pinged = s.connection.as_ref().is_some_and(|c| c.ping_us.is_some());
        reported && pinged
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nve_that_comes_back_unchanged_gets_nothing() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5_000);
    let config = shim.add(&tables);
    let nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    let stopped = nve.stop().unwrap();
    shim.wait_gone(config.nve).await;
    let nve = stopped.start().unwrap();
    let before = nve.state();
    let status = shim.wait_in_sync(config.nve, &tables).await;
    assert_eq!(status.counts.syncs_skipped, 1);
    assert_eq!(status.counts.syncs_full, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = nve.state();
    assert!(
        after.received - before.received < 300,
        "handshake and welcome"
    );
    assert_eq!(after.commits, before.commits);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_shim_equal_tables_are_left_alone() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(100);
    let config = shim.add(&tables);
    let nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    let mut stopped = nve.stop().unwrap();
    let shim = shim.restarted().await;
    stopped.set_shims(vec![shim.address]);
    let nve = stopped.start().unwrap();
    let status = shim.wait_in_sync(config.nve, &tables).await;
    assert_eq!(status.counts.syncs_skipped, 1);
    assert_eq!((status.generation, nve.state().commits), (1, 1));

    let mut stopped = nve.stop().unwrap();
    let shim = shim.restarted().await;
    let changed = stations(101);
    shim.directory.set(config.nve, Arc::clone(&changed));
    stopped.set_shims(vec![shim.address]);
    let _nve = stopped.start().unwrap();
    let status = shim.wait_in_sync(config.nve, &changed).await;
    assert_eq!(status.counts.syncs_full, 1, "the old tables are not known");
    assert_eq!(status.generation, 2, "generations go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_an_nve_was_away_is_all_it_gets() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(3_000);
    let config = shim.add(&tables);
    let nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    let stopped = nve.stop().unwrap();
    shim.wait_gone(config.nve).await;
    let changed = stations(2_990);
    shim.directory.set(config.nve, Arc::clone(&changed));
    let _nve = stopped.start().unwrap();
    let status = shim.wait_in_sync(config.nve, &changed).await;
    assert_eq!(status.counts.syncs_incremental, 1);
    assert_eq!(status.counts.syncs_full, 1, "the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nve_with_other_tables_gets_everything() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(50);
    let config = shim.add(&tables);
    let nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    let mut stopped = nve.stop().unwrap();
    shim.wait_gone(config.nve).await;
    stopped.put(&fdb(1_000, 9));
    let nve = stopped.start().unwrap();
    let status = shim.wait_in_sync(config.nve, &tables).await;
    assert_eq!(status.counts.syncs_full, 2);
    assert_eq!(nve.state().sizes.fdb, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_changes_are_sent_together() {
    let shim = Shim::start(Config::default()).await;
    let config = shim.add(&stations(0));
    let nve = NativeNve::start(&config).unwrap();
    shim.wait(config.nve, |s| s.in_sync).await;
    for count in 1..=500 {
        shim.directory.set(config.nve, stations(count));
    }
    let status = shim.wait_in_sync(config.nve, &stations(500)).await;
    assert_eq!(nve.state().sizes.fdb, 500);
    assert!(status.counts.syncs_incremental < 400, "{:?}", status.counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_in_mid_sync_leaves_whole_tables() {
    let shim = Shim::start(Config::default()).await;
    let (old, new) = (stations(10), stations(60_000));
    let config = shim.add(&old);
    let mut stopped = Stopped::new(&config).unwrap();
    let mut interrupted = 0;
    for turn in 0..5 {
        shim.directory.set(config.nve, Arc::clone(&old));
        let nve = stopped.start().unwrap();
        shim.wait_in_sync(config.nve, &old).await;
        shim.directory.set(config.nve, Arc::clone(&new));
        let goal = nve.state().received + 100_000 * (turn + 1);
        nve.wait(LIMIT, |state| state.received > goal).unwrap();
        stopped = nve.stop().unwrap();
        shim.wait_gone(config.nve).await;
        let state = stopped.state();
        let whole = [old.digest(), new.digest()].contains(&state.digest);
        assert!(whole, "{state:?}");
        interrupted += u32::from(state.digest == old.digest());
    }
    assert!(interrupted > 0, "some were cut in the middle");
    let nve = stopped.start().unwrap();
    shim.wait_in_sync(config.nve, &new).await;
    assert_eq!(nve.state().sizes.fdb, 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_do_not_fit_are_refused_and_the_old_ones_stay() {
    let shim = Shim::start(Config::default()).await;
    let (fits, too_many) = (stations(10), stations(11));
    let mut config = shim.add(&fits);
    config.capacity.fdb = 10;
    let nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &fits).await;
    shim.directory.set(config.nve, too_many);
    let status = shim.wait(config.nve, |s| s.counts.refused >= 2).await;
    assert!(!status.in_sync);
    assert!(status.connection.is_some(), "the session goes on");
    assert_eq!(nve.state().digest, fits.digest());
    let other = snapshot((0..10).map(|n| fdb(n, 2)));
    shim.directory.set(config.nve, Arc::clone(&other));
    let status = shim.wait_in_sync(config.nve, &other).await;
    assert_eq!(status.counts.refused, 2, "a change and a full state");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_session_of_an_nve_counts() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let first = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    let dials = first.state().dials;
    let second = NativeNve::start(&config).unwrap();
    let status = shim.wait(config.nve, |s| s.counts.sessions >= 2).await;
    assert!(status.connection.is_some());
    first.wait(LIMIT, |state| state.dials > dials).unwrap();
    drop(first);
    shim.wait_in_sync(config.nve, &tables).await;
    second.wait(LIMIT, |s| s.digest == tables.digest()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nve_loses_its_session_and_is_unknown() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    shim.directory.remove(config.nve);
    shim.wait_gone(config.nve).await;
    shim.wait_rejected(Rejection::UnknownKey, 1).await;
    assert_eq!(nve.state().digest, tables.digest(), "it forwards on");
    shim.registry.remove(config.nve);
    assert!(shim.registry.status(config.nve).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_end_a_session() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let _nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    shim.registry.disconnect(config.nve);
    let status = shim.wait(config.nve, |s| s.counts.sessions == 2 && s.in_sync);
    assert_eq!(status.await.counts.syncs_skipped, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nves_are_served_at_once() {
    let shim = Shim::start(Config {
        max_unauthenticated_per_address: 64,
        ..Config::default()
    })
    .await;
    let tables = stations(500);
    let configs: Vec<_> = (0..50).map(|_| shim.add(&tables)).collect();
    let nves: Vec<_> = configs
        .iter()
        .map(|c| NativeNve::start(c).unwrap())
        .collect();
    for config in &configs {
        shim.wait_in_sync(config.nve, &tables).await;
    }
    assert!(nves.iter().all(|nve| nve.state().sizes.fdb == 500));
    assert_eq!(shim.registry.statuses().len(), 50);
}
