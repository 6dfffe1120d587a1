//! A datapath with its sink recorded, and frames made by another library.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{PacketBuilder, SingleVlanHeader, VlanId, VlanPcp};
use nve_datapath::*;
use nve_protocol::*;

pub const UPLINK_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
pub const PEER_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
pub const OTHER_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 3]);
pub const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
pub const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 13);
pub const RED: u32 = 5001;
pub const BLUE: u32 = 5002;

pub fn vni(id: u32) -> Vni {
    Vni::new(id).unwrap()
}

pub fn mac(last: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 0, last])
}

pub fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

pub fn vap(vlan: u16, network: u32, last: u8) -> Record {
    let port = PortId([last; 16]);
    Record::Vap(Vap {
        vlan: Vlan::new(vlan).unwrap(),
        port,
        vni: vni(network),
        mac: mac(last),
        port_security: true,
        presence: Presence::Active,
    })
}

/// The group of every VAP.
const OPEN: GroupId = GroupId([0xaa; 16]);

/// A stateless group that allows everything, with a VAP in it.
pub fn open_group(vlan: u16) -> Vec<Record> {
    let mut records = vec![
        Record::Binding(Binding {
            vlan: Vlan::new(vlan).unwrap(),
            group: OPEN,
        }),
        Record::Group(Group {
            group: OPEN,
            stateful: false,
        }),
    ];
    for direction in [Direction::Ingress, Direction::Egress] {
        for family in [Family::Ipv4, Family::Ipv6] {
            records.push(Record::Rule(Rule {
                id: RuleId([0xa0 + records.len() as u8; 16]),
                group: OPEN,
                direction,
                family,
                protocol: None,
                low: 0,
                high: u16::MAX,
                remote: Remote::Any,
            }));
        }
    }
    records
}

/// A stateful group for a VAP, which lets out all of IPv4 by one rule, and nothing in; the
/// rule comes last.
pub fn group_that_lets_out(vlan: u16, rule: RuleId) -> [Record; 3] {
    let group = GroupId([0xbb; 16]);
    [
        Record::Binding(Binding {
            vlan: Vlan::new(vlan).unwrap(),
            group,
        }),
        Record::Group(Group {
            group,
            stateful: true,
        }),
        Record::Rule(Rule {
            id: rule,
            group,
            direction: Direction::Egress,
            family: Family::Ipv4,
            protocol: None,
            low: 0,
            high: u16::MAX,
            remote: Remote::Any,
        }),
    ]
}

pub fn connections() -> connections::Config {
    connections::Config {
        connections: 64,
        connections_per_vap: 32,
        fragments: 16,
        seed: 8,
        timeouts: connections::Timeouts::default(),
    }
}

/// The address 10.0.0.`last` of a VAP.
pub fn address(vlan: u16, last: u8) -> Record {
    Record::Address(Address {
        vlan: Vlan::new(vlan).unwrap(),
        mac: mac(last),
        prefix: Prefix::host(ip(last).into()),
        fixed: true,
    })
}

pub fn fdb(network: u32, last: u8, vtep: Ipv4Addr) -> Record {
    Record::Fdb(Fdb {
        vni: vni(network),
        mac: mac(last),
        vtep: vtep.into(),
    })
}

pub fn neighbor(network: u32, last: u8) -> Record {
    Record::Neighbor(Neighbor {
        vni: vni(network),
        ip: ip(last).into(),
        mac: mac(last),
    })
}

pub fn flood(network: u32, vtep: Ipv4Addr) -> Record {
    Record::Flood(Flood {
        vni: vni(network),
        vtep: vtep.into(),
    })
}

/// A frame that left the datapath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub side: Side,
    pub bytes: Vec<u8>,
}

#[derive(Default)]
pub struct Recorder {
    pub sent: Vec<Sent>,
    pub refuse: bool,
}

impl Sink for Recorder {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        partial: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        assert_eq!(partial, None, "copies are complete");
        if self.refuse {
            return Err(NoBuffer);
        }
        self.sent.push(Sent {
            side,
            bytes: parts.concat(),
        });
        Ok(())
    }
}

/// What became of one frame, all of it.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Copies first, then the frame itself if it was sent.
    pub sent: Vec<Sent>,
    pub partial: Option<PartialChecksum>,
}

pub struct Rig {
    pub datapath: Datapath,
    pub sink: Recorder,
    /// When frames come in.
    pub now: Nanos,
    /// Drops that the rig expects so far, compared after each frame.
    expected: Counters,
}

impl Rig {
    /// Takes a VAP out of the group that lets all pass.
    pub fn leave_open_group(&mut self, vlan: u16) {
        let group = OPEN;
        let vlan = Vlan::new(vlan).unwrap();
        let binding = Key::Binding { vlan, group };
        self.datapath
            .update(self.now, |tables| tables.delete(&binding));
    }

