//! Frames that no well-behaved guest sends, made by Scapy.

use std::process::Command;

use anyhow::Result;

use crate::artifacts::Artifacts;
use crate::netns::Netns;

/// Sends `frames`, each an expression of Scapy's, on `eth0` of `netns`.
pub fn send(artifacts: &Artifacts, netns: &Netns, frames: &[String]) -> Result<()> {
    let program = format!(
        "from scapy.all import *\nsendp([{}], iface='eth0', verbose=False)\n",
        frames.join(", ")
    );
    let mut python = Command::new(&artifacts.python);
    python.args(["-c", &program]);
    netns.output(&mut python).map(drop)
}
