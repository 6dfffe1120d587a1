//! A session, a shim of a few lines, and a simulated link with latency, loss of
//! connection and a clock between them.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU8;

use nve_agent::{
    Action, Change, CloseReason, Entropy, NoEntropy, Node, OutOfMemory, Phase, PrivateKey, Session,
    SessionConfig, TableStore,
};
use nve_datapath::{Config, Datapath, Nanos, TableError, Tables, Uplink, connections};
use nve_protocol::handover::TakeOver;
use nve_protocol::inspect::{Done, Failure, Part, Place, Question, Source, Step};
use nve_protocol::*;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

pub const MILLI: u64 = 1_000_000;
pub const SHIM_KEY: [u8; 32] = [7; 32];
pub const NVE_KEY: [u8; 32] = [9; 32];

/// Tables as a map, with room for `limit` records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub records: BTreeMap<Key, Record>,
    pub limit: usize,
    /// What was told of transactions, and beside them.
    pub told: Vec<Change>,
    /// VAPs that woke, in this order; `None` for what is not awake any more.
    pub awake: Vec<Option<Place>>,
    /// What another NVE knew.
    pub taken_over: Vec<TakeOver>,
}

impl Model {
    pub fn new(limit: usize) -> Self {
        Model {
            records: BTreeMap::new(),
            limit,
            told: Vec::new(),
            awake: Vec::new(),
            taken_over: Vec::new(),
        }
    }

    pub fn of(records: &[Record]) -> Self {
        let records = records.iter().map(|r| (r.key(), *r)).collect();
        Model {
            records,
            limit: usize::MAX,
            told: Vec::new(),
            awake: Vec::new(),
            taken_over: Vec::new(),
        }
    }
}

impl TableStore for Model {
    fn fresh(&self) -> Self {
        Model::new(self.limit)
    }

    fn put(&mut self, record: &Record) -> Result<Option<Record>, TableError> {
        let key = record.key();
        if matches!(record, Record::Fdb(fdb) if !fdb.mac.is_unicast()) {
            return Err(TableError::BadRecord);
        }
        if self.records.len() >= self.limit && !self.records.contains_key(&key) {
            return Err(TableError::Full);
        }
        Ok(self.records.insert(key, *record))
    }

    fn delete(&mut self, key: &Key) -> Option<Record> {
        self.records.remove(key)
    }

    fn replace(&mut self, other: Self) {
        self.records = other.records;
    }

    fn digest(&self) -> TableDigest {
        self.records.values().collect()
    }

    fn awakenings(&self) -> u64 {
        self.awake.len() as u64
    }

    fn next_awake(&self, after: u64) -> Option<(u64, Place)> {
        let numbered = (1..).zip(&self.awake);
        let mut later = numbered.filter(|(number, _)| *number > after);
        later.find_map(|(number, place)| Some((number, (*place)?)))
    }
}

impl Node for Model {
    type Tables = Model;

    fn tables(&self) -> &Model {
        self
    }

    fn update<R>(&mut self, _: Nanos, change: impl FnOnce(&mut Model) -> R) -> R {
        change(self)
    }

    fn tell(&mut self, change: &Change) -> Result<(), OutOfMemory> {
        self.told.push(*change);
        Ok(())
    }

    /// As many parts as the question's cursor says, and the end.
    fn answer(&mut self, _: Nanos, question: &Question) -> Option<Vec<Part>> {
        let Question::Flows { cursor, .. } = question else {
            return Some(vec![Part::Failed(Failure::NoVap)]);
        };
        let step = Part::Step(Step::Source(Source::Unchecked));
        let mut parts = vec![step; *cursor as usize];
        parts.push(Part::Done(Done::default()));
        Some(parts)
    }

    fn take_over(&mut self, _: Nanos, told: &TakeOver) {
        self.taken_over.push(*told);
    }

    fn wake(&mut self, _: Nanos, place: &Place) {
        self.awake.push(Some(*place));
    }
}

/// SplitMix64: the same numbers in each run.
#[derive(Clone)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        for byte in out {
            *byte = self.next() as u8;
        }
        Ok(())
    }
}

impl Random for Seeded {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        self.fill(out).map_err(|NoEntropy| snow::Error::Rng)
    }
}

