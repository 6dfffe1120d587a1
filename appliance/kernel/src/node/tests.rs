//! The loop with NICs in memory.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU8;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use nve_agent::{Entropy, NoEntropy, PrivateKey, SessionConfig};
use nve_datapath::meter::SharedMeters;
use nve_datapath::steering::Steering;
use nve_datapath::{
    Config, Datapath, DropReason, HEADROOM, Nanos, Role, Side, Tables, Uplink, connections,
};
use nve_nic::{
    Assembly, Burst, DmaMemory, IdlePool, Nic, Packet, PartialChecksum, Pool, Segmentation,
    Statistics,
};
use nve_protocol::{Fdb, Flood, Mac, NveId, PortId, Presence, Record, TableSizes, Vap, Vlan, Vni};

use super::{Addresses, Follower, Links, Looped, Node, Parts, Platform, Ports, Team, Turn};

pub(super) const NVE: Mac = Mac([2, 0, 0, 0, 0, 0x11]);
pub(super) const PEER: Mac = Mac([2, 0, 0, 0, 0, 0x12]);
pub(super) const VM: Mac = Mac([2, 0, 0, 0, 1, 1]);
pub(super) const REMOTE: Mac = Mac([2, 0, 0, 0, 1, 2]);
pub(super) const LOCAL: Mac = Mac([2, 0, 0, 0, 1, 3]);
pub(super) const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub(super) const OTHER_VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);

/// Static key of the shim.
pub(super) const SHIM_KEY: [u8; 32] = [4; 32];

const SECOND: u64 = 1_000_000_000;

thread_local! {
    /// Time of the test's machine.
    pub(super) static NOW: Cell<Nanos> = const { Cell::new(Nanos(0)) };
}

/// What a NIC in memory holds; the test has the other handle.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) incoming: VecDeque<Vec<u8>>,
    pub(super) outgoing: Vec<Vec<u8>>,
    pub(super) full: bool,
    /// What comes in and is no frame.
    pub(super) runts: u32,
    pub(super) flushes: u32,
    broken: bool,
    armed: bool,
    reminders: u32,
}

#[derive(Clone, Default)]
pub(super) struct FakeNic {
    pub(super) wire: Rc<RefCell<Wire>>,
    pool: Option<&'static Pool>,
}

impl Nic for FakeNic {
    fn mac(&self) -> [u8; 6] {
        NVE.0
    }

    fn mtu(&self) -> Option<u16> {
        None
    }

    fn completes_checksums(&self) -> bool {
        false
    }

    fn link_up(&mut self) -> bool {
        true
    }

    fn is_broken(&self) -> bool {
        self.wire.borrow().broken
    }

    fn fetch(&mut self, _front: usize) -> bool {
        let wire = self.wire.borrow();
        wire.runts > 0 || !wire.incoming.is_empty()
    }

    fn receive(&mut self, burst: &mut Burst) {
        let mut wire = self.wire.borrow_mut();
        wire.runts = 0;
        while !burst.is_full() {
            if wire.incoming.is_empty() {
                return;
            }
            let pool = self.pool.unwrap();
            let Some(mut packet) = pool.take() else {
                return;
            };
            let frame = wire.incoming.pop_front().unwrap();
            if frame.len() > pool.room() {
                assert!(burst.is_empty(), "a large frame comes by itself");
                drop(packet);
                burst.push(large(pool, &frame)).unwrap();
                return;
            }
            packet.append(&[&frame]).unwrap();
            burst.push(packet).unwrap();
        }
    }

    fn send(&mut self, mut packet: Packet) -> Result<(), Packet> {
        let mut wire = self.wire.borrow_mut();
        if wire.full {
            return Err(packet);
        }
        if let Some(large) = packet.large() {
            let head = &large.space[large.start..large.start + large.length];
            wire.outgoing.push([head, &large.rest.concat()].concat());
            return Ok(());
        }
        wire.outgoing.push(packet.bytes().to_vec());
        Ok(())
    }

    fn flush(&mut self) {
        self.wire.borrow_mut().flushes += 1;
    }

