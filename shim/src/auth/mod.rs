//! Users and passwords of the HTTP interfaces, and how they are proved.
//!
//! Passwords are [`Secret`]s: they reach no log, no `Debug` and no JSON.

pub mod digest;
mod secret;

pub use secret::{Credentials, Secret, SecretError, UserConfig};
