//! Runs a case on the datapath, with and without a flow cache, and on the model,
//! and compares all that each of them does.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use etherparse::{Ipv4Header, PacketBuilder, UdpHeader};
use nve_datapath::*;
use nve_protocol::*;

use crate::generate::{Case, Edit, Step};
use crate::packet::{self, ETHERNET};
use crate::rules::{Arrival, Model, Outcome, Outer, Sent, TRUNK_MTU, Tag, UPLINK_MTU, hex};
use crate::world::{self, UPLINK_MAC, VTEP, WAY_OUT};

/// How often each frame is processed: the flow cache knows all but the first.
const TIMES: usize = 3;

/// What was done, for the report.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub frames: u64,
    /// Frames that were sent, answered or handed to the host, by the model.
    pub passed: u64,
}

/// Keeps what the datapath emits.
#[derive(Default)]
struct Recorder(Vec<Sent>);

impl Sink for Recorder {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        assert_eq!(partial, None, "copies are complete");
        self.0.push(read(side, &parts.concat()));
        Ok(())
    }
}

/// Where the underlay's own frames go, which the model does not tell.
struct Nowhere;

impl Sink for Nowhere {
    fn emit(&mut self, _: Side, _: &[&[u8]], _: Option<PartialChecksum>) -> Result<(), NoBuffer> {
        Ok(())
    }
}

/// Reads a frame that leaves as the model tells it.
fn read(side: Side, bytes: &[u8]) -> Sent {
    match side {
        Side::Trunk => Sent::Trunk {
            bytes: bytes.to_vec(),
        },
        Side::Uplink => read_tunnelled(bytes),
    }
}

fn read_tunnelled(bytes: &[u8]) -> Sent {
    let (ethernet, packet) = bytes.split_at(ETHERNET);
    assert_eq!(ethernet[6..12], UPLINK_MAC.0);
    assert_eq!(ethernet[12..], [0x08, 0x00]);
    let (ip, datagram) = Ipv4Header::from_slice(packet).unwrap();
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert!(ip.dont_fragment && !ip.more_fragments && ip.options.is_empty());
    assert_eq!(usize::from(ip.total_len), packet.len());
    assert_eq!(ip.source, VTEP.octets());
    let (udp, vxlan) = UdpHeader::from_slice(datagram).unwrap();
    assert_eq!(usize::from(udp.length), datagram.len());
    assert_eq!((udp.destination_port, udp.checksum), (4789, 0));
    assert!(udp.source_port >= 49_152);
    let (header, inner) = vxlan.split_at(8);
    assert_eq!((&header[..4], header[7]), (&[0x08, 0, 0, 0][..], 0));
    Sent::Tunnel {
        next_hop: Mac(ethernet[..6].try_into().unwrap()),
        vtep: Ipv4Addr::from(ip.destination).into(),
        vni: u32::from_be_bytes([0, header[4], header[5], header[6]]),
        inner: inner.to_vec(),
    }
}

/// A datapath and its counters as they were.
struct Node {
    name: &'static str,
    datapath: Datapath,
    before: Counters,
    /// Whether the trunk's NIC completes checksums.
    trunk_checksum: bool,
}

impl Node {
    fn new(name: &'static str, case: &Case, flows: u32) -> Node {
        let uplink = Uplink {
            mac: UPLINK_MAC,
            address: VTEP.into(),
            prefix: 24,
            gateway: Some(WAY_OUT.into()),
            mtu: UPLINK_MTU as u16,
        };
        let config = Config {
            uplink,
            trunk_mtu: TRUNK_MTU as u16,
            trunk_checksum: case.trunk_checksum,
            flows,
            seed: 7,
            connections: nve_datapath::connections::Config {
                connections: 64,
                connections_per_vap: 32,
                fragments: 16,
                seed: 8,
                timeouts: nve_datapath::connections::Timeouts::default(),
            },
        };
        let tables = Tables::new(TableSizes::uniform(1000));
        Node {
            name,
            datapath: Datapath::new(config, tables),
            before: Counters::default(),
            trunk_checksum: case.trunk_checksum,
        }
    }

    fn change(&mut self, now: Nanos, edits: &[Edit]) -> Vec<Result<Option<Record>, TableError>> {
        self.datapath.update(now, |tables| {
            let edit = |edit: &Edit| match edit {
                Edit::Put(record) => tables.put(record),
                Edit::Delete(key) => Ok(tables.delete(key)),
            };
            edits.iter().map(edit).collect()
        })
    }