    fn notify(&mut self) {}

    fn remind(&mut self) {
        self.wire.borrow_mut().reminders += 1;
    }

    fn arm_interrupt(&mut self) -> bool {
        let mut wire = self.wire.borrow_mut();
        wire.armed = true;
        !wire.incoming.is_empty()
    }

    fn disarm_interrupt(&mut self) {
        self.wire.borrow_mut().armed = false;
    }

    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

impl FakeNic {
    pub(super) fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.wire.borrow_mut().outgoing)
    }
}

/// A frame of TCP over IPv4 in as many buffers as it takes, to be cut into segments.
fn large(pool: &'static Pool, frame: &[u8]) -> Packet {
    let mut buffers = frame.chunks(1600).map(|part| {
        let mut packet = pool.take().unwrap();
        packet.append(&[part]).unwrap();
        packet
    });
    let mut head = buffers.next().unwrap();
    head.set_partial(Some(PartialChecksum {
        start: 38,
        offset: 16,
    }));
    let segmentation = Segmentation {
        size: 1400,
        is_ipv4: true,
    };
    let mut assembly = Assembly::new(head, segmentation);
    for buffer in buffers {
        assembly.add(buffer).unwrap();
    }
    assembly.finish()
}

/// Numbers that are anything but random.
pub(super) struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        for byte in out {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

pub(super) struct Bench {
    pub(super) node: Node<FakeNic, Counting>,
    pub(super) trunk: FakeNic,
    pub(super) uplink: FakeNic,
    pub(super) pool: &'static Pool,
    pub(super) now: Nanos,
    pub(super) others: Vec<Other>,
}

/// A processor that is not the first.
pub(super) struct Other {
    pub(super) follower: Follower<FakeNic>,
    pub(super) trunk: FakeNic,
    pub(super) uplink: FakeNic,
    pub(super) pool: &'static Pool,
}

thread_local! {
    /// Processors that were woken.
    pub(super) static WOKEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn fill(tables: &mut Tables) {
    let vni = Vni::new(5000).unwrap();
    for record in [
        Record::Vap(Vap {
            vlan: Vlan::new(101).unwrap(),
            port: PortId([7; 16]),
            vni,
            mac: VM,
            port_security: false,
            presence: Presence::Active,
        }),
        Record::Fdb(Fdb {
            vni,
            mac: REMOTE,
            vtep: IpAddr::V4(OTHER_VTEP),
        }),
        Record::Flood(Flood {
            vni,
            vtep: IpAddr::V4(OTHER_VTEP),
        }),
    ] {
        tables.put(&record).unwrap();
    }
}

fn session(capacity: TableSizes) -> SessionConfig {
    SessionConfig {
        nve: NveId([9; 16]),
        version: "1".try_into().unwrap(),
        private_key: PrivateKey::new([3; 32]),
        shim_public_key: PrivateKey::new(SHIM_KEY).public(),
        capacity,
        boot_us: 5,
        shim_count: NonZeroU8::MIN,
    }
}

fn addresses() -> Addresses {
    Addresses {
        mac: NVE,
        address: VTEP.into(),
        prefix: 24,
        gateway: None,
        mtu: 1600,
        seed: 1,
    }
}

fn config() -> Config {
    Config {
        uplink: Uplink {
            mac: NVE,
            address: VTEP.into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
        },
        trunk_mtu: 1500,
        trunk_checksum: true,
        flows: 64,
        seed: 7,
        connections: connections::Config {
            connections: 16,
            connections_per_vap: 16,
            fragments: 4,
            seed: 8,
            timeouts: connections::Timeouts::default(),
        },
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with_processors(1)
    }

    pub(super) fn with_processors(count: usize) -> Bench {
        let memory = DmaMemory::from_heap(Pool::bytes(128 * count, HEADROOM, 1700)).unwrap();
        let pools = Pool::several(memory, HEADROOM, 1700, count).unwrap();
        let pools: Vec<&Pool> = pools.into_iter().map(IdlePool::open).collect();
        let team = Team::new(count, |number| {
            WOKEN.with_borrow_mut(|woken| woken.push(number));
        });
        let meters = Arc::new(SharedMeters::new().unwrap());
        let mut all = Links::all(&team, Steering::new(count, 3)).into_iter();
        let first = all.next().filter(|_| count > 1);
        let datapath = |role| {
            let mut datapath = Datapath::new(config(), Tables::new(TableSizes::uniform(10)));
            if role != Role::Only {
                datapath.share(role, meters.clone());
            }
            datapath.update(Nanos(0), fill);
            datapath
        };
        let nic = |pool| FakeNic {
            pool: Some(pool),
            ..FakeNic::default()
        };
        let others = all.zip(&pools[1..]).map(|(links, pool)| {
            let (trunk, uplink) = (nic(*pool), nic(*pool));
            let ports = Ports::new(trunk.clone(), uplink.clone(), pool);
            Other {
                follower: Follower::new(ports, datapath(Role::Other), links),
                trunk,
                uplink,
                pool,
            }
        });
        let others = others.collect();
        let (trunk, uplink) = (nic(pools[0]), nic(pools[0]));
        let datapath = datapath(first.as_ref().map_or(Role::Only, |_| Role::First));
        let node = Node::new(Parts {
            trunk: trunk.clone(),
            uplink: uplink.clone(),
            pool: pools[0],
            session: session(datapath.tables().capacity()),
            datapath,
            addresses: addresses(),
            shims: [SocketAddr::from((OTHER_VTEP, 6653))].into_iter().collect(),
            entropy: Counting(0),
            platform: Platform {
                clock: || NOW.get(),
                heap: || (1, 2),
            },
            links: first,
        });
        Bench {
            node,
            trunk,
            uplink,
            pool: pools[0],
            now: Nanos(0),
            others,
        }
    }

    pub(super) fn receive(&self, side: Side, frame: &[u8]) {
        let nic = match side {
            Side::Trunk => &self.trunk,
            Side::Uplink => &self.uplink,
        };
        nic.wire.borrow_mut().incoming.push_back(frame.to_vec());
    }

    /// Runs until there is nothing to do; returns what was sent on `side`.
    pub(super) fn run(&mut self, side: Side) -> Vec<Vec<u8>> {
        for _ in 0..1000 {
            if !self.turn() {
                return self.nics(side).flat_map(FakeNic::take_sent).collect();
            }
        }
        panic!("the node is busy for ever");
    }

    /// A turn of each processor; whether there was something to do.
    pub(super) fn turn(&mut self) -> bool {
        let mut busy = self.node.poll(self.now) != Turn::Idle;
        for other in &mut self.others {
            busy |= other.follower.poll(self.now) != Turn::Idle;
        }
        busy
    }

    /// The NICs of all processors on a side, in their order.
    pub(super) fn nics(&self, side: Side) -> impl Iterator<Item = &FakeNic> {
        let others = self.others.iter().map(move |other| match side {
            Side::Trunk => &other.trunk,
            Side::Uplink => &other.uplink,
        });
        let first = match side {
            Side::Trunk => &self.trunk,
            Side::Uplink => &self.uplink,
        };
        std::iter::once(first).chain(others)
    }

    /// Adds a VAP with tag 102, of [`LOCAL`].
    pub(super) fn add_local(&mut self) {
        let record = Record::Vap(Vap {
            vlan: Vlan::new(102).unwrap(),
            port: PortId([8; 16]),
            vni: Vni::new(5000).unwrap(),
            mac: LOCAL,
            port_security: false,
            presence: Presence::Active,
        });
        let datapath = self.node.datapath();
        let put = datapath.update(Nanos(0), |tables| tables.put(&record));
        put.unwrap();
        self.run(Side::Trunk);
    }

    pub(super) fn resolve(&mut self) {
        self.run(Side::Uplink);
        self.receive(Side::Uplink, &arp(2, PEER, OTHER_VTEP, NVE, VTEP));
        self.run(Side::Uplink);
    }
}

pub(super) fn arp(
    operation: u8,
    from: Mac,
    from_ip: Ipv4Addr,
    to: Mac,
    to_ip: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(from.0);
    frame.extend(from_ip.octets());
    frame.extend(to.0);
    frame.extend(to_ip.octets());
    frame.resize(60, 0);
    frame
}

pub(super) fn tagged(to: Mac, from: Mac, vlan: u8) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend([0x81, 0, 0, vlan, 0x88, 0xb5]);
    frame.extend((0..100).map(|i| i as u8));
    frame
}

pub(super) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

fn ping() -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, 2];
    icmp.extend([0x55; 32]);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 1, 0, 0];
    ip.extend(OTHER_VTEP.octets());
    ip.extend(VTEP.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    [&NVE.0[..], &PEER.0, &[8, 0], &ip, &icmp].concat()
}

