//! What of the image can be tested on any host.
//!
//! The binary (`main.rs`, feature `image`) owns the machine: registers, page
//! tables, devices. Everything that only computes is here, takes bytes and
//! numbers, and runs under `cargo test`. What it reads comes from a hypervisor,
//! a device or a file, and is trusted by none of it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod config;
pub mod json;
pub mod memory;
pub mod node;
pub mod page_table;
pub mod pvh;
pub mod setup;
pub mod tsc;
