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
        port_security: true,
        presence: Presence::Active,
    };
    check(
        ToNve::Put(Record::Vap(vap)),
        r#"{"put":{"vap":{"vlan":101,"port":"9c1e3a52-0000-4000-8000-0000000000ab","vni":5001,"mac":"02:00:00:00:00:0a","port_security":true,"presence":"active"}}}"#,
    );
    for (presence, name) in [
        (Presence::Standby, "standby"),
        (Presence::Departed, "departed"),
    ] {
        let other = Record::Vap(Vap { presence, ..vap });
        let text = serde_json::to_string(&other).unwrap();
        assert!(
            text.ends_with(&format!(r#","presence":"{name}"}}}}"#)),
            "{text}"
        );
        assert_ne!(other.fingerprint(), Record::Vap(vap).fingerprint());
    }
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

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

const ID: &str = "9c1e3a52-0000-4000-8000-0000000000ab";

#[test]
fn records_of_routing() {
    let records = [
        (
            Record::Peer(Peer {
                vni: vni(1),
                vtep: ip("2001:db8::2"),
            }),
            r#"{"peer":{"vni":1,"vtep":"2001:db8::2"}}"#,
        ),
        (
            Record::Network(Network {
                vni: vni(1),
                mtu: 1450,
            }),
            r#"{"network":{"vni":1,"mtu":1450}}"#,
        ),
        (
            Record::Gateway(Gateway {
                vni: vni(1),
                ip: ip("10.0.0.1"),
                prefix: prefix("10.0.0.0/24"),
                mac: mac(),
                router: ID.parse().unwrap(),
            }),
            r#"{"gateway":{"vni":1,"ip":"10.0.0.1","prefix":"10.0.0.0/24","mac":"02:00:00:00:00:0a","router":"9c1e3a52-0000-4000-8000-0000000000ab"}}"#,
        ),
        (
            Record::Route(Route {
                router: ID.parse().unwrap(),
                destination: prefix("0.0.0.0/0"),
                next_hop: ip("10.0.0.254"),
            }),
            r#"{"route":{"router":"9c1e3a52-0000-4000-8000-0000000000ab","destination":"0.0.0.0/0","next_hop":"10.0.0.254"}}"#,
        ),
    ];
    for (record, golden) in records {
        check(record, golden);
    }
}

#[test]
fn records_of_addresses() {
    let vlan = Vlan::new(101).unwrap();
    let records = [
        (
            Record::Subnet(Subnet {
                vni: vni(1),
                prefix: prefix("2001:db8::/64"),
                dhcp: true,
                gateway: Some(ip("2001:db8::1")),
                ra_mode: Some(Ipv6Mode::Dhcpv6Stateless),
                address_mode: None,
            }),
            r#"{"subnet":{"vni":1,"prefix":"2001:db8::/64","dhcp":true,"gateway":"2001:db8::1","ra_mode":"dhcpv6_stateless","address_mode":null}}"#,
        ),
        (
            Record::Dns(Dns {
                vni: vni(1),
                subnet: prefix("10.0.0.0/24"),
                index: 0,
                server: ip("192.0.2.53"),
            }),
            r#"{"dns":{"vni":1,"subnet":"10.0.0.0/24","index":0,"server":"192.0.2.53"}}"#,
        ),
        (
            Record::HostRoute(HostRoute {
                vni: vni(1),
                subnet: prefix("10.0.0.0/24"),
                destination: prefix("10.9.0.0/16"),
                next_hop: ip("10.0.0.2"),
            }),
            r#"{"host_route":{"vni":1,"subnet":"10.0.0.0/24","destination":"10.9.0.0/16","next_hop":"10.0.0.2"}}"#,
        ),
        (
            Record::Address(Address {
                vlan,
                mac: mac(),
                prefix: prefix("10.0.0.5/32"),
                fixed: true,
            }),
            r#"{"address":{"vlan":101,"mac":"02:00:00:00:00:0a","prefix":"10.0.0.5/32","fixed":true}}"#,
        ),
        (
            Record::DhcpOption(DhcpOption {
                vlan,
                family: Family::Ipv4,
                code: 12,
                part: 0,
                value: OptionValue::new(b"vm-1").unwrap(),
            }),
            r#"{"dhcp_option":{"vlan":101,"family":"ipv4","code":12,"part":0,"value":"766d2d31"}}"#,
        ),
    ];
    for (record, golden) in records {
        check(record, golden);
    }
}

#[test]
fn records_of_policy() {
    let vlan = Vlan::new(101).unwrap();
    let group: GroupId = ID.parse().unwrap();
    let rule = Rule {
        id: ID.parse().unwrap(),
        group,
        direction: Direction::Ingress,
        family: Family::Ipv4,
        protocol: Some(6),
        low: 22,
        high: 23,
        remote: Remote::Prefix(prefix("10.0.0.0/8")),
    };
    let open = Rule {
        protocol: None,
        low: 0,
        high: u16::MAX,
        remote: Remote::Any,
        ..rule
    };
    let records = [
        (
            Record::Group(Group {
                group,
                stateful: true,
            }),
            r#"{"group":{"group":"9c1e3a52-0000-4000-8000-0000000000ab","stateful":true}}"#,
        ),
        (
            Record::Rule(rule),
            r#"{"rule":{"id":"9c1e3a52-0000-4000-8000-0000000000ab","group":"9c1e3a52-0000-4000-8000-0000000000ab","direction":"ingress","family":"ipv4","protocol":6,"low":22,"high":23,"remote":{"prefix":"10.0.0.0/8"}}}"#,
        ),
        (
            Record::Rule(open),
            r#"{"rule":{"id":"9c1e3a52-0000-4000-8000-0000000000ab","group":"9c1e3a52-0000-4000-8000-0000000000ab","direction":"ingress","family":"ipv4","protocol":null,"low":0,"high":65535,"remote":"any"}}"#,
        ),
        (
            Record::Member(Member {
                group,
                prefix: prefix("10.0.0.5/32"),
            }),
            r#"{"member":{"group":"9c1e3a52-0000-4000-8000-0000000000ab","prefix":"10.0.0.5/32"}}"#,
        ),
        (
            Record::Binding(Binding { vlan, group }),
            r#"{"binding":{"vlan":101,"group":"9c1e3a52-0000-4000-8000-0000000000ab"}}"#,
        ),
        (
            Record::Qos(Qos {
                vlan,
                egress: Limit {
                    kbps: 1000,
                    burst_kbit: 80,
                    pps: 0,
                    burst_packets: 0,
                },
                ingress: Limit::default(),
                dscp: Some(46),
            }),
            r#"{"qos":{"vlan":101,"egress":{"kbps":1000,"burst_kbit":80,"pps":0,"burst_packets":0},"ingress":{"kbps":0,"burst_kbit":0,"pps":0,"burst_packets":0},"dscp":46}}"#,
        ),
    ];
    for (record, golden) in records {
        check(record, golden);
    }
    check(
        Record::Rule(rule).key(),
        r#"{"rule":{"id":"9c1e3a52-0000-4000-8000-0000000000ab"}}"#,
    );
}

#[test]
fn transactions() {
    check(
        ToNve::Welcome(Welcome {
            api_version: 2,
            stats_interval_ms: 1000,
            dead_after_ms: 15_000,
        }),
        r#"{"welcome":{"api_version":2,"stats_interval_ms":1000,"dead_after_ms":15000}}"#,
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
            api_version: 2,
            nve: "9c1e3a52-0000-4000-8000-0000000000ab".parse().unwrap(),
            version: "0.1.0".try_into().unwrap(),
            generation: 0,
            digest: TableDigest::default(),
            boot_us: 42_000,
            capacity: TableSizes {
                fdb: 100_000,
                ..TableSizes::uniform(4094)
            },
        }),
        r#"{"hello":{"api_version":2,"nve":"9c1e3a52-0000-4000-8000-0000000000ab","version":"0.1.0","generation":0,"digest":"0000000000000000","boot_us":42000,"capacity":{"vaps":4094,"fdb":100000,"neighbors":4094,"flood":4094,"peers":4094,"networks":4094,"subnets":4094,"dns":4094,"host_routes":4094,"gateways":4094,"routes":4094,"addresses":4094,"dhcp_options":4094,"groups":4094,"rules":4094,"members":4094,"bindings":4094,"qos":4094}}}"#,
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
    let mut processors = Processors::default();
    let processor = ProcessorStats {
        rx_packets: u64::MAX,
        tx_packets: u64::MAX,
        handed: u64::MAX,
        busy_us: u64::MAX,
    };
    for _ in 0..MAX_PROCESSORS {
        processors.push(processor).unwrap();
    }
    assert_eq!(processors.push(processor), None);
    let stats = Stats {
        uptime_ms: u64::MAX,
        generation: u64::MAX,
        tables: TableSizes::uniform(u32::MAX),
        trunk: nic,
        uplink: nic,
        answers: u64::MAX,
        drops: [u64::MAX; DropReason::COUNT],
        busy_us: u64::MAX,
        processors,
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
fn names_of_tables_match_their_encoding() {
    let mut sizes = TableSizes::default();
    for (number, table) in (1..).zip(Table::ALL) {
        *sizes.get_mut(*table) = number;
        assert_eq!(sizes.get(*table), number);
        let text = serde_json::to_value(sizes).unwrap();
        assert_eq!(text[table.name()], number);
    }
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

#[test]
fn a_version_is_printable() {
    let hello = Hello {
        api_version: API_VERSION,
        nve: ID.parse().unwrap(),
        version: "0.1.0".try_into().unwrap(),
        generation: 0,
        digest: TableDigest::default(),
        boot_us: 0,
        capacity: TableSizes::default(),
    };
    let mut room = [0; MAX_MESSAGE];
    let length = codec::encode(&ToShim::Hello(hello), &mut room).unwrap();
    for bad in [b'\n', 0, 0x7f, b'"', b'\\', 0xff] {
        let mut bytes = room[..length].to_vec();
        let at = bytes.windows(5).position(|window| window == b"0.1.0");
        bytes[at.unwrap()] = bad;
        assert!(codec::decode::<ToShim>(&bytes).is_err(), "{bad:#x}");
    }
}
