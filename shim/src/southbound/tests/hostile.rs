//! Strangers and broken NVEs: refused, counted, and no burden to others.

use nve_protocol::frame::MAX_ACCEPTED;
use nve_protocol::{Applied, Commit, Refusal, Refused, TableDigest, ToNve, ToShim};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::peer::{Peer, closed_in_silence, first_frame, hello, read_frame};
use super::*;

async fn connect(shim: &Shim) -> TcpStream {
    TcpStream::connect(shim.address).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_closed_without_an_answer() {
    let shim = Shim::start(Config::default()).await;
    let texts: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 5_000],
        &[0, 96],
        &[0, 96, 1],
    ];
    for text in texts {
        let mut stream = connect(&shim).await;
        let mut text = text.to_vec();
        text.resize(text.len().max(98), 7);
        stream.write_all(&text).await.unwrap();
        assert!(closed_in_silence(&mut stream).await);
    }
    shim.wait_rejected(Rejection::Garbage, 4).await;
    shim.assert_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_strangers_are_cut_off_and_lock_nobody_out() {
    let shim = Shim::start(Config {
        hello_timeout: Duration::from_millis(300),
        max_unauthenticated_per_address: 4,
        ..Config::default()
    })
    .await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(connect(&shim).await);
    }
    let mut fifth = connect(&shim).await;
    assert!(closed_in_silence(&mut fifth).await);
    shim.wait_rejected(Rejection::TooMany, 1).await;
    for stream in &mut streams {
        stream.write_all(&[0]).await.unwrap();
    }
    let start = Instant::now();
    for stream in &mut streams {
        assert!(closed_in_silence(stream).await);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    shim.wait_rejected(Rejection::Timeout, 4).await;
    shim.assert_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_gets_no_answer() {
    let shim = Shim::start(Config::default()).await;
    let stranger = KeyPair::generate().unwrap();
    let mut stream = connect(&shim).await;
    let (_, bytes) = first_frame(&stranger, shim.keys.public());
    stream.write_all(&bytes).await.unwrap();
    assert!(closed_in_silence(&mut stream).await);
    shim.wait_rejected(Rejection::UnknownKey, 1).await;
    shim.assert_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_with_another_key_gets_no_session() {
    let shim = Shim::start(Config::default()).await;
    let mut config = shim.add(&stations(5));
    config.shim_key = *KeyPair::generate().unwrap().public();
    let nve = NativeNve::start(&config).unwrap();
    shim.wait_rejected(Rejection::Garbage, 2).await;
    assert!(shim.registry.status(config.nve).is_none());
    assert_eq!(nve.state().digest, TableDigest::default());
    shim.assert_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_handshake_ends_no_session() {
    let shim = Shim::start(Config {
        hello_timeout: Duration::from_millis(300),
        ..Config::default()
    })
    .await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let (_, recorded) = first_frame(&config.keys, shim.keys.public());
    let _nve = NativeNve::start(&config).unwrap();
    shim.wait_in_sync(config.nve, &tables).await;
    for _ in 0..2 {
        let mut stream = connect(&shim).await;
        stream.write_all(&recorded).await.unwrap();
        assert!(read_frame(&mut stream).await.is_some());
        stream.write_all(&recorded).await.unwrap();
    }
    shim.wait_rejected(Rejection::BadHello, 2).await;
    let status = shim.registry.status(config.nve).unwrap();
    assert_eq!(status.counts.sessions, 1);
    assert!(status.in_sync);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_must_fit_its_key_and_the_version() {
    let shim = Shim::start(Config::default()).await;
    let (config, other) = (shim.add(&stations(5)), shim.add(&stations(5)));
    let mut peer = Peer::connect(&shim, &config.keys).await;
    peer.send(&ToShim::Hello(hello(&other))).await;
    assert!(peer.receive().await.is_none());
    shim.wait_rejected(Rejection::WrongNve, 1).await;

    let mut peer = Peer::connect(&shim, &config.keys).await;
    let mut wrong = hello(&config);
    wrong.api_version = 99;
    peer.send(&ToShim::Hello(wrong)).await;
    let answer = peer.receive().await.unwrap();
    assert!(matches!(answer[..], [ToNve::Welcome(_)]), "names ours");
    assert!(peer.receive().await.is_none());
    shim.wait_rejected(Rejection::Version, 1).await;

    let mut peer = Peer::connect(&shim, &config.keys).await;
    peer.send(&ToShim::Pong(1)).await;
    assert!(peer.receive().await.is_none());
    shim.wait_rejected(Rejection::BadHello, 1).await;
    assert!(shim.registry.status(config.nve).is_none());
    assert!(shim.registry.status(other.nve).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_within_a_session_ends_it() {
    let shim = Shim::start(Config::default()).await;
    let tables = stations(5);
    let config = shim.add(&tables);
    let answer = Applied {
        generation: 77,
        digest: TableDigest(1),
        apply_us: 0,
        total_us: 0,
    };
    for turn in 0..4 {
        let mut peer = Peer::greet(&shim, &config, tables.digest()).await;
        shim.wait_in_sync(config.nve, &tables).await;
        match turn {
            0 => peer.send_bytes(b"{\"nonsense\":1}\n").await,
            1 => peer.send(&ToShim::Hello(hello(&config))).await,
            2 => peer.send(&ToShim::Applied(answer)).await,
            _ => {
                let long = u16::try_from(MAX_ACCEPTED + 1).unwrap().to_be_bytes();
                peer.stream.write_all(&long).await.unwrap();
            }
        }
        while peer.receive().await.is_some() {}
        shim.wait_gone(config.nve).await;
    }
    shim.assert_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_mismatch_is_healed_by_a_full_state() {
    let shim = Shim::start(Config::default()).await;
    let (old, new) = (stations(5), stations(6));
    let config = shim.add(&old);
    let mut peer = Peer::greet(&shim, &config, old.digest()).await;
    shim.wait_in_sync(config.nve, &old).await;
    shim.directory.set(config.nve, Arc::clone(&new));
    let change = peer.transaction().await;
    let [ToNve::Begin(begin), ToNve::Put(_), ToNve::Commit(_)] = change[..] else {
        panic!("{change:?}");
    };
    assert!(!begin.full);
    let generation = begin.generation;
    let reason = Refusal::DigestMismatch;
    peer.send(&ToShim::Refused(Refused { generation, reason }))
        .await;
    let full = peer.transaction().await;
    assert_eq!(full.len(), 6 + 2);
    let Some(ToNve::Commit(Commit { generation, digest })) = full.last().copied() else {
        panic!("{full:?}");
    };
    peer.send(&ToShim::Applied(Applied {
        generation,
        digest,
        apply_us: 1,
        total_us: 1,
    }))
    .await;
    let status = shim.wait_in_sync(config.nve, &new).await;
    assert_eq!((status.counts.refused, status.counts.syncs_full), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nve_that_stops_reading_is_cut_off_alone() {
    let shim = Shim::start(Config {
        dead_after: Duration::from_millis(1_000),
        ping_interval: Duration::from_millis(200),
        ..Config::default()
    })
    .await;
    let config = shim.add(&stations(100_000));
    let _peer = Peer::greet(&shim, &config, TableDigest(1)).await;
    shim.wait(config.nve, |s| s.connection.is_some()).await;
    shim.assert_serves().await;
    shim.wait_gone(config.nve).await;
}
