//! A node of the image's parts on devices of this process.

use anyhow::{Context, Result, anyhow, bail};
use nve_agent::NoEntropy;
use nve_datapath::{Datapath, HEADROOM, Nanos, Tables};
use nve_kernel::config::{Config, NicSelector};
use nve_kernel::node::{Looped, Node, Parts, Platform, Turn};
use nve_kernel::setup::{self, Buffers};
use nve_nic::dma::DmaSource;
use nve_nic::virtio::VirtioNet;
use nve_nic::{Nic, Pool};
use nve_protocol::{Mac, Record, Stats};
use rand::RngCore;

use crate::clock;
use crate::device::{Backend, Device, Handle};
use crate::memory::Shared;

/// Bytes of shared memory that a node with these MTUs needs: buffers, and room for
/// rings of four queues.
pub fn shared_bytes(config: &Config, heap: u64) -> usize {
    const RINGS: usize = 1 << 20;

    let uplink = setup::uplink_mtu(config, None).unwrap_or_else(|has| has);
    Buffers::within(heap, uplink.max(setup::TRUNK_MTU)).bytes() + RINGS
}

/// The operating system's random numbers.
#[derive(Debug)]
pub struct Random;

impl nve_agent::Entropy for Random {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        rand::rng().fill_bytes(out);
        Ok(())
    }
}

/// Where tables come from.
#[derive(Debug)]
pub enum Source {
    /// The shims that the configuration names.
    Shims,
    /// These records, for good; no shim is dialed.
    Records(Vec<Record>),
}

/// A node with the device's ends of both its NICs.
pub struct Hosted<B: Backend> {
    node: Node<VirtioNet<Device<B>>, Random>,
    trunk: Handle<B>,
    uplink: Handle<B>,
}

impl<B: Backend> Hosted<B> {
    /// Starts both devices, and a node sized for `heap` bytes between them.
    pub fn new(
        config: &Config,
        source: Source,
        heap: u64,
        memory: &mut Shared,
        [trunk, uplink]: [B; 2],
    ) -> Result<Hosted<B>> {
        let uplink_mtu = setup::uplink_mtu(config, None).unwrap_or_else(|has| has);
        let pool = make_pool(memory, heap, uplink_mtu.max(setup::TRUNK_MTU))?;
        let large_wanted = config.trunk.offloads;
        let (trunk_nic, trunk) =
            start(trunk, config.trunk.nic, memory, pool, large_wanted).context("trunk")?;
        let (uplink_nic, uplink) =
            start(uplink, config.uplink.nic, memory, pool, false).context("uplink")?;
        let addresses = setup::addresses(
            config,
            Mac(uplink_nic.mac()),
            uplink_mtu,
            rand::rng().next_u64(),
        );
        let mut tables = Tables::new(setup::capacity(heap));
        let shims = match source {
            Source::Shims => config.shims.clone(),
            Source::Records(records) => {
                fill(&mut tables, &records)?;
                heapless::Vec::new()
            }
        };
        let checksums = trunk_nic.completes_checksums();
        let datapath = setup::datapath(&addresses, setup::TRUNK_MTU, checksums, heap);
        let node = Node::new(Parts {
            trunk: trunk_nic,
            uplink: uplink_nic,
            pool,
            session: setup::session(config, tables.capacity(), 0),
            datapath: Datapath::new(datapath, tables),
            addresses,
            shims,
            entropy: Random,
            platform: Platform {
                clock: clock::now,
                heap: || (0, 0),
            },
            links: None,
        });
        Ok(Hosted {
            node,
            trunk,
            uplink,
        })
    }

    /// One turn of the node; whether it had something to do.
    #[inline]
    pub fn poll(&mut self, now: Nanos) -> Result<bool> {
        let turn = self.node.poll(now);
        self.trunk.notify()?;
        self.uplink.notify()?;
        match turn {
            Turn::Busy => Ok(true),
            Turn::Idle => Ok(false),
            Turn::Broken(side) => bail!("{side:?}: the device broke its rings"),
            Turn::Split => bail!("tables of processors differ"),
        }
    }

    /// The node.
    pub fn node(&mut self) -> &mut Node<VirtioNet<Device<B>>, Random> {
        &mut self.node
    }

    /// The device's ends of trunk and uplink.
    pub fn handles(&self) -> [&Handle<B>; 2] {
        [&self.trunk, &self.uplink]
    }

    /// Counters since the start.
    pub fn stats(&self, now: Nanos) -> Stats {
        self.node.stats(now)
    }
}

fn fill(tables: &mut Tables, records: &[Record]) -> Result<()> {
    for record in records {
        tables
            .put(record)
            .map_err(|error| anyhow!("tables: {error:?}: {record:?}"))?;
    }
    Ok(())
}

fn make_pool(memory: &mut Shared, heap: u64, mtu: u16) -> Result<&'static Pool> {
    let buffers = Buffers::within(heap, mtu);
    memory
        .allocate(buffers.bytes())
        .and_then(|memory| Pool::new(memory, HEADROOM, buffers.room))
        .context("not enough shared memory for packet buffers")
}

fn start<B: Backend>(
    backend: B,
    selector: NicSelector,
    memory: &mut Shared,
    pool: &'static Pool,
    large_wanted: bool,
) -> Result<(VirtioNet<Device<B>>, Handle<B>)> {
    let NicSelector::Mac(mac) = selector else {
        bail!("expected a NIC by its MAC address; there is no PCI bus here");
    };
    let (device, handle) = Device::new(backend, mac.0);
    let mut wires = device.wires();
    let nic = VirtioNet::new(device, &mut wires, memory, pool, Some(0), large_wanted);
    // What the other end said comes before what the driver made of it.
    handle.check()?;
    Ok((nic?, handle))
}
