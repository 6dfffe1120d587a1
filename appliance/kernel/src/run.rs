//! From the configuration to a running node, and its loop for ever.

use log::{error, info};
use nve_agent::NoEntropy;
use nve_datapath::{Datapath, HEADROOM, Nanos, Tables};
use nve_kernel::config::{Config, NicSelector};
use nve_kernel::node::{Looped, Node, Parts, Platform, Turn};
use nve_kernel::setup::{self, Buffers};
use nve_nic::dma::DmaSource;
use nve_nic::{Nic, Pool};
use nve_protocol::Mac;

use crate::arch::apic::Apic;
use crate::arch::cpu::Entropy;
use crate::arch::pci::ConfigSpace;
use crate::arch::power::{self, Exit};
use crate::arch::time;
use crate::arch::traps::DEVICE_VECTOR;
use crate::devices::{Candidate, Device, Devices, Machine};
use crate::{give_up, heap};

/// How long the loop polls without finding anything before it halts.
const SPIN: u64 = 50_000;

/// Longest halt when NICs cannot interrupt.
const NAP: u64 = 100_000;

/// Starts both NICs and runs the node.
pub fn run(config: &Config, space: ConfigSpace, mut apic: Apic, entropy: Entropy) -> ! {
    let mut devices = Devices::find(space);
    let trunk = take(&mut devices, "trunk", config.trunk);
    let uplink = take(&mut devices, "uplink", config.uplink.nic);
    let trunk_mtu = trunk.mtu.unwrap_or(setup::TRUNK_MTU);
    let uplink_mtu = uplink_mtu(config, &uplink);
    let pool = make_pool(trunk_mtu.max(uplink_mtu));
    let start = |devices: &mut Devices, name, candidate, vector| {
        devices
            .start(candidate, pool, apic.message(vector))
            .unwrap_or_else(|why| give_up(Exit::Nic, format_args!("nic: {name}: {why}")))
    };
    let trunk = start(&mut devices, "trunk", trunk, DEVICE_VECTOR);
    let uplink = start(&mut devices, "uplink", uplink, DEVICE_VECTOR + 1);
    let addresses = setup::addresses(config, Mac(uplink.mac()), uplink_mtu, seed(entropy));
    let heap = heap::usage().1;
    let datapath = Datapath::new(
        setup::datapath(&addresses, trunk_mtu, trunk.completes_checksums(), heap),
        Tables::new(setup::capacity(heap)),
    );
    let boot_us = time::since_boot().0 / 1000;
    let mut node = Node::new(Parts {
        trunk,
        uplink,
        pool,
        session: setup::session(config, datapath.tables().capacity(), boot_us),
        datapath,
        addresses,
        shims: config.shims.clone(),
        entropy: Source(entropy),
        platform: Platform {
            clock: time::since_boot,
            heap: heap::usage,
        },
        links: None,
    });
    info!("ready: {boot_us} us from entry to poll loop");
    #[cfg(feature = "fault-injection")]
    crate::faults::inject(&config.name);
    poll_for_ever(&mut node, &mut apic, devices.interrupt())
}

/// The processor's random numbers for the control session.
struct Source(Entropy);

impl nve_agent::Entropy for Source {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.fill(out).then_some(()).ok_or(NoEntropy)
    }
}

fn poll_for_ever(node: &mut Node<Device, Source>, apic: &mut Apic, interrupts: bool) -> ! {
    let mut last_busy = time::since_boot();
    loop {
        let now = time::since_boot();
        match node.poll(now) {
            Turn::Busy => last_busy = now,
            Turn::Idle if now.0.saturating_sub(last_busy.0) < SPIN => core::hint::spin_loop(),
            Turn::Idle if !interrupts => {
                apic.wait(node.deadline().min(Nanos(now.0 + NAP)));
            }
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
            Turn::Split => {
                error!("tables: processors do not have the same; reset");
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

/// The uplink's MTU; nothing can be done with one that the NIC does not have.
fn uplink_mtu(config: &Config, uplink: &Candidate) -> u16 {
    setup::uplink_mtu(config, uplink.mtu).unwrap_or_else(|has| {
        give_up(
            Exit::Config,
            format_args!("config: uplink.mtu: expected at most {has}, the NIC's"),
        )
    })
}

/// Buffers for frames of `mtu`.
fn make_pool(mtu: u16) -> &'static Pool {
    let buffers = Buffers::within(heap::usage().1, mtu);
    Machine
        .allocate(buffers.bytes())
        .and_then(|memory| Pool::new(memory, HEADROOM, buffers.room))
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
