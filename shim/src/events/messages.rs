//! Takes a stream of Server-Sent Events apart.
//!
//! The decoder is the `sse-core` crate's, whose buffers are bounded.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use sse_core::{MessageEvent, SseDecoder, SseEvent};
use tokio::time::timeout;

/// Largest event, bytes.
const LARGEST_EVENT: NonZeroUsize = NonZeroUsize::new(1 << 20).expect("not zero");

/// Why there are no more messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// No sign of life.
    #[error("nothing came for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The end of the answer.
    #[error("the manager ended the stream")]
    Closed,
    /// The connection failed.
    #[error("the stream broke: {0}")]
    Broken(String),
}

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// A message.
    Message(MessageEvent),
    /// A message that is too large to be taken.
    TooLarge,
    /// A comment, which is what managers send as a heartbeat.
    Heartbeat,
    /// Anything else, such as a part of a message.
    Life,
}

/// The messages of an answer's body.
pub struct Messages<B> {
    body: B,
    decoder: SseDecoder,
    pending: Bytes,
    patience: Duration,
}

impl<B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin> Messages<B> {
    /// Messages of `body`; silence for `patience` is told.
    pub fn new(body: B, patience: Duration) -> Self {
        Messages {
            body,
            decoder: SseDecoder::with_limit(LARGEST_EVENT),
            pending: Bytes::new(),
            patience,
        }
    }

    /// What comes next. Loses nothing when it is dropped, or after silence, and called
    /// again.
    ///
    /// # Errors
    /// When nothing comes any more.
    pub async fn next(&mut self) -> Result<Sign, StreamEnd> {
        match self.decoder.next(&mut self.pending) {
            Some(Ok(SseEvent::Message(message))) => return Ok(Sign::Message(message)),
            Some(Ok(SseEvent::Retry(_))) => return Ok(Sign::Life),
            Some(Err(_)) => return Ok(Sign::TooLarge),
            None => {}
        }
        let frame = timeout(self.patience, self.body.frame())
            .await
            .map_err(|_| StreamEnd::Silent(self.patience))?;
        let frame = frame
            .ok_or(StreamEnd::Closed)?
            .map_err(|error| StreamEnd::Broken(error.to_string()))?;
        self.pending = frame.into_data().unwrap_or_default();
        Ok(match self.pending.first() {
            Some(b':') => Sign::Heartbeat,
            _ => Sign::Life,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use proptest::prelude::*;

    use super::*;

    /// A body that comes in these parts.
    struct Parts(VecDeque<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
        }
    }

    /// All that `stream` brings when it is cut into parts of these sizes.
    fn read(stream: &[u8], sizes: &[usize]) -> Vec<Sign> {
        let mut parts = VecDeque::new();
        let mut rest = stream;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, after) = rest.split_at((*size).min(rest.len()));
            parts.push_back(Bytes::copy_from_slice(part));
            rest = after;
        }
        let mut messages = Messages::new(Parts(parts), Duration::from_secs(1));
        let mut signs = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            loop {
                match messages.next().await {
                    Ok(Sign::Life | Sign::Heartbeat) => {}
                    Ok(sign) => signs.push(sign),
                    Err(end) => return assert_eq!(end, StreamEnd::Closed),
                }
            }
        });
        signs
    }

    /// What a server may write: lines of fields, comments and rubbish.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let field = prop_oneof!["data", "event", "id", "retry", "", "dat", "[a-z]{1,4}"];
        let end = prop_oneof!["\n", "\r", "\r\n", "\n\n"];
        let line = (field, "(: ?)?", "[^\r\n]{0,12}", end);
        prop::collection::vec(line, 0..20).prop_map(|lines| {
            let mut text = String::new();
            for (field, colon, value, end) in lines {
                text.extend([field, colon, value, end]);
            }
            text.into_bytes()
        })
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_does_not_matter(
            stream in stream(),
            sizes in prop::collection::vec(1usize..20, 1..8),
        ) {
            prop_assert_eq!(read(&stream, &sizes), read(&stream, &[usize::MAX]));
        }

        #[test]
        fn any_bytes_are_survived(
            bytes in prop::collection::vec(any::<u8>(), 0..500),
            size in 1usize..9,
        ) {
            read(&bytes, &[size]);
        }
    }

    #[test]
    fn an_event_that_is_too_large_is_told_and_the_next_one_read() {
        let mut stream = b"data: ".to_vec();
        stream.resize(LARGEST_EVENT.get() + 100, b'x');
        stream.extend_from_slice(b"\n\nevent: a\nid: 7\ndata: b\n\n");
        let signs = read(&stream, &[4096]);
        assert_eq!(signs[0], Sign::TooLarge);
        let [_, Sign::Message(message)] = &signs[..] else {
            panic!("{signs:?}");
        };
        assert_eq!((&*message.event, &*message.data), ("a", "b"));
        assert_eq!(message.last_event_id.as_deref(), Some("7"));
    }
}
