//! Asks one HTTP server for JSON, with digest authentication if it wants it.
//!
//! Every wait has a limit and so has every body that is collected.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::Credentials;
use crate::auth::digest::{ChallengeError, Signer};

/// For a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an answer's head, and again for its body.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For data to be acknowledged by the peer's kernel, and for keep-alive probes.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest body that is collected, bytes: an inventory of 100,000 VMs fits.
const LARGEST_BODY: usize = 128 * 1024 * 1024;
/// Of an error's body, what is looked at, bytes.
const LARGEST_ERROR: usize = 64 * 1024;
/// Times that a request is sent: without a challenge, with a nonce that turns out
/// stale, and with a new one.
const ATTEMPTS: usize = 3;

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configured address cannot be used.
    #[error("{0:?} is no address of the form http://host:port")]
    Url(String),
    /// The configured address may have a user name and a password in it, so it is not
    /// shown.
    #[error(
        "an address with an @ is not taken, since what is before it would be logged; give it \
         as http://host:port, and a user name and a password apart from it"
    )]
    UserInfo,
    /// No connection, or it broke.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server is silent.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// The server wants a kind of authentication that we have not.
    #[error("{url}: {error}")]
    Challenge {
        /// The server.
        url: String,
        /// What is missing.
        error: ChallengeError,
    },
    /// 401.
    #[error("{0} refuses the user name or password")]
    Unauthorized(String),
    /// Another status than 2xx.
    #[error("{url}{target} answers {status}: {reason}")]
    Status {
        /// The server.
        url: String,
        /// Path and query of the request.
        target: String,
        /// The answer's status.
        status: StatusCode,
        /// What the answer's body says.
        reason: String,
    },
    /// The answer is not what was asked for.
    #[error("{url}{target} answers what cannot be read: {reason}")]
    Body {
        /// The server.
        url: String,
        /// Path and query of the request.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Client of one server.
#[derive(Debug)]
pub struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    /// `http://host:port` and what paths are relative to, without a slash at its end.
    url: String,
    signer: Option<Signer>,
}

impl Client {
    /// A client of the server at `url`, which makes no connection yet.
    ///
    /// # Errors
    /// As [`check_url`].
    pub fn new(url: &str, credentials: Option<Credentials>) -> Result<Self, ClientError> {
        check_url(url)?;
        Ok(Client {
            http: pool(),
            url: url.trim_end_matches('/').to_owned(),
            signer: credentials.map(Signer::new),
        })
    }

