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
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
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
    within(ANSWER_TIMEOUT, next.run(request)).await
}

/// The answer, or that there was none within `limit`, as problem details (RFC 9457).
async fn within(limit: Duration, answer: impl Future<Output = Response>) -> Response {
    if let Ok(response) = tokio::time::timeout(limit, answer).await {
        return response;
    }
    let status = StatusCode::REQUEST_TIMEOUT;
    // A change that has begun is carried to its end, whoever waits for it.
    let detail = format!(
        "there was no answer within {} s; what the request was to change may have been \
         changed, or may be yet: look before you send it again",
        limit.as_secs()
    );
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let kind = [(CONTENT_TYPE, "application/problem+json")];
    (status, kind, problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_late_says_that_the_change_may_have_been_made() {
        let answer = async { StatusCode::NO_CONTENT.into_response() };
        let answer = within(ANSWER_TIMEOUT, answer).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let late = within(Duration::from_millis(1), std::future::pending()).await;
        assert_eq!(late.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(late.headers()[CONTENT_TYPE], "application/problem+json");
        let body = late.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["status"], 408);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("may have been changed"), "{detail}");
    }
}