    /// Red: VAPs 101 (.1) and 102 (.2) here, .3 behind PEER, .4 behind OTHER.
    /// Blue: VAP 201 (.1) here, nothing elsewhere. Next hops are resolved.
    pub fn new() -> Rig {
        Rig::with_trunk_checksum(false)
    }

    /// The same, where the trunk's NIC may complete checksums.
    pub fn with_trunk_checksum(trunk_checksum: bool) -> Rig {
        Rig::with(trunk_checksum, 1024)
    }

    /// The same, with so many entries in the flow cache.
    pub fn with_flows(flows: u32) -> Rig {
        Rig::with(false, flows)
    }

    fn with(trunk_checksum: bool, flows: u32) -> Rig {
        let uplink = Uplink {
            mac: UPLINK_MAC,
            address: VTEP.into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
        };
        let config = Config {
            uplink,
            trunk_mtu: 1500,
            trunk_checksum,
            flows,
            seed: 7,
            connections: connections(),
        };
        let capacity = TableSizes::uniform(4094);
        let mut rig = Rig {
            datapath: Datapath::new(config, Tables::new(capacity)),
            sink: Recorder::default(),
            now: Nanos(1),
            expected: Counters::default(),
        };
        rig.put(&[
            vap(101, RED, 1),
            vap(102, RED, 2),
            vap(201, BLUE, 1),
            fdb(RED, 3, PEER),
            fdb(RED, 4, OTHER),
            flood(RED, PEER),
            flood(RED, OTHER),
            neighbor(RED, 1),
            neighbor(RED, 2),
            neighbor(RED, 3),
        ]);
        rig.resolve(PEER, PEER_MAC);
        rig.resolve(OTHER, OTHER_MAC);
        rig
    }

    /// Puts records, and with each VAP the address that ends as its MAC address,
    /// and a security group that allows everything.
    pub fn put(&mut self, records: &[Record]) {
        self.datapath.update(Nanos(0), |tables| {
            for record in records {
                tables.put(record).unwrap();
                if let Record::Vap(vap) = record {
                    tables.put(&address(vap.vlan.get(), vap.mac.0[5])).unwrap();
                    for record in open_group(vap.vlan.get()) {
                        tables.put(&record).unwrap();
                    }
                }
            }
        });
    }

    /// Sends the probes that are due, and answers that of `ip`.
    pub fn resolve(&mut self, ip: Ipv4Addr, mac: Mac) {
        self.datapath.tick(Nanos(1), &mut self.sink);
        self.sink.sent.clear();
        let outcome = self.uplink(&underlay_arp_reply(ip, mac));
        assert_eq!(outcome.verdict, Verdict::Host);
    }

    pub fn trunk(&mut self, frame: &[u8]) -> Outcome {
        self.process(Side::Trunk, frame, None)
    }

    pub fn uplink(&mut self, frame: &[u8]) -> Outcome {
        self.process(Side::Uplink, frame, None)
    }

    /// For frames of which copies may be dropped.
    pub fn trunk_uncounted(&mut self, frame: &[u8]) -> Outcome {
        self.process_uncounted(Side::Trunk, frame, None)
    }

    /// Processes one frame and checks that exactly its drop was counted.
    pub fn process(
        &mut self,
        side: Side,
        bytes: &[u8],
        partial: Option<PartialChecksum>,
    ) -> Outcome {
        let outcome = self.process_uncounted(side, bytes, partial);
        if !self.sink.refuse {
            assert_eq!(self.datapath.counters().drops, self.expected.drops);
        }
        outcome
    }

    fn process_uncounted(
        &mut self,
        side: Side,
        bytes: &[u8],
        partial: Option<PartialChecksum>,
    ) -> Outcome {
        let mut buffer = vec![0xa5; HEADROOM + bytes.len()];
        buffer[HEADROOM..].copy_from_slice(bytes);
        let frame = Frame::new(&mut buffer, HEADROOM, bytes.len())
            .unwrap()
            .with_partial(partial);
        let mut burst = [frame];
        let mut verdicts = [Verdict::Host];
        let before = *self.datapath.counters();
        self.datapath.process(
            self.now,
            side,
            &mut (&mut burst[..], &mut verdicts[..]),
            &mut self.sink,
        );
        let [frame] = burst;
        let [verdict] = verdicts;
        let mut sent = std::mem::take(&mut self.sink.sent);
        if let Verdict::Send(side) = verdict {
            sent.push(Sent {
                side,
                bytes: frame.bytes().to_vec(),
            });
        }
        self.expected = before;
        if let Verdict::Drop(reason) = verdict {
            self.expected.count_drop(reason);
        }
        Outcome {
            verdict,
            sent,
            partial: frame.partial(),
        }
    }

