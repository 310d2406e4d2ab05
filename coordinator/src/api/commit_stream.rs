//! `CommitStream`: many commits on one stream, each decided beside the others.
//!
//! Nothing here runs but when the transport asks for the next answer. So a client that does not read
//! its answers is not read from either, and what it costs is bounded by what is in flight.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use futures_util::{FutureExt, Stream};
use proto::v1;
use proto::v1::commit_stream_response::Answer;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Request, Status, Streaming};

use super::Rooms;
use super::auth::{bearer, caller};
use super::deadline::{Deadline, exceeded};
use super::edge::{Passage, Turnstile};
use super::encode;
use super::status::{message, reasoned, status};
use crate::domain::Caller;
use crate::keys::{BELIEF, KeyRing, REVOKED_WITHIN};
use crate::refusal::{Class, Refusal};

/// Commits of one stream in flight at once; the next message is read when one was answered.
const IN_FLIGHT: usize = 256;

/// How often the key of a stream is looked at.
const KEY_LOOK: Duration = Duration::from_millis(500);

const _: () = assert!(BELIEF.as_millis() + KEY_LOOK.as_millis() < REVOKED_WITHIN.as_millis());

/// The oldest that a stream becomes, as a connection does.
const OLDEST: Duration = Duration::from_mins(30);

/// The answers of a stream, in the order of completion.
pub(super) type Answers =
    Pin<Box<dyn Stream<Item = Result<v1::CommitStreamResponse, Status>> + Send>>;

type InFlight = Pin<Box<dyn Future<Output = v1::CommitStreamResponse> + Send>>;

