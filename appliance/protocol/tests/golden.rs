//! Bytes of every message, pinned: a change here is a change of `API_VERSION`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;

use nve_protocol::codec::{self, DecodeError, MAX_MESSAGE};
use nve_protocol::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vni(id: u32) -> Vni {
    Vni::new(id).unwrap()
}

fn mac() -> Mac {
    "02:00:00:00:00:0a".parse().unwrap()
}

fn check<T>(message: T, golden: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut room = [0; MAX_MESSAGE];
    let length = codec::encode(&message, &mut room).unwrap();
    assert_eq!(
        str::from_utf8(&room[..length]).unwrap(),
        format!("{golden}\n")
    );
    let (back, rest) = codec::decode::<T>(&room[..length]).unwrap().unwrap();
    assert_eq!(back, message);
    assert!(rest.is_empty());
    assert_eq!(
        serde_json::to_string(&message).unwrap(),
        golden,
        "serde_json writes the same"
    );
    assert_eq!(serde_json::from_str::<T>(golden).unwrap(), message);
}

#[test]
fn records() {
    let vap = Vap {
        vlan: Vlan::new(101).unwrap(),
        port: "9c1e3a52-0000-4000-8000-0000000000ab".parse().unwrap(),
        vni: vni(5001),
        mac: mac(),
    };
    check(
        ToNve::Put(Record::Vap(vap)),
        r#"{"put":{"vap":{"vlan":101,"port":"9c1e3a52-0000-4000-8000-0000000000ab","vni":5001,"mac":"02:00:00:00:00:0a"}}}"#,
    );
    let fdb = Fdb {
        vni: vni(5001),
        mac: mac(),
        vtep: ip("192.0.2.12"),
    };
    check(
        ToNve::Put(Record::Fdb(fdb)),
        r#"{"put":{"fdb":{"vni":5001,"mac":"02:00:00:00:00:0a","vtep":"192.0.2.12"}}}"#,
    );
    let neighbor = Neighbor {
        vni: vni(5001),
        ip: ip("2001:db8::1"),
        mac: mac(),
    };
    check(
        ToNve::Put(Record::Neighbor(neighbor)),
        r#"{"put":{"neighbor":{"vni":5001,"ip":"2001:db8::1","mac":"02:00:00:00:00:0a"}}}"#,
    );
    let flood = Flood {
        vni: vni(5001),
        vtep: ip("192.0.2.12"),
    };
    check(
        ToNve::Put(Record::Flood(flood)),
        r#"{"put":{"flood":{"vni":5001,"vtep":"192.0.2.12"}}}"#,
    );
    check(
        ToNve::Delete(Record::Fdb(fdb).key()),
        r#"{"delete":{"fdb":{"vni":5001,"mac":"02:00:00:00:00:0a"}}}"#,
    );
    check(
        ToNve::Delete(Record::Vap(vap).key()),
        r#"{"delete":{"vap":{"vlan":101}}}"#,
    );
}

