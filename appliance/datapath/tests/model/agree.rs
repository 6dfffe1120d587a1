//! Runs a case on the datapath, with and without a flow cache and in bursts, and on
//! the model, and compares all that each of them does.

mod bursts;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use etherparse::{Ipv4Header, PacketBuilder, UdpHeader};
use nve_datapath::*;
use nve_protocol::*;

use self::bursts::Bursts;
use crate::converse::Entry;
use crate::foretell::Forecast;
use crate::generate::{Case, Edit, Step};
use crate::packet::{self, ETHERNET};
use crate::rules::{Arrival, HOPS, Model, Outcome, Outer, Sent, TRUNK_MTU, Tag, UPLINK_MTU, hex};
use crate::world::{self, UPLINK_MAC, VTEP, WAY_OUT};

/// How often what comes in on the uplink does.
const ARRIVALS: usize = 2;
/// Connections and packets in fragments of which there will be fewer.
const PLENTY: u32 = 1024;
/// How long a next hop is not asked again that has answered, and then until all are.
const ASKED: u64 = 30_000_000_000;
const ASKED_AGAIN: u64 = 200_000_000;

/// What was done, by the model, for the report.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub frames: u64,
    /// Frames that were sent, answered or handed to the host.
    pub passed: u64,
    /// Requests that were answered.
    pub answers: u64,
    pub drops: BTreeMap<DropReason, u64>,
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        self.add(&Tally {
            frames: 1,
            passed: u64::from(outcome.host || !outcome.sent.is_empty()),
            answers: outcome.answers,
            drops: outcome.drops.clone(),
        });
    }

    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: &Tally) {
        self.frames += other.frames;
        self.passed += other.passed;
        self.answers += other.answers;
        for (reason, count) in &other.drops {
            *self.drops.entry(*reason).or_default() += count;
        }
    }
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
    assert_eq!(ip.ecn.value(), 0);
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
        hops: ip.time_to_live,
        dscp: ip.dscp.value(),
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
                connections: PLENTY,
                connections_per_vap: case.limit.unwrap_or(PLENTY),
                fragments: PLENTY,
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

    /// Puts tables of their own in the place of those there are.
    fn refill(&mut self, now: Nanos, records: &[Record]) {
        self.datapath.update(now, |tables| {
            let mut other = Tables::new(tables.capacity());
            // In another order, so that slots are others'.
            for record in records.iter().rev() {
                other.put(record).unwrap();
            }
            tables.replace(other);
        });
    }

    fn tick(&mut self, now: Nanos) {
        self.datapath.tick(now, &mut Nowhere);
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
        self.datapath.process(
            now,
            side,
            &mut (&mut burst[..], &mut verdicts[..]),
            &mut sink,
        );
        let ([mut frame], [verdict]) = (burst, verdicts);
        sink.0.extend(self.leaves(verdict, &mut frame));
        let outcome = self.outcome(verdict, sink.0);
        if let Verdict::Drop(reason) = verdict {
            assert!(outcome.drops.contains_key(&reason), "{}", self.name);
        }
        outcome
    }

    /// A frame as it leaves, if it does.
    fn leaves(&self, verdict: Verdict, frame: &mut Frame<'_>) -> Option<Sent> {
        let Verdict::Send(side) = verdict else {
            return None;
        };
        // A NIC that completes checksums gets some that are not.
        if side == Side::Trunk && self.trunk_checksum {
            checksum::complete(frame).unwrap();
        }
        assert_eq!(frame.partial(), None, "{}", self.name);
        Some(read(side, frame.bytes()))
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

/// A case as it goes on.
struct Run<'a> {
    case: &'a Case,
    nodes: [Node; 2],
    /// One that takes frames in bursts.
    bursts: Bursts,
    model: Model,
    now: Nanos,
    tally: Tally,
    /// Frames that came in, newest last.
    entries: Vec<Entry>,
}

/// Runs a case; the error says where they disagree.
pub fn run(case: &Case) -> Result<Tally, String> {
    let mut run = Run {
        case,
        nodes: [
            Node::new("fast path", case, case.flows),
            Node::new("slow path", case, 0),
        ],
        bursts: Bursts::new(case),
        model: Model::new(case.limit.unwrap_or(PLENTY)),
        now: Nanos(1),
        tally: Tally::default(),
        entries: Vec::new(),
    };
    run.begin()?;
    for step in &case.steps {
        run.step(step)?;
    }
    run.flush()?;
    Ok(run.tally)
}

