//! From the configuration to a running node on all processors, and their loops for ever.

use alloc::sync::Arc;
use alloc::vec::Vec;

use log::{error, info};
use nve_agent::NoEntropy;
use nve_datapath::meter::SharedMeters;
use nve_datapath::steering::Steering;
use nve_datapath::{Datapath, HEADROOM, Nanos, Role, Tables};
use nve_kernel::acpi::ApicId;
use nve_kernel::config::{Config, NicSelector};
use nve_kernel::node::{Addresses, Links, Looped, Node, Parts, Platform, Team, Turn};
use nve_kernel::setup::{self, Buffers};
use nve_nic::dma::DmaSource;
use nve_nic::virtio::Pair;
use nve_nic::{IdlePool, Nic, Pool};
use nve_protocol::Mac;
use virtio_drivers::transport::pci::PciTransport;

use crate::arch::apic::{self, Apic};
use crate::arch::cpu::Entropy;
use crate::arch::pci::ConfigSpace;
use crate::arch::power::{self, Exit};
use crate::arch::time;
use crate::arch::traps::DEVICE_VECTOR;
use crate::devices::{Candidate, Devices, Machine};
use crate::stations::{self, Station};
use crate::{give_up, heap};

/// How long the loop polls without finding anything before it halts.
const SPIN: u64 = 50_000;

/// Longest halt when NICs cannot interrupt.
const NAP: u64 = 100_000;

/// A pair of queues of a NIC.
type Queues = Pair<PciTransport>;

/// Both NICs, started, with a pair of queues for each processor that the node has.
struct Nics {
    trunk: Vec<Queues>,
    uplink: Vec<Queues>,
    trunk_mtu: u16,
    uplink_mtu: u16,
    /// Whether they can interrupt.
    interrupts: bool,
}

/// Starts both NICs and runs the node, on this processor and on as many of `others` as
/// there are queues and memory for.
pub fn run(
    config: &Config,
    space: ConfigSpace,
    mut apic: Apic,
    entropy: Entropy,
    others: &[ApicId],
) -> ! {
    let processors: Vec<ApicId> = [apic.id()].iter().chain(others).copied().collect();
    let nics = start_nics(config, space, &processors);
    let count = nics.trunk.len();
    if count < processors.len() {
        info!("processors: {count} used, for want of queues or memory");
    }
    stations::have(&processors);
    let pools = make_pools(nics.trunk_mtu.max(nics.uplink_mtu), count);
    let mut seats = nics.trunk.into_iter().zip(nics.uplink).zip(pools);
    let Some(((trunk, uplink), pool)) = seats.next() else {
        give_up(Exit::Nic, "nic: no queues");
    };
    let pool = pool.open();
    let (trunk, uplink) = (trunk.attach(pool), uplink.attach(pool));
    let mac = Mac(uplink.mac());
    let addresses = setup::addresses(config, mac, nics.uplink_mtu, seed(entropy));
    let datapaths = Datapaths {
        addresses: &addresses,
        trunk_mtu: nics.trunk_mtu,
        trunk_checksum: trunk.completes_checksums(),
        heap: heap::usage().1 / count as u64,
        meters: (count > 1).then(shared_meters),
    };
    let team = Team::new(count, stations::wake);
    let mut links = Links::all(&team, Steering::new(count, !addresses.seed)).into_iter();
    let first_links = links.next().filter(|_| count > 1);
    let role = first_links.as_ref().map_or(Role::Only, |_| Role::First);
    let datapath = datapaths.make(role);
    for (((trunk, uplink), pool), links) in seats.zip(links) {
        stations::take(Station {
            trunk,
            uplink,
            pool,
            datapath: datapaths.make(Role::Other),
            links,
            interrupts: nics.interrupts,
        });
    }
    let boot_us = time::since_boot().0 / 1000;
    let session = setup::session(config, datapath.tables().capacity(), boot_us);
    let mut node = Node::new(Parts {
        trunk,
        uplink,
        pool,
        session,
        datapath,
        addresses,
        shims: config.shims.clone(),
        entropy: Source(entropy),
        platform: Platform {
            clock: time::since_boot,
            heap: heap::usage,
        },
        links: first_links,
    });
    info!("ready: {boot_us} us from entry to poll loop");
    #[cfg(feature = "fault-injection")]
    crate::faults::inject(&config.name);
    poll_for_ever(&mut node, &mut apic, nics.interrupts)
}

/// The processor's random numbers for the control session.
struct Source(Entropy);

impl nve_agent::Entropy for Source {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.fill(out).then_some(()).ok_or(NoEntropy)
    }
}

/// Datapaths of one NVE.
struct Datapaths<'a> {
    addresses: &'a Addresses,
    trunk_mtu: u16,
    trunk_checksum: bool,
    /// Bytes of memory for each.
    heap: u64,
    meters: Option<Arc<SharedMeters>>,
}

