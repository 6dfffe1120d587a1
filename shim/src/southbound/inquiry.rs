//! Questions to an NVE within its session, asked one at a time; others wait.
//!
//! Invariants: few questions wait, and an answer has few parts; whoever asks learns
//! the outcome in time, also if the session ends or the NVE stays silent. An NVE
//! that answers what was not asked breaks the protocol.

use std::future::pending;
use std::time::Duration;

use nve_protocol::inspect::{Answer, Ask, Done, Failure, MAX_PARTS, Part, Question};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::Registry;

/// How long a question takes at most, the wait for its turn included.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most questions that wait for their turn at one NVE.
pub const MAX_WAITING: usize = 32;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its parts but the last, each of the question's kind.
    pub parts: Vec<Part>,
    /// Its last part.
    pub done: Done,
}

/// Why there is no answer. The texts go on from "NVE such-and-such".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It has no session.
    #[error("is not connected")]
    NotConnected,
    /// The answer was not whole in time.
    #[error("did not answer in time")]
    TimedOut,
    /// The session ended first.
    #[error("disconnected before it answered")]
    Ended,
    /// [`MAX_WAITING`] others wait.
    #[error("has too many questions to answer; ask again later")]
    TooMany,
    /// The NVE says that it cannot.
    #[error("{}", words(*.0))]
    Failed(Failure),
}

const fn words(failure: Failure) -> &'static str {
    match failure {
        Failure::BadProbe => "takes the frame for no Ethernet frame that it could get",
        Failure::NoVap => "does not have the port in force",
        Failure::Busy => "has another capture running",
        Failure::OutOfMemory => "is short of memory",
    }
}

/// A question on its way to a session.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) question: Question,
    limit: Duration,
    pub(super) reply: oneshot::Sender<Result<Reply, AskError>>,
}

/// Where questions for an NVE are put.
pub(super) type Line = mpsc::Sender<Inquiry>;

impl Registry {
    /// Asks an NVE, and waits for the answer up to [`ANSWER_TIMEOUT`].
    ///
    /// # Errors
    /// Any of [`AskError`].
    pub async fn ask(&self, nve: Uuid, question: Question) -> Result<Reply, AskError> {
        self.ask_within(nve, question, ANSWER_TIMEOUT).await
    }

    /// As [`Self::ask`], with another limit.
    ///
    /// # Errors
    /// Any of [`AskError`].
    pub async fn ask_within(
        &self,
        nve: Uuid,
        question: Question,
        limit: Duration,
    ) -> Result<Reply, AskError> {
        let line = self.line(nve).ok_or(AskError::NotConnected)?;
        let (reply, answer) = oneshot::channel();
        let inquiry = Inquiry {
            question,
            limit,
            reply,
        };
        line.try_send(inquiry).map_err(|error| match error {
            TrySendError::Full(_) => AskError::TooMany,
            TrySendError::Closed(_) => AskError::NotConnected,
        })?;
        match timeout(limit, answer).await {
            Err(_) => Err(AskError::TimedOut),
            Ok(Err(_)) => Err(AskError::Ended),
            Ok(Ok(answer)) => answer,
        }
    }
}

/// An answer to what was not asked, or one that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unasked;

/// A session's end of the line.
#[derive(Debug)]
pub(super) struct Desk {
    waiting: mpsc::Receiver<Inquiry>,
    /// Of the last question.
    number: u32,
    /// Last question whose answer is not waited for any more.
    abandoned: Option<u32>,
    open: Option<Open>,
}

/// The question that is being answered.
#[derive(Debug)]
struct Open {
    question: Question,
    parts: Vec<Part>,
    reply: oneshot::Sender<Result<Reply, AskError>>,
    until: Instant,
}

impl Desk {
    /// A desk, and the line to it.
    pub(super) fn new() -> (Line, Desk) {
        let (line, waiting) = mpsc::channel(MAX_WAITING);
        let desk = Desk {
            waiting,
            number: 0,
            abandoned: None,
            open: None,
        };
        (line, desk)
    }

    /// Whether the next question may be asked.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// The next question. The future can be dropped and called again without loss.
    pub(super) async fn next(&mut self) -> Inquiry {
        match self.waiting.recv().await {
            Some(inquiry) => inquiry,
            // The session is being replaced.
            None => pending().await,
        }
    }

    /// Turns to a question; returns what to send unless nobody wants the answer.
    pub(super) fn open(&mut self, inquiry: Inquiry, now: Instant) -> Option<Ask> {
        if inquiry.reply.is_closed() {
            return None;
        }
        self.number = self.number.wrapping_add(1);
        self.open = Some(Open {
            question: inquiry.question,
            parts: Vec::new(),
            reply: inquiry.reply,
            until: now + inquiry.limit,
        });
        Some(Ask {
            number: self.number,
            question: inquiry.question,
        })
    }

    /// When to call [`Self::expire`].
    pub(super) fn until(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.until)
    }

    /// Gives up a question whose time is over; whether it did. One whose asker is
    /// gone is answered to its end, since the NVE answers one at a time.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let Some(open) = self.open.take_if(|open| now >= open.until) else {
            return false;
        };
        self.abandoned = Some(self.number);
        // Whoever asked may have counted by itself.
        let _ = open.reply.send(Err(AskError::TimedOut));
        true
    }

    /// Takes a part of an answer.
    pub(super) fn answered(&mut self, answer: Answer) -> Result<(), Unasked> {
        if self.open.is_none() || answer.number != self.number {
            return self.late(answer.number);
        }
        let result = match answer.part {
            Part::Done(done) => Ok(done),
            Part::Failed(failure) => Err(AskError::Failed(failure)),
            part => {
                let open = self.open.as_mut().ok_or(Unasked)?;
                return open.take(part);
            }
        };
        let open = self.open.take().ok_or(Unasked)?;
        let parts = open.parts;
        // Nobody may be there any more.
        let _ = open.reply.send(result.map(|done| Reply { parts, done }));
        Ok(())
    }

    /// An answer that comes after its question was given up is passed over.
    fn late(&self, number: u32) -> Result<(), Unasked> {
        const HALF: u32 = u32::MAX / 2;
        let abandoned = self.abandoned.ok_or(Unasked)?;
        match abandoned.wrapping_sub(number) < HALF {
            true => Ok(()),
            false => Err(Unasked),
        }
    }
}

impl Open {
    fn take(&mut self, part: Part) -> Result<(), Unasked> {
        let fits = matches!(
            (&self.question, &part),
            (Question::Trace(_), Part::Step(_))
                | (Question::Drops { .. }, Part::Drop(_))
                | (Question::Flows { .. }, Part::Flow(_))
                | (Question::Capture(_), Part::Frame(_))
                | (Question::Handover(_), Part::Known(_))
        );
        // The last part is still to come.
        if !fits || self.parts.len() + 1 >= MAX_PARTS {
            return Err(Unasked);
        }
        self.parts.push(part);
        Ok(())
    }
}
