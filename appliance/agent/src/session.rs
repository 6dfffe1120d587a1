//! The control session's state machine.
//!
//! ```text
//!            Dial             connected            answer            welcome
//! Waiting ----------> Dialing ---------> Handshake ------> Greeting ---------> Established
//!    ^                   |                   |                |                    |
//!    |                   | time out          | time out, garbage, wrong key,       |
//!    |                   v                   v refusal        v dead peer          v
//!    +-------------- Closing <---------------+----------------+--------------------+
//!      disconnected
//! ```
//!
//! `disconnected` leads to `Waiting` from every state. Invariants: only
//! authenticated messages of an established session reach the tables; an open
//! transaction does not outlive its connection. What another NVE knew may come between
//! the messages of a transaction, and takes effect at once.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use nve_datapath::Nanos;
use nve_protocol::frame::{self, MAX_ACCEPTED};
use nve_protocol::inspect::Part;
use nve_protocol::{
    API_VERSION, Applied, Begin, Commit, Hello, Refusal, Refused, Stats, ToNve, ToShim, Welcome,
    codec,
};
use zeroize::Zeroizing;

use crate::answers::Answers;
use crate::close::CloseReason;
use crate::config::{Entropy, NoEntropy, SessionConfig};
use crate::dial::{Dialer, MILLI};
use crate::key::KEY_LEN;
use crate::node::Node;
use crate::noise::{Initiator, NotAuthentic, SECOND_MESSAGE};
use crate::replica::{Change, OutOfMemory};
use crate::state::{State, Timers, after};
use crate::tables::TableStore;
use crate::transaction::Transaction;
use crate::wire::{FrameReader, Full, Outbox};

/// Nanoseconds that each of dialing, and handshake with greeting, may take.
const SETUP_TIMEOUT: u64 = 5_000 * MILLI;

/// What the caller is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open a TCP connection to the shim address with this index, then call
    /// `connected` or `disconnected`.
    Dial(usize),
    /// Abort the connection, then call `disconnected`.
    Close(CloseReason),
    /// Call `report` with the counters.
    Report,
    /// Nothing before this time, unless bytes come or the connection ends.
    WaitUntil(Nanos),
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until it is time to dial.
    Waiting,
    /// Until the TCP connection is there.
    Dialing,
    /// Until the shim has answered the handshake.
    Handshake,
    /// Until the shim has answered `hello`.
    Greeting,
    /// Tables are kept in step.
    Established,
    /// Until the connection is gone.
    Closing,
}

/// What [`Session::receive`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// How many of the bytes it took.
    pub consumed: usize,
    /// Whether the tables are other ones now.
    pub committed: bool,
}

/// What the session knows of the transaction that the shim is sending.
enum Pending<T> {
    /// None is open.
    Nothing,
    /// One was refused; what follows of it is passed over.
    Refused,
    Open(Transaction<T>),
}

/// The appliance's end of the control channel; see the crate's documentation
/// for how to drive it.
pub struct Session<T, E> {
    config: SessionConfig,
    entropy: E,
    dialer: Dialer,
    state: State,
    generation: u64,
    reader: FrameReader,
    plain: Box<[u8]>,
    outbox: Outbox,
    pending: Pending<T>,
    answers: Answers,
    /// Up to which awakening the shim was told, on this connection.
    announced: u64,
}

impl<T: TableStore, E: Entropy> Session<T, E> {
    /// A session that will dial at once. Generation is 0 until the first commit.
    pub fn new(config: SessionConfig, entropy: E) -> Self {
        Session {
            dialer: Dialer::new(usize::from(config.shim_count.get())),
            config,
            entropy,
            state: State::Waiting,
            generation: 0,
            reader: FrameReader::new(),
            plain: vec![0; MAX_ACCEPTED].into_boxed_slice(),
            outbox: Outbox::new(),
            pending: Pending::Nothing,
            answers: Answers::default(),
            announced: 0,
        }
    }

