//! The session against a shim of a few lines, over a simulated link.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod hostile;
mod link;
mod migration;
mod questions;
mod support;
mod transactions;
mod transitions;