    /// Has everyone asked who the next hops are, so that the next answers count.
    fn ask(&mut self) {
        for _ in 0..2 {
            self.datapath.tick(Nanos(u64::MAX), &mut Nowhere);
        }
    }

    fn process(
        &mut self,
        now: Nanos,
        side: Side,
        bytes: &[u8],
        partial: Option<PartialChecksum>,
    ) -> Outcome {
        let mut buffer = vec![0xa5; HEADROOM + bytes.len()];
        buffer[HEADROOM..].copy_from_slice(bytes);
        let frame = Frame::new(&mut buffer, HEADROOM, bytes.len())
            .unwrap()
            .with_partial(partial);
        let (mut burst, mut verdicts) = ([frame], [Verdict::Done]);
        let mut sink = Recorder::default();
        self.datapath
            .process(now, side, &mut burst, &mut verdicts, &mut sink);
        let ([mut frame], [verdict]) = (burst, verdicts);
        if let Verdict::Send(side) = verdict {
            // A NIC that completes checksums gets some that are not.
            if side == Side::Trunk && self.trunk_checksum {
                checksum::complete(&mut frame).unwrap();
            }
            assert_eq!(frame.partial(), None, "{}", self.name);
            sink.0.push(read(side, frame.bytes()));
        }
        let outcome = self.outcome(verdict, sink.0);
        if let Verdict::Drop(reason) = verdict {
            assert!(outcome.drops.contains_key(&reason), "{}", self.name);
        }
        outcome
    }

    fn outcome(&mut self, verdict: Verdict, mut sent: Vec<Sent>) -> Outcome {
        let now = *self.datapath.counters();
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            let count = now.dropped(*reason) - self.before.dropped(*reason);
            if count > 0 {
                drops.insert(*reason, count);
            }
        }
        let answers = now.answers - self.before.answers;
        self.before = now;
        sent.sort();
        Outcome {
            host: verdict == Verdict::Host,
            sent,
            drops,
            answers,
        }
    }
}

/// Runs a case; the error says where they disagree.
pub fn run(case: &Case) -> Result<Tally, String> {
    let mut nodes = [
        Node::new("fast path", case, case.flows),
        Node::new("slow path", case, 0),
    ];
    let mut model = Model::default();
    let mut tally = Tally::default();
    let mut now = Nanos(1);
    let present = |(at, _): &(usize, Record)| case.missing >> (at % 64) & 1 == 0;
    let topology: Vec<Edit> = world::topology()
        .into_iter()
        .enumerate()
        .filter(present)
        .map(|(_, record)| Edit::Put(record))
        .collect();
    change(&mut nodes, &mut model, now, &topology)?;
    for (at, ip) in [WAY_OUT, world::VTEPS[0], world::VTEPS[1]]
        .iter()
        .enumerate()
    {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 10 + at as u8]);
        let arrival = Arrival::Arp { ip: *ip, mac };
        let want = model.uplink(&arrival);
        nodes.iter_mut().for_each(Node::ask);
        compare(
            &mut nodes,
            now,
            Side::Uplink,
            &encode(&arrival),
            None,
            &want,
        )?;
    }
    for step in &case.steps {
        match step {
            Step::Change(edits) => change(&mut nodes, &mut model, now, edits)?,
            Step::Wait { nanos } => now.0 += nanos,
            Step::Trunk {
                tag,
                frame,
                partial,
            } => {
                let with_partial = partial.then(|| frame.encode_partial()).flatten();
                let (bytes, partial) = match with_partial {
                    Some((bytes, partial)) => (bytes, Some(partial)),
                    None => (frame.encode(), None),
                };
                let (bytes, partial) = match tag {
                    Tag::None => (bytes, None),
                    Tag::Vlan(tci) => (packet::tagged(&bytes, *tci), partial.map(behind_tag)),
                };
                for _ in 0..TIMES {
                    let want = model.trunk(*tag, frame);
                    tally.count(&want);
                    compare(&mut nodes, now, Side::Trunk, &bytes, partial, &want)?;
                }
            }
            Step::Uplink(arrival) => {
                let bytes = encode(arrival);
                for _ in 0..TIMES {
                    if matches!(arrival, Arrival::Arp { .. }) {
                        nodes.iter_mut().for_each(Node::ask);
                    }
                    let want = model.uplink(arrival);
                    tally.count(&want);
                    compare(&mut nodes, now, Side::Uplink, &bytes, None, &want)?;
                }
            }
        }
    }
    Ok(tally)
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        self.frames += 1;
        self.passed += u64::from(outcome.host || !outcome.sent.is_empty());
    }
}

