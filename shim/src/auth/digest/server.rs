//! The end that asks for the password.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{OriginalUri, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use digest_auth::{
    Algorithm, AlgorithmType, AuthContext, AuthorizationHeader, Charset, HttpMethod, Qop,
    WwwAuthenticateHeader,
};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::nonce::Nonces;
use crate::auth::{Credentials, Secret};

/// How long a nonce can be used.
const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// Nonces tracked at a time: one per client connection that is in use.
const NONCE_CAPACITY: usize = 4096;
/// Longest `Authorization` header that is looked at, bytes.
const LONGEST_HEADER: usize = 4096;

/// The user that a request was authenticated for, as a request extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(pub String);

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("authentication is required")]
    Missing,
    #[error("wrong user name or password")]
    Wrong,
    #[error("the nonce has expired or was used before; sign again with the new one")]
    Stale,
    #[error("the Authorization header is malformed: {0}")]
    Malformed(&'static str),
}

/// Users of one protection space, and the state that keeps replays out.
pub struct Authenticator {
    realm: String,
    opaque: String,
    users: BTreeMap<String, Secret>,
    nonces: Nonces,
    started: Instant,
    /// Checked against when there is no such user, so that both take as long.
    nobody: Secret,
}

impl Authenticator {
    /// Lets `users` in. `realm` is what browsers show.
    pub fn new(realm: &str, users: impl IntoIterator<Item = Credentials>) -> Self {
        Authenticator {
            realm: realm.to_owned(),
            opaque: hex::encode(rand::random::<[u8; 16]>()),
            users: users
                .into_iter()
                .map(|user| (user.username, user.password))
                .collect(),
            nonces: Nonces::new(NONCE_LIFETIME, NONCE_CAPACITY),
            started: Instant::now(),
            nobody: Secret::new(hex::encode(rand::random::<[u8; 16]>())),
        }
    }

    /// Who sent the request, if its `Authorization` header proves it. `target` is the
    /// path and query of the request line.
    fn authenticate(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<User, Refusal> {
        let given = self.parse(headers)?;
        if given.uri != target {
            return Err(Refusal::Malformed("its uri is not the one requested"));
        }
        let user = self.users.get(&given.username);
        let right = responds_to(&given, user.unwrap_or(&self.nobody), method);
        if user.is_none() || !right {
            return Err(Refusal::Wrong);
        }
        let now = self.started.elapsed();
        self.nonces
            .verify(&given.nonce, now)
            .and_then(|nonce| self.nonces.spend(nonce, given.nc, now))
            .map_err(|_| Refusal::Stale)?;
        Ok(User(given.username))
    }

    fn parse(&self, headers: &HeaderMap) -> Result<AuthorizationHeader, Refusal> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = values.next().ok_or(Refusal::Missing)?;
        if values.next().is_some() {
            return Err(Refusal::Malformed("there are several"));
        }
        if value.len() > LONGEST_HEADER {
            return Err(Refusal::Malformed("too long"));
        }
        let text = value
            .to_str()
            .map_err(|_| Refusal::Malformed("not ASCII"))?;
        let rest = match text.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("Digest") => rest,
            _ => return Err(Refusal::Missing),
        };
        let given = AuthorizationHeader::parse(rest)
            .map_err(|_| Refusal::Malformed("a parameter is missing or has a wrong value"))?;
        if given.qop != Some(Qop::AUTH) {
            return Err(Refusal::Malformed("qop has to be auth"));
        }
        if !offered().contains(&given.algorithm) || given.userhash {
            return Err(Refusal::Malformed("the algorithm is none of those offered"));
        }
        match given.realm == self.realm {
            true => Ok(given),
            false => Err(Refusal::Wrong),
        }
    }

    /// One challenge per algorithm, the strongest first (RFC 7616, section 3.7).
    fn challenges(&self, stale: bool) -> impl Iterator<Item = HeaderValue> {
        let nonce = self.nonces.issue(self.started.elapsed());
        offered().into_iter().filter_map(move |algorithm| {
            let challenge = WwwAuthenticateHeader {
                domain: None,
                realm: self.realm.clone(),
                nonce: nonce.clone(),
                opaque: Some(self.opaque.clone()),
                stale,
                algorithm,
                qop: Some(vec![Qop::AUTH]),
                userhash: false,
                charset: Charset::UTF8,
                nc: 0,
            };
            HeaderValue::from_str(&challenge.to_string()).ok()
        })
    }

    /// Who sent the request.
    ///
    /// # Errors
    /// What to answer if the request does not prove it.
    pub fn admit(&self, request: &Parts) -> Result<User, Refused> {
        // Within a nested router, `uri` is not what the client has signed.
        let original = request.extensions.get::<OriginalUri>();
        let uri = original.map_or(&request.uri, |original| &original.0);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let (method, headers) = (&request.method, &request.headers);
        self.authenticate(method, target, headers)
            .map_err(|refusal| {
                if refusal != Refusal::Missing && refusal != Refusal::Stale {
                    tracing::warn!(%method, path = uri.path(), %refusal, "request refused");
                }
                self.refuse(refusal)
            })
    }

    fn refuse(&self, refusal: Refusal) -> Refused {
        let (status, challenges) = match refusal {
            Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, Vec::new()),
            _ => {
                let challenges = self.challenges(refusal == Refusal::Stale);
                (StatusCode::UNAUTHORIZED, challenges.collect())
            }
        };
        Refused {
            status,
            reason: refusal.to_string(),
            challenges,
        }
    }
}

/// The answer to a request that is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// 401, or 400 for a malformed header.
    pub status: StatusCode,
    /// What is wrong.
    pub reason: String,
    challenges: Vec<HeaderValue>,
}

impl Refused {
    /// Adds the challenges to an answer that has a body of its own.
    pub fn challenge(self, response: &mut Response) {
        for challenge in self.challenges {
            response
                .headers_mut()
                .append(header::WWW_AUTHENTICATE, challenge);
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let reason = Json(json!({ "error": self.reason }));
        let mut response = (self.status, reason).into_response();
        self.challenge(&mut response);
        response
    }
}

/// Algorithms that are offered and accepted, the strongest first.
fn offered() -> [Algorithm; 2] {
    [AlgorithmType::SHA2_256, AlgorithmType::MD5].map(|kind| Algorithm::new(kind, false))
}

/// Whether `given` is what a client with this password sends.
pub(super) fn responds_to(given: &AuthorizationHeader, password: &Secret, method: &Method) -> bool {
    let mut expected = given.clone();
    expected.digest(&AuthContext {
        username: Cow::Borrowed(&given.username),
        password: Cow::Borrowed(password.expose()),
        uri: Cow::Borrowed(&given.uri),
        body: None,
        method: HttpMethod(Cow::Borrowed(method.as_str())),
        cnonce: None,
    });
    let given = given.response.as_bytes();
    bool::from(expected.response.as_bytes().ct_eq(given))
}

/// Middleware that lets authenticated requests through, with their [`User`] as an
/// extension, and answers 401 or 400 to others:
/// `middleware::from_fn_with_state(authenticator, require)`.
pub async fn require(
    State(authenticator): State<Arc<Authenticator>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match authenticator.admit(&parts) {
        Ok(user) => {
            parts.extensions.insert(user);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refused) => refused.into_response(),
    }
}
