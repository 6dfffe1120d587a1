//! VM lifecycle events of hypervisor managers (the paper, section II.A).

pub mod recent;
pub mod sink;
mod subscriber;
pub mod types;

pub use sink::{EventSink, SinkError};
pub use subscriber::{StatusHandle, Subscriber, SubscriberStatus};
