//! Serves an axum router over HTTP/1.1.
//!
//! Invariants: at most [`MAX_CONNECTIONS`] connections are open, each with bounded
//! buffers; one that sends no request, does not finish one, or whose peer is gone
//! ends by itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Connections served at a time; further ones wait in the listener's queue.
pub const MAX_CONNECTIONS: usize = 1024;
/// For the head of a request to arrive, counted from the end of the one before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For a request's body to arrive and the head of the answer to be made.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For data to be acknowledged by the peer's kernel, and for keep-alive probes.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(15);
/// For requests in progress to end after `shutdown`; long connections do not end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a connection's read and write buffers.
const BUFFER: usize = 64 * 1024;

/// Serves until `shutdown` completes.
pub async fn serve(listener: TcpListener, app: Router, shutdown: impl Future<Output = ()>) {
    let app = app.layer(middleware::from_fn(answer_in_time));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let service = TowerToHyperService::new(app.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
}

/// Waits for room first, so that what is accepted can be served.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = notice_dead_peers(&stream) {
                    tracing::debug!(%error, "socket options");
                }
                return (stream, permit);
            }
            Err(error) => {
                // Of one connection, or out of file descriptors: neither is helped by
                // trying at once.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn notice_dead_peers(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let interval = DEAD_PEER_TIMEOUT / 3;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(interval)
            .with_interval(interval)
            .with_retries(2),
    )?;
    socket.set_tcp_user_timeout(Some(DEAD_PEER_TIMEOUT))
}

async fn answer_in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}
