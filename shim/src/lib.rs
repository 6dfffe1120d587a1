//! Control plane of Sluice.
//!
//! Two inputs, one output: VM lifecycle events say where each port is
//! ([`events`]), the Neutron API says what users want ([`model`]), and both
//! compile to the tables of each NVE.
#![forbid(unsafe_code)]

pub mod auth;
pub mod compile;
pub mod config;
pub mod controller;
pub mod events;
pub mod fabric;
pub mod handover;
pub mod http;
pub mod inspect;
pub mod intent;
pub mod model;
pub mod northbound;
pub mod notice;
pub mod nvectl;
pub mod placement;
pub mod serve;
pub mod southbound;
pub mod store;
