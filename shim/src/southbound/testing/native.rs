//! An NVE without its image: the appliance's own control session and datapath, over
//! a socket of this machine. It has no NICs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nve_agent::{
    Action, CloseReason, Entropy, NoEntropy, Phase, PrivateKey, Session, SessionConfig,
};
use nve_datapath::{Config, Datapath, Nanos, Tables, Uplink, connections};
use nve_protocol::handover::TakeOver;
use nve_protocol::inspect::Place;
use nve_protocol::{
    DropReason, Mac, NicStats, NveId, Processors, Record, Stats, TableDigest, TableSizes, Vlan,
};
use uuid::Uuid;

use crate::southbound::{KeyPair, PublicKey};

/// How long the thread waits at most before it looks whether to stop.
const TURN: Duration = Duration::from_millis(20);

/// What a native NVE is made with.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// The NVE.
    pub nve: Uuid,
    /// Its key.
    pub keys: KeyPair,
    /// The shim's key.
    pub shim_key: PublicKey,
    /// The shims, in the order of dialing.
    pub shims: Vec<SocketAddr>,
    /// What fits into its tables.
    pub capacity: TableSizes,
}

impl NativeConfig {
    /// For one shim, with room for a full trunk and 100,000 remote stations.
    pub fn new(nve: Uuid, keys: KeyPair, shim_key: PublicKey, shim: SocketAddr) -> Self {
        NativeConfig {
            nve,
            keys,
            shim_key,
            shims: vec![shim],
            capacity: TableSizes {
                vaps: u32::from(Vlan::MAX),
                fdb: 100_000,
                neighbors: 110_000,
                ..TableSizes::uniform(65_536)
            },
        }
    }
}

/// With small tables: what there is of flows and connections, tests put there.
fn datapath_config() -> Config {
    Config {
        uplink: Uplink {
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            address: [192, 0, 2, 11].into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
        },
        trunk_mtu: 1500,
        trunk_checksum: false,
        flows: 1024,
        seed: 1,
        connections: connections::Config {
            connections: 1024,
            connections_per_vap: 256,
            fragments: 64,
            seed: 1,
            timeouts: connections::Timeouts::default(),
        },
    }
}

/// What a native NVE shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeState {
    /// Where its session stands.
    pub phase: Phase,
    /// Generation in force.
    pub generation: u64,
    /// Digest in force.
    pub digest: TableDigest,
    /// Records in force.
    pub sizes: TableSizes,
    /// Times that it dialed.
    pub dials: u64,
    /// Bytes that it received in all.
    pub received: u64,
    /// Commits that it applied.
    pub commits: u64,
    /// Why it last closed a connection of its own accord.
    pub closed: Option<CloseReason>,
}

/// A native NVE, on a thread of its own; stops when dropped.
pub struct NativeNve {
    stop: Arc<AtomicBool>,
    state: Arc<Mutex<NativeState>>,
    thread: Option<JoinHandle<Stopped>>,
}

/// A native NVE that has lost its connection and keeps its tables.
pub struct Stopped {
    session: Session<Tables, SystemEntropy>,
    datapath: Datapath,
    state: NativeState,
    shims: Vec<SocketAddr>,
    epoch: Instant,
}

impl Stopped {
    /// An NVE with empty tables that has not dialed yet.
    pub fn new(config: &NativeConfig) -> io::Result<Self> {
        let shims = u8::try_from(config.shims.len())
            .ok()
            .and_then(NonZeroU8::new);
        let shim_count = shims.ok_or(io::ErrorKind::InvalidInput)?;
        let private_key = PrivateKey::from_hex(&config.keys.private_hex())
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let tables = Tables::new(config.capacity);
        let session = Session::new(
            SessionConfig {
                nve: NveId(config.nve.into_bytes()),
                version: "native".try_into().unwrap_or_default(),
                private_key,
                shim_public_key: config.shim_key,
                capacity: config.capacity,
                boot_us: 0,
                shim_count,
            },
            SystemEntropy,
        );
        Ok(Stopped {
            state: NativeState {
                phase: Phase::Waiting,
                generation: 0,
                digest: tables.digest(),
                sizes: tables.sizes(),
                dials: 0,
                received: 0,
                commits: 0,
                closed: None,
            },
            session,
            datapath: Datapath::new(datapath_config(), tables),
            shims: config.shims.clone(),
            epoch: Instant::now(),
        })
    }

    /// What it showed of itself last.
    pub fn state(&self) -> NativeState {
        self.state.clone()
    }

    /// Changes the tables behind the shim's back.
    pub fn put(&mut self, record: &Record) {
        // Whether there is room is the test's business.
        let _ = self.datapath.update(Nanos(0), |tables| tables.put(record));
    }

    /// Hears the VM of a VAP that is on standby.
    pub fn wake(&mut self, place: &Place) {
        let now = now(self.epoch);
        // Whether there is such a VAP is the test's business.
        let _ = self.datapath.update(now, |tables| tables.wake(place));
    }

    /// Takes over what another NVE knew, as if it had seen that itself.
    pub fn take_over(&mut self, told: &TakeOver) {
        self.datapath.take_over(now(self.epoch), told);
    }

