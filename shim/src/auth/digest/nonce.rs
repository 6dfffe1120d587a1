//! Nonces that need no memory until a user has proved to know a password.
//!
//! A nonce is its time of issue and a salt, signed with a key that lives as long as
//! the process (RFC 7616, section 3.3, on nonces). Only what [`Nonces::spend`] is
//! given takes memory, and that is called after the password has been proved.
//!
//! Invariants: of one nonce, each nonce count is accepted at most once; at most
//! `capacity` nonces are tracked; a nonce whose tracking was given up for lack of
//! room is stale, and so is every untracked one that was issued before it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

const SIGNATURE: usize = 16;

/// A nonce whose signature was found right; older ones sort first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NonceId {
    /// Nanoseconds of the caller's clock.
    issued: u64,
    salt: u64,
}

/// The nonce cannot be used, or not with this count: the client has to take a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// Issues nonces and sees that no request is accepted twice.
///
/// Time is an argument: what has passed since any fixed moment of this process.
pub struct Nonces {
    key: [u8; 32],
    lifetime: Duration,
    capacity: usize,
    tracked: Mutex<Tracked>,
}

#[derive(Default)]
struct Tracked {
    counts: BTreeMap<NonceId, Window>,
    /// Newest nonce whose tracking was given up.
    given_up: Option<NonceId>,
}

impl Nonces {
    /// Nonces that can be used for `lifetime`, `capacity` of them at a time.
    pub fn new(lifetime: Duration, capacity: usize) -> Self {
        Nonces {
            key: rand::random(),
            lifetime,
            capacity: capacity.max(1),
            tracked: Mutex::default(),
        }
    }

    /// A new nonce, 64 hexadecimal digits.
    pub fn issue(&self, now: Duration) -> String {
        let id = NonceId {
            issued: nanoseconds(now),
            salt: rand::random(),
        };
        let mut text = hex::encode(id.to_bytes());
        text.push_str(&hex::encode(self.signature(id)));
        text
    }

    /// Whether the nonce is ours and young enough.
    ///
    /// # Errors
    /// When it is not.
    pub fn verify(&self, nonce: &str, now: Duration) -> Result<NonceId, Stale> {
        let mut bytes = [0; 16 + SIGNATURE];
        hex::decode_to_slice(nonce, &mut bytes).map_err(|_| Stale)?;
        let (id, signature) = bytes.split_at(16);
        let id = NonceId::from_bytes(id).ok_or(Stale)?;
        self.signer(id)
            .verify_truncated_left(signature)
            .map_err(|_| Stale)?;
        match self.expired(id, now) {
            true => Err(Stale),
            false => Ok(id),
        }
    }

    /// Uses up one count of a verified nonce. Counts may come out of order by as much
    /// as parallel connections make them.
    ///
    /// # Errors
    /// When the count was used before, or might have been.
    pub fn spend(&self, id: NonceId, count: u32, now: Duration) -> Result<(), Stale> {
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((&oldest, _)) = tracked.counts.first_key_value() {
            let full = tracked.counts.len() >= self.capacity && !tracked.counts.contains_key(&id);
            if !full && !self.expired(oldest, now) {
                break;
            }
            tracked.counts.remove(&oldest);
            tracked.given_up = tracked.given_up.max(Some(oldest));
        }
        if !tracked.counts.contains_key(&id) && Some(id) <= tracked.given_up {
            return Err(Stale);
        }
        tracked.counts.entry(id).or_default().accept(count)
    }

    fn expired(&self, id: NonceId, now: Duration) -> bool {
        let age = nanoseconds(now).checked_sub(id.issued);
        age.is_none_or(|age| age > nanoseconds(self.lifetime))
    }

    fn signer(&self, id: NonceId) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.key)
            .expect("HMAC takes keys of any length")
            .chain_update(id.to_bytes())
    }

    fn signature(&self, id: NonceId) -> [u8; SIGNATURE] {
        let whole: [u8; 32] = self.signer(id).finalize().into_bytes().into();
        let mut signature = [0; SIGNATURE];
        signature.copy_from_slice(&whole[..SIGNATURE]);
        signature
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl NonceId {
    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.issued) << 64 | u128::from(self.salt)).to_be_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (issued, salt) = bytes.split_first_chunk()?;
        Some(NonceId {
            issued: u64::from_be_bytes(*issued),
            salt: u64::from_be_bytes(salt.try_into().ok()?),
        })
    }
}

