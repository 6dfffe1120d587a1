//! The end that proves to know the password.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use digest_auth::{
    AlgorithmType, AuthContext, AuthorizationHeader, HttpMethod, Qop, WwwAuthenticateHeader,
};

use crate::auth::Credentials;

/// Why a 401 answer gives nothing to respond to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server offers no HTTP digest challenge with qop=auth and a known algorithm")]
pub struct ChallengeError;

/// Signs requests to one server, with one nonce for as long as the server takes it.
///
/// Invariant: no nonce count is used twice with a nonce.
#[derive(Debug)]
pub struct Signer {
    credentials: Credentials,
    challenge: Mutex<Option<WwwAuthenticateHeader>>,
}

impl Signer {
    /// A signer that has met no challenge yet.
    pub fn new(credentials: Credentials) -> Self {
        Signer {
            credentials,
            challenge: Mutex::default(),
        }
    }

    /// The `Authorization` header for a request, once there has been a challenge.
    /// `target` is the path and query of the request line.
    pub fn sign(&self, method: &Method, target: &str) -> Option<HeaderValue> {
        let mut challenge = self
            .challenge
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let context = AuthContext {
            username: Cow::Borrowed(&self.credentials.username),
            password: Cow::Borrowed(self.credentials.password.expose()),
            uri: Cow::Borrowed(target),
            body: None,
            method: HttpMethod(Cow::Borrowed(method.as_str())),
            cnonce: None,
        };
        let header = AuthorizationHeader::from_prompt(challenge.as_mut()?, &context).ok()?;
        let mut value = HeaderValue::from_str(&header.to_string()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Takes the strongest challenge of a 401 answer for the requests to come, and
    /// tells whether only the nonce was wrong with the request before (`stale`).
    ///
    /// # Errors
    /// When there is no challenge that can be responded to.
    pub fn challenged(&self, headers: &HeaderMap) -> Result<bool, ChallengeError> {
        let best = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(split_challenges)
            .filter_map(usable)
            .max_by_key(|challenge| strength(challenge.algorithm.algo))
            .ok_or(ChallengeError)?;
        let stale = best.stale;
        *self
            .challenge
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(best);
        Ok(stale)
    }
}

/// The parameters of each digest challenge in a header, which may hold several
/// challenges of several schemes separated by commas (RFC 9110, section 11.6.1).
fn split_challenges(value: &str) -> Vec<&str> {
    const SCHEME: &str = "digest ";
    let lower = value.to_ascii_lowercase();
    let mut starts = Vec::new();
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in lower.bytes().enumerate() {
        let separated = lower[..at].trim_end().is_empty() || lower[..at].trim_end().ends_with(',');
        if !quoted && separated && lower[at..].starts_with(SCHEME) {
            starts.push(at);
        }
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
    }
    let ends = starts.iter().copied().skip(1).chain([value.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &value[start + SCHEME.len()..end])
        .collect()
}

/// The challenge, reduced to `qop=auth`, if it can be responded to.
fn usable(parameters: &str) -> Option<WwwAuthenticateHeader> {
    let mut challenge = WwwAuthenticateHeader::parse(parameters).ok()?;
    let auth = challenge.qop.as_ref()?.contains(&Qop::AUTH);
    challenge.qop = Some(vec![Qop::AUTH]);
    auth.then_some(challenge)
}

fn strength(algorithm: AlgorithmType) -> u8 {
    match algorithm {
        AlgorithmType::MD5 => 0,
        AlgorithmType::SHA2_256 => 1,
        AlgorithmType::SHA2_512_256 => 2,
    }
}
