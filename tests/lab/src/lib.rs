//! Lab of real parts: hypervisors with Open vSwitch, NVE appliances booted by
//! QEMU, business VMs as network namespaces, and the control plane over them.
//!
//! Invariants, by which clean-up is certain and labs run side by side:
//! everything that a lab starts lives in the PID, mount and network namespaces
//! of its [`sandbox`], so the kernel takes all of it away with the sandbox's
//! first process, however that ends. Outside remains the run directory
//! ([`rundir`]), which the supervising process removes, or the next run when that
//! one was killed too. Inside, each [`lab::Lab`] has network namespaces and names
//! of its own.
#![forbid(unsafe_code)]

pub mod artifacts;
pub mod capture;
pub mod cases;
pub mod clients;
pub mod control;
pub mod fabric;
pub mod figures;
pub mod forward;
pub mod frames;
pub mod http;
pub mod lab;
pub mod libvirt;
pub mod matrix;
pub mod netns;
pub mod neutron;
pub mod nve;
pub mod ovs;
pub mod probe;
pub mod process;
pub mod qemu;
pub mod reach;
pub mod run;
pub mod rundir;
pub mod sandbox;
pub mod site;
pub mod tenant;
pub mod throughput;
pub mod vm;
pub mod wait;