/// Takes commits from the stream that the request is, for as long as its key lives.
///
/// # Errors
///
/// The stream was not opened; nothing of it was read.
pub(super) fn open(
    rooms: Arc<Rooms>,
    request: Request<Streaming<v1::CommitStreamRequest>>,
    traceparent: Option<String>,
) -> Result<Answers, Status> {
    let caller = caller(&request)?;
    let token = bearer(request.metadata().as_ref()).map_err(status)?;
    let token = token.to_owned();
    let turnstile: Turnstile = request.extensions().get().cloned().ok_or_else(|| {
        let message = "a stream came past the edge";
        status(Refusal::new(Class::Internal, "internal", message))
    })?;
    // The stream is itself a call, for as long as it is open.
    let passage = turnstile.enter(&caller.organization).map_err(status)?;
    let mut look = tokio::time::interval(KEY_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Open {
        session: Arc::new(Session {
            caller,
            traceparent,
            turnstile,
            _passage: passage,
        }),
        token,
        incoming: request.into_inner(),
        in_flight: FuturesUnordered::new(),
        end: End::NotYet,
        look,
        ends_at: Instant::now() + OLDEST,
        draining: Box::pin(rooms.service.draining.clone().cancelled_owned()),
        rooms,
    };
    Ok(Box::pin(stream::unfold(open, Open::next)))
}

/// A stream that is open.
struct Open {
    rooms: Arc<Rooms>,
    session: Arc<Session>,
    token: String,
    incoming: Streaming<v1::CommitStreamRequest>,
    in_flight: FuturesUnordered<InFlight>,
    end: End,
    look: Interval,
    ends_at: Instant,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What the commits of one stream have in common.
struct Session {
    caller: Caller,
    traceparent: Option<String>,
    turnstile: Turnstile,
    /// Held until the last commit is answered.
    _passage: Passage,
}

/// Whether messages are still read, and how the stream ends once nothing is in flight.
enum End {
    NotYet,
    Complete,
    Broken(Status),
    Over,
}

/// What happened on a stream.
enum Event {
    Answered(v1::CommitStreamResponse),
    Came(Result<Option<v1::CommitStreamRequest>, Status>),
    Look,
    Draining,
}

impl Open {
    /// The next answer; after the last, how the stream ends.
    async fn next(mut self) -> Option<(Result<v1::CommitStreamResponse, Status>, Self)> {
        loop {
            if self.in_flight.is_empty() {
                match std::mem::replace(&mut self.end, End::Over) {
                    End::NotYet => self.end = End::NotYet,
                    End::Broken(status) => return Some((Err(status), self)),
                    End::Complete | End::Over => return None,
                }
            }
            match self.event().await {
                Event::Answered(answer) => return Some((Ok(answer), self)),
                Event::Came(Ok(Some(request))) => self.take(request),
                Event::Came(Ok(None)) => self.end = End::Complete,
                Event::Came(Err(bare)) => self.end = End::Broken(reasoned(&bare)),
                Event::Draining => {
                    let message = "this node stops; open another stream";
                    self.close("draining", message);
                }
                Event::Look => {
                    if let Some(refusal) = refused(&self.rooms.keys, &self.token).await {
                        self.in_flight.clear();
                        self.end = End::Broken(status(refusal));
                    } else if Instant::now() >= self.ends_at {
                        self.close("stream_aged", "open another stream");
                    }
                }
            }
        }
    }

    /// Answers first: what is done makes room for what comes.
    async fn event(&mut self) -> Event {
        let reads = matches!(self.end, End::NotYet);
        let room = self.in_flight.len() < IN_FLIGHT;
        tokio::select! {
            biased;
            Some(answer) = self.in_flight.next() => Event::Answered(answer),
            () = &mut self.draining, if reads => Event::Draining,
            _ = self.look.tick() => Event::Look,
            came = self.incoming.message(), if reads && room => Event::Came(came),
        }
    }

    /// No message is read any more; what is in flight is answered.
    fn close(&mut self, reason: &'static str, message: &str) {
        if matches!(self.end, End::NotYet) {
            let refusal = Refusal::new(Class::Unavailable, reason, message);
            self.end = End::Broken(status(refusal.retry_after(Duration::ZERO)));
        }
    }

    fn take(&mut self, request: v1::CommitStreamRequest) {
        let came = Instant::now();
        let (rooms, session) = (Arc::clone(&self.rooms), Arc::clone(&self.session));
        let commit = async move {
            let client_tx_id = request
                .commit
                .as_ref()
                .map_or_else(String::new, |commit| commit.client_tx_id.clone());
            let answer = match session.answer(&rooms, request, came).await {
                Ok(receipt) => Answer::Receipt(receipt),
                Err(refusal) => Answer::Error(message(refusal)),
            };
            v1::CommitStreamResponse {
                client_tx_id,
                answer: Some(answer),
            }
        };
        self.in_flight.push(Box::pin(commit));
    }
}

/// Why a stream's key serves no longer. While the database is away, nobody can say.
async fn refused(keys: &KeyRing, token: &str) -> Option<Refusal> {
    let refusal = keys.authenticate(token).await.err()?;
    (refusal.class == Class::Unauthenticated).then_some(refusal)
}

impl Session {
    /// What Commit would answer, and nobody else's trouble.
    async fn answer(
        &self,
        rooms: &Rooms,
        request: v1::CommitStreamRequest,
        came: Instant,
    ) -> Result<v1::Receipt, Refusal> {
        let timeout = timeout(request.timeout)?;
        let commit = request.commit.ok_or_else(|| {
            Refusal::field("commit_required", "commit", "a message carries a commit")
        })?;
        let deadline = Deadline::within(timeout, came, rooms.wait_cap)?;
        let _passage = self.turnstile.enter(&self.caller.organization)?;
        let traceparent = self.traceparent.clone();
        let deciding = rooms
            .service
            .commit(&self.caller, commit, traceparent, deadline.receipt_by);
        let deciding = AssertUnwindSafe(deciding).catch_unwind();
        match tokio::time::timeout_at(deadline.answer_by, deciding).await {
            Ok(Ok(receipt)) => receipt.map(encode::receipt),
            Ok(Err(_panic)) => {
                tracing::error!("a commit on a stream panicked");
                Err(Refusal::internal())
            }
            Err(_elapsed) => Err(exceeded()),
        }
    }
}

/// How long an answer may take, as the message says.
fn timeout(said: Option<prost_types::Duration>) -> Result<Option<Duration>, Refusal> {
    let invalid = |_| Refusal::field("timeout_invalid", "timeout", "must not be negative");
    said.map(Duration::try_from).transpose().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_may_be_missing_but_not_negative() {
        assert_eq!(timeout(None), Ok(None));
        let half = prost_types::Duration {
            seconds: 0,
            nanos: 500_000_000,
        };
        assert_eq!(timeout(Some(half)), Ok(Some(Duration::from_millis(500))));
        let past = prost_types::Duration {
            seconds: -1,
            nanos: 0,
        };
        assert!(timeout(Some(past)).is_err());
    }
}