struct Resolver(Seeded);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.0.clone()))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// The other end: answers the handshake, welcomes, and keeps what it hears.
pub struct Shim {
    handshake: Option<snow::HandshakeState>,
    transport: Option<snow::TransportState>,
    stream: Vec<u8>,
    pub welcome: Option<Welcome>,
    pub heard: Vec<ToShim>,
}

impl Shim {
    pub fn new(private_key: [u8; 32], seed: u64) -> Self {
        let resolver = Box::new(Resolver(Seeded(seed)));
        let handshake = snow::Builder::with_resolver(NOISE_PATTERN.parse().unwrap(), resolver)
            .local_private_key(&private_key)
            .unwrap()
            .prologue(NOISE_PROLOGUE)
            .unwrap()
            .build_responder()
            .unwrap();
        Shim {
            handshake: Some(handshake),
            transport: None,
            stream: Vec::new(),
            welcome: Some(Welcome {
                api_version: API_VERSION,
                stats_interval_ms: 0,
                dead_after_ms: 15_000,
            }),
            heard: Vec::new(),
        }
    }

    /// Takes bytes from the appliance; returns what to answer, `None` if the
    /// appliance does not know this shim's key.
    pub fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.stream.extend_from_slice(bytes);
        let mut answer = Vec::new();
        while let Some((message, length)) = frame::split(&self.stream).unwrap() {
            let message = message.to_vec();
            self.stream.drain(..length);
            let mut room = vec![0; frame::MAX_NOISE];
            if let Some(mut noise) = self.handshake.take() {
                noise.read_message(&message, &mut room).ok()?;
                let length = noise.write_message(&[], &mut room).unwrap();
                answer.extend_from_slice(&frame::header(length).unwrap());
                answer.extend_from_slice(&room[..length]);
                self.transport = Some(noise.into_transport_mode().unwrap());
                continue;
            }
            let noise = self.transport.as_mut().unwrap();
            let length = noise.read_message(&message, &mut room).unwrap();
            let mut rest = &room[..length];
            while let Some((message, more)) = codec::decode::<ToShim>(rest).unwrap() {
                rest = more;
                if let (ToShim::Hello(_), Some(welcome)) = (&message, self.welcome) {
                    answer.extend(self.seal(&[ToNve::Welcome(welcome)]));
                }
                self.heard.push(message);
            }
        }
        Some(answer)
    }

    /// One frame with these messages.
    pub fn seal(&mut self, messages: &[ToNve]) -> Vec<u8> {
        let mut plain = Vec::new();
        for message in messages {
            let mut room = [0; codec::MAX_MESSAGE];
            let length = codec::encode(message, &mut room).unwrap();
            plain.extend_from_slice(&room[..length]);
        }
        self.seal_bytes(&plain)
    }

    /// One frame with this plaintext.
    pub fn seal_bytes(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut room = vec![0; frame::MAX_NOISE];
        let noise = self.transport.as_mut().unwrap();
        let length = noise.write_message(plain, &mut room).unwrap();
        let mut bytes = frame::header(length).unwrap().to_vec();
        bytes.extend_from_slice(&room[..length]);
        bytes
    }
}

pub fn shim_public_key() -> [u8; 32] {
    PrivateKey::new(SHIM_KEY).public()
}

pub fn config(shims: u8) -> SessionConfig {
    SessionConfig {
        nve: NveId([1; 16]),
        version: "0.1.0".try_into().unwrap(),
        private_key: PrivateKey::new(NVE_KEY),
        shim_public_key: shim_public_key(),
        capacity: TableSizes {
            fdb: 100_000,
            neighbors: 100_000,
            ..TableSizes::uniform(4096)
        },
        boot_us: 42_000,
        shim_count: NonZeroU8::new(shims).unwrap(),
    }
}

enum InFlight {
    Connected,
    Refused,
    ToNve(Vec<u8>),
    ToShim(Vec<u8>),
}

/// Session and shim with a link between them.
pub struct Pair {
    pub now: Cell<u64>,
    pub session: Session<Model, Seeded>,
    pub tables: Model,
    pub shim: Shim,
    /// Key of the shims that answer from now on.
    pub shim_key: [u8; 32],
    /// Whether TCP connections succeed.
    pub reachable: bool,
    /// One way, in nanoseconds.
    pub latency: u64,
    /// Most bytes that the session gets or gives at once.
    pub piece: usize,
    /// Nanoseconds that each look at the clock takes.
    pub tick: u64,
    /// Shims dialed, and when.
    pub dials: Vec<(usize, u64)>,
    pub closes: Vec<CloseReason>,
    pub commits: usize,
    pub reports: usize,
    seed: u64,
    link: VecDeque<(u64, InFlight)>,
}

