//! Why a session gives up its connection, with the texts for the log.

use nve_protocol::API_VERSION;

use crate::noise::NotAuthentic;
use crate::wire::Full;

/// Why the session gives up its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// No connection in time.
    DialTimeout,
    /// No answer to the handshake or to `hello` in time.
    SetupTimeout,
    /// The answer to the handshake is not from the shim whose key we know.
    WrongShim,
    /// A frame is longer than any that the shim sends.
    FrameTooLong,
    /// A message failed its authentication.
    NotAuthentic,
    /// A message is none of this protocol version.
    Malformed,
    /// A message came before its time.
    Unexpected,
    /// The shim speaks this version of the messages.
    Version(u16),
    /// The shim asks for more answers than it reads.
    Flooded,
    /// Nothing heard for the time that `welcome` said.
    DeadPeer,
    /// No random numbers for the handshake.
    NoEntropy,
    /// There is no connection.
    NotConnected,
}

impl core::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            CloseReason::DialTimeout => "no TCP connection in time",
            CloseReason::SetupTimeout => "no answer to the handshake or to hello in time",
            CloseReason::WrongShim => "the peer does not hold the shim's key or refused ours",
            CloseReason::FrameTooLong => "frame too long",
            CloseReason::NotAuthentic => "message failed its authentication",
            CloseReason::Malformed => "not a message of this protocol version",
            CloseReason::Unexpected => "message out of order",
            CloseReason::Version(theirs) => {
                return write!(f, "the shim speaks version {theirs}, we {API_VERSION}");
            }
            CloseReason::Flooded => "the shim does not read its answers",
            CloseReason::DeadPeer => "the shim went silent",
            CloseReason::NoEntropy => "no random numbers",
            CloseReason::NotConnected => "no connection",
        })
    }
}

impl core::error::Error for CloseReason {}

impl From<Full> for CloseReason {
    fn from(_: Full) -> Self {
        CloseReason::Flooded
    }
}

impl From<NotAuthentic> for CloseReason {
    fn from(_: NotAuthentic) -> Self {
        CloseReason::NotAuthentic
    }
}
