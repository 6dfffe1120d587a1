//! Intent and placement to tables per NVE.

mod tables;

pub use tables::{NveTables, Op};
