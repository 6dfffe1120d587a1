//! Time of a full sync of a native NVE over loopback, from connect to applied.
//!
//! `cargo run --release -p shim --example full_sync [VAPS [STATIONS [NEIGHBORS [TURNS]]]]`
//! prints one line per run of `TURNS`, fastest and median first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nve_protocol::{Fdb, Flood, Mac, Neighbor, PortId, Presence, Record, Vap, Vlan, Vni};
use shim::compile::NveTables;
use shim::southbound::testing::{MemoryDirectory, NativeConfig, NativeNve, snapshot};
use shim::southbound::{Config, KeyPair, NveIdentity, Registry, serve};
use tokio::net::TcpListener;
use uuid::Uuid;

/// Networks that the records are spread over.
const NETWORKS: u32 = 100;

/// Remote VTEPs.
const VTEPS: u32 = 200;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>());
    let mut number = |default| numbers.next().transpose().map(|n| n.unwrap_or(default));
    let vaps = number(u32::from(Vlan::MAX))?;
    let (stations, neighbors, turns) = (number(100_000)?, number(0)?, number(5)?);
    let tables = tables(vaps, stations, neighbors);
    let mut times = Vec::new();
    for _ in 0..turns.max(1) {
        times.push(run(&tables).await?);
    }
    times.sort();
    let fastest = times.first().copied().unwrap_or_default();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!(
        "full sync of {vaps} VAPs, {stations} FDB and {neighbors} neighbor records, \
         native over loopback, connect to applied: median {median:.0?}, fastest {fastest:.0?}"
    );
    Ok(())
}

/// One NVE with empty tables connects and gets everything.
async fn run(tables: &Arc<NveTables>) -> anyhow::Result<Duration> {
    let keys = KeyPair::generate()?;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let directory = MemoryDirectory::new();
    let registry = Arc::new(Registry::new());
    let (nve, nve_keys) = (Uuid::new_v4(), KeyPair::generate()?);
    let identity = NveIdentity {
        id: nve,
        name: "native".to_owned(),
    };
    directory.add(identity, *nve_keys.public(), Arc::clone(tables));
    let config = NativeConfig::new(nve, nve_keys, *keys.public(), address);
    let server = serve(
        listener,
        keys,
        Config::default(),
        Arc::clone(&directory) as _,
        Arc::clone(&registry),
    );
    let server = tokio::spawn(server);
    let mut acked = registry.acked(nve);
    let start = Instant::now();
    let native = NativeNve::start(&config)?;
    let all = acked.wait_for(|acked| {
        acked
            .as_ref()
            .is_some_and(|acked| Arc::ptr_eq(acked, tables))
    });
    all.await?;
    let time = start.elapsed();
    anyhow::ensure!(
        native.state().sizes == tables.sizes(),
        "not all of it arrived"
    );
    server.abort();
    Ok(time)
}

fn tables(vaps: u32, stations: u32, neighbors: u32) -> Arc<NveTables> {
    let vaps = (1..=vaps).filter_map(|n| {
        Some(Record::Vap(Vap {
            vlan: Vlan::new(u16::try_from(n).ok()?)?,
            port: PortId(u128::from(n).to_be_bytes()),
            vni: network(n)?,
            mac: mac(2, n),
            port_security: false,
            presence: Presence::Active,
        }))
    });
    let stations = (0..stations).filter_map(|n| {
        Some(Record::Fdb(Fdb {
            vni: network(n)?,
            mac: mac(6, n),
            vtep: vtep(n),
        }))
    });
    let neighbors = (0..neighbors).filter_map(|n| {
        Some(Record::Neighbor(Neighbor {
            vni: network(n)?,
            ip: std::net::Ipv4Addr::from(0x0a00_0000 + n).into(),
            mac: mac(6, n),
        }))
    });
    let flood = (0..NETWORKS).filter_map(|n| {
        Some(Record::Flood(Flood {
            vni: network(n)?,
            vtep: vtep(n),
        }))
    });
    snapshot(vaps.chain(stations).chain(neighbors).chain(flood))
}

fn network(n: u32) -> Option<Vni> {
    Vni::new(5_000 + n % NETWORKS)
}

fn mac(first: u8, n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([first, 0, a, b, c, d])
}

fn vtep(n: u32) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(0xc000_0200 + n / NETWORKS % VTEPS).into()
}
