//! Bench rig: a traffic generator that is the device behind both NICs of what is
//! measured, and the scenarios of the paper.
//!
//! Every frame that comes back is checked against the frame that must come out.

#[cfg(test)]
mod fake;
pub mod memory;
pub mod queue;
pub mod ring;
pub mod traffic;