impl Pair {
    pub fn new(shims: u8) -> Self {
        Pair {
            now: Cell::new(1),
            session: Session::new(config(shims), Seeded(42)),
            tables: Model::new(usize::MAX),
            shim: Shim::new(SHIM_KEY, 1),
            shim_key: SHIM_KEY,
            reachable: true,
            latency: MILLI,
            piece: usize::MAX,
            tick: 0,
            dials: Vec::new(),
            closes: Vec::new(),
            commits: 0,
            reports: 0,
            seed: 1,
            link: VecDeque::new(),
        }
    }

    /// A pair whose session is established.
    pub fn established() -> Self {
        let mut pair = Pair::new(1);
        pair.run_ms(10);
        assert_eq!(pair.session.phase(), Phase::Established);
        pair
    }

    pub fn nanos(&self) -> Nanos {
        Nanos(self.now.get())
    }

    /// Puts bytes on the link towards the session.
    pub fn send_bytes(&mut self, bytes: Vec<u8>) {
        let at = self.now.get() + self.latency;
        self.link.push_back((at, InFlight::ToNve(bytes)));
    }

    pub fn send(&mut self, messages: &[ToNve]) {
        let bytes = self.shim.seal(messages);
        self.send_bytes(bytes);
    }

    /// Loses the connection.
    pub fn cut(&mut self) {
        self.link.clear();
        self.session.disconnected(self.nanos());
    }

    /// Sends a transaction and returns the answer.
    pub fn transact(&mut self, messages: &[ToNve]) -> ToShim {
        let before = self.shim.heard.len();
        for part in messages.chunks(100) {
            self.send(part);
        }
        self.run_ms(10);
        assert_eq!(self.shim.heard.len(), before + 1, "one answer");
        self.shim.heard.last().cloned().unwrap()
    }

    /// Lets `millis` milliseconds pass.
    pub fn run_ms(&mut self, millis: u64) {
        let end = self.now.get() + millis * MILLI;
        loop {
            let wake = self.act();
            let arrival = self.link.front().map_or(u64::MAX, |(at, _)| *at);
            let next = wake.min(arrival);
            if next > end {
                break;
            }
            self.now.set(self.now.get().max(next));
            if arrival <= self.now.get() {
                self.arrive();
            }
        }
        self.now.set(self.now.get().max(end));
    }

    /// Does what the session says; returns until when there is nothing to do.
    fn act(&mut self) -> u64 {
        loop {
            self.pump();
            match self.session.poll(self.nanos()) {
                Action::WaitUntil(Nanos(at)) => return at.max(self.now.get() + 1),
                Action::Dial(index) => {
                    self.dials.push((index, self.now.get()));
                    let event = match self.reachable {
                        true => InFlight::Connected,
                        false => InFlight::Refused,
                    };
                    let at = self.now.get() + 2 * self.latency;
                    self.link.push_back((at, event));
                }
                Action::Close(reason) => {
                    self.closes.push(reason);
                    self.cut();
                }
                Action::Report => {
                    self.reports += 1;
                    self.session.report(self.nanos(), &stats());
                }
            }
        }
    }

    fn pump(&mut self) {
        let mut room = vec![0; self.piece.min(65_536)];
        loop {
            self.session.announce(&self.tables);
            let count = self.session.transmit(&mut room);
            if count == 0 {
                return;
            }
            let at = self.now.get() + self.latency;
            let bytes = room[..count].to_vec();
            self.link.push_back((at, InFlight::ToShim(bytes)));
        }
    }

    fn arrive(&mut self) {
        let Some((_, event)) = self.link.pop_front() else {
            return;
        };
        match event {
            InFlight::Connected => {
                self.seed += 1;
                let welcome = self.shim.welcome;
                self.shim = Shim::new(self.shim_key, self.seed);
                self.shim.welcome = welcome;
                self.session.connected(self.nanos());
            }
            InFlight::Refused => self.session.disconnected(self.nanos()),
            InFlight::ToShim(bytes) => match self.shim.receive(&bytes) {
                Some(answer) if answer.is_empty() => {}
                Some(answer) => self.send_bytes(answer),
                None => self.cut(),
            },
            InFlight::ToNve(bytes) => self.deliver(&bytes),
        }
    }

