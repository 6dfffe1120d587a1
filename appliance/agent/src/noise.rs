//! The initiator's side of the handshake, and the cipher that follows from it
//! (Noise specification, sections 5 and 7.5, pattern IK).
//!
//! Primitives are those of `snow`'s default resolver; the only randomness, the
//! ephemeral key, is an argument. Invariant: static and ephemeral private keys
//! and cipher keys are overwritten before their memory is given back.

use alloc::boxed::Box;

use nve_protocol::{NOISE_PATTERN, NOISE_PROLOGUE};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState, TransportState};
use zeroize::Zeroizing;

use crate::key::{KEY_LEN, PrivateKey};

/// Bytes of the first handshake message, whose payload is empty: ephemeral key,
/// encrypted static key, tag.
pub(crate) const FIRST_MESSAGE: usize = KEY_LEN + (KEY_LEN + 16) + 16;

/// Bytes of the second handshake message, whose payload is empty.
pub(crate) const SECOND_MESSAGE: usize = KEY_LEN + 16;

/// The handshake or a message failed its authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl From<Error> for NotAuthentic {
    fn from(_: Error) -> Self {
        NotAuthentic
    }
}

/// A handshake that waits for the second message.
pub(crate) struct Initiator(Box<HandshakeState>);

impl Initiator {
    /// Starts a handshake with `ephemeral` as ephemeral private key; returns it
    /// with its first message.
    pub(crate) fn start(
        own: &PrivateKey,
        shim: &[u8; KEY_LEN],
        ephemeral: Zeroizing<[u8; KEY_LEN]>,
    ) -> Result<(Self, [u8; FIRST_MESSAGE]), NotAuthentic> {
        let resolver = Resolver { ephemeral };
        let mut noise = Builder::with_resolver(NOISE_PATTERN.parse()?, Box::new(resolver))
            .local_private_key(own.bytes())?
            .remote_public_key(shim)?
            .prologue(NOISE_PROLOGUE)?
            .build_initiator()?;
        let mut message = [0; FIRST_MESSAGE];
        match noise.write_message(&[], &mut message)? {
            FIRST_MESSAGE => Ok((Initiator(Box::new(noise)), message)),
            _ => Err(NotAuthentic),
        }
    }

    /// Ends the handshake with the shim's answer.
    pub(crate) fn finish(mut self, message: &[u8]) -> Result<Transport, NotAuthentic> {
        let payload = self.0.read_message(message, &mut [0; SECOND_MESSAGE])?;
        if payload != 0 {
            return Err(NotAuthentic);
        }
        Ok(Transport(Box::new(self.0.into_transport_mode()?)))
    }
}

/// Encrypts and decrypts the messages after the handshake.
pub(crate) struct Transport(Box<TransportState>);

impl Transport {
    /// Encrypts `plain` into the front of `sealed`; returns how many bytes.
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut [u8]) -> Result<usize, NotAuthentic> {
        Ok(self.0.write_message(plain, sealed)?)
    }

    /// Decrypts `sealed` into the front of `plain`; returns how many bytes.
    pub(crate) fn open(&mut self, sealed: &[u8], plain: &mut [u8]) -> Result<usize, NotAuthentic> {
        Ok(self.0.read_message(sealed, plain)?)
    }
}

struct Resolver {
    ephemeral: Zeroizing<[u8; KEY_LEN]>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneKey(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let dh = DefaultResolver.resolve_dh(choice)?;
        Some(Box::new(ErasingDh(dh)))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let cipher = DefaultResolver.resolve_cipher(choice)?;
        Some(Box::new(ErasingCipher(cipher)))
    }
}

/// Hands out one key, once: an initiator of IK asks for no more, and must not
/// get the same bytes twice.
struct OneKey(Option<Zeroizing<[u8; KEY_LEN]>>);

impl Random for OneKey {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let key = self.0.take().ok_or(Error::Rng)?;
        if out.len() != key.len() {
            return Err(Error::Rng);
        }
        out.copy_from_slice(key.as_slice());
        Ok(())
    }
}

struct ErasingDh(Box<dyn Dh>);

impl Dh for ErasingDh {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, private: &[u8]) {
        self.0.set(private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        self.0.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        self.0.dh(public, out)
    }

    fn dh_len(&self) -> usize {
        self.0.dh_len()
    }
}

impl Drop for ErasingDh {
    fn drop(&mut self) {
        self.0.set(&[0; KEY_LEN]);
    }
}

struct ErasingCipher(Box<dyn Cipher>);

impl Cipher for ErasingCipher {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0.set(key);
    }

    fn encrypt(&self, nonce: u64, authenticated: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        self.0.encrypt(nonce, authenticated, plain, out)
    }

    fn decrypt(
        &self,
        nonce: u64,
        authenticated: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        self.0.decrypt(nonce, authenticated, sealed, out)
    }
}

impl Drop for ErasingCipher {
    fn drop(&mut self) {
        self.0.set(&[0; 32]);
    }
}
