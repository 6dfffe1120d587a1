//! Bench rig: a traffic generator that is the device behind both NICs of what is
//! measured, the scenarios of the paper, and the devices that are compared.
//!
//! Every device under test is a virtio driver over the same generator, so the rig
//! costs each of them the same. The generator checks every frame that it gets
//! back against the frame that must come out.

pub mod backend;
pub mod booted;
pub mod clock;
pub mod door;
pub mod dut;
#[cfg(test)]
mod fake;
pub mod gate;
pub mod generator;
pub mod hugepages;
pub mod local;
pub mod measure;
pub mod memory;
mod plot;
pub mod proximity;
pub mod queue;
pub mod realtime;
pub mod report;
pub mod rfc2544;
pub mod ring;
#[cfg(test)]
mod smoke;
pub mod stats;
pub mod traffic;
pub mod updates;
pub mod versions;
