//! Changes of the tables, all the time, for measurements: a shim in this process.
//!
//! Its transactions go through a session of the appliance's, from the handshake to the
//! acknowledgement: decrypted, decoded, staged, applied, held against the digest. Only
//! TCP is missing. A thread of its own makes and seals them beforehand, while none are
//! taken, since a measurement needs its processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nve_agent::{Action, Phase, PrivateKey, Session};
use nve_datapath::{Datapath, Nanos, Tables};
use nve_kernel::config::Config;
use nve_kernel::setup;
use nve_protocol::{
    API_VERSION, Begin, Commit, NOISE_PATTERN, NOISE_PROLOGUE, Record, TableDigest, ToNve, ToShim,
    Welcome, codec, frame,
};
use rand::RngCore;
use snow::{HandshakeState, TransportState};

use crate::clock;
use crate::node::Random;

/// Transactions that are sealed beforehand: 6 s of 10,000 per second. After those there
/// are no more until changes have paused.
const AHEAD: usize = 1 << 16;

/// Between two looks at whether changes have paused.
const REST: Duration = Duration::from_millis(50);

/// What is late by more is left out, in nanoseconds.
const PATIENCE: u64 = 100_000_000;

/// The appliance's end, and what the shim sends.
pub struct Churn {
    session: Session<Tables, Random>,
    frames: Receiver<Vec<u8>>,
    /// Nanoseconds between two transactions.
    interval: u64,
    due: Nanos,
    /// Whether changes are taken, 1 or 0; whoever has a clone says so.
    wanted: Arc<AtomicUsize>,
    /// Room for acknowledgements, which nobody reads.
    answers: Vec<u8>,
}

impl Churn {
    /// Connects a session for `datapath` with a shim that puts each of `records`, none
    /// of which may be in the tables, deletes each, and begins anew: one in each
    /// transaction, `rate` transactions per second while `wanted` is not 0.
    pub fn start(
        config: &Config,
        records: Vec<Record>,
        rate: u32,
        wanted: Arc<AtomicUsize>,
        datapath: &mut Datapath,
    ) -> Result<Churn> {
        if records.is_empty() || rate == 0 {
            bail!("there is nothing to change");
        }
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        let mut own = setup::session(config, datapath.tables().capacity(), 0);
        own.shim_public_key = PrivateKey::new(key).public();
        let mut session = Session::new(own, Random);
        let shim = connect(&mut session, &key, records, datapath)?;
        let (sender, frames) = sync_channel(AHEAD);
        let taken = wanted.clone();
        thread::Builder::new()
            .name("churn".into())
            .spawn(move || shim.run(&sender, &taken))?;
        Ok(Churn {
            session,
            frames,
            interval: 1_000_000_000 / u64::from(rate),
            due: Nanos(0),
            wanted,
            answers: vec![0; frame::MAX_NOISE],
        })
    }

    /// Whether it is time for a change.
    #[inline]
    pub fn is_due(&self, now: Nanos) -> bool {
        now >= self.due && self.wanted.load(Ordering::Relaxed) != 0
    }

    /// Takes one transaction, if one is ready.
    pub fn turn(&mut self, now: Nanos, datapath: &mut Datapath) -> Result<()> {
        let late = now.0.saturating_sub(PATIENCE);
        self.due = Nanos(self.due.0.max(late) + self.interval);
        let frame = match self.frames.try_recv() {
            Ok(frame) => frame,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => bail!("the shim of this process has ended"),
        };
        let before = self.session.generation();
        deliver(&mut self.session, &frame, datapath)?;
        if self.session.generation() == before {
            bail!("the session refused a transaction");
        }
        while self.session.transmit(&mut self.answers) > 0 {}
        Ok(())
    }

    /// How many transactions are in force.
    pub fn generation(&self) -> u64 {
        self.session.generation()
    }
}

