//! A session with a shim, and frames through the tables that it sends.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nve_protocol::{Fdb, Flood, Mac, PortId, Presence, Record, Vap, Vlan, Vni};

use crate::shim::Shim;
use crate::vm::{GOOD, PATIENCE, Vm, image};

/// The private key of `shim_public_key` in the example (RFC 7748, 6.1: Bob).
const SHIM_KEY: [u8; 32] = [
    0x5d, 0xab, 0x08, 0x7e, 0x62, 0x4a, 0x8a, 0x4b, 0x79, 0xe1, 0x7f, 0x8b, 0x83, 0x80, 0x0e, 0xe6,
    0x6f, 0x3b, 0xb1, 0x29, 0x26, 0x18, 0xb6, 0xfd, 0x1c, 0x2f, 0x8b, 0x27, 0xff, 0x88, 0xe0, 0xeb,
];
const SHIM_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SHIM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

const VM_A: Mac = Mac([2, 0, 0, 0, 1, 1]);
const VM_B: Mac = Mac([2, 0, 0, 0, 1, 2]);
const REMOTE: Mac = Mac([2, 0, 0, 0, 1, 3]);

/// The far end of a NIC.
struct Wire {
    socket: UnixDatagram,
    remote: PathBuf,
}

impl Wire {
    /// A wire and the back end that leads QEMU to it.
    fn new(name: &str) -> (Wire, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let stem = format!("nve-{}-{number}", std::process::id());
        let local = env::temp_dir().join(format!("{stem}.test"));
        let remote = env::temp_dir().join(format!("{stem}.qemu"));
        let socket = UnixDatagram::bind(&local).expect("a fresh name can be bound");
        socket.set_nonblocking(true).expect("sockets can");
        let netdev = format!(
            "dgram,id={name},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            remote.display(),
            local.display()
        );
        (Wire { socket, remote }, netdev)
    }

    /// False if QEMU's queue, of ten frames, is full.
    fn send(&self, frame: &[u8]) -> bool {
        self.socket.send_to(frame, &self.remote).is_ok()
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65_536];
        let length = self.socket.recv(&mut frame).ok()?;
        frame.truncate(length);
        Some(frame)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Ok(address) = self.socket.local_addr()
            && let Some(path) = address.as_pathname()
        {
            // It is in the way of nobody if it stays.
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_file(&self.remote);
    }
}

/// The image between a trunk and an uplink on which its shim is.
struct Bench {
    vm: Vm,
    trunk: Wire,
    uplink: Wire,
    shim: Shim,
    start: Instant,
    /// Frames on the uplink that are VXLAN.
    tunnelled: Vec<Vec<u8>>,
    /// Frames on the trunk.
    switched: Vec<Vec<u8>>,
}

impl Bench {
    fn new() -> Bench {
        let (trunk, trunk_netdev) = Wire::new("trunk");
        let (uplink, uplink_netdev) = Wire::new("uplink");
        let nic = |name, mac| {
            format!("virtio-net-pci,netdev={name},mac={mac},disable-legacy=on,romfile=")
        };
        let trunk_nic = nic("trunk", "52:54:00:00:01:01");
        let uplink_nic = nic("uplink", "52:54:00:00:01:02");
        let arguments = [
            "-machine",
            "q35",
            "-cpu",
            "max",
            "-m",
            "64M",
            "-netdev",
            &trunk_netdev,
            "-device",
            &trunk_nic,
            "-netdev",
            &uplink_netdev,
            "-device",
            &uplink_nic,
        ];
        let mut vm = Vm::boot(&image("nve.elf"), GOOD, &arguments);
        vm.wait_for("ready: ");
        Bench {
            vm,
            trunk,
            uplink,
            shim: Shim::new(SHIM_KEY, SHIM_MAC, SHIM),
            start: Instant::now(),
            tunnelled: Vec::new(),
            switched: Vec::new(),
        }
    }

    /// Moves frames until `done`, offering `frame` to the trunk now and then.
    fn run(&mut self, what: &str, frame: Option<&[u8]>, done: impl Fn(&Bench) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut offered = Instant::now() - PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "{what}: {:#?} {:?}",
                self.vm.seen,
                self.shim.heard
            );
            if let Some(frame) = frame
                && offered.elapsed() > Duration::from_millis(200)
            {
                self.trunk.send(frame);
                offered = Instant::now();
            }
            self.turn();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn turn(&mut self) {
        while let Some(frame) = self.uplink.receive() {
            if frame.get(12..14) == Some(&[8, 0]) && frame.get(36..38) == Some(&[0x12, 0xb5]) {
                self.tunnelled.push(frame);
            } else {
                self.shim.wire.incoming.push_back(frame);
            }
        }
        self.shim.poll(self.start.elapsed());
        while let Some(frame) = self.shim.wire.outgoing.front() {
            if !self.uplink.send(frame) {
                break;
            }
            self.shim.wire.outgoing.pop_front();
        }
        while let Some(frame) = self.trunk.receive() {
            self.switched.push(frame);
        }
    }
}