fn behind_tag(partial: PartialChecksum) -> PartialChecksum {
    PartialChecksum {
        start: partial.start + packet::TAG as u16,
        ..partial
    }
}

fn change(nodes: &mut [Node], model: &mut Model, now: Nanos, edits: &[Edit]) -> Result<(), String> {
    let edit = |edit: &Edit| match edit {
        Edit::Put(record) => model.put(record),
        Edit::Delete(key) => Ok(model.delete(key)),
    };
    let want: Vec<_> = edits.iter().map(edit).collect();
    model.changed();
    for node in nodes {
        let got = node.change(now, edits);
        if got != want || node.datapath.tables().digest() != model.digest() {
            return Err(format!(
                "{edits:?}\n{}: {got:?}\nmodel: {want:?}",
                node.name
            ));
        }
    }
    Ok(())
}

fn compare(
    nodes: &mut [Node],
    now: Nanos,
    side: Side,
    bytes: &[u8],
    partial: Option<PartialChecksum>,
    want: &Outcome,
) -> Result<(), String> {
    let mut want = want.clone();
    want.sent.sort();
    for node in nodes {
        let got = node.process(now, side, bytes, partial);
        if got != want {
            let bytes = hex(bytes);
            return Err(format!(
                "{side:?} {bytes}\n{}: {got:#?}\nmodel: {want:#?}",
                node.name
            ));
        }
    }
    Ok(())
}

/// The bytes of what comes in on the uplink.
fn encode(arrival: &Arrival) -> Vec<u8> {
    match arrival {
        Arrival::Arp { ip, mac } => [
            &UPLINK_MAC.0[..],
            &mac.0,
            &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2],
            &mac.0,
            &ip.octets(),
            &UPLINK_MAC.0,
            &VTEP.octets(),
        ]
        .concat(),
        Arrival::Tunnelled {
            source,
            vni,
            inner,
            outer,
        } => encode_tunnelled(*source, *vni, &inner.encode(), *outer),
    }
}

fn encode_tunnelled(source: Ipv4Addr, vni: u32, inner: &[u8], outer: Outer) -> Vec<u8> {
    let mut vxlan = vec![if outer == Outer::NoVni { 0 } else { 0x08 }, 0, 0, 0];
    vxlan.extend((vni << 8).to_be_bytes());
    vxlan.extend(inner);
    let station = match outer {
        Outer::OtherStation => [0x52, 0x54, 0, 0, 0, 99],
        _ => UPLINK_MAC.0,
    };
    let destination = match outer {
        Outer::OtherAddress => WAY_OUT,
        _ => VTEP,
    };
    let port = if outer == Outer::OtherPort {
        4790
    } else {
        4789
    };
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([0x52, 0x54, 0, 0, 0, 10], station)
        .ipv4(source.octets(), destination.octets(), 64)
        .udp(50_000, port)
        .write(&mut bytes, &vxlan)
        .unwrap();
    let udp = ETHERNET + 20;
    match outer {
        Outer::Right { checksum, padding } => {
            if !checksum {
                bytes[udp + 6..udp + 8].fill(0);
            }
            bytes.extend(vec![0; padding]);
        }
        Outer::BadChecksum => bytes[ETHERNET + 10] ^= 1,
        Outer::BadUdpChecksum => {
            let sum = u16::from_be_bytes([bytes[udp + 6], bytes[udp + 7]]);
            // Neither right nor absent.
            let other = if sum == 1 { 2 } else { 1u16 };
            bytes[udp + 6..udp + 8].copy_from_slice(&other.to_be_bytes());
        }
        Outer::BadUdpLength => bytes[udp + 4..udp + 6].copy_from_slice(&[0xff, 0xff]),
        Outer::Fragment => {
            let (mut header, _) = Ipv4Header::from_slice(&bytes[ETHERNET..]).unwrap();
            header.more_fragments = true;
            header.header_checksum = header.calc_header_checksum();
            bytes[ETHERNET..udp].copy_from_slice(&header.to_bytes());
        }
        Outer::OtherStation | Outer::OtherAddress | Outer::OtherPort | Outer::NoVni => {}
    }
    bytes
}