    /// Generation of the tables in force.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where the session stands.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Waiting => Phase::Waiting,
            State::Dialing { .. } => Phase::Dialing,
            State::Handshake { .. } => Phase::Handshake,
            State::Greeting { .. } => Phase::Greeting,
            State::Established { .. } => Phase::Established,
            State::Closing { .. } => Phase::Closing,
        }
    }

    /// What to do at `now`.
    pub fn poll(&mut self, now: Nanos) -> Action {
        match &self.state {
            State::Waiting => self.poll_waiting(now),
            State::Dialing { deadline } => {
                let deadline = *deadline;
                self.poll_deadline(now, deadline, CloseReason::DialTimeout)
            }
            State::Handshake { deadline, .. } | State::Greeting { deadline, .. } => {
                let deadline = *deadline;
                self.poll_deadline(now, deadline, CloseReason::SetupTimeout)
            }
            State::Established { timers, .. } => {
                let dead_at = timers.dead_at();
                match timers.report_at() {
                    Some(report_at) if now >= report_at && now < dead_at => Action::Report,
                    Some(report_at) if report_at < dead_at => Action::WaitUntil(report_at),
                    _ => self.poll_deadline(now, dead_at, CloseReason::DeadPeer),
                }
            }
            State::Closing { reason, .. } => Action::Close(*reason),
        }
    }

    /// The connection that was to be dialed is open.
    pub fn connected(&mut self, now: Nanos) {
        if !matches!(self.state, State::Dialing { .. }) {
            return;
        }
        if let Err(reason) = self.start_handshake(now) {
            self.close(reason);
        }
    }

    /// The connection failed, ended or was closed as asked.
    pub fn disconnected(&mut self, now: Nanos) {
        let random = self.random();
        match &self.state {
            State::Waiting => return,
            State::Established { timers, .. } => self.dialer.lost(now, timers.welcomed, random),
            State::Closing {
                welcomed: Some(welcomed),
                ..
            } => self.dialer.lost(now, *welcomed, random),
            _ => self.dialer.failed(now, random),
        }
        self.state = State::Waiting;
        self.forget();
    }

    /// Takes bytes that came over the connection, up to the end of one frame,
    /// and applies that frame to `node`. After an error, `poll` says `Close`;
    /// without a connection there is nothing to close.
    pub fn receive(
        &mut self,
        clock: &dyn Fn() -> Nanos,
        bytes: &[u8],
        node: &mut impl Node<Tables = T>,
    ) -> Result<Received, CloseReason> {
        let before = self.generation;
        match self.receive_frame(clock, bytes, node) {
            Ok(consumed) => Ok(Received {
                consumed,
                committed: self.generation != before,
            }),
            Err(CloseReason::NotConnected) => Err(CloseReason::NotConnected),
            Err(reason) => {
                self.close(reason);
                Err(reason)
            }
        }
    }

    /// Writes bytes to be sent over the connection to the front of `room`;
    /// returns how many, 0 when there are none.
    pub fn transmit(&mut self, room: &mut [u8]) -> usize {
        if self.outbox.is_sealable() {
            self.answers.fill(&mut self.outbox);
        }
        let transport = match &mut self.state {
            State::Greeting { noise, .. } | State::Established { noise, .. } => Some(noise),
            State::Handshake { .. } => None,
            State::Waiting | State::Dialing { .. } | State::Closing { .. } => return 0,
        };
        match self.outbox.transmit(transport, room) {
            Ok(count) => count,
            Err(NotAuthentic) => {
                self.close(CloseReason::NotAuthentic);
                0
            }
        }
    }

    /// Answers the last question, for a node that [took a while](Node::answer).
    pub fn answer(&mut self, parts: Vec<Part>) {
        self.answers.begin(parts);
    }

    /// Tells the shim of VAPs on standby that woke: of each that is awake once on every
    /// connection, as soon as there is room.
    pub fn announce(&mut self, tables: &T) {
        if !matches!(self.state, State::Established { .. }) {
            return;
        }
        while self.announced < tables.awakenings() {
            let Some((number, place)) = tables.next_awake(self.announced) else {
                self.announced = tables.awakenings();
                return;
            };
            if let Err(Full) = self.outbox.queue_behind(&ToShim::Awake(place)) {
                return;
            }
            self.announced = number;
        }
    }

    /// Sends the counters that [`Action::Report`] asked for. The generation is
    /// filled in here; skipped while the shim is not reading.
    pub fn report(&mut self, now: Nanos, stats: &Stats) {
        let State::Established { timers, .. } = &mut self.state else {
            return;
        };
        if !timers.reported(now) {
            return;
        }
        let stats = Stats {
            generation: self.generation,
            ..*stats
        };
        // The next report holds all that this one would.
        let _ = self.outbox.queue(&ToShim::Stats(stats));
    }

    fn poll_waiting(&mut self, now: Nanos) -> Action {
        let not_before = self.dialer.not_before();
        if now < not_before {
            return Action::WaitUntil(not_before);
        }
        self.state = State::Dialing {
            deadline: after(now, SETUP_TIMEOUT),
        };
        Action::Dial(self.dialer.index())
    }

    fn poll_deadline(&mut self, now: Nanos, deadline: Nanos, reason: CloseReason) -> Action {
        if now < deadline {
            return Action::WaitUntil(deadline);
        }
        self.close(reason);
        Action::Close(reason)
    }

    fn start_handshake(&mut self, now: Nanos) -> Result<(), CloseReason> {
        let mut ephemeral = Zeroizing::new([0; KEY_LEN]);
        self.entropy
            .fill(ephemeral.as_mut_slice())
            .map_err(|NoEntropy| CloseReason::NoEntropy)?;
        let config = &self.config;
        let (noise, message) =
            Initiator::start(&config.private_key, &config.shim_public_key, ephemeral)?;
        self.forget();
        self.outbox.send_handshake(&message)?;
        self.state = State::Handshake {
            noise,
            deadline: after(now, SETUP_TIMEOUT),
        };
        Ok(())
    }

    /// Ends the session's part of a connection.
    fn close(&mut self, reason: CloseReason) {
        let welcomed = match &self.state {
            State::Waiting | State::Closing { .. } => return,
            State::Established { timers, .. } => Some(timers.welcomed),
            _ => None,
        };
        self.state = State::Closing { reason, welcomed };
        self.forget();
    }

    /// Drops all that belongs to one connection.
    fn forget(&mut self) {
        self.reader.clear();
        self.outbox.clear();
        self.pending = Pending::Nothing;
        self.answers = Answers::default();
        self.announced = 0;
    }

    /// For jitter only: without entropy there is none.
    fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        match self.entropy.fill(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(NoEntropy) => 0,
        }
    }

    fn receive_frame(
        &mut self,
        clock: &dyn Fn() -> Nanos,
        bytes: &[u8],
        node: &mut impl Node<Tables = T>,
    ) -> Result<usize, CloseReason> {
        let longest = match &self.state {
            State::Handshake { .. } => SECOND_MESSAGE,
            State::Greeting { .. } | State::Established { .. } => MAX_ACCEPTED,
            State::Closing { reason, .. } => return Err(*reason),
            State::Waiting | State::Dialing { .. } => return Err(CloseReason::NotConnected),
        };
        let consumed = self
            .reader
            .push(bytes, longest)
            .map_err(|frame::TooLong| CloseReason::FrameTooLong)?;
        let Some(message) = self.reader.message() else {
            return Ok(consumed);
        };
        let length = match &mut self.state {
            State::Greeting { noise, .. } | State::Established { noise, .. } => {
                noise.open(message, &mut self.plain)?
            }
            _ => {
                self.finish_handshake(node.tables())?;
                0
            }
        };
        self.reader.clear();
        self.handle_plaintext(clock, length, node)?;
        Ok(consumed)
    }

    /// Takes the shim's answer to the handshake and says hello.
    fn finish_handshake(&mut self, tables: &T) -> Result<(), CloseReason> {
        let message = self.reader.message().unwrap_or_default();
        let refused = State::Closing {
            reason: CloseReason::WrongShim,
            welcomed: None,
        };
        let State::Handshake { noise, deadline } = mem::replace(&mut self.state, refused) else {
            return Err(CloseReason::NotConnected);
        };
        let noise = noise
            .finish(message)
            .map_err(|NotAuthentic| CloseReason::WrongShim)?;
        self.state = State::Greeting { noise, deadline };
        Ok(self.outbox.queue(&ToShim::Hello(Hello {
            api_version: API_VERSION,
            nve: self.config.nve,
            version: self.config.version.clone(),
            generation: self.generation,
            digest: tables.digest(),
            boot_us: self.config.boot_us,
            capacity: self.config.capacity,
        }))?)
    }

    /// Handles the messages in the first `length` bytes of `self.plain`.
    fn handle_plaintext(
        &mut self,
        clock: &dyn Fn() -> Nanos,
        length: usize,
        node: &mut impl Node<Tables = T>,
    ) -> Result<(), CloseReason> {
        let mut at = 0;
        while let Some(bytes) = self.plain.get(at..length) {
            let decoded = codec::decode::<ToNve>(bytes).map_err(|_| CloseReason::Malformed)?;
            let Some((message, rest)) = decoded else {
                break;
            };
            at = length - rest.len();
            self.handle(clock, message, node)?;
        }
        if let State::Established { timers, .. } = &mut self.state {
            timers.heard(clock());
        }
        Ok(())
    }

    fn handle(
        &mut self,
        clock: &dyn Fn() -> Nanos,
        message: ToNve,
        node: &mut impl Node<Tables = T>,
    ) -> Result<(), CloseReason> {
        let established = matches!(self.state, State::Established { .. });
        match message {
            ToNve::Welcome(welcome) => self.welcome(welcome, clock()),
            _ if !established => Err(CloseReason::Unexpected),
            ToNve::Begin(begin) => self.begin(begin, clock(), node),
            ToNve::Put(record) => self.stage(Change::Put(record), node, |open| open.put(record)),
            ToNve::Delete(key) => self.stage(Change::Delete(key), node, |open| open.delete(key)),
            ToNve::Commit(commit) => self.commit(commit, clock, node),
            ToNve::Ping(number) => Ok(self.outbox.queue(&ToShim::Pong(number))?),
            ToNve::TakeOver(told) => {
                node.take_over(clock(), &told);
                // What others have no memory for begins anew there.
                let _ = node.tell(&Change::TakeOver(told));
                Ok(())
            }
            ToNve::Ask(ask) => {
                self.answers.expect(ask.number);
                if let Some(parts) = node.answer(clock(), &ask.question) {
                    self.answers.begin(parts);
                }
                Ok(())
            }
        }
    }

    fn welcome(&mut self, welcome: Welcome, now: Nanos) -> Result<(), CloseReason> {
        if welcome.api_version != API_VERSION {
            return Err(CloseReason::Version(welcome.api_version));
        }
        match mem::replace(&mut self.state, State::Waiting) {
            State::Greeting { noise, .. } => {
                let timers = Timers::new(welcome, now);
                self.state = State::Established { noise, timers };
                Ok(())
            }
            other => {
                self.state = other;
                Err(CloseReason::Unexpected)
            }
        }
    }

    fn begin(
        &mut self,
        begin: Begin,
        now: Nanos,
        node: &mut impl Node<Tables = T>,
    ) -> Result<(), CloseReason> {
        // Room for the new transaction's tables: an open one's go first.
        self.pending = Pending::Nothing;
        if begin.generation <= self.generation {
            return self.refuse(begin.generation, Refusal::WrongGeneration);
        }
        if let Err(OutOfMemory) = node.tell(&Change::Begin(begin)) {
            return self.refuse(begin.generation, Refusal::OutOfMemory);
        }
        self.pending = Pending::Open(Transaction::begin(begin, node.tables(), now));
        Ok(())
    }

    fn stage(
        &mut self,
        change: Change,
        node: &mut impl Node<Tables = T>,
        make: impl FnOnce(&mut Transaction<T>) -> Result<(), Refusal>,
    ) -> Result<(), CloseReason> {
        match &mut self.pending {
            Pending::Nothing => self.refuse(self.generation, Refusal::NoTransaction),
            Pending::Refused => Ok(()),
            Pending::Open(open) => match make(open).and_then(|()| told(node.tell(&change))) {
                Ok(()) => Ok(()),
                Err(reason) => {
                    let generation = open.generation();
                    abandon(node);
                    self.refuse(generation, reason)
                }
            },
        }
    }

    fn commit(
        &mut self,
        commit: Commit,
        clock: &dyn Fn() -> Nanos,
        node: &mut impl Node<Tables = T>,
    ) -> Result<(), CloseReason> {
        let open = match mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => return self.refuse(commit.generation, Refusal::NoTransaction),
            // Its refusal has been sent; the next message may be anything.
            Pending::Refused => return Ok(()),
            Pending::Open(open) => open,
        };
        let (started, asked) = (open.started(), open.generation());
        let committing = clock();
        if let Err(reason) = node.update(committing, |tables| open.commit(commit, tables)) {
            self.pending = Pending::Nothing;
            abandon(node);
            return Ok(self.outbox.queue(&refused(asked, reason))?);
        }
        // Nothing is lost: there is room for a commit.
        let _ = node.tell(&Change::Commit(commit));
        let now = clock();
        self.generation = commit.generation;
        Ok(self.outbox.queue(&ToShim::Applied(Applied {
            generation: commit.generation,
            digest: commit.digest,
            apply_us: micros(committing, now),
            total_us: micros(started, now),
        }))?)
    }

    /// Drops the open transaction and passes over what follows of it.
    fn refuse(&mut self, generation: u64, reason: Refusal) -> Result<(), CloseReason> {
        self.pending = Pending::Refused;
        Ok(self.outbox.queue(&refused(generation, reason))?)
    }
}

/// Nothing will come of the open transaction.
fn abandon<N: Node>(node: &mut N) {
    // Who is not told forgets it when the next one begins.
    let _ = node.tell(&Change::Abandon);
}

fn told(result: Result<(), OutOfMemory>) -> Result<(), Refusal> {
    result.map_err(|OutOfMemory| Refusal::OutOfMemory)
}

fn refused(generation: u64, reason: Refusal) -> ToShim {
    ToShim::Refused(Refused { generation, reason })
}

/// Whole microseconds between two times.
fn micros(from: Nanos, to: Nanos) -> u64 {
    to.0.saturating_sub(from.0) / 1_000
}
