//! The devices that are compared. Each is a process that takes processor 1 for its
//! packets, and is a virtio driver over the generator's two sockets.

mod hosted;
mod ovs;
mod testpmd;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;

pub use hosted::Hosted;

use crate::traffic::{Scenario, Unknown};

/// Processor of the generator and of everything that moves no packets.
pub const GENERATOR_CPU: usize = 0;
/// Processor of the device under test.
pub const DEVICE_CPU: usize = 1;

/// What a device is started with.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// What it has to do.
    pub scenario: Scenario,
    /// An empty directory of its own, for its files.
    pub dir: &'a Path,
    /// Socket of the generator's NIC that is the trunk.
    pub trunk: &'a Path,
    /// Socket of the one that is the uplink.
    pub uplink: &'a Path,
    /// Our NVE's program.
    pub hosted: &'a Path,
}

/// A device under test that runs. It ends when dropped.
pub trait Device {
    /// The process that moves the packets.
    fn pid(&self) -> u32;

    /// Fails, with what it last said, if it has ended.
    fn check(&mut self) -> Result<()>;

    /// Forgets connections and cached flows, for another number of flows.
    fn forget(&mut self) -> Result<()>;

    /// Starts to count cycles.
    fn mark(&mut self) -> Result<()>;

    /// Ends an interval of counting cycles, and starts the next one; what has
    /// intervals of its own need not.
    fn sample(&mut self) -> Result<()> {
        Ok(())
    }

    /// Busy cycles per packet since [`Device::mark`], of each interval; none if it
    /// does not count.
    fn cycles(&mut self) -> Result<Vec<f64>>;
}

/// The devices that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Our NVE as a process.
    Ours,
    /// Open vSwitch with DPDK.
    Ovs,
    /// DPDK's testpmd, which only passes frames on.
    Testpmd,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Ours, Kind::Ovs, Kind::Testpmd];

    /// What it does when `scenario` is asked for: the same, or nothing.
    pub fn scenario(self, scenario: Scenario) -> Scenario {
        match self {
            Kind::Testpmd => Scenario::Io,
            Kind::Ours | Kind::Ovs => scenario,
        }
    }

    /// Starts one.
    pub fn start(self, setup: &Setup<'_>) -> Result<Box<dyn Device>> {
        std::fs::create_dir_all(setup.dir)?;
        Ok(match self {
            Kind::Ours => Box::new(hosted::Hosted::start(setup)?),
            Kind::Ovs => Box::new(ovs::Ovs::start(setup)?),
            Kind::Testpmd => Box::new(testpmd::Testpmd::start(setup)?),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Ours => "ours",
            Kind::Ovs => "ovs",
            Kind::Testpmd => "testpmd",
        })
    }
}

impl FromStr for Kind {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Kind, Unknown> {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.to_string() == text)
            .ok_or(Unknown::expected("ours, ovs or testpmd"))
    }
}

/// DPDK's description of a virtio driver over `socket`. Frames fit one buffer, so
/// the driver may take the path without merging.
fn virtio_user(number: usize, socket: &Path) -> String {
    format!(
        "net_virtio_user{number},path={},queue_size=256,mrg_rxbuf=0,in_order=1",
        socket.display()
    )
}

/// A file of the device's own.
fn file(setup: &Setup<'_>, name: &str) -> PathBuf {
    setup.dir.join(name)
}