impl Run<'_> {
    /// The topology, and answers of all next hops.
    fn begin(&mut self) -> Result<(), String> {
        let present = |(at, _): &(usize, Record)| self.case.missing >> (at % 64) & 1 == 0;
        let topology = world::topology(self.case.stateful, self.case.default);
        let records = topology.into_iter().enumerate().filter(present);
        let records = records.map(|(_, record)| record);
        let more = self.case.more.iter().copied();
        let edits: Vec<Edit> = records.chain(more).map(Edit::Put).collect();
        self.change(&edits)?;
        let stations = [WAY_OUT, world::VTEPS[0], world::VTEPS[1]];
        self.ask()?;
        for (last, ip) in (10..).zip(stations) {
            let mac = Mac([0x52, 0x54, 0, 0, 0, last]);
            self.uplink(&Arrival::Arp { ip, mac })?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Change(edits) => self.change(edits),
            Step::Refill => self.refill(),
            Step::Wait { nanos } => {
                self.flush()?;
                self.now.0 += nanos;
                Ok(())
            }
            Step::Trunk {
                tag,
                frame,
                partial,
                times,
            } => {
                let (tag, frame) = (*tag, frame.clone());
                let entry = Entry::Trunk { tag, frame };
                self.enter(&entry, *partial, *times)?;
                self.entries.push(entry);
                Ok(())
            }
            Step::Uplink(arrival) => {
                let entry = Entry::Uplink(arrival.clone());
                self.enter(&entry, false, ARRIVALS)?;
                self.entries.push(entry);
                Ok(())
            }
            Step::Turn {
                earlier,
                turn,
                times,
            } => {
                let entry = self.entries.iter().rev().nth(*earlier);
                if let Some(entry) = entry.and_then(|entry| entry.follow(*turn)) {
                    self.enter(&entry, false, *times)?;
                    if !turn.is_aside() {
                        self.entries.push(entry);
                    }
                }
                Ok(())
            }
        }
    }

    fn enter(&mut self, entry: &Entry, partial: bool, times: usize) -> Result<(), String> {
        for _ in 0..times {
            match entry {
                Entry::Trunk { tag, frame } => self.trunk(*tag, frame, partial)?,
                Entry::Uplink(arrival) => {
                    if matches!(arrival, Arrival::Arp { .. }) {
                        self.ask()?;
                    }
                    self.uplink(arrival)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until everyone has been asked who the next hops are, so that the next
    /// answers count.
    fn ask(&mut self) -> Result<(), String> {
        self.flush()?;
        for nanos in [ASKED, ASKED_AGAIN] {
            self.now.0 += nanos;
            let nodes = self.nodes.iter_mut().chain([&mut self.bursts.node]);
            nodes.for_each(|node| node.tick(self.now));
        }
        Ok(())
    }

    /// Has the frames processed that wait for others of their burst.
    fn flush(&mut self) -> Result<(), String> {
        self.bursts.flush(self.now)
    }

    fn trunk(&mut self, tag: Tag, frame: &packet::Frame, partial: bool) -> Result<(), String> {
        let with_partial = partial.then(|| frame.encode_partial()).flatten();
        let (bytes, partial) = match with_partial {
            Some((bytes, partial)) => (bytes, Some(partial)),
            None => (frame.encode(), None),
        };
        let (bytes, partial) = match tag {
            Tag::None => (bytes, None),
            Tag::Vlan(tci) => (packet::tagged(&bytes, tci), partial.map(behind_tag)),
        };
        self.model.pass(self.now.0);
        let want = self.model.trunk(tag, frame);
        self.foretell(tag, frame, &want)?;
        self.compare(Side::Trunk, &bytes, partial, want)
    }

    /// A trace tells beforehand what is to become of a frame.
    fn foretell(&mut self, tag: Tag, frame: &packet::Frame, want: &Outcome) -> Result<(), String> {
        for node in &mut self.nodes {
            // As before it is processed.
            if self.case.limit.is_some() {
                node.tick(self.now);
            }
            let datapath = &mut node.datapath;
            let forecast = Forecast::of(datapath, self.now, tag, &frame.encode());
            if let Some(forecast) = forecast.filter(|forecast| !forecast.holds(want)) {
                let (bytes, name) = (hex(&frame.encode()), node.name);
                return Err(format!(
                    "{tag:?} {bytes}\ntrace on the {name}: {forecast:?}\nmodel: {want:#?}"
                ));
            }
        }
        Ok(())
    }

    fn uplink(&mut self, arrival: &Arrival) -> Result<(), String> {
        self.model.pass(self.now.0);
        let want = self.model.uplink(arrival);
        self.compare(Side::Uplink, &encode(arrival), None, want)
    }

    fn change(&mut self, edits: &[Edit]) -> Result<(), String> {
        self.flush()?;
        let edit = |edit: &Edit| match edit {
            Edit::Put(record) => self.model.put(record),
            Edit::Delete(key) => Ok(self.model.delete(key)),
        };
        let want: Vec<_> = edits.iter().map(edit).collect();
        self.model.changed();
        for node in self.nodes.iter_mut().chain([&mut self.bursts.node]) {
            let got = node.change(self.now, edits);
            if got != want {
                let name = node.name;
                return Err(format!("{edits:?}\n{name}: {got:?}\nmodel: {want:?}"));
            }
        }
        self.same_tables()
    }

    fn refill(&mut self) -> Result<(), String> {
        self.flush()?;
        let records = self.model.all();
        for node in self.nodes.iter_mut().chain([&mut self.bursts.node]) {
            node.refill(self.now, &records);
        }
        self.same_tables()
    }

    fn same_tables(&self) -> Result<(), String> {
        let digest = self.model.digest();
        match self
            .nodes
            .iter()
            .chain([&self.bursts.node])
            .all(|node| node.datapath.tables().digest() == digest)
        {
            true => Ok(()),
            false => Err("the digests of the tables differ".into()),
        }
    }

    fn compare(
        &mut self,
        side: Side,
        bytes: &[u8],
        partial: Option<PartialChecksum>,
        mut want: Outcome,
    ) -> Result<(), String> {
        self.tally.count(&want);
        want.sent.sort();
        for node in &mut self.nodes {
            // Where there is little room, nothing is left that has expired: what makes
            // room for others would depend on it.
            if self.case.limit.is_some() {
                node.tick(self.now);
            }
            let got = node.process(self.now, side, bytes, partial);
            if got != want {
                let (bytes, name) = (hex(bytes), node.name);
                return Err(format!(
                    "{side:?} {bytes}\n{name}: {got:#?}\nmodel: {want:#?}"
                ));
            }
        }
        self.bursts.add(self.now, side, bytes, partial, &want)
    }
}

fn behind_tag(partial: PartialChecksum) -> PartialChecksum {
    PartialChecksum {
        start: partial.start + packet::TAG as u16,
        ..partial
    }
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
        .ipv4(source.octets(), destination.octets(), HOPS)
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
