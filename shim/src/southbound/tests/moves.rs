//! VMs that NVEs hear, and what they are told that others knew.

use std::net::{IpAddr, Ipv4Addr};

use nve_protocol::handover::{Handover, Known, Level, TakeOver};
use nve_protocol::inspect::{Answer, Ask, Done, Part, Place, Question};
use nve_protocol::{Direction, TableDigest, ToNve, ToShim};

use super::peer::Peer;
use super::*;
use crate::southbound::NotConnected;

fn place(vlan: u16) -> Place {
    Place {
        vlan: Vlan::new(vlan).unwrap(),
        port: PortId([7; 16]),
    }
}

fn known(bits: i64) -> Known {
    Known::Level(Level {
        direction: Direction::Egress,
        bits,
        packets: 0,
    })
}

fn told(bits: i64) -> TakeOver {
    TakeOver {
        place: place(1),
        known: known(bits),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_heard_is_told_to_the_directory() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let mut peer = Peer::greet(&shim, &config, tables.digest()).await;
    shim.wait_in_sync(config.nve, &tables).await;
    for vlan in [3, 1, 3] {
        peer.send(&ToShim::Awake(place(vlan))).await;
    }
    let deadline = Instant::now() + LIMIT;
    let all = |awake: &[(Uuid, Place)]| {
        let has = |vlan| awake.contains(&(config.nve, place(vlan)));
        has(1) && has(3)
    };
    while !all(&shim.directory.awake()) {
        assert!(Instant::now() < deadline, "{:?}", shim.directory.awake());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    shim.wait_in_sync(config.nve, &tables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_knew_comes_in_order_and_through_a_transaction() {
    // More than the sockets hold, so the shim is not done before it is read.
    const STATIONS: u32 = 500_000;
    const TOLD: i64 = 300;
    let shim = Shim::start(Config::default()).await;
    let config = shim.add(&stations(STATIONS));
    let mut peer = Peer::greet(&shim, &config, TableDigest(1)).await;
    shim.wait(config.nve, |s| s.connection.is_some()).await;
    let registry = Arc::clone(&shim.registry);
    let telling = tokio::spawn(async move {
        let all = (0..TOLD).map(told).collect();
        registry.take_over(config.nve, all).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!telling.is_finished(), "nobody reads");
    let (mut puts, mut came, mut puts_before) = (0, vec![], 0);
    while puts < STATIONS || came.len() < TOLD as usize {
        for message in peer.receive().await.unwrap() {
            match message {
                ToNve::Put(_) => puts += 1,
                ToNve::TakeOver(told) => {
                    came.push(told);
                    puts_before = puts;
                }
                _ => {}
            }
        }
    }
    assert!(
        puts_before < STATIONS,
        "it waited for the whole transaction"
    );
    assert!(puts_before > 4 * TOLD as u32, "tables come first");
    assert_eq!(came, (0..TOLD).map(told).collect::<Vec<_>>());
    assert_eq!(telling.await.unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_to_who_is_not_connected() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let tell = |count| {
        let (registry, nve) = (Arc::clone(&shim.registry), config.nve);
        let all = (0..count).map(told).collect();
        tokio::spawn(async move { registry.take_over(nve, all).await })
    };
    assert_eq!(tell(1).await.unwrap(), Err(NotConnected));
    let peer = Peer::greet(&shim, &config, tables.digest()).await;
    shim.wait_in_sync(config.nve, &tables).await;
    let first = shim.registry.session(config.nve).unwrap();
    // It does not read, and goes.
    let many = tell(300_000);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!many.is_finished());
    drop(peer);
    assert_eq!(many.await.unwrap(), Err(NotConnected));
    shim.wait_gone(config.nve).await;
    assert_eq!(shim.registry.session(config.nve), None);
    let _peer = Peer::greet(&shim, &config, tables.digest()).await;
    shim.wait_in_sync(config.nve, &tables).await;
    assert!(shim.registry.session(config.nve).unwrap() > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nve_says_what_it_knows() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let mut peer = Peer::greet(&shim, &config, tables.digest()).await;
    shim.wait_in_sync(config.nve, &tables).await;
    let question = Question::Handover(Handover {
        place: place(1),
        cursor: 0,
        within_ms: u32::MAX,
    });
    let (registry, nve) = (Arc::clone(&shim.registry), config.nve);
    let asking = tokio::spawn(async move { registry.ask_within(nve, question, LIMIT).await });
    let number = loop {
        let messages = peer.receive().await.unwrap();
        let asked = messages.into_iter().find_map(|message| match message {
            ToNve::Ask(Ask { number, question }) => Some((number, question)),
            _ => None,
        });
        if let Some((number, asked)) = asked {
            assert_eq!(asked, question);
            break number;
        }
    };
    let connection = Known::Connection(nve_protocol::handover::Connection {
        opener: Direction::Ingress,
        protocol: 6,
        local: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        remote: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
        local_port: 22,
        remote_port: 40_000,
        state: nve_protocol::inspect::ConnectionState::Established,
        idle_ms: 5,
        rule: nve_protocol::RuleId([1; 16]),
    });
    let done = Done {
        next: 9,
        lost: 0,
        more: true,
    };
    let parts = [
        Part::Known(known(5)),
        Part::Known(connection),
        Part::Done(done),
    ];
    for part in parts {
        peer.send(&ToShim::Answer(Answer { number, part })).await;
    }
    let reply = asking.await.unwrap().unwrap();
    assert_eq!(reply.parts, parts[..2]);
    assert_eq!(reply.done, done);
}
