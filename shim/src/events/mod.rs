//! VM lifecycle events of hypervisor managers (the paper, section II.A).

pub mod recent;
pub mod sink;
pub mod types;

pub use sink::{EventSink, SinkError};