#[test]
fn a_frame_goes_into_the_tunnel_and_its_buffer_comes_back() {
    let mut bench = Bench::new();
    bench.resolve();
    let free = bench.pool.available();
    let frame = tagged(REMOTE, VM, 101);
    bench.receive(Side::Trunk, &frame);
    let sent = bench.run(Side::Uplink);
    assert_eq!(sent.len(), 1);
    let inner = &sent[0][50..];
    assert_eq!(sent[0][..12], [PEER.0, NVE.0].concat());
    assert_eq!(inner[..12], frame[..12]);
    assert_eq!(inner[12..], frame[16..]);
    assert_eq!(bench.pool.available(), free);
    // And back: what the other NVE sends comes out with the tag.
    let mut answer = sent[0].clone();
    answer[..12].copy_from_slice(&[NVE.0, PEER.0].concat());
    answer[26..34].copy_from_slice(&[OTHER_VTEP.octets(), VTEP.octets()].concat());
    answer[24..26].fill(0);
    let sum = checksum(&answer[14..34]);
    answer[24..26].copy_from_slice(&sum);
    answer[50..62].copy_from_slice(&[VM.0, REMOTE.0].concat());
    bench.receive(Side::Uplink, &answer);
    let sent = bench.run(Side::Trunk);
    assert_eq!(sent, [tagged(VM, REMOTE, 101)]);
    assert_eq!(bench.pool.available(), free);
}