/// Gives a session bytes from the shim.
fn deliver(
    session: &mut Session<Tables, Random>,
    mut bytes: &[u8],
    datapath: &mut Datapath,
) -> Result<()> {
    while !bytes.is_empty() {
        let received = session.receive(&clock::now, bytes, datapath);
        let received = received.map_err(|reason| anyhow!("the session ends: {reason}"))?;
        bytes = bytes.get(received.consumed..).unwrap_or_default();
    }
    Ok(())
}

/// The bytes that a session has for the shim.
fn transmitted(session: &mut Session<Tables, Random>) -> Vec<u8> {
    let (mut all, mut room) = (Vec::new(), vec![0; frame::MAX_NOISE]);
    loop {
        match session.transmit(&mut room) {
            0 => return all,
            count => all.extend_from_slice(room.get(..count).unwrap_or_default()),
        }
    }
}

/// Handshake, hello and welcome.
fn connect(
    session: &mut Session<Tables, Random>,
    key: &[u8; 32],
    records: Vec<Record>,
    datapath: &mut Datapath,
) -> Result<Shim> {
    let now = clock::now();
    if !matches!(session.poll(now), Action::Dial(_)) {
        bail!("the session does not dial");
    }
    session.connected(now);
    let (noise, answer) = answer(key, &transmitted(session))?;
    deliver(session, &answer, datapath)?;
    let mut shim = Shim {
        noise,
        records,
        at: 0,
        deletes: false,
        generation: session.generation(),
        digest: datapath.tables().digest(),
    };
    shim.hear_hello(&transmitted(session))?;
    let welcome = shim.seal(&[ToNve::Welcome(Welcome {
        api_version: API_VERSION,
        stats_interval_ms: 0,
        dead_after_ms: u32::MAX,
    })])?;
    deliver(session, &welcome, datapath)?;
    match session.phase() {
        Phase::Established => Ok(shim),
        phase => bail!("the session is in phase {phase:?}"),
    }
}

/// Answers the first message of the handshake.
fn answer(key: &[u8; 32], stream: &[u8]) -> Result<(TransportState, Vec<u8>)> {
    let mut noise: HandshakeState = snow::Builder::new(NOISE_PATTERN.parse()?)
        .local_private_key(key)?
        .prologue(NOISE_PROLOGUE)?
        .build_responder()?;
    let mut room = vec![0; frame::MAX_NOISE];
    noise.read_message(message(stream)?, &mut room)?;
    let length = noise.write_message(&[], &mut room)?;
    let answer = framed(room.get(..length).unwrap_or_default())?;
    Ok((noise.into_transport_mode()?, answer))
}

fn message(stream: &[u8]) -> Result<&[u8]> {
    let split = frame::split(stream).map_err(|frame::TooLong| anyhow!("too long"))?;
    Ok(split.context("the session is silent")?.0)
}

fn framed(message: &[u8]) -> Result<Vec<u8>> {
    let header = frame::header(message.len()).map_err(|frame::TooLong| anyhow!("too long"))?;
    Ok([&header[..], message].concat())
}

/// The shim.
struct Shim {
    noise: TransportState,
    records: Vec<Record>,
    at: usize,
    deletes: bool,
    generation: u64,
    digest: TableDigest,
}

impl Shim {
    fn hear_hello(&mut self, stream: &[u8]) -> Result<()> {
        let mut room = vec![0; frame::MAX_NOISE];
        let length = self.noise.read_message(message(stream)?, &mut room)?;
        match codec::decode::<ToShim>(room.get(..length).unwrap_or_default()) {
            Ok(Some((ToShim::Hello(_), _))) => Ok(()),
            other => bail!("no hello: {other:?}"),
        }
    }

    /// Seals transactions until nobody wants them.
    fn run(mut self, frames: &SyncSender<Vec<u8>>, taken: &AtomicUsize) {
        loop {
            while taken.load(Ordering::Relaxed) != 0 {
                thread::sleep(REST);
            }
            let frame = match self.next() {
                Ok(frame) => frame,
                Err(error) => return log::error!("churn: {error:#}"),
            };
            if frames.send(frame).is_err() {
                return;
            }
        }
    }

