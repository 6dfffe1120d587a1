//! A whole shim in this process that follows hypervisor managers: under a flood, and
//! while everything between them fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chaos;
mod disturb;
mod flood;
mod managers;
mod plant;