    fn deliver(&mut self, mut bytes: &[u8]) {
        let (now, tick) = (&self.now, self.tick);
        let clock = move || {
            now.set(now.get() + tick);
            Nanos(now.get())
        };
        while !bytes.is_empty() {
            let piece = &bytes[..bytes.len().min(self.piece)];
            match self.session.receive(&clock, piece, &mut self.tables) {
                Ok(received) => {
                    bytes = &bytes[received.consumed..];
                    self.commits += usize::from(received.committed);
                }
                Err(_) => return,
            }
        }
    }
}

pub fn stats() -> Stats {
    Stats {
        uptime_ms: 1,
        generation: 0,
        tables: TableSizes::default(),
        trunk: NicStats::default(),
        uplink: NicStats::default(),
        answers: 0,
        drops: [0; DropReason::COUNT],
        busy_us: 0,
        processors: Processors::default(),
        heap_used: 0,
        heap_size: 0,
    }
}

/// A record that depends on `n` alone; the same key for the same `n % 50`.
pub fn record(n: u32) -> Record {
    let [a, b, c, d] = (n % 50).to_be_bytes();
    let vtep = std::net::Ipv4Addr::from(0xc000_0200 + n / 50 % 200);
    Record::Fdb(Fdb {
        vni: Vni::new(5001).unwrap(),
        mac: Mac([2, 0, a, b, c, d]),
        vtep: vtep.into(),
    })
}

/// A transaction that puts `records`, with the digest of `after`.
pub fn puts(generation: u64, full: bool, records: &[Record], after: &Model) -> Vec<ToNve> {
    let mut messages = vec![ToNve::Begin(Begin { generation, full })];
    messages.extend(records.iter().map(|record| ToNve::Put(*record)));
    messages.push(ToNve::Commit(Commit {
        generation,
        digest: after.digest(),
    }));
    messages
}

/// A source of random numbers that has none.
pub struct Dry;

impl Entropy for Dry {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), NoEntropy> {
        Err(NoEntropy)
    }
}

/// A datapath with these tables.
pub fn datapath(tables: Tables) -> Datapath {
    let config = Config {
        uplink: Uplink {
            mac: Mac([2; 6]),
            address: [192, 0, 2, 11].into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
        },
        trunk_mtu: 1500,
        trunk_checksum: false,
        flows: 0,
        seed: 1,
        connections: connections::Config {
            connections: 0,
            connections_per_vap: 0,
            fragments: 0,
            seed: 1,
            timeouts: connections::Timeouts::default(),
        },
    };
    Datapath::new(config, tables)
}

/// A session over a datapath, without a link.
pub struct Wire {
    session: Session<Tables, Seeded>,
    shim: Shim,
}

impl Wire {
    pub fn established(datapath: &mut Datapath) -> Self {
        let mut wire = Wire {
            session: Session::new(config(1), Seeded(42)),
            shim: Shim::new(SHIM_KEY, 1),
        };
        assert_eq!(wire.session.poll(Nanos(1)), Action::Dial(0));
        wire.session.connected(Nanos(1));
        for _ in 0..2 {
            let bytes = wire.exchange();
            wire.give(&bytes, datapath);
        }
        assert_eq!(wire.session.phase(), Phase::Established);
        wire.shim.heard.clear();
        wire
    }

    pub fn send(&mut self, messages: &[ToNve], datapath: &mut Datapath) {
        let bytes = self.shim.seal(messages);
        self.give(&bytes, datapath);
    }

    /// What the session has said since.
    pub fn answers(&mut self) -> Vec<ToShim> {
        self.exchange();
        std::mem::take(&mut self.shim.heard)
    }

    fn exchange(&mut self) -> Vec<u8> {
        let mut room = [0; 4_096];
        let count = self.session.transmit(&mut room);
        self.shim.receive(&room[..count]).unwrap()
    }

    fn give(&mut self, mut bytes: &[u8], datapath: &mut Datapath) {
        while !bytes.is_empty() {
            let received = self.session.receive(&|| Nanos(1), bytes, datapath).unwrap();
            bytes = &bytes[received.consumed..];
        }
    }
}