    /// The next transaction.
    fn next(&mut self) -> Result<Vec<u8>> {
        let record = *self.records.get(self.at).context("no record")?;
        let change = match self.deletes {
            true => {
                self.digest.remove(&record);
                ToNve::Delete(record.key())
            }
            false => {
                self.digest.add(&record);
                ToNve::Put(record)
            }
        };
        self.at += 1;
        if self.at == self.records.len() {
            (self.at, self.deletes) = (0, !self.deletes);
        }
        self.generation += 1;
        let (generation, digest) = (self.generation, self.digest);
        self.seal(&[
            ToNve::Begin(Begin {
                generation,
                full: false,
            }),
            change,
            ToNve::Commit(Commit { generation, digest }),
        ])
    }

    /// One frame with these messages.
    fn seal(&mut self, messages: &[ToNve]) -> Result<Vec<u8>> {
        let (mut plain, mut room) = (Vec::new(), vec![0; codec::MAX_MESSAGE]);
        for message in messages {
            let length = codec::encode(message, &mut room).map_err(|_| anyhow!("too long"))?;
            plain.extend_from_slice(room.get(..length).unwrap_or_default());
        }
        let mut sealed = vec![0; plain.len() + frame::TAG];
        let length = self.noise.write_message(&plain, &mut sealed)?;
        framed(sealed.get(..length).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use nve_protocol::{Fdb, Mac, TableSizes, Vni};

    use super::*;

    const CONFIG: &str = r#"{
        "nve_id": "9c1e3a52-0000-4000-8000-0000000000be", "name": "test",
        "trunk": { "mac": "02:00:00:00:00:01" },
        "uplink": { "mac": "02:00:00:00:00:02", "address": "192.0.2.1/24", "mtu": 1600 },
        "shims": ["192.0.2.2:6653"],
        "shim_public_key": "1111111111111111111111111111111111111111111111111111111111111111",
        "private_key": "2222222222222222222222222222222222222222222222222222222222222222"
    }"#;

    fn fdb(last: u8) -> Record {
        Record::Fdb(Fdb {
            vni: Vni::new(1).unwrap(),
            mac: Mac([2, 0, 0, 0, 0, last]),
            vtep: [192, 0, 2, 9].into(),
        })
    }

    #[test]
    fn each_transaction_puts_or_deletes_a_record() {
        let config = Config::parse(CONFIG.as_bytes()).unwrap();
        let addresses = setup::addresses(&config, Mac([2, 0, 0, 0, 0, 2]), 1600, 1);
        let datapath = setup::datapath(&addresses, 1500, false, 1 << 20);
        let tables = Tables::new(TableSizes::uniform(10));
        let mut datapath = Datapath::new(datapath, tables);
        let wanted = Arc::new(AtomicUsize::new(0));
        let records = vec![fdb(1), fdb(2), fdb(3)];
        let mut churn = Churn::start(&config, records, 10, wanted.clone(), &mut datapath).unwrap();
        let mut now = Nanos(1 << 40);
        for count in [1, 2, 3, 2, 1, 0, 1] {
            let before = churn.generation();
            while churn.generation() == before {
                churn.due = now;
                churn.turn(now, &mut datapath).unwrap();
            }
            assert_eq!(datapath.tables().sizes().fdb, count);
            now.0 += 1_000_000_000;
        }
        assert_eq!(churn.generation(), 7);
        now.0 -= 1_000_000_000;
        assert!(!churn.is_due(Nanos(u64::MAX)));
        wanted.store(1, Ordering::Relaxed);
        assert!(!churn.is_due(Nanos(now.0 + 99_999_999)));
        assert!(churn.is_due(Nanos(now.0 + 100_000_000)));
    }
}
