//! Intent and placement to tables per NVE.
//!
//! [`Compiler`] is a pure function of the state, kept up to date by increments.
//! Each object of the state is a source that gives records to scopes; the records
//! of a scope are one persistent slice, and an NVE's tables are the slices of the
//! scopes that it needs. So a change costs the work of the objects that it
//! concerns, and of handing their scopes to the NVEs that have them.

mod compiler;
mod dhcp;
mod dhcp_options;
mod dirty;
mod network;
mod pool;
mod qos;
mod reach;
mod router;
mod scope;
mod security;
mod slice;
mod source;
mod tables;
mod vap;

pub use compiler::{Compiled, Compiler, OtherVap};
pub use dhcp_options::encode as encode_dhcp_option;
pub use scope::Scope;
pub use tables::{NveTables, Op};

#[cfg(test)]
pub(crate) mod tests;
