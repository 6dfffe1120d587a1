//! The whole generator against a driver in this process, over real sockets: the
//! driver passes frames from one NIC to the other.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::Nic;
use crate::clock::Clock;
use crate::fake::{BUFFER, Driver, GUEST, LENGTH, SIZE, WRITE};
use crate::generator::{Generator, Load, Span};
use crate::traffic::{Flows, Scenario, Sizes, Traffic};

/// `VERSION_1`, `VHOST_USER_F_PROTOCOL_FEATURES`.
const FEATURES: u64 = 1 << 32 | 1 << 30;

/// A driver of one NIC.
struct End {
    receive: Driver,
    transmit: Driver,
    /// Slots of the transmit queue that are free.
    free: Vec<u16>,
    _memory: MmapRaw,
    _frontend: Frontend,
}

impl End {
    fn connect(socket: &Path) -> End {
        let file = File::from(memfd_create("driver", MFdFlags::empty()).unwrap());
        file.set_len(LENGTH as u64).unwrap();
        let memory = MmapOptions::new().len(LENGTH).map_raw(&file).unwrap();
        let base = memory.as_mut_ptr();
        let (mut receive, transmit) = (Driver::new(base, 0), Driver::new(base, 1));
        for slot in 0..SIZE {
            receive.describe(slot, Driver::buffer(slot), BUFFER as u32, WRITE, 0);
            receive.offer(slot);
        }
        let frontend = negotiate(socket, &file, base, [&receive, &transmit]);
        End {
            receive,
            transmit,
            free: (0..SIZE).collect(),
            _memory: memory,
            _frontend: frontend,
        }
    }

    /// Passes what has come in on to `other`, unless that has no room.
    fn pass(&mut self, other: &mut End) {
        while let Some((slot, _)) = other.transmit.take() {
            other.free.push(slot);
        }
        while !other.free.is_empty() {
            let Some((slot, length)) = self.receive.take() else {
                return;
            };
            let frame = self.receive.read(Driver::buffer(slot), length as usize);
            self.receive.offer(slot);
            let slot = other.free.pop().unwrap();
            other.transmit.write(Driver::buffer(slot), &frame);
            other
                .transmit
                .describe(slot, Driver::buffer(slot), length, 0, 0);
            other.transmit.offer(slot);
        }
    }
}

fn negotiate(socket: &Path, file: &File, base: *mut u8, queues: [&Driver; 2]) -> Frontend {
    let mut frontend = Frontend::connect(socket, 2).unwrap();
    frontend.set_owner().unwrap();
    assert_eq!(frontend.get_features().unwrap() & FEATURES, FEATURES);
    frontend.set_features(FEATURES).unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    assert!(protocol.contains(VhostUserProtocolFeatures::REPLY_ACK));
    frontend.set_protocol_features(protocol).unwrap();
    let user = base as u64;
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST,
        memory_size: LENGTH as u64,
        userspace_addr: user,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    frontend.set_mem_table(&[region]).unwrap();
    for (number, queue) in queues.into_iter().enumerate() {
        let parts = queue.parts();
        let here = |guest| guest - GUEST + user;
        frontend.set_vring_num(number, SIZE).unwrap();
        frontend.set_vring_base(number, 0).unwrap();
        let config = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: here(parts.descriptors),
            used_ring_addr: here(parts.used),
            avail_ring_addr: here(parts.available),
            log_addr: None,
        };
        frontend.set_vring_addr(number, &config).unwrap();
        let event = EventFd::new(0).unwrap();
        frontend.set_vring_call(number, &event).unwrap();
        frontend.set_vring_kick(number, &event).unwrap();
        frontend.set_vring_enable(number, true).unwrap();
    }
    frontend
}

/// Passes frames between two NICs while `work` is done.
fn looped(name: &str, work: impl FnOnce(&Nic, &Nic)) {
    let dir = std::env::temp_dir().join(format!("sluice-bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let sockets = [dir.join("trunk"), dir.join("uplink")];
    let [trunk, uplink] = sockets
        .each_ref()
        .map(|socket| Nic::listen(socket).unwrap());
    let [mut a, mut b] = sockets.each_ref().map(|socket| End::connect(socket));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let device = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            a.pass(&mut b);
            b.pass(&mut a);
            thread::yield_now();
        }
    });
    work(&trunk, &uplink);
    stop.store(true, Ordering::Relaxed);
    device.join().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn every_frame_that_is_passed_on_is_counted() {
    looped("passed", |trunk, uplink| {
        let traffic = Traffic::new(Scenario::Io, Flows::new(200).unwrap(), Sizes::Imix);
        let mut generator = Generator::new(&traffic, Clock::calibrate(), trunk, uplink);
        generator.wait_ready(Duration::from_secs(20)).unwrap();
        let run = generator.run(Load::Rate(20_000.0), Span::EachFlow).unwrap();
        assert_eq!((run.counts.sent, run.counts.received), (200, 200));
        assert_eq!(run.latency.len(), 200);
        let run = generator
            .run(Load::Full, Span::Time(Duration::from_millis(300)))
            .unwrap();
        assert!(run.counts.received > 0);
        assert_eq!(run.counts.sent, run.counts.received);
        assert!(!run.windows.is_empty());
    });
}

#[test]
fn a_wrong_frame_ends_the_run() {
    looped("wrong", |trunk, uplink| {
        // What is passed on untouched is not what an NVE would make of it.
        let scenario = "S2a".parse().unwrap();
        let traffic = Traffic::new(scenario, Flows::new(2).unwrap(), Sizes::Small);
        let mut generator = Generator::new(&traffic, Clock::calibrate(), trunk, uplink);
        let span = Span::Time(Duration::from_millis(50));
        let error = generator.run(Load::Full, span).unwrap_err().to_string();
        assert!(error.contains("wrong frames; the first: "), "{error}");
    });
}
