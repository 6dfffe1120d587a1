//! Generator and device under test in one process and one thread, on queues in memory:
//! for a profiler, and for counts of instructions.
//!
//! The device under test is our NVE, all of it but the socket: driver, node, datapath.
//! Its time is simulated, so that a run does the same whatever machine it is on.

use std::ptr::NonNull;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nve_datapath::{Nanos, Side};
use nve_hosted::clock::ticks;
use nve_hosted::device::{Backend, QUEUES, QueueArea};
use nve_hosted::memory::{Pages, Shared};
use nve_hosted::node::{Hosted, Source, shared_bytes};
use nve_kernel::config::Config;
use vhost::VhostUserMemoryRegionInfo;

use crate::memory::{Memory, Region};
use crate::queue::{BURST, Put, ReceiveQueue, TransmitQueue};
use crate::ring::{Parts, Ring};
use crate::traffic::{Control, Rotation, Traffic, boot_configuration, control, records};

/// Nanoseconds from one burst to the next: 32 frames at 10 million in a second.
const PACE: u64 = 3_200;

/// Turns until the next hop is resolved, and packets until a flow is settled.
const ROUNDS: u64 = 3;

/// When a run begins.
const START: u64 = 1_000_000_000;

/// Memory that the NVE is sized for: a million flows and their connections fit.
const HEAP: u64 = 2 << 30;

/// Features of the device (virtio 1.2, 5.1.3 and 6): `MRG_RXBUF` and `VERSION_1`.
const FEATURES: u64 = 1 << 15 | 1 << 32;

/// The device's end of one NIC: notes where the driver put its queues.
#[derive(Debug, Default)]
struct Capture {
    queues: Option<[QueueArea; QUEUES]>,
}

impl Backend for Capture {
    fn features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn start(&mut self, _features: u64, queues: [QueueArea; QUEUES]) -> Result<()> {
        self.queues = Some(queues);
        Ok(())
    }

    fn kick(&mut self, _queue: usize) -> Result<()> {
        Ok(())
    }
}

/// The generator's side of one NIC.
struct Port {
    side: Side,
    receive: ReceiveQueue,
    transmit: TransmitQueue,
    rotation: Option<Rotation>,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Frames that came out, each of them checked.
    pub packets: u64,
    /// Ticks of the time-stamp counter in the NVE's turns.
    pub cycles: u64,
}

/// The rig.
pub struct Local {
    traffic: Traffic,
    hosted: Hosted<Capture>,
    ports: [Port; 2],
    now: Nanos,
}

impl Local {
    /// An NVE with the tables of `traffic`, whose flows it all knows already.
    pub fn new(traffic: Traffic) -> Result<Local> {
        let mut local = Local::fresh(traffic)?;
        local.warm_up()?;
        Ok(local)
    }

    /// One that has seen nothing of `traffic` yet.
    pub fn fresh(traffic: Traffic) -> Result<Local> {
        let text = boot_configuration(None);
        let config = Config::parse(text.as_bytes()).map_err(|error| anyhow!("{error}"))?;
        let mut shared = Shared::new(shared_bytes(&config, HEAP), Pages::Small)?;
        let source = Source::Records(records(traffic.scenario()));
        let devices = [Capture::default(), Capture::default()];
        let hosted = Hosted::new(&config, source, HEAP, &mut shared, devices)?;
        let memory = Arc::new(map(&shared.region())?);
        let [trunk, uplink] = hosted.handles();
        let ports = [
            port(
                Side::Trunk,
                trunk.with(|device| device.queues),
                &memory,
                &traffic,
            )?,
            port(
                Side::Uplink,
                uplink.with(|device| device.queues),
                &memory,
                &traffic,
            )?,
        ];
        let mut local = Local {
            traffic,
            hosted,
            ports,
            now: Nanos(START),
        };
        local.resolve()?;
        Ok(local)
    }

