//! HTTP digest access authentication, RFC 7616, both ends.
//!
//! Algorithms SHA-256 and MD5 with `qop=auth`; the legacy form without `qop`, the
//! `-sess` variants and user name hashing are refused. The `digest_auth` crate knows
//! the headers and the hashes; nonces, replay and policy are here.
//!
//! That crate's parser indexes bytes by character number, so it is given ASCII only.

mod client;
mod nonce;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ChallengeError, Signer};
pub use server::{Authenticator, Refused, User, require};