/// Which counts of one nonce have been used: the highest, and of those just below it
/// one bit each, as in the anti-replay window of RFC 4303, section 3.4.3.
#[derive(Debug, Default)]
struct Window {
    highest: u32,
    /// Bit `n` stands for `highest - n`.
    used: u64,
}

impl Window {
    fn accept(&mut self, count: u32) -> Result<(), Stale> {
        if count == 0 {
            return Err(Stale);
        }
        if let Some(ahead @ 1..) = count.checked_sub(self.highest) {
            self.used = self.used.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = count;
            return Ok(());
        }
        match 1u64.checked_shl(self.highest - count) {
            Some(bit) if self.used & bit == 0 => {
                self.used |= bit;
                Ok(())
            }
            _ => Err(Stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_nonce_holds_for_its_lifetime_and_only_where_it_was_issued() {
        let nonces = Nonces::new(LIFETIME, 8);
        let nonce = nonces.issue(at(100));
        assert!(nonces.verify(&nonce, at(160)).is_ok());
        assert_eq!(nonces.verify(&nonce, at(161)), Err(Stale));
        assert_eq!(nonces.verify(&nonce, at(99)), Err(Stale));
        assert_eq!(Nonces::new(LIFETIME, 8).verify(&nonce, at(100)), Err(Stale));
        let flipped = nonce.replacen(nonce.as_bytes()[3] as char, "x", 1);
        assert_eq!(nonces.verify(&flipped, at(100)), Err(Stale));
        assert_eq!(nonces.verify("", at(100)), Err(Stale));
    }

    #[test]
    fn a_count_is_accepted_once_also_when_there_is_no_room_for_the_nonce() {
        let nonces = Nonces::new(LIFETIME, 2);
        let ids: Vec<NonceId> = (0..4)
            .map(|second| {
                nonces
                    .verify(&nonces.issue(at(second)), at(second))
                    .unwrap()
            })
            .collect();
        for id in &ids {
            assert_eq!(nonces.spend(*id, 1, at(5)), Ok(()));
        }
        for id in &ids {
            assert_eq!(nonces.spend(*id, 1, at(5)), Err(Stale));
        }
        assert_eq!(nonces.spend(ids[0], 2, at(5)), Err(Stale), "given up");
        assert_eq!(nonces.spend(ids[3], 2, at(5)), Ok(()));
        assert!(nonces.tracked.lock().unwrap().counts.len() <= 2);
    }

    #[test]
    fn expired_nonces_are_forgotten() {
        let nonces = Nonces::new(LIFETIME, 100);
        for second in 0..50 {
            let id = nonces
                .verify(&nonces.issue(at(second)), at(second))
                .unwrap();
            nonces.spend(id, 1, at(second)).unwrap();
        }
        let id = nonces.verify(&nonces.issue(at(200)), at(200)).unwrap();
        nonces.spend(id, 1, at(200)).unwrap();
        assert_eq!(nonces.tracked.lock().unwrap().counts.len(), 1);
    }

    proptest! {
        #[test]
        fn no_count_is_accepted_twice(counts in prop::collection::vec(0u32..200, 0..300)) {
            let mut window = Window::default();
            let mut accepted = HashSet::new();
            for count in counts {
                let fresh_and_new = count > window.highest;
                let answer = window.accept(count);
                if answer.is_ok() {
                    prop_assert!(accepted.insert(count));
                }
                prop_assert!(!fresh_and_new || answer.is_ok());
            }
        }

        #[test]
        fn any_text_is_a_stale_nonce(text in ".{0,100}") {
            prop_assert_eq!(Nonces::new(LIFETIME, 2).verify(&text, at(1)), Err(Stale));
        }
    }
}