impl Datapaths<'_> {
    fn make(&self, role: Role) -> Datapath {
        let (mtu, checksum) = (self.trunk_mtu, self.trunk_checksum);
        let config = setup::datapath(self.addresses, mtu, checksum, self.heap);
        let mut datapath = Datapath::new(config, Tables::new(setup::capacity(self.heap)));
        if let Some(meters) = &self.meters {
            datapath.share(role, meters.clone());
        }
        datapath
    }
}

fn shared_meters() -> Arc<SharedMeters> {
    let meters = SharedMeters::new();
    Arc::new(meters.unwrap_or_else(|| give_up(Exit::Memory, "memory: not enough for meters")))
}

/// A processor's loop. `interrupts` says whether NICs can end a halt.
pub fn poll_for_ever(looped: &mut impl Looped, apic: &mut Apic, interrupts: bool) -> ! {
    let mut last_busy = time::since_boot();
    loop {
        let now = time::since_boot();
        match looped.poll(now) {
            Turn::Busy => last_busy = now,
            Turn::Idle if now.0.saturating_sub(last_busy.0) < SPIN => core::hint::spin_loop(),
            Turn::Idle if !interrupts => {
                apic.wait(looped.deadline().min(Nanos(now.0 + NAP)));
            }
            Turn::Idle => {
                if !looped.arm_interrupts() {
                    apic.wait(looped.deadline());
                }
                looped.disarm_interrupts();
                last_busy = time::since_boot();
            }
            Turn::Broken(side) => {
                error!("nic: {side:?}: the device broke its rings; reset");
                power::reset();
            }
            Turn::Split => {
                error!("tables: processors do not have the same; reset");
                power::reset();
            }
        }
    }
}

/// Starts both NICs with as many pairs of queues as there are processors to use.
fn start_nics(config: &Config, space: ConfigSpace, processors: &[ApicId]) -> Nics {
    let mut devices = Devices::find(space);
    let trunk = take(&mut devices, "trunk", config.trunk.nic);
    let uplink = take(&mut devices, "uplink", config.uplink.nic);
    let trunk_mtu = trunk.mtu.unwrap_or(setup::TRUNK_MTU);
    let uplink_mtu = uplink_mtu(config, &uplink);
    let pairs = [trunk.pairs, uplink.pairs].map(usize::from);
    let count = setup::processors(processors.len(), pairs, heap::usage().1);
    let mut start = |name, candidate, vector, count, large_wanted| {
        let processors = processors.iter().take(count);
        let messages: Vec<_> = processors.map(|id| apic::message(*id, vector)).collect();
        devices
            .start(candidate, &messages, large_wanted)
            .unwrap_or_else(|why| give_up(Exit::Nic, format_args!("nic: {name}: {why}")))
    };
    let large_wanted = config.trunk.offloads;
    let trunk = start("trunk", trunk, DEVICE_VECTOR, count, large_wanted);
    // No VXLAN packet is large: virtio 1.2 has no way to have one cut.
    let uplink = start("uplink", uplink, DEVICE_VECTOR + 1, trunk.len(), false);
    if uplink.len() < trunk.len() {
        give_up(
            Exit::Nic,
            "nic: uplink: not as many pairs of queues as it says; give the trunk one pair",
        );
    }
    Nics {
        trunk,
        uplink,
        trunk_mtu,
        uplink_mtu,
        interrupts: devices.interrupt(),
    }
}

fn take(devices: &mut Devices, role: &str, selector: NicSelector) -> Candidate {
    devices
        .take(selector)
        .unwrap_or_else(|why| give_up(Exit::Nic, format_args!("nic: {role} ({selector}): {why}")))
}

/// The uplink's MTU; nothing can be done with one that the NIC does not have.
fn uplink_mtu(config: &Config, uplink: &Candidate) -> u16 {
    setup::uplink_mtu(config, uplink.mtu).unwrap_or_else(|has| {
        give_up(
            Exit::Config,
            format_args!("config: uplink.mtu: expected at most {has}, the NIC's"),
        )
    })
}

/// Buffers for frames of `mtu`, a pool for each processor.
fn make_pools(mtu: u16, processors: usize) -> Vec<IdlePool> {
    let buffers = Buffers::within(heap::usage().1 / processors as u64, mtu);
    Machine
        .allocate(buffers.bytes() * processors)
        .and_then(|memory| Pool::several(memory, HEADROOM, buffers.room, processors))
        .unwrap_or_else(|| give_up(Exit::Memory, "memory: not enough for packet buffers"))
}

/// A random number.
fn seed(entropy: Entropy) -> u64 {
    let mut seed = [0; 8];
    if !entropy.fill(&mut seed) {
        give_up(Exit::Entropy, "entropy: the generator gives nothing");
    }
    u64::from_le_bytes(seed)
}