    /// Makes new connections from now on: for when one has turned out dead, since the
    /// idle ones beside it then may be so too.
    pub fn forget_connections(&mut self) {
        self.http = pool();
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET`, and the answer's JSON.
    ///
    /// # Errors
    /// Any of [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let response = self
            .send(&Method::GET, target, HeaderMap::new(), Bytes::new())
            .await?;
        let body = self
            .collect(target, response.into_body(), LARGEST_BODY)
            .await?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(target, error.to_string()))
    }

    /// `POST` of JSON; the answer's body is not looked at.
    ///
    /// # Errors
    /// Any of [`ClientError`].
    pub async fn post<T: Serialize>(&self, target: &str, body: &T) -> Result<(), ClientError> {
        self.post_bytes(target, body).await?;
        Ok(())
    }

    /// `POST` of JSON, and the answer's JSON.
    ///
    /// # Errors
    /// Any of [`ClientError`].
    pub async fn post_json<T: Serialize, R: DeserializeOwned>(
        &self,
        target: &str,
        body: &T,
    ) -> Result<R, ClientError> {
        let answer = self.post_bytes(target, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unreadable(target, error.to_string()))
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// Any of [`ClientError`].
    pub async fn delete(&self, target: &str) -> Result<(), ClientError> {
        self.send(&Method::DELETE, target, HeaderMap::new(), Bytes::new())
            .await?;
        Ok(())
    }

    async fn post_bytes<T: Serialize>(&self, target: &str, body: &T) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.unreadable(target, e.to_string()))?;
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        let response = self
            .send(&Method::POST, target, headers, Bytes::from(body))
            .await?;
        self.collect(target, response.into_body(), LARGEST_BODY)
            .await
    }

    /// `GET` of a stream of events (`text/event-stream`), from after `last_event_id`
    /// if that is given. Waiting for its frames is up to the caller.
    ///
    /// # Errors
    /// Any of [`ClientError`].
    pub async fn stream(
        &self,
        target: &str,
        last_event_id: Option<String>,
    ) -> Result<Incoming, ClientError> {
        let mut headers = HeaderMap::new();
        if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_str(&id).ok()) {
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        self.stream_of(target, "text/event-stream", headers).await
    }

    /// `GET` of a body of that media type that goes on for long. Waiting for its
    /// frames is up to the caller.
    ///
    /// # Errors
    /// Any of [`ClientError`].
    pub async fn download(
        &self,
        target: &str,
        media: &'static str,
    ) -> Result<Incoming, ClientError> {
        self.stream_of(target, media, HeaderMap::new()).await
    }

    async fn stream_of(
        &self,
        target: &str,
        media: &'static str,
        mut headers: HeaderMap,
    ) -> Result<Incoming, ClientError> {
        headers.insert(header::ACCEPT, HeaderValue::from_static(media));
        let response = self
            .send(&Method::GET, target, headers, Bytes::new())
            .await?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        match kind.is_some_and(|kind| kind.as_bytes().starts_with(media.as_bytes())) {
            true => Ok(response.into_body()),
            false => Err(self.unreadable(target, format!("it is not {media}"))),
        }
    }

    /// Sends until there is an answer other than a challenge.
    async fn send(
        &self,
        method: &Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        for attempt in 1..=ATTEMPTS {
            let response = self
                .send_once(method, target, headers.clone(), body.clone())
                .await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return self.successful(target, response).await;
            }
            let Some(signer) = &self.signer else { break };
            let stale =
                signer
                    .challenged(response.headers())
                    .map_err(|error| ClientError::Challenge {
                        url: self.url.clone(),
                        error,
                    })?;
            if attempt > 1 && !stale {
                break;
            }
        }
        Err(ClientError::Unauthorized(self.url.clone()))
    }

    async fn send_once(
        &self,
        method: &Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = format!("{}{target}", self.url)
            .parse()
            .map_err(|_| ClientError::Url(format!("{}{target}", self.url)))?;
        *request.headers_mut() = headers;
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let signed = self.signer.as_ref().and_then(|s| s.sign(method, path));
        if let Some(signed) = signed {
            request.headers_mut().insert(header::AUTHORIZATION, signed);
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, self.http.request(request)).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error)),
            Err(_) => Err(ClientError::Timeout(self.url.clone())),
        }
    }

    async fn successful(
        &self,
        target: &str,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self
            .collect(target, response.into_body(), LARGEST_ERROR)
            .await;
        Err(ClientError::Status {
            url: self.url.clone(),
            target: target.to_owned(),
            status,
            reason: body.map_or_else(|error| error.to_string(), |body| reason_in(&body)),
        })
    }

    async fn collect(
        &self,
        target: &str,
        body: Incoming,
        limit: usize,
    ) -> Result<Bytes, ClientError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.unreadable(target, error.to_string())),
            Err(_) => Err(ClientError::Timeout(self.url.clone())),
        }
    }

    fn unreachable(&self, error: &legacy::Error) -> ClientError {
        // The outermost text is "client error (Connect)"; what helps is the innermost.
        let mut innermost: &dyn std::error::Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        ClientError::Unreachable {
            url: self.url.clone(),
            reason: innermost.to_string(),
        }
    }

    fn unreadable(&self, target: &str, reason: String) -> ClientError {
        ClientError::Body {
            url: self.url.clone(),
            target: target.to_owned(),
            reason,
        }
    }
}

/// Whether a server can be at `url`.
///
/// # Errors
/// When it is not of the form `http://host:port`, perhaps with a path, and when there may
/// be a password in it: addresses are logged and shown.
pub fn check_url(url: &str) -> Result<(), ClientError> {
    // Wherever it is: what is no address may have been meant as one with a password.
    if url.contains('@') {
        return Err(ClientError::UserInfo);
    }
    let parsed: Option<Uri> = url.parse().ok();
    let usable = parsed.is_some_and(|uri| {
        uri.scheme_str() == Some("http") && uri.host().is_some() && uri.query().is_none()
    });
    match usable {
        true => Ok(()),
        false => Err(ClientError::Url(url.to_owned())),
    }
}

fn pool() -> legacy::Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(DEAD_PEER_TIMEOUT / 3));
    connector.set_keepalive_interval(Some(DEAD_PEER_TIMEOUT / 3));
    connector.set_keepalive_retries(Some(2));
    connector.set_tcp_user_timeout(Some(DEAD_PEER_TIMEOUT));
    legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// The text of an error body of one of our forms or of Neutron's, or else the body.
fn reason_in(body: &[u8]) -> String {
    const LONGEST: usize = 500;
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json
        .get("error")
        .filter(|error| error.is_string())
        .or_else(|| json.pointer("/error/message"))
        .or_else(|| json.pointer("/NeutronError/message"))
        .or_else(|| json.get("detail"))
        .and_then(serde_json::Value::as_str);
    let text = message.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_no_password() {
        for url in ["http://h:1", "http://h:1/", "http://[::1]:1/a/b"] {
            assert!(Client::new(url, None).is_ok(), "{url}");
        }
        for url in ["", "h:1", "https://h", "http://", "http://h/?a=b"] {
            let refused = Client::new(url, None).unwrap_err();
            assert!(matches!(refused, ClientError::Url(_)), "{url}");
        }
        for url in [
            "http://user:hunter2@h:1",
            "http://hunter2@h",
            "http://user:hunter2/@h",
            "user:hunter2@h",
        ] {
            let refused = Client::new(url, None).unwrap_err();
            assert!(matches!(refused, ClientError::UserInfo), "{url}");
            assert!(!format!("{refused} {refused:?}").contains("hunter2"));
        }
    }
}
