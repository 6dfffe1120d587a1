//! From the configuration to a running node, and its loop for ever.

use core::num::NonZeroU8;

use log::{error, info};
use nve_agent::{NoEntropy, SessionConfig};
use nve_datapath::{Config as DatapathConfig, Datapath, HEADROOM, Tables, Uplink, connections};
use nve_kernel::config::{Config, NicSelector};
use nve_kernel::node::{Addresses, Node, Parts, Platform, Turn};
use nve_nic::dma::DmaSource;
use nve_nic::{Nic, Pool};
use nve_protocol::{Mac, TableSizes};

use crate::arch::apic::Apic;
use crate::arch::cpu::Entropy;
use crate::arch::pci::ConfigSpace;
use crate::arch::power::{self, Exit};
use crate::arch::time;
use crate::arch::traps::DEVICE_VECTOR;
use crate::devices::{Candidate, Device, Devices, Machine};
use crate::{give_up, heap};

/// MTU of a trunk whose NIC announces none, in bytes.
const TRUNK_MTU: u16 = 1500;

/// MTU of an uplink for which neither configuration nor NIC have one: a trunk's
/// with the headers of VXLAN.
const UPLINK_MTU: u16 = 1600;

/// Ethernet header with two tags, in bytes.
const ETHERNET: usize = 22;

/// How long the loop polls without finding anything before it halts.
const SPIN: u64 = 50_000;

/// Starts both NICs and runs the node.
pub fn run(config: &Config, space: ConfigSpace, mut apic: Apic, entropy: Entropy) -> ! {
    let mut devices = Devices::find(space);
    let trunk = take(&mut devices, "trunk", config.trunk);
    let uplink = take(&mut devices, "uplink", config.uplink.nic);
    let trunk_mtu = trunk.mtu.unwrap_or(TRUNK_MTU);
    let uplink_mtu = uplink_mtu(config, &uplink);
    let pool = make_pool(usize::from(trunk_mtu.max(uplink_mtu)));
    let start = |devices: &mut Devices, name, candidate, vector| {
        devices
            .start(candidate, pool, apic.message(vector))
            .unwrap_or_else(|why| give_up(Exit::Nic, format_args!("nic: {name}: {why}")))
    };
    let trunk = start(&mut devices, "trunk", trunk, DEVICE_VECTOR);
    let uplink = start(&mut devices, "uplink", uplink, DEVICE_VECTOR + 1);
    let addresses = addresses(config, &uplink, uplink_mtu, entropy);
    let datapath = make_datapath(&addresses, trunk_mtu, trunk.completes_checksums());
    let boot_us = time::since_boot().0 / 1000;
    let mut node = Node::new(Parts {
        trunk,
        uplink,
        pool,
        session: session(config, datapath.tables().capacity(), boot_us),
        datapath,
        addresses,
        shims: config.shims.clone(),
        entropy: Source(entropy),
        platform: Platform {
            clock: time::since_boot,
            heap: heap::usage,
        },
    });
    info!("ready: {boot_us} us from entry to poll loop");
    #[cfg(feature = "fault-injection")]
    crate::faults::inject(&config.name);
    poll_for_ever(&mut node, &mut apic)
}

/// The processor's random numbers for the control session.
struct Source(Entropy);

impl nve_agent::Entropy for Source {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.fill(out).then_some(()).ok_or(NoEntropy)
    }
}

fn poll_for_ever(node: &mut Node<Device, Source>, apic: &mut Apic) -> ! {
    let mut last_busy = time::since_boot();
    loop {
        let now = time::since_boot();
        match node.poll(now) {
            Turn::Busy => last_busy = now,
            Turn::Idle if now.0.saturating_sub(last_busy.0) < SPIN => core::hint::spin_loop(),
            Turn::Idle => {
                if !node.arm_interrupts() {
                    apic.wait(node.deadline());
                }
                node.disarm_interrupts();
                last_busy = time::since_boot();
            }
            Turn::Broken(side) => {
                error!("nic: {side:?}: the device broke its rings; reset");
                power::reset();
            }
        }
    }
}

fn take(devices: &mut Devices, role: &str, selector: NicSelector) -> Candidate {
    devices
        .take(selector)
        .unwrap_or_else(|why| give_up(Exit::Nic, format_args!("nic: {role} ({selector}): {why}")))
}

