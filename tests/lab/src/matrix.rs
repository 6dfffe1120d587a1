//! The table of who reaches whom.

use std::fmt;
use std::net::Ipv4Addr;
use std::thread;

use anyhow::Result;

use crate::netns::Netns;
use crate::reach;

/// How often a reachable VM is pinged before it counts as unreachable.
const PINGS: u32 = 3;

/// A VM as the table needs it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its network's name.
    pub network: String,
    /// The NVE that serves it.
    pub nve: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its namespace.
    pub netns: Netns,
}

/// What one VM reached of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    ping: bool,
    tcp: bool,
}

/// The table.
#[derive(Debug)]
pub struct Matrix {
    peers: Vec<Peer>,
    /// For each ordered pair, by index of the source and of the target.
    found: Vec<Vec<Option<Found>>>,
}

impl Matrix {
    /// Tries ping and a TCP transfer between all ordered pairs, all at once.
    pub fn measure(peers: Vec<Peer>) -> Result<Matrix> {
        let found = thread::scope(|scope| {
            let rows: Vec<_> = peers
                .iter()
                .map(|source| {
                    let cells = peers.iter().map(|target| {
                        let other = source.name != target.name;
                        other.then(|| scope.spawn(|| probe(source, target)))
                    });
                    cells.collect::<Vec<_>>()
                })
                .collect();
            rows.into_iter()
                .map(|row| row.into_iter().map(joined).collect())
                .collect::<Result<_>>()
        })?;
        Ok(Matrix { peers, found })
    }

    /// Pairs that reach each other and should not, or the other way round.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (source, row) in self.peers.iter().zip(&self.found) {
            for (target, cell) in self.peers.iter().zip(row) {
                if let Some(found) = cell
                    && !found.is_right(source, target)
                {
                    let word = found.word(source, target);
                    faults.push(format!("{} to {}: {word}", source.name, target.name));
                }
            }
        }
        faults
    }
}

type Cell<'scope> = Option<thread::ScopedJoinHandle<'scope, Result<Found>>>;

fn joined(cell: Cell<'_>) -> Result<Option<Found>> {
    match cell.map(thread::ScopedJoinHandle::join) {
        None => Ok(None),
        Some(Ok(found)) => found.map(Some),
        Some(Err(panic)) => std::panic::resume_unwind(panic),
    }
}

fn probe(source: &Peer, target: &Peer) -> Result<Found> {
    Ok(Found {
        ping: reach::ping(&source.netns, target.ip, PINGS)?,
        tcp: reach::transfer(&source.netns, &target.netns, target.ip)?,
    })
}

impl Found {
    fn is_right(self, source: &Peer, target: &Peer) -> bool {
        let wanted = source.network == target.network;
        self.ping == wanted && self.tcp == wanted
    }

    fn word(self, source: &Peer, target: &Peer) -> &'static str {
        let same_network = source.network == target.network;
        match (self.ping, self.tcp) {
            (true, true) if !same_network => "LEAK",
            (true, true) if source.nve == target.nve => "here",
            (true, true) => "across",
            (false, false) if !same_network => "apart",
            (false, false) => "LOST",
            (true, false) => "PING ONLY",
            (false, true) => "TCP ONLY",
        }
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:22}", "from \\ to")?;
        for peer in &self.peers {
            write!(f, "{:10}", peer.name)?;
        }
        writeln!(f)?;
        for (source, row) in self.peers.iter().zip(&self.found) {
            let Peer {
                name, network, nve, ..
            } = source;
            write!(f, "{:22}", format!("{name} ({network}, {nve})"))?;
            for (target, cell) in self.peers.iter().zip(row) {
                let word = cell.map_or("-", |found| found.word(source, target));
                write!(f, "{word:10}")?;
            }
            writeln!(f)?;
        }
        write!(
            f,
            "here: by ping and TCP, through one NVE; across: likewise, through two; \
             apart: neither. CAPITALS: a fault"
        )
    }
}
