//! DPDK's testpmd in its `io` mode: frames go from one NIC to the other untouched
//! (DPDK 22.11, Testpmd Application User Guide). The rig's own limit.

use std::io::{PipeWriter, pipe};
use std::process::Command;

use anyhow::Result;
use sluice_lab::netns::Netns;
use sluice_lab::process::Daemon;

use super::{DEVICE_CPU, Device, GENERATOR_CPU, Setup, file, virtio_user};

const PROGRAM: &str = "dpdk-testpmd";

/// A running testpmd.
#[derive(Debug)]
pub(super) struct Testpmd {
    daemon: Daemon,
    /// It ends at the end of its input.
    _input: PipeWriter,
}

impl Testpmd {
    pub(super) fn start(setup: &Setup<'_>) -> Result<Testpmd> {
        let mut command = Command::new(PROGRAM);
        command
            .args(["-l", &format!("{GENERATOR_CPU},{DEVICE_CPU}")])
            .args(["--main-lcore", &GENERATOR_CPU.to_string()])
            .args(["--in-memory", "--single-file-segments", "--no-pci"])
            .args(["--vdev", &virtio_user(0, setup.trunk)])
            .args(["--vdev", &virtio_user(1, setup.uplink)])
            .args(["--", "--forward-mode=io", "--total-num-mbufs=8192"]);
        let log = file(setup, "testpmd.log");
        let (reader, writer) = pipe()?;
        let netns = Netns::current()?;
        let daemon = Daemon::spawn_reading(PROGRAM, &netns, &mut command, reader.into(), &log)?;
        Ok(Testpmd {
            daemon,
            _input: writer,
        })
    }
}

impl Device for Testpmd {
    fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        Ok(())
    }

    fn cycles(&mut self) -> Result<Vec<f64>> {
        Ok(Vec::new())
    }
}