    /// Dials these shims from now on; as many as before.
    pub fn set_shims(&mut self, shims: Vec<SocketAddr>) {
        self.shims = shims;
    }

    /// Starts or goes on.
    pub fn start(self) -> io::Result<NativeNve> {
        let stop = Arc::new(AtomicBool::new(false));
        let state = Arc::new(Mutex::new(self.state.clone()));
        let runner = Runner {
            nve: self,
            socket: None,
            stop: Arc::clone(&stop),
            shared: Arc::clone(&state),
        };
        let thread = std::thread::Builder::new()
            .name("native-nve".into())
            .spawn(move || runner.run())?;
        Ok(NativeNve {
            stop,
            state,
            thread: Some(thread),
        })
    }
}

impl NativeNve {
    /// Starts an NVE with empty tables.
    pub fn start(config: &NativeConfig) -> io::Result<Self> {
        Stopped::new(config)?.start()
    }

    /// What it shows of itself.
    pub fn state(&self) -> NativeState {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// Waits until `condition` holds, at most `limit`; returns the state in any
    /// case.
    pub fn wait(
        &self,
        limit: Duration,
        condition: impl Fn(&NativeState) -> bool,
    ) -> Result<NativeState, NativeState> {
        let deadline = Instant::now() + limit;
        loop {
            let state = self.state();
            if condition(&state) {
                return Ok(state);
            }
            if Instant::now() >= deadline {
                return Err(state);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Cuts the connection, wherever the session stands, and keeps the tables;
    /// `None` if the thread has panicked.
    pub fn stop(mut self) -> Option<Stopped> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for NativeNve {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }
}

/// The system's random numbers.
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        use rand::TryRngCore;
        rand::rngs::OsRng.try_fill_bytes(out).map_err(|_| NoEntropy)
    }
}

struct Runner {
    nve: Stopped,
    socket: Option<TcpStream>,
    stop: Arc<AtomicBool>,
    shared: Arc<Mutex<NativeState>>,
}

impl Runner {
    fn run(mut self) -> Stopped {
        let mut room = vec![0; 65_536];
        while !self.stop.load(Ordering::Relaxed) {
            let wait = self.act();
            if self.exchange(&mut room, wait).is_err() {
                self.disconnect();
            }
            self.publish();
        }
        self.disconnect();
        self.publish();
        self.nve
    }

    /// Does what the session says; returns for how long there is nothing to do.
    fn act(&mut self) -> Duration {
        loop {
            let now = now(self.nve.epoch);
            match self.nve.session.poll(now) {
                Action::WaitUntil(until) => {
                    let nanos = until.0.saturating_sub(now.0);
                    return Duration::from_nanos(nanos).min(TURN);
                }
                Action::Dial(index) => self.dial(index),
                Action::Close(reason) => {
                    self.nve.state.closed = Some(reason);
                    self.disconnect();
                }
                Action::Report => {
                    let stats = stats(&self.nve);
                    self.nve.session.report(now, &stats);
                }
            }
        }
    }

    fn dial(&mut self, index: usize) {
        self.nve.state.dials += 1;
        let address = self.nve.shims.get(index).or(self.nve.shims.first());
        let connected = address
            .ok_or(io::ErrorKind::AddrNotAvailable.into())
            .and_then(|address| TcpStream::connect_timeout(address, Duration::from_secs(1)))
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket));
        match connected {
            Ok(socket) => {
                self.socket = Some(socket);
                self.nve.session.connected(now(self.nve.epoch));
            }
            Err(_) => self.disconnect(),
        }
    }

    fn disconnect(&mut self) {
        self.socket = None;
        self.nve.session.disconnected(now(self.nve.epoch));
    }

    /// Sends what there is and waits for bytes, or for `wait` without a socket.
    fn exchange(&mut self, room: &mut [u8], wait: Duration) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            std::thread::sleep(wait);
            return Ok(());
        };
        let tables = self.nve.datapath.tables();
        self.nve.session.announce(tables);
        loop {
            let count = self.nve.session.transmit(room);
            if count == 0 {
                break;
            }
            socket.write_all(room.get(..count).unwrap_or_default())?;
        }
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let count = match socket.read(room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if is_timeout(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.receive(room.get(..count).unwrap_or_default());
        Ok(())
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        let Stopped {
            session,
            datapath,
            state,
            epoch,
            ..
        } = &mut self.nve;
        state.received += bytes.len() as u64;
        let clock = || now(*epoch);
        while !bytes.is_empty() {
            let Ok(received) = session.receive(&clock, bytes, datapath) else {
                return;
            };
            state.commits += u64::from(received.committed);
            bytes = bytes.get(received.consumed..).unwrap_or_default();
        }
    }

    fn publish(&mut self) {
        let Stopped {
            session,
            datapath,
            state,
            ..
        } = &mut self.nve;
        state.phase = session.phase();
        state.generation = session.generation();
        state.digest = datapath.tables().digest();
        state.sizes = datapath.tables().sizes();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.clone_from(state);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn now(epoch: Instant) -> Nanos {
    Nanos(u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn stats(nve: &Stopped) -> Stats {
    Stats {
        uptime_ms: now(nve.epoch).0 / 1_000_000,
        generation: nve.session.generation(),
        tables: nve.datapath.tables().sizes(),
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
