//! The NVE appliance without the boot: datapath, control session and virtio-net driver
//! of the image, in a process of Linux.
//!
//! Its NICs are the driver's end of virtqueues in memory that it shares with a device:
//! one behind a vhost-user socket ([`vhost_user`]), as a vSwitch offers them, or one in
//! the same process, for benches. It serves those, and whoever wants a debugger.

pub mod churn;
pub mod clock;
pub mod device;
pub mod heap;
pub mod memory;
pub mod node;
pub mod records;
pub mod report;
pub mod vhost_user;