fn vap(vlan: u16, mac: Mac) -> Record {
    Record::Vap(Vap {
        vlan: Vlan::new(vlan).expect("a tag"),
        port: PortId([vlan as u8; 16]),
        vni: Vni::new(5000).expect("24 bits"),
        mac,
        port_security: false,
        presence: Presence::Active,
    })
}

fn records() -> Vec<Record> {
    let vni = Vni::new(5000).expect("24 bits");
    let vtep = IpAddr::V4(SHIM);
    vec![
        vap(101, VM_A),
        vap(102, VM_B),
        Record::Fdb(Fdb {
            vni,
            mac: REMOTE,
            vtep,
        }),
        Record::Flood(Flood { vni, vtep }),
    ]
}

fn tagged(to: Mac, from: Mac, vlan: u8) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend([0x81, 0, 0, vlan, 0x88, 0xb5]);
    frame.extend((0..1000).map(|i| i as u8));
    frame
}

#[test]
#[ignore = "boots the image in QEMU"]
fn frames_go_where_the_tables_of_the_shim_say() {
    let mut bench = Bench::new();
    bench.run("a session", None, |bench| bench.shim.sessions() == 1);
    bench.shim.send_state(3, &records());
    bench.run("the tables", None, |bench| bench.shim.applied() == Some(3));

    let local = tagged(VM_B, VM_A, 101);
    bench.run("a frame between VAPs", Some(&local), |bench| {
        !bench.switched.is_empty()
    });
    assert_eq!(bench.switched[0], tagged(VM_B, VM_A, 102));

    let remote = tagged(REMOTE, VM_A, 101);
    bench.run("a frame in a tunnel", Some(&remote), |bench| {
        !bench.tunnelled.is_empty()
    });
    let outer = &bench.tunnelled[0];
    assert_eq!(outer[..6], SHIM_MAC.0);
    assert_eq!(outer[26..34], [192, 0, 2, 11, 192, 0, 2, 1]);
    assert_eq!(outer[42..50], [8, 0, 0, 0, 0, 0x13, 0x88, 0]);
    assert_eq!(outer[50..62], remote[..12]);
    assert_eq!(outer[62..], remote[16..]);

    // Without its shim it forwards as before, and dials again.
    bench.shim.socket().abort();
    bench.switched.clear();
    bench.run("a second session", Some(&local), |bench| {
        bench.shim.sessions() == 2
    });
    bench.run("a frame meanwhile", Some(&local), |bench| {
        !bench.switched.is_empty()
    });
}

/// The state that has to fit into 64 MiB, whole and twice at once.
fn promised(salt: u8) -> Vec<Record> {
    let vni = Vni::new(5000).expect("24 bits");
    let mac = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        Mac([2, salt, 1, a, b, c])
    };
    let vaps = (1..=Vlan::MAX).map(|vlan| vap(vlan, mac(u32::from(vlan) << 8)));
    let fdb = (0..100_000).map(|number| {
        let [.., a, b] = u32::to_be_bytes(number % 1000);
        Record::Fdb(Fdb {
            vni,
            mac: mac(number | 1 << 23),
            vtep: IpAddr::V4(Ipv4Addr::new(198, 51, 96 + a, b)),
        })
    });
    vaps.chain(fdb).collect()
}

#[test]
#[ignore = "boots the image in QEMU"]
fn the_promised_tables_fit_into_64_mib_twice() {
    let mut bench = Bench::new();
    bench.run("a session", None, |bench| bench.shim.sessions() == 1);
    for generation in 1..=3 {
        bench
            .shim
            .send_state(generation, &promised(generation as u8));
        bench.run("the tables", None, |bench| {
            bench.shim.applied() == Some(generation)
        });
    }
    bench.run("a report", None, |bench| {
        bench
            .shim
            .stats()
            .is_some_and(|stats| stats.generation == 3)
    });
    let stats = bench.shim.stats().expect("seen just now");
    assert_eq!(stats.tables.fdb, 100_000);
    assert_eq!(stats.tables.vaps, u32::from(Vlan::MAX));
    println!(
        "heap: {} of {} KiB used",
        stats.heap_used >> 10,
        stats.heap_size >> 10
    );
}