#[test]
fn transactions() {
    check(
        ToNve::Welcome(Welcome {
            api_version: 1,
            stats_interval_ms: 1000,
            dead_after_ms: 15_000,
        }),
        r#"{"welcome":{"api_version":1,"stats_interval_ms":1000,"dead_after_ms":15000}}"#,
    );
    check(
        ToNve::Begin(Begin {
            generation: 7,
            full: true,
        }),
        r#"{"begin":{"generation":7,"full":true}}"#,
    );
    check(
        ToNve::Commit(Commit {
            generation: 7,
            digest: TableDigest(0xab),
        }),
        r#"{"commit":{"generation":7,"digest":"00000000000000ab"}}"#,
    );
    check(ToNve::Ping(3), r#"{"ping":3}"#);
    check(
        ToShim::Applied(Applied {
            generation: 7,
            digest: TableDigest(1),
            apply_us: 12,
            total_us: 90,
        }),
        r#"{"applied":{"generation":7,"digest":"0000000000000001","apply_us":12,"total_us":90}}"#,
    );
    check(
        ToShim::Refused(Refused {
            generation: 7,
            reason: Refusal::DigestMismatch,
        }),
        r#"{"refused":{"generation":7,"reason":"digest_mismatch"}}"#,
    );
    check(ToShim::Pong(3), r#"{"pong":3}"#);
    check(
        ToShim::Hello(Hello {
            api_version: 1,
            nve: "9c1e3a52-0000-4000-8000-0000000000ab".parse().unwrap(),
            version: "0.1.0".try_into().unwrap(),
            generation: 0,
            digest: TableDigest::default(),
            boot_us: 42_000,
            capacity: Capacity {
                vaps: 4094,
                fdb: 100_000,
                neighbors: 100_000,
                flood: 4096,
            },
        }),
        r#"{"hello":{"api_version":1,"nve":"9c1e3a52-0000-4000-8000-0000000000ab","version":"0.1.0","generation":0,"digest":"0000000000000000","boot_us":42000,"capacity":{"vaps":4094,"fdb":100000,"neighbors":100000,"flood":4096}}}"#,
    );
}

#[test]
fn the_longest_message_fits() {
    let nic = NicStats {
        rx_packets: u64::MAX,
        rx_bytes: u64::MAX,
        tx_packets: u64::MAX,
        tx_bytes: u64::MAX,
        device_errors: u64::MAX,
    };
    let stats = Stats {
        uptime_ms: u64::MAX,
        generation: u64::MAX,
        tables: TableSizes {
            vaps: u32::MAX,
            fdb: u32::MAX,
            neighbors: u32::MAX,
            flood: u32::MAX,
        },
        trunk: nic,
        uplink: nic,
        arp_replies: u64::MAX,
        drops: [u64::MAX; DropReason::COUNT],
        busy_us: u64::MAX,
        heap_used: u64::MAX,
        heap_size: u64::MAX,
    };
    let mut room = [0; MAX_MESSAGE];
    let length = codec::encode(&ToShim::Stats(stats), &mut room).unwrap();
    let (back, _) = codec::decode::<ToShim>(&room[..length]).unwrap().unwrap();
    assert_eq!(back, ToShim::Stats(stats));
}

#[test]
fn many_messages_share_a_frame_and_garbage_is_refused() {
    let bytes = b"{\"ping\":1}\n{\"ping\":2}\n";
    let (first, rest) = codec::decode::<ToNve>(bytes).unwrap().unwrap();
    let (second, rest) = codec::decode::<ToNve>(rest).unwrap().unwrap();
    assert_eq!((first, second), (ToNve::Ping(1), ToNve::Ping(2)));
    assert_eq!(codec::decode::<ToNve>(rest), Ok(None));
    assert_eq!(
        codec::decode::<ToNve>(b"{\"ping\":1}"),
        Err(DecodeError::Unterminated)
    );
    for bad in [
        &b"\n"[..],
        b"{}\n",
        b"{\"ping\":-1}\n",
        b"{\"ping\":1}x\n",
        b"{\"nonsense\":1}\n",
        b"{\"put\":{\"vap\":{\"vlan\":4095}}}\n",
        b"\xff\xfe",
    ] {
        assert!(codec::decode::<ToNve>(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_digest_ignores_order_and_sees_every_field() {
    let one = Record::Flood(Flood {
        vni: vni(1),
        vtep: ip("192.0.2.1"),
    });
    let two = Record::Flood(Flood {
        vni: vni(1),
        vtep: ip("192.0.2.2"),
    });
    let forward: TableDigest = [&one, &two].into_iter().collect();
    let backward: TableDigest = [&two, &one].into_iter().collect();
    assert_eq!(forward, backward);
    let mut without = forward;
    without.remove(&two);
    assert_eq!(without, [&one].into_iter().collect());
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert_eq!(one.fingerprint(), 14_986_112_090_142_266_119, "pinned");
}

#[test]
fn names_of_drop_reasons_match_their_encoding() {
    for (i, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), i);
        assert_eq!(
            serde_json::to_string(reason).unwrap(),
            format!("\"{}\"", reason.name())
        );
    }
}

proptest::proptest! {
    #[test]
    fn decoding_never_panics(bytes: Vec<u8>) {
        let _ = codec::decode::<ToNve>(&bytes);
        let _ = codec::decode::<ToShim>(&bytes);
        let _ = frame::split(&bytes);
    }
}
