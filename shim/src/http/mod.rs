//! How the shim and its tools speak HTTP: a server that its clients cannot
//! exhaust, and a client that notices when its server is gone.

pub mod api;
pub mod client;
pub mod server;

pub use client::{Client, ClientError};
