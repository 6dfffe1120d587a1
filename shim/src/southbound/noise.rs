//! The responder's side of the handshake (Noise specification, section 7.5,
//! pattern IK): the initiator's static key is known after its first message, and
//! nothing is answered before somebody has said that the key is welcome.

use nve_protocol::{NOISE_PATTERN, NOISE_PROLOGUE};
use snow::{Builder, Error, HandshakeState, TransportState};

use super::keys::{KeyPair, PublicKey};

/// Bytes of the initiator's message: ephemeral key, encrypted static key, tag.
pub(super) const FIRST_MESSAGE: usize = 32 + (32 + 16) + 16;

/// Bytes of the answer: ephemeral key and tag.
pub(super) const SECOND_MESSAGE: usize = 32 + 16;

/// A handshake whose initiator is known and not yet answered.
pub(super) struct Responder {
    noise: HandshakeState,
    peer: PublicKey,
}

impl Responder {
    /// Reads the first message of a handshake with the holder of `own`.
    pub(super) fn read(own: &KeyPair, message: &[u8]) -> Result<Self, Error> {
        let mut noise = Builder::new(NOISE_PATTERN.parse()?)
            .local_private_key(own.private())?
            .prologue(NOISE_PROLOGUE)?
            .build_responder()?;
        noise.read_message(message, &mut [0; FIRST_MESSAGE])?;
        let peer = noise.get_remote_static().ok_or(Error::Input)?;
        let peer = peer.try_into().map_err(|_| Error::Input)?;
        Ok(Responder { noise, peer })
    }

    /// The initiator's static key.
    pub(super) fn peer(&self) -> &PublicKey {
        &self.peer
    }

    /// Accepts the initiator: the answer and the cipher that follows.
    pub(super) fn accept(mut self) -> Result<([u8; SECOND_MESSAGE], TransportState), Error> {
        let mut answer = [0; SECOND_MESSAGE];
        match self.noise.write_message(&[], &mut answer)? {
            SECOND_MESSAGE => Ok((answer, self.noise.into_transport_mode()?)),
            _ => Err(Error::Input),
        }
    }
}
