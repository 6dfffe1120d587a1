//! The appliance's end of the control channel, without I/O and without a clock.
//!
//! [`Session`] decides when to dial which shim, authenticates it (Noise IK, see
//! [`nve_protocol`]), says hello and keeps a [`TableStore`] in step with what the
//! shim sends. Bytes, time and the [`Node`] are arguments; the caller owns the TCP
//! socket and does what [`Session::poll`] says.
//!
//! # Call sequence
//!
//! One session lives as long as the image; it outlasts its connections. Each
//! turn of the caller's loop:
//!
//! 1. If the socket has failed, ended or been aborted, and that has not been
//!    told: [`Session::disconnected`]. If it has become established:
//!    [`Session::connected`].
//! 2. While the socket has received bytes: [`Session::receive`]. It takes at most
//!    one frame, so that the caller can forward frames in between; take
//!    `consumed` bytes off the socket. Errors need no care: `poll` says `Close` with
//!    the reason.
//! 3. [`Session::announce`]; then, while the socket has room: [`Session::transmit`],
//!    until it returns 0.
//! 4. [`Session::poll`], and what it says:
//!    - [`Action::Dial`]: open the socket to that shim; step 1 tells how it went.
//!    - [`Action::Close`]: log the reason, abort the socket, `disconnected`.
//!    - [`Action::Report`]: [`Session::report`] with the counters, then step 3.
//!    - [`Action::WaitUntil`]: nothing to do before; how long one may halt.
//!
//! `Dial` is said once per attempt. Calls that do not fit the session's phase
//! have no effect.
//!
//! # Memory
//!
//! Buffers are allocated once, about 50 KiB. A full transaction builds its tables
//! beside the live ones, so the heap must hold both; any other one takes up to
//! [`nve_protocol::MAX_CHANGES`] staged records.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod answers;
mod close;
mod config;
mod dial;
mod key;
mod node;
mod noise;
mod replica;
mod session;
mod state;
mod tables;
mod transaction;
mod wire;

pub use close::CloseReason;
pub use config::{Entropy, NoEntropy, SessionConfig};
pub use key::{BadKey, KEY_LEN, PrivateKey, from_hex};
pub use node::Node;
pub use replica::{Change, OutOfMemory, Replica};
pub use session::{Action, Phase, Received, Session};
pub use tables::TableStore;
