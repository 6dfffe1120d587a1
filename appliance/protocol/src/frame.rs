//! Frames of the TCP stream: two bytes of length, big-endian, then one Noise
//! message of that length.

/// Bytes of the length field.
pub const HEADER: usize = 2;

/// Longest Noise message (Noise specification, section 3).
pub const MAX_NOISE: usize = 65_535;

/// Bytes that the authentication tag adds to a plaintext.
pub const TAG: usize = 16;

/// Longest plaintext of a transport message that either end sends. Below what
/// Noise allows, so that a frame fits an appliance's receive window.
pub const MAX_PLAINTEXT: usize = 16_384;

/// Longest Noise message that either end accepts: anything longer ends the
/// connection before its bytes are awaited.
pub const MAX_ACCEPTED: usize = MAX_PLAINTEXT + TAG;

/// A frame is longer than [`MAX_ACCEPTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Splits the first frame off `stream`: its Noise message and how many bytes of
/// `stream` it took. `None` until all of it is there.
pub fn split(stream: &[u8]) -> Result<Option<(&[u8], usize)>, TooLong> {
    let Some((header, rest)) = stream.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*header));
    if length > MAX_ACCEPTED {
        return Err(TooLong);
    }
    Ok(rest.get(..length).map(|message| (message, HEADER + length)))
}

/// The length field for a Noise message of `length` bytes.
pub fn header(length: usize) -> Result<[u8; HEADER], TooLong> {
    match u16::try_from(length) {
        Ok(field) if length <= MAX_ACCEPTED => Ok(field.to_be_bytes()),
        _ => Err(TooLong),
    }
}
