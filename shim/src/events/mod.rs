//! VM lifecycle events of hypervisor managers (the paper, section II.A).

mod inventory;
mod messages;
mod notification;
pub mod recent;
pub mod sink;
mod status;
mod subscriber;
#[cfg(test)]
mod tests;
pub mod types;

pub use notification::Notification;
pub use sink::{EventSink, SinkError};
pub use status::{StatusHandle, SubscriberStatus};
pub use subscriber::{Subscriber, Timing};
