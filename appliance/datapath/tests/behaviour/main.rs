//! The datapath as its caller sees it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod boundaries;
mod bursts;
mod connections;
mod forwarding;
mod hostile;
mod inspect;
mod large;
mod migration;
mod qos;
mod rig;
mod routing;
mod services;
mod staleness;
mod underlay;
mod underlay6;
