//! Increments against the whole, and what comes out for whom.

mod figures;
mod fixtures;
mod increments;
mod moves;
mod records;

pub(crate) use fixtures::{common, id, network, nve, policy, port, tag, vm};
