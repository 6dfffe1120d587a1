//! Bytes within JSON: a bounded number of them, written in hexadecimal.

use core::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::hex_octet;

/// At most `MAX` bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes<const MAX: usize> {
    length: u16,
    /// Zero from `length` on.
    bytes: [u8; MAX],
}

impl<const MAX: usize> Bytes<MAX> {
    /// Most bytes that there can be.
    pub const MAX: usize = MAX;

    /// These bytes; `None` if there are more than [`Self::MAX`].
    pub fn new(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Bytes {
            length: u16::try_from(value.len()).ok()?,
            bytes,
        })
    }

    /// As many bytes of the front of `value` as fit.
    pub fn front(value: &[u8]) -> Self {
        let most = MAX.min(usize::from(u16::MAX));
        let front = value.get(..most).unwrap_or(value);
        Self::new(front).unwrap_or(Bytes {
            length: 0,
            bytes: [0; MAX],
        })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

impl<const MAX: usize> fmt::Display for Bytes<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const MAX: usize> fmt::Debug for Bytes<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const MAX: usize> Serialize for Bytes<MAX> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Bytes<MAX> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Hex<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for Hex<MAX> {
            type Value = Bytes<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes in hexadecimal")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes<MAX>, E> {
                let bad = || E::custom(format_args!("not at most {MAX} bytes in hexadecimal"));
                parse_hex(text.as_bytes()).ok_or_else(bad)
            }
        }
        input.deserialize_str(Hex::<MAX>)
    }
}

fn parse_hex<const MAX: usize>(text: &[u8]) -> Option<Bytes<MAX>> {
    let mut pairs = text.chunks_exact(2);
    let mut bytes = [0; MAX];
    let length = text.len() / 2;
    for (byte, pair) in bytes.get_mut(..length)?.iter_mut().zip(&mut pairs) {
        *byte = hex_octet(pair)?;
    }
    match pairs.remainder() {
        [] => Bytes::new(bytes.get(..length)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_are_bounded() {
        type Short = Bytes<64>;
        let value = Short::new(&[0, 1, 0xfe]).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), "\"0001fe\"");
        assert_eq!(serde_json::from_str::<Short>("\"0001fe\"").unwrap(), value);
        let empty: Short = serde_json::from_str("\"\"").unwrap();
        assert!(empty.bytes().is_empty());
        assert_eq!(Short::new(&[0; 65]), None);
        assert_eq!(Short::front(&[7; 65]), Short::new(&[7; 64]).unwrap());
        let too_long = serde_json::to_string(&Bytes::<65>::front(&[7; 65])).unwrap();
        for bad in ["\"0\"", "\"0g\"", "\"000\"", "7", &too_long] {
            assert!(serde_json::from_str::<Short>(bad).is_err(), "{bad}");
        }
    }
}