/// The configured MTU, which the NIC has to have; else the NIC's.
fn uplink_mtu(config: &Config, uplink: &Candidate) -> u16 {
    match (config.uplink.mtu, uplink.mtu) {
        (Some(wanted), Some(has)) if wanted > has => give_up(
            Exit::Config,
            format_args!("config: uplink.mtu: expected at most {has}, the NIC's"),
        ),
        (Some(wanted), _) => wanted,
        (None, has) => has.unwrap_or(UPLINK_MTU),
    }
}

/// Buffers for frames of `mtu`, within a tenth of the heap.
fn make_pool(mtu: usize) -> &'static Pool {
    /// Both receive queues, full transmit queues and bursts on their way.
    const MOST: usize = 2048;
    /// Both receive queues and a burst.
    const LEAST: usize = 768;

    let room = mtu + ETHERNET;
    let share = usize::try_from(heap::usage().1).unwrap_or(usize::MAX) / 10;
    let count = (share / Pool::bytes(1, HEADROOM, room)).clamp(LEAST, MOST);
    Machine
        .allocate(Pool::bytes(count, HEADROOM, room))
        .and_then(|memory| Pool::new(memory, HEADROOM, room))
        .unwrap_or_else(|| give_up(Exit::Memory, "memory: not enough for packet buffers"))
}

fn addresses(config: &Config, uplink: &Device, mtu: u16, entropy: Entropy) -> Addresses {
    let mut seed = [0; 8];
    if !entropy.fill(&mut seed) {
        give_up(Exit::Entropy, "entropy: the generator gives nothing");
    }
    Addresses {
        mac: Mac(uplink.mac()),
        address: config.uplink.address,
        prefix: config.uplink.prefix,
        gateway: config.uplink.gateway,
        mtu,
        seed: u64::from_le_bytes(seed),
    }
}

fn session(config: &Config, capacity: TableSizes, boot_us: u64) -> SessionConfig {
    let shims = u8::try_from(config.shims.len()).unwrap_or(u8::MAX);
    SessionConfig {
        nve: config.nve_id,
        // A version that is too long for the message is left out of it.
        version: env!("CARGO_PKG_VERSION").try_into().unwrap_or_default(),
        private_key: config.private_key.clone(),
        shim_public_key: config.shim_public_key,
        capacity,
        boot_us,
        shim_count: NonZeroU8::new(shims).unwrap_or(NonZeroU8::MIN),
    }
}

fn make_datapath(addresses: &Addresses, trunk_mtu: u16, trunk_checksum: bool) -> Datapath {
    let config = DatapathConfig {
        uplink: Uplink {
            mac: addresses.mac,
            address: addresses.address,
            prefix: addresses.prefix,
            gateway: addresses.gateway,
            mtu: addresses.mtu,
        },
        trunk_mtu,
        trunk_checksum,
        flows: scaled(FLOWS),
        seed: addresses.seed,
        connections: connections::Config {
            connections: scaled(CONNECTIONS),
            connections_per_vap: scaled(CONNECTIONS / 4),
            fragments: 1024,
            // Another secret than the flow cache's.
            seed: !addresses.seed.rotate_left(32),
            timeouts: connections::Timeouts::default(),
        },
    };
    Datapath::new(config, Tables::new(capacity()))
}

/// Flows that are remembered at 64 MiB of memory.
const FLOWS: u64 = 1 << 16;

/// Connections that are tracked at 64 MiB of memory.
const CONNECTIONS: u64 = 1 << 16;

/// Of what the product promises at 64 MiB, the part that this memory allows.
fn scaled(records: u64) -> u32 {
    const PROMISED_AT: u64 = 48 << 20;

    let (_, heap) = heap::usage();
    (records * heap.min(PROMISED_AT) / PROMISED_AT) as u32
}

/// What the tables may hold.
fn capacity() -> TableSizes {
    TableSizes {
        vaps: 4094,
        fdb: scaled(100_000),
        neighbors: scaled(100_000),
        flood: scaled(65_536),
        peers: scaled(65_536),
        networks: scaled(16_384),
        subnets: scaled(16_384),
        dns: scaled(16_384),
        host_routes: scaled(16_384),
        gateways: scaled(16_384),
        routes: scaled(65_536),
        addresses: scaled(65_536),
        dhcp_options: scaled(16_384),
        groups: scaled(16_384),
        rules: scaled(65_536),
        members: scaled(131_072),
        bindings: scaled(65_536),
        qos: 4094,
    }
}
