//! JSON messages to bytes and back.
//!
//! Messages are packed into the plaintext of a Noise message, each ended by a
//! line feed. Decoding trusts nothing: a text that is not exactly a message is
//! an error, and none can make it panic.

use serde::{Deserialize, Serialize};

/// Longest encoding of a message, line feed included, in bytes.
pub const MAX_MESSAGE: usize = 3072;

/// A message could not be encoded: the room left is too small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// A message could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes hold no line feed.
    Unterminated,
    /// The line is not a message of this version.
    Malformed,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DecodeError::Unterminated => "message without its line feed",
            DecodeError::Malformed => "not a message of this protocol version",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Writes `message` and its line feed to the front of `room` and returns how
/// many bytes that took. `room` is unspecified after an error.
pub fn encode(message: &impl Serialize, room: &mut [u8]) -> Result<usize, NoRoom> {
    let length = serde_json_core::to_slice(message, room).map_err(|_| NoRoom)?;
    *room.get_mut(length).ok_or(NoRoom)? = b'\n';
    Ok(length + 1)
}

/// Reads the first message of `bytes` and returns it with the bytes that follow;
/// `None` when there are none left.
pub fn decode<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<Option<(T, &'a [u8])>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(DecodeError::Unterminated)?;
    let (line, rest) = bytes.split_at(end);
    let rest = rest.get(1..).unwrap_or_default();
    match serde_json_core::from_slice(line) {
        Ok((message, used)) if used == line.len() => Ok(Some((message, rest))),
        _ => Err(DecodeError::Malformed),
    }
}
