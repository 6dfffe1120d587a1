//! Intent and placement to tables per NVE.
//!
//! [`Compiler`] is a pure function of the state, kept up to date by increments:
//! a change costs work in the networks that it concerns and nowhere else.

mod compiler;
mod network;
mod tables;

pub use compiler::Compiler;
pub use network::vap_of;
pub use tables::{NveTables, Op};

#[cfg(test)]
mod tests;
