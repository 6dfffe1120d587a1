//! What is between the shim and a manager: a relay of connections that are cut and go
//! silent, and behind it one of events that are lost, doubled, late and out of order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use shim::http::server;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Carried,
    Cut,
    /// They carry nothing any more, and are not closed either.
    Silent,
}

/// The way to one manager.
pub struct Way {
    fates: watch::Sender<Fate>,
    chance: Arc<Mutex<Option<StdRng>>>,
    /// Where the shim connects to.
    pub url: String,
}

impl Way {
    /// A way to the manager at `address`, on which events are disturbed from now on.
    pub async fn to(address: &str, seed: u64) -> Way {
        let chance = Arc::new(Mutex::new(Some(StdRng::seed_from_u64(seed))));
        let events = relay_events(address.to_owned(), Arc::clone(&chance)).await;
        let (fates, _) = watch::channel(Fate::Carried);
        let url = relay_connections(events, fates.subscribe()).await;
        Way { fates, chance, url }
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.fates.send_replace(Fate::Cut);
    }

    /// Makes all connections half-open.
    pub fn silence(&self) {
        self.fates.send_replace(Fate::Silent);
    }

    /// Leaves everything alone from now on.
    pub fn calm(&self) {
        self.chance.lock().unwrap().take();
    }
}

/// Relays connections to `to`; the fate of those that are open is what is sent.
async fn relay_connections(to: String, fates: watch::Receiver<Fate>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (mut fates, to) = (fates.clone(), to.clone());
            fates.mark_unchanged();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                    _ = fates.changed() => {}
                }
                if *fates.borrow() == Fate::Silent {
                    // For longer than the shim bears it.
                    tokio::time::sleep(Duration::from_secs(20)).await;
                }
            });
        }
    });
    format!("http://{address}")
}

/// What the relay of events works with.
#[derive(Clone)]
struct Relay {
    to: String,
    client: Client<HttpConnector, Body>,
    chance: Arc<Mutex<Option<StdRng>>>,
}

/// Relays requests to the manager at `to`, and disturbs the events that it answers.
async fn relay_events(to: String, chance: Arc<Mutex<Option<StdRng>>>) -> String {
    let relay = Relay {
        to,
        client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
        chance,
    };
    let app = Router::new().fallback(forward).with_state(relay);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(server::serve(listener, app, std::future::pending()));
    address
}

async fn forward(State(relay): State<Relay>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().clone();
    *request.uri_mut() = format!("http://{}{path}", relay.to).parse().unwrap();
    let Ok(answer) = relay.client.request(request).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (parts, body) = answer.into_parts();
    let body = match is_stream(&parts.headers) {
        true => disturbed(body, relay.chance),
        false => Body::new(body),
    };
    Response::from_parts(parts, body)
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Messages on their way.
struct Stream {
    body: hyper::body::Incoming,
    unread: Vec<u8>,
    ready: VecDeque<Bytes>,
    held: Vec<Bytes>,
    chance: Arc<Mutex<Option<StdRng>>>,
}

fn disturbed(body: hyper::body::Incoming, chance: Arc<Mutex<Option<StdRng>>>) -> Body {
    let stream = Stream {
        body,
        unread: Vec::new(),
        ready: VecDeque::new(),
        held: Vec::new(),
        chance,
    };
    let messages = futures_util::stream::unfold(stream, |mut stream| async move {
        let message = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(message), stream))
    });
    Body::from_stream(messages)
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let frame = self.body.frame().await?.ok()?;
            self.unread.extend(frame.into_data().unwrap_or_default());
            while let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let message: Vec<u8> = self.unread.drain(..end + 2).collect();
                self.disturb(message.into());
            }
        }
    }

    /// Lets a message through once, twice, later or not at all. Heartbeats bring what
    /// was held back, in any order.
    fn disturb(&mut self, message: Bytes) {
        let mut chance = self.chance.lock().unwrap();
        let Some(chance) = chance.as_mut() else {
            self.ready.extend(self.held.drain(..));
            return self.ready.push_back(message);
        };
        if message.starts_with(b":") {
            while !self.held.is_empty() {
                let at = chance.random_range(0..self.held.len());
                self.ready.push_back(self.held.swap_remove(at));
            }
            return self.ready.push_back(message);
        }
        match chance.random_range(0..100) {
            0..10 => {}
            10..30 => self.held.push(message),
            30..45 => {
                self.ready.push_back(message.clone());
                self.held.push(message);
            }
            45..55 => self.ready.extend([message.clone(), message]),
            _ => self.ready.push_back(message),
        }
    }
}
