//! Frames into the pipeline, from either side and one after the other: no panic,
//! what comes out is well-formed, what came out of a tunnel goes into another one only
//! for a VM that has gone, and a trace foretells what becomes of a VM's frame.
//!
//! The input is a list of frames: one byte for the side (lowest bit) and the
//! seconds since the frame before (upper four), two for the length, the bytes.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use nve_datapath::{
    Config, Datapath, Frame, HEADROOM, Nanos, NoBuffer, PartialChecksum, Side, Sink, Tables,
    Uplink, Verdict, connections,
};
use nve_protocol::inspect::{Origin, Part, Probe, ProbeHead, Question, Step};
use nve_protocol::*;

const UPLINK_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
const PEER_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
const LONGEST: usize = 2048;

fn vni(network: u8) -> Vni {
    Vni::new(5000 + u32::from(network)).expect("24 bits")
}

fn mac(host: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, host])
}

fn addresses(network: u8, host: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 0, network, host).into(),
        Ipv6Addr::new(0xfd00, 0, 0, network.into(), 0, 0, 0, host.into()).into(),
    ]
}

fn around(ip: IpAddr) -> Prefix {
    Prefix::around(ip, if ip.is_ipv4() { 24 } else { 64 }).expect("shorter than the address")
}

/// Host of each network whose VM has gone to the peer.
const DEPARTED: u8 = 5;

/// Networks 1 and 2 with a router between them; hosts 1 and 2 of each are here,
/// the first one with port security, 3 is behind the peer. Host 4 is there too, and may
/// come; 5 was here before.
fn records() -> Vec<Record> {
    let router = RouterId([9; 16]);
    let group = GroupId([8; 16]);
    let mut records = vec![Record::Group(Group {
        group,
        stateful: true,
    })];
    for network in 1..=2 {
        let vni = vni(network);
        records.push(Record::Network(Network { vni, mtu: 1280 }));
        for vtep in [IpAddr::from(PEER), Ipv4Addr::new(192, 0, 2, 13).into()] {
            records.push(Record::Flood(Flood { vni, vtep }));
        }
        for (host, presence) in [
            (1, Presence::Active),
            (2, Presence::Active),
            (4, Presence::Standby),
            (DEPARTED, Presence::Departed),
        ] {
            let vlan = Vlan::new(100 + u16::from(network * 10 + host)).expect("a tag");
            records.push(Record::Vap(Vap {
                vlan,
                port: PortId([network * 10 + host; 16]),
                vni,
                mac: mac(host),
                port_security: matches!(host, 1 | 4),
                presence,
            }));
            records.push(Record::Binding(Binding { vlan, group }));
            records.extend(addresses(network, host).map(|ip| {
                Record::Address(Address {
                    vlan,
                    mac: mac(host),
                    prefix: Prefix::host(ip),
                    fixed: true,
                })
            }));
        }
        for host in 3..=DEPARTED {
            records.push(Record::Fdb(Fdb {
                vni,
                mac: mac(host),
                vtep: PEER.into(),
            }));
        }
        for host in 1..=DEPARTED {
            let neighbor = |ip| {
                let mac = mac(host);
                Record::Neighbor(Neighbor { vni, ip, mac })
            };
            records.extend(addresses(network, host).map(neighbor));
        }
        records.extend(addresses(network, 254).map(|ip| {
            Record::Gateway(Gateway {
                vni,
                ip,
                prefix: around(ip),
                mac: mac(254),
                router,
            })
        }));
        records.extend(addresses(network, 0).map(|ip| {
            Record::Subnet(Subnet {
                vni,
                prefix: around(ip),
                dhcp: true,
                gateway: Some(if ip.is_ipv4() {
                    addresses(network, 254)[0]
                } else {
                    addresses(network, 254)[1]
                }),
                ra_mode: ip.is_ipv6().then_some(Ipv6Mode::Dhcpv6Stateful),
                address_mode: ip.is_ipv6().then_some(Ipv6Mode::Dhcpv6Stateful),
            })
        }));
    }
    for (id, direction, family) in [
        (1, Direction::Egress, Family::Ipv4),
        (2, Direction::Egress, Family::Ipv6),
        (3, Direction::Ingress, Family::Ipv4),
    ] {
        records.push(Record::Rule(Rule {
            id: RuleId([id; 16]),
            group,
            direction,
            family,
            protocol: None,
            low: 0,
            high: u16::MAX,
            remote: Remote::Any,
        }));
    }
    records
}