    /// Has the NVE resolve its next hop.
    fn resolve(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            self.turn()?;
            self.drain()?;
        }
        Ok(())
    }

    /// Sends each flow's frame three times: both directions open a connection, then it is
    /// answered, then it is settled.
    fn warm_up(&mut self) -> Result<()> {
        self.run(ROUNDS * self.bursts())?;
        Ok(())
    }

    /// Bursts in which each flow has its turn once.
    pub fn bursts(&self) -> u64 {
        let longest = self.ports.iter().flat_map(|port| &port.rotation);
        let flows = longest.map(Rotation::flows).max().unwrap_or_default();
        u64::from(flows).div_ceil(BURST as u64)
    }

    /// Sends that many bursts on each side that has something to send.
    pub fn run(&mut self, bursts: u64) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for _ in 0..bursts {
            let sent = self.fill()?;
            outcome.cycles += self.turn()?;
            let received = self.drain()?;
            ensure!(
                received == sent,
                "{sent} frames were sent, {received} came out: {:?}",
                self.hosted.stats(self.now).drops
            );
            outcome.packets += received;
        }
        Ok(outcome)
    }

    fn fill(&mut self) -> Result<u64> {
        let Local { traffic, ports, .. } = self;
        let mut sent = 0;
        for port in ports {
            let Some(rotation) = &mut port.rotation else {
                continue;
            };
            let typical = traffic.sizes().mean() as usize;
            let done = port.receive.send(BURST, typical, |room| {
                traffic.emit(rotation.advance(), 0, room)
            })?;
            ensure!(done.frames == BURST, "the driver has too few buffers");
            sent += done.frames as u64;
        }
        Ok(sent)
    }

    /// A turn of the NVE; returns the ticks that it took.
    fn turn(&mut self) -> Result<u64> {
        self.now = Nanos(self.now.0 + PACE);
        let before = ticks();
        counted(&mut self.hosted, self.now)?;
        Ok(ticks().wrapping_sub(before))
    }

    /// Takes and checks what came out.
    fn drain(&mut self) -> Result<u64> {
        let Local { traffic, ports, .. } = self;
        let mut received = 0;
        for port in ports {
            let (mut answers, mut wrong) = (Vec::new(), None);
            loop {
                let done = port.transmit.receive(|head| {
                    match traffic.check_head(port.side, head.bytes(), head.length()) {
                        Ok(_) => received += 1,
                        Err(error) => match control(port.side, head.bytes()) {
                            Control::Answer(answer) => answers.push(answer),
                            Control::Ignore => {}
                            Control::Stranger => wrong = Some(error),
                        },
                    }
                })?;
                if done.frames == 0 {
                    break;
                }
            }
            if let Some(wrong) = wrong {
                bail!("a wrong frame: {wrong}");
            }
            for answer in answers {
                port.receive.send(1, answer.len(), |room| {
                    room.put(0, &answer);
                    answer.len()
                })?;
            }
        }
        Ok(received)
    }
}

/// What instructions are counted in: the name is looked for by [`crate::gate`].
#[inline(never)]
fn counted(hosted: &mut Hosted<Capture>, now: Nanos) -> Result<bool> {
    hosted.poll(now)
}

fn map(region: &VhostUserMemoryRegionInfo) -> Result<Memory> {
    let pointer = NonNull::new(region.userspace_addr as *mut u8).context("no memory")?;
    let region = Region {
        guest: region.guest_phys_addr,
        length: region.memory_size as usize,
        pointer,
    };
    // SAFETY: the mapping is never unmapped, and the driver, who has references into
    // it, does not run while the device does: there is one thread.
    Ok(unsafe { Memory::new(vec![region], ()) })
}

fn port(
    side: Side,
    queues: Option<[QueueArea; QUEUES]>,
    memory: &Arc<Memory>,
    traffic: &Traffic,
) -> Result<Port> {
    let [receive, transmit] = queues.context("the driver did not start")?;
    let ring = |queue: QueueArea, access| {
        let parts = Parts {
            descriptors: queue.descriptors,
            available: queue.available,
            used: queue.used,
        };
        Ring::new(memory.clone(), queue.size, parts, 0, access)
    };
    Ok(Port {
        side,
        receive: ReceiveQueue::new(ring(receive, ReceiveQueue::ACCESS)?),
        transmit: TransmitQueue::new(ring(transmit, TransmitQueue::ACCESS)?),
        rotation: traffic.rotation(side),
    })
}
