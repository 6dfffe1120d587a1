//! Static keys of the handshake, 32 bytes each (X25519, RFC 7748).
//!
//! Invariant: a [`PrivateKey`] is wiped when dropped and never printed.

use core::fmt;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroize;

/// Bytes of a private and of a public key.
pub const KEY_LEN: usize = 32;

/// A text that is not a key in its text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKey;

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key has 64 hexadecimal digits")
    }
}

impl core::error::Error for BadKey {}

/// The appliance's own static key.
#[derive(Clone)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// A key from its bytes.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        PrivateKey(bytes)
    }

    /// A key from 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, BadKey> {
        from_hex(text).map(PrivateKey)
    }

    /// The public key that belongs to it, by which the shim knows this NVE.
    pub fn public(&self) -> [u8; KEY_LEN] {
        let mut public = [0; KEY_LEN];
        if let Some(mut dh) = DefaultResolver.resolve_dh(&DHChoice::Curve25519) {
            dh.set(&self.0);
            public.copy_from_slice(dh.pubkey());
            dh.set(&[0; KEY_LEN]);
        }
        public
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The bytes of a key written as 64 hexadecimal digits.
pub fn from_hex(text: &str) -> Result<[u8; KEY_LEN], BadKey> {
    let text = text.as_bytes();
    if text.len() != 2 * KEY_LEN {
        return Err(BadKey);
    }
    let mut bytes = [0; KEY_LEN];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        for digit in pair {
            let digit = char::from(*digit).to_digit(16).ok_or(BadKey)?;
            *byte = *byte << 4 | u8::try_from(digit).map_err(|_| BadKey)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use super::*;

    /// RFC 7748, section 6.1.
    const ALICE: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
    const ALICE_PUBLIC: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";

    #[test]
    fn the_public_key_is_that_of_x25519() {
        let key = PrivateKey::from_hex(ALICE).unwrap();
        assert_eq!(key.public(), from_hex(ALICE_PUBLIC).unwrap());
    }

    #[test]
    fn keys_are_read_strictly_and_never_shown() {
        let key = PrivateKey::from_hex(&ALICE.to_uppercase()).unwrap();
        assert_eq!((key.bytes()[0], key.bytes()[31]), (0x77, 0x2a));
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        let cut = &ALICE[..62];
        for bad in ["", "77", cut, &format!("{cut}é"), &format!("{cut}+1")] {
            assert_eq!(from_hex(bad), Err(BadKey), "{bad}");
        }
    }
}
