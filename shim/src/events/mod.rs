//! VM lifecycle events of hypervisor managers (the paper, section II.A).

pub mod types;