    /// Processes frames as one burst, and returns what becomes of each; copies are in
    /// the sink.
    pub fn burst(&mut self, side: Side, all: &[Vec<u8>]) -> Vec<(Verdict, Vec<u8>)> {
        let in_buffer = |bytes: &Vec<u8>| [&[0xa5; HEADROOM], &bytes[..]].concat();
        let mut buffers: Vec<Vec<u8>> = all.iter().map(in_buffer).collect();
        let frames = buffers.iter_mut().map(|buffer| {
            let length = buffer.len() - HEADROOM;
            Frame::new(buffer, HEADROOM, length).unwrap()
        });
        let mut frames: Vec<Frame<'_>> = frames.collect();
        let mut verdicts = vec![Verdict::Host; frames.len()];
        let mut burst = (&mut frames[..], &mut verdicts[..]);
        self.datapath
            .process(self.now, side, &mut burst, &mut self.sink);
        let frames = frames.iter().map(|frame| frame.bytes().to_vec());
        verdicts.into_iter().zip(frames).collect()
    }

    pub fn assert_dropped(&mut self, side: Side, frame: &[u8], reason: DropReason) {
        let outcome = self.process(side, frame, None);
        assert_eq!(outcome.verdict, Verdict::Drop(reason));
        assert_eq!(outcome.sent, []);
    }
}

/// A UDP packet between two stations of the 10.0.0.0/24 networks, untagged.
pub fn untagged(source: Mac, destination: Mac, payload: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(source.0, destination.0)
        .ipv4(ip(source.0[5]).octets(), ip(destination.0[5]).octets(), 64)
        .udp(4000, 5000);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0x5a; payload]).unwrap();
    bytes
}

pub fn with_tag(frame: &[u8], vlan: u16) -> Vec<u8> {
    let header = SingleVlanHeader {
        pcp: VlanPcp::ZERO,
        drop_eligible_indicator: false,
        vlan_id: VlanId::try_new(vlan).unwrap(),
        ether_type: etherparse::EtherType(u16::from_be_bytes([frame[12], frame[13]])),
    };
    let tci_and_type = header.to_bytes();
    [&frame[..12], &[0x81, 0x00], &tci_and_type, &frame[14..]].concat()
}

pub fn arp(vlan: u16, source: Mac, destination: Mac, operation: u8, body: [&[u8]; 4]) -> Vec<u8> {
    let [sender_mac, sender_ip, target_mac, target_ip] = body;
    let frame = [
        &destination.0[..],
        &source.0,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation],
        sender_mac,
        sender_ip,
        target_mac,
        target_ip,
    ]
    .concat();
    if vlan == 0 {
        frame
    } else {
        with_tag(&frame, vlan)
    }
}

pub fn arp_request(vlan: u16, source: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let body: [&[u8]; 4] = [&source.0, &sender.octets(), &[0; 6], &target.octets()];
    arp(vlan, source, Mac::BROADCAST, 1, body)
}

pub fn underlay_arp_reply(ip: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let body: [&[u8]; 4] = [&mac.0, &ip.octets(), &UPLINK_MAC.0, &VTEP.octets()];
    arp(0, mac, UPLINK_MAC, 2, body)
}

/// A VXLAN packet from `source` to the rig, built by the other library, with a
/// valid UDP checksum.
pub fn tunnelled(source: Ipv4Addr, network: u32, inner: &[u8]) -> Vec<u8> {
    let mut vxlan = vec![0x08, 0, 0, 0];
    vxlan.extend((network << 8).to_be_bytes());
    vxlan.extend(inner);
    let builder = PacketBuilder::ethernet2(PEER_MAC.0, UPLINK_MAC.0)
        .ipv4(source.octets(), VTEP.octets(), 64)
        .udp(50_000, 4789);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vxlan).unwrap();
    bytes
}

/// Takes a VXLAN packet apart with the other library: destination VTEP, VNI and
/// inner frame.
pub fn detunnel(sent: &Sent) -> (IpAddr, u32, Vec<u8>) {
    assert_eq!(sent.side, Side::Uplink);
    let packet = etherparse::PacketHeaders::from_ethernet_slice(&sent.bytes).unwrap();
    let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net else {
        panic!("no IPv4")
    };
    let Some(etherparse::TransportHeader::Udp(udp)) = packet.transport else {
        panic!("no UDP")
    };
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert!(ip.dont_fragment);
    assert_eq!(ip.source, VTEP.octets());
    assert_eq!(udp.destination_port, 4789);
    assert!(udp.source_port >= 49_152);
    assert_eq!(udp.checksum, 0);
    let payload = packet.payload.slice();
    assert_eq!(usize::from(udp.length), payload.len() + 8);
    assert_eq!(payload[..4], [0x08, 0, 0, 0]);
    assert_eq!(payload[7], 0);
    let vni = u32::from_be_bytes([0, payload[4], payload[5], payload[6]]);
    (
        Ipv4Addr::from(ip.destination).into(),
        vni,
        payload[8..].to_vec(),
    )
}

/// Flags of TCP.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// An untagged packet of TCP with those flags, without payload.
pub fn tcp(from: u8, to: u8, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4(ip(from).octets(), ip(to).octets(), 64)
        .tcp(ports.0, ports.1, 1, 100)
        .write(&mut frame, &[])
        .unwrap();
    frame[47] = flags;
    frame
}