fn datapath() -> Datapath {
    let config = Config {
        uplink: Uplink {
            mac: UPLINK_MAC,
            address: VTEP.into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
        },
        trunk_mtu: 1500,
        trunk_checksum: false,
        flows: 64,
        seed: 7,
        connections: connections::Config {
            connections: 64,
            connections_per_vap: 32,
            fragments: 16,
            seed: 8,
            timeouts: connections::Timeouts::default(),
        },
    };
    let mut tables = Tables::new(TableSizes::uniform(100));
    for record in records() {
        tables.put(&record).expect("a good record");
    }
    let mut datapath = Datapath::new(config, tables);
    let reply = [
        &UPLINK_MAC.0[..],
        &PEER_MAC.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &PEER_MAC.0,
        &PEER.octets(),
        &UPLINK_MAC.0,
        &VTEP.octets(),
    ];
    // Only an answer to a question counts.
    datapath.tick(Nanos(0), &mut Checker { from: Side::Trunk });
    process(&mut datapath, Nanos(0), Side::Uplink, &reply.concat());
    datapath
}

struct Checker {
    from: Side,
}

impl Checker {
    fn check(&self, side: Side, length: usize, first: &[u8]) {
        match side {
            Side::Trunk => {
                assert!(length <= 1518, "{length} bytes on the trunk");
                assert_eq!(first.get(12..14), Some(&[0x81, 0][..]));
            }
            Side::Uplink => {
                // Behind the outer headers.
                let receiver = first.get(50..56);
                let moved = receiver == Some(&mac(DEPARTED).0[..]);
                assert!(self.from == Side::Trunk || moved, "split horizon");
                assert!(length <= 1614, "{length} bytes on the uplink");
            }
        }
    }
}

impl Sink for Checker {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        assert_eq!(partial, None, "copies are complete");
        let bytes = parts.concat();
        self.check(side, bytes.len(), &bytes);
        Ok(())
    }
}

/// The last drop that a trace of a tagged frame tells; `None` for frames that cannot
/// be asked about.
fn foretell(datapath: &mut Datapath, now: Nanos, tagged: &[u8]) -> Option<Option<DropReason>> {
    let (addresses, rest) = tagged.split_at_checked(12)?;
    let [0x81, 0, high, low, rest @ ..] = rest else {
        return None;
    };
    let vlan = Vlan::new(u16::from_be_bytes([*high, *low]) & 0xfff)?;
    let frame = [addresses, rest].concat();
    let probe = Probe {
        origin: Origin::Vap { vlan },
        length: frame.len().try_into().ok()?,
        head: ProbeHead::new(&frame)?,
    };
    let parts = datapath.answer(now, &Question::Trace(probe)).into_list();
    let Some((Part::Done(_), steps)) = parts.split_last() else {
        return None;
    };
    let mut drops = steps.iter().rev().filter_map(|part| match part {
        Part::Step(Step::Drop { reason, .. }) => Some(*reason),
        _ => None,
    });
    Some(drops.next())
}

/// Processes a frame and returns what becomes of it.
fn process(datapath: &mut Datapath, now: Nanos, side: Side, bytes: &[u8]) -> Verdict {
    let mut buffer = [0xa5; HEADROOM + LONGEST];
    let room = &mut buffer[HEADROOM..HEADROOM + bytes.len()];
    room.copy_from_slice(bytes);
    let frame = Frame::new(&mut buffer, HEADROOM, bytes.len()).expect("within the buffer");
    let (mut burst, mut verdicts) = ([frame], [Verdict::Done]);
    let mut sink = Checker { from: side };
    datapath.process(now, side, &mut (&mut burst[..], &mut verdicts[..]), &mut sink);
    let ([frame], [verdict]) = (burst, verdicts);
    if let Verdict::Send(side) = verdict {
        sink.check(side, frame.len(), frame.bytes());
    }
    verdict
}

fuzz_target!(|input: &[u8]| {
    let mut datapath = datapath();
    let mut now = Nanos(1);
    let mut rest = input;
    while let [flags, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (bytes, next) = tail.split_at(length.min(LONGEST).min(tail.len()));
        let side = if flags & 1 == 0 {
            Side::Trunk
        } else {
            Side::Uplink
        };
        now.0 += 1_000_000_000 * u64::from(flags >> 4);
        let foretold = match side {
            Side::Trunk => foretell(&mut datapath, now, bytes),
            Side::Uplink => None,
        };
        let verdict = process(&mut datapath, now, side, bytes);
        if let (Some(foretold), Verdict::Drop(reason)) = (foretold, verdict) {
            assert_eq!(foretold, Some(reason));
        }
        rest = next;
    }
});