/// A TCP packet of `payload` bytes with VLAN tag 101.
pub(super) fn bulk(to: Mac, payload: u16) -> Vec<u8> {
    let [a, b] = (40 + payload).to_be_bytes();
    let mut ip = vec![0x45, 0, a, b, 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut frame = [&to.0[..], &VM.0, &[0x81, 0, 0, 101, 8, 0], &ip].concat();
    frame.extend([
        0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0,
    ]);
    frame.extend((0..payload).map(|i| i as u8));
    frame
}

#[test]
fn a_large_frame_stays_one_for_a_vap_and_is_cut_for_a_tunnel() {
    let mut bench = Bench::new();
    bench.resolve();
    bench.add_local();
    let free = bench.pool.available();
    bench.receive(Side::Trunk, &bulk(LOCAL, 60_000));
    let sent = bench.run(Side::Trunk);
    assert_eq!((sent.len(), sent[0].len()), (1, 60_058));
    assert_eq!(sent[0][14..16], [0, 102]);
    assert_eq!(sent[0][58..], bulk(LOCAL, 60_000)[58..]);
    bench.receive(Side::Trunk, &bulk(REMOTE, 60_000));
    let sent = bench.run(Side::Uplink);
    assert_eq!(sent.len(), 60_000usize.div_ceil(1400));
    let payload: Vec<u8> = sent
        .iter()
        .flat_map(|frame| &frame[50 + 54..])
        .copied()
        .collect();
    assert_eq!(payload, bulk(REMOTE, 60_000)[58..]);
    // One that is not what it says.
    let mut bad = bulk(REMOTE, 60_000);
    bad[27] = 17;
    bench.receive(Side::Trunk, &bad);
    assert_eq!(bench.run(Side::Uplink).len(), 0);
    // One that finds no room.
    bench.trunk.wire.borrow_mut().full = true;
    bench.receive(Side::Trunk, &bulk(LOCAL, 60_000));
    assert_eq!(bench.run(Side::Trunk).len(), 0);
    let counters = bench.node.forwarder.parts().1.counters();
    assert_eq!(counters.dropped(DropReason::QueueFull), 1);
    assert_eq!(counters.dropped(DropReason::BadOffload), 1);
    assert_eq!(bench.pool.available(), free);
}

#[test]
fn the_node_answers_arp_and_echo() {
    let mut bench = Bench::new();
    bench.resolve();
    bench.receive(
        Side::Uplink,
        &arp(1, PEER, OTHER_VTEP, Mac([0xff; 6]), VTEP),
    );
    let sent = bench.run(Side::Uplink);
    assert_eq!(sent.len(), 1);
    let reply = arp(2, NVE, VTEP, PEER, OTHER_VTEP);
    assert_eq!(sent[0], reply[..42]);
    bench.receive(Side::Uplink, &ping());
    let sent = bench.run(Side::Uplink);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][34], 0, "an echo reply");
    assert_eq!(sent[0][42..], [0x55; 32]);
}

