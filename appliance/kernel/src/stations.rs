//! Where the other processors work: each waits until there is something for it to do, and
//! then does that for ever.

use core::sync::atomic::{AtomicU8, Ordering};

use nve_datapath::{Datapath, Nanos};
use nve_kernel::acpi::ApicId;
use nve_kernel::node::{Follower, Links, Ports};
use nve_nic::IdlePool;
use nve_nic::virtio::Pair;
use nve_protocol::MAX_PROCESSORS;
use spin::Mutex;
use virtio_drivers::transport::pci::PciTransport;

use crate::arch::apic::{self, Apic};
use crate::arch::processors::Processor;
use crate::arch::time;
use crate::run::poll_for_ever;

/// What a processor needs to be a part of the node.
pub struct Station {
    /// Its queues of the trunk.
    pub trunk: Pair<PciTransport>,
    /// Its queues of the uplink.
    pub uplink: Pair<PciTransport>,
    /// Its buffers.
    pub pool: IdlePool,
    /// Its datapath.
    pub datapath: Datapath,
    /// Its rings.
    pub links: Links,
    /// Whether NICs can end a halt.
    pub interrupts: bool,
}

/// What waits for each processor, by its number.
static STATIONS: [Mutex<Option<Station>>; MAX_PROCESSORS] =
    [const { Mutex::new(None) }; MAX_PROCESSORS];

/// The APIC of each processor, by its number.
static APICS: [AtomicU8; MAX_PROCESSORS] = [const { AtomicU8::new(0) }; MAX_PROCESSORS];

/// Takes note of which processors there are, the first one first.
pub fn have(processors: &[ApicId]) {
    for (place, id) in APICS.iter().zip(processors) {
        place.store(id.0, Ordering::Relaxed);
    }
}

/// Gives a processor, the one that its links are of, its station.
pub fn take(station: Station) {
    let number = station.links.own();
    if let Some(place) = STATIONS.get(number) {
        *place.lock() = Some(station);
        wake(number);
    }
}

/// Processors that halt until they have a station.
static RESTING: AtomicU8 = AtomicU8::new(0);

/// Nanoseconds in which the others have to rest, and between two looks at them.
const PATIENCE: u64 = 10_000_000;
const LOOK: u64 = 50_000;

/// Waits until `count` processors halt, to be called before devices are mapped: QEMU 7.2
/// without KVM dies now and then if one maps a device while another runs, whose TLB it
/// flushes from the wrong thread. If they do not, nothing is lost but time.
pub fn await_rest(count: usize, apic: &mut Apic) {
    let end = Nanos(time::since_boot().0 + PATIENCE);
    while usize::from(RESTING.load(Ordering::Acquire)) < count && time::since_boot() < end {
        apic.wait(Nanos(time::since_boot().0 + LOOK));
    }
}

/// Ends a processor's halt.
pub fn wake(number: usize) {
    if let Some(id) = APICS.get(number) {
        apic::wake(ApicId(id.load(Ordering::Relaxed)));
    }
}

/// What the other processors do.
pub fn work(mut processor: Processor) -> ! {
    log::debug!(
        "processor {}: APIC {}",
        processor.index.0,
        processor.apic.id().0
    );
    processor.apic.take_pending();
    RESTING.fetch_add(1, Ordering::Release);
    let place = STATIONS.get(usize::from(processor.index.0));
    loop {
        if let Some(station) = place.and_then(|place| place.lock().take()) {
            forward(station, processor);
        }
        processor.apic.sleep();
        #[cfg(feature = "fault-injection")]
        crate::faults::obey();
    }
}

fn forward(station: Station, mut processor: Processor) -> ! {
    let Station {
        trunk,
        uplink,
        pool,
        datapath,
        links,
        interrupts,
    } = station;
    let pool = pool.open();
    let ports = Ports::new(trunk.attach(pool), uplink.attach(pool), pool);
    let mut follower = Follower::new(ports, datapath, links);
    poll_for_ever(&mut follower, &mut processor.apic, interrupts)
}