#[test]
fn frames_for_the_host_cannot_take_all_buffers() {
    let mut bench = Bench::new();
    bench.resolve();
    let free = bench.pool.available();
    for _ in 0..1000 {
        bench.receive(Side::Uplink, &ping());
    }
    assert_eq!(bench.run(Side::Uplink).len(), 1000);
    assert_eq!(bench.pool.available(), free);
}

#[test]
fn a_full_queue_is_counted() {
    let mut bench = Bench::new();
    bench.resolve();
    let free = bench.pool.available();
    bench.uplink.wire.borrow_mut().full = true;
    bench.receive(Side::Trunk, &tagged(REMOTE, VM, 101));
    bench.run(Side::Uplink);
    let counters = bench.node.forwarder.parts().1.counters();
    assert_eq!(counters.dropped(DropReason::QueueFull), 1);
    assert_eq!(bench.pool.available(), free);
}

#[test]
fn an_idle_node_says_when_it_has_something_to_do() {
    let mut bench = Bench::new();
    bench.resolve();
    for _ in 0..20 {
        let next = bench.node.deadline();
        assert!(
            next > bench.now && next.0 <= bench.now.0 + SECOND,
            "{next:?}"
        );
        bench.now = next;
        assert_eq!(bench.node.poll(Nanos(next.0 - 1)), Turn::Idle);
        bench.run(Side::Uplink);
    }
}

#[test]
fn interrupts_are_armed_on_both_sides_and_frames_are_not_missed() {
    let mut bench = Bench::new();
    bench.run(Side::Uplink);
    assert!(!bench.node.arm_interrupts());
    assert!(bench.trunk.wire.borrow().armed && bench.uplink.wire.borrow().armed);
    bench.node.disarm_interrupts();
    assert!(!bench.trunk.wire.borrow().armed && !bench.uplink.wire.borrow().armed);
    bench.receive(Side::Trunk, &tagged(REMOTE, VM, 101));
    assert!(bench.node.arm_interrupts());
    assert!(
        bench.uplink.wire.borrow().armed,
        "both, whatever the first says"
    );
}

#[test]
fn devices_are_reminded_once_a_second() {
    let mut bench = Bench::new();
    for half in 0..20 {
        bench.now = Nanos(half * SECOND / 2);
        bench.run(Side::Uplink);
    }
    for nic in [&bench.trunk, &bench.uplink] {
        assert_eq!(nic.wire.borrow().reminders, 10);
    }
}

#[test]
fn a_broken_nic_is_reported() {
    let mut bench = Bench::new();
    bench.run(Side::Uplink);
    bench.uplink.wire.borrow_mut().broken = true;
    bench.now = Nanos(2 * SECOND);
    assert_eq!(bench.node.poll(bench.now), Turn::Broken(Side::Uplink));
}
