//! One attempt: recorded, sent, classified, settled.

mod canonical;
mod read_back;
mod verdict;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::classify::{AttemptError, Outcome};
use backends::data_source::client::Request;
use backends::data_source::excerpt::excerpt;
use backends::data_source::exchange::{Exchange, FailureClass};
use backends::data_source::sign::SigningKey;
use backends::data_source::wire::{self, RequestKind};
use backends::operation::{Operation, RowKey};
use tokio::time::Instant;
use tracing::{Instrument, Span};
use uuid::Uuid;

use self::verdict::Case;
use super::desk::{Desk, Seat};
use crate::admit::Schema;
use crate::broken::{self, Control, crash_point};
use crate::decide::{
    Command, Expire, InboxEntry, NotStartable, Reply, Settle, Source, Start, Started, Terms, lane,
};
use crate::domain::{Commit, CommitId};
use crate::feed::tell_denied;
use crate::store::Error;
use crate::telemetry::trace;

/// A settle that the database does not take is tried again after this long, and ever more seldom: the
/// answer is known, and only we know it.
const SETTLE_AGAIN: Duration = Duration::from_millis(250);

/// But so often at least.
const SETTLE_SELDOM: Duration = Duration::from_secs(30);

/// The class of an attempt whose answer the database refuses to keep.
const NOT_RECORDED: &str = "answer_not_recorded";

/// An attempt to be made.
pub(super) struct Attempt {
    /// Of its source.
    pub(super) desk: Arc<Desk>,
    pub(super) sequence: i64,
    /// What it rests on; nothing, for most commits.
    pub(super) terms: Option<Arc<Terms>>,
    /// Bytes of the commit's body.
    pub(super) weight: usize,
    /// Of the inbox that it was chosen from.
    pub(super) revision: i64,
    pub(super) departed: Option<Departure>,
    /// None for what is not sent.
    pub(super) seat: Option<Seat>,
}

/// An attempt that was recorded with its commit's accept.
pub(super) struct Departure {
    pub(super) started: Arc<Started>,
    pub(super) commit: Arc<Commit>,
    /// An instant before that.
    pub(super) asked: Instant,
}

/// What an attempt is made and judged with.
#[derive(Default)]
struct Equipment {
    keys: Arc<[SigningKey]>,
    /// The active schema; none while there is none.
    schema: Option<Arc<Schema>>,
}

/// What became of it.
pub(super) enum End {
    /// Recorded: the commit as it stands, or `None` when it is finished.
    Settled(Option<Box<InboxEntry>>, Box<Source>),
    /// Recorded as one that says nothing of its source; in an inbox of this revision.
    NeverLeft(Box<InboxEntry>, i64),
    /// It was not to be made now, decided of an inbox of this revision.
    NotStarted(NotStartable, i64),
    /// The commit's time was said to be over; none when the database was away.
    Expired(Option<NotStartable>),
    /// The source has another owner.
    Fenced,
    /// The database was away, or no key was there, before anything left.
    Unavailable,
}

impl Attempt {
    /// Makes the attempt. Ends only when its outcome is durable, or another node's business.
    pub(super) async fn run(mut self) -> End {
        crash_point!("attempt.chosen");
        let equipment = self.equipment().await;
        crash_point!("attempt.equipped");
        let (started, commit, asked) = match (self.departed.take(), &equipment) {
            (Some(it), _) => (it.started, Some(it.commit), it.asked),
            (None, None) => return End::Unavailable,
            (None, Some(_)) => {
                let asked = Instant::now();
                match Box::pin(self.start()).await {
                    Ok(Reply::Started(started)) => (Arc::from(started), None, asked),
                    Ok(Reply::NotStartable(why)) => return End::NotStarted(why, self.revision),
                    Ok(Reply::Fenced) => return End::Fenced,
                    Ok(_) | Err(_) => return End::Unavailable,
                }
            }
        };
        crash_point!("attempt.started");
        let may_leave = self.turn(started.timeout).await;
        let span = self.span(&started);
        // The recorded deadline counts from some moment after we asked: no byte leaves after it, even
        // if this process was frozen in between. Nor does one that could not be signed, or that stood
        // by for too long.
        let left = started.timeout.saturating_sub(asked.elapsed());
        let left = equipment
            .as_ref()
            .filter(|_| may_leave)
            .map_or(Duration::ZERO, |_| left);
        let equipment = equipment.unwrap_or_default();
        // In a box, so that what is spawned for each departure is small: a batch waits for that.
        Box::pin(self.deliver((&started, commit.as_deref()), &equipment, left))
            .instrument(span)
            .await
    }

    /// Has the commit rejected, which is not sent: its time is over.
    pub(super) async fn expire(self) -> End {
        let Some(terms) = &self.terms else {
            return End::Expired(Some(NotStartable::Finished));
        };
        let expire = Command::Expire(Expire {
            source: self.desk.source.clone(),
            epoch: self.desk.epoch,
            sequence: self.sequence,
            client_tx_id: terms.client_tx_id.clone(),
            weight: self.weight,
        });
        match self.desk.submit(expire).await {
            Ok(Reply::NotStartable(why)) => End::Expired(Some(why)),
            Ok(_) | Err(_) => End::Expired(None),
        }
    }

    /// What is needed before an attempt is recorded; none when it is not to be had now.
    async fn equipment(&self) -> Option<Equipment> {
        let (tools, organization) = (&self.desk.tools, &self.desk.organization);
        let keys = match tools.keys.signing_keys(organization).await {
            Ok(keys) if keys.is_empty() => {
                tracing::warn!(
                    source.id = self.desk.source,
                    "no live key signs: nothing is sent"
                );
                return None;
            }
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(%error, "the signing keys could not be read");
                return None;
            }
        };
        let schema = tools.schemas.latest(organization).await.ok()?;
        Some(Equipment { keys, schema })
    }

    /// Waits for a slot, if the attempt stands by for one; `false` if it is not to leave.
    async fn turn(&mut self, request: Duration) -> bool {
        let seat = self.seat.as_mut();
        match seat.and_then(|seat| seat.slot.as_mut()) {
            Some(slot) => slot.turn(request).await,
            None => true,
        }
    }

    /// An attempt's span: the first belongs to the trace of the call that brought the commit; later
    /// ones, which may run hours after it, are roots of their own, linked to it.
    fn span(&self, started: &Started) -> Span {
        let span = tracing::info_span!(
            parent: None,
            "attempt",
            commit.id = %started.id,
            source.id = self.desk.source,
            attempt = started.number,
            otel.kind = "client",
        );
        match (&started.traceparent, started.number) {
            (Some(caller), 1) => trace::adopt(&span, caller),
            (Some(caller), _) => trace::link(&span, caller),
            (None, _) => {}
        }
        span
    }

    /// Sends, and settles until the outcome is durable: only this node knows the answer.
    async fn deliver(
        mut self,
        (started, commit): (&Started, Option<&Commit>),
        equipment: &Equipment,
        left: Duration,
    ) -> End {
        let begun = Instant::now();
        let operations = operations(started, commit);
        let case = Case {
            desk: &self.desk,
            started,
            equipment,
            operations: &operations,
            url: self.desk.endpoint(&started.url),
        };
        // Half of the time at most: the commit is sent all the same.
        let looked = case.look_first(left / 2).await;
        let left = left.saturating_sub(begun.elapsed());
        let exchange = self.send(&case, left).await;
        crash_point!("attempt.answered");
        let verdict = case.judge(&exchange).await;
        if matches!(
            verdict.outcome,
            Outcome::Applied(_) | Outcome::Refused { .. }
        ) {
            // The endpoint has room for the next, also before this one is recorded. After a failure
            // that is for the record to say.
            let slot = self.seat.as_mut().and_then(|seat| seat.slot.take());
            if let Some(slot) = slot {
                slot.answered(exchange.elapsed, started.timeout);
            }
        }
        let settle = Settle {
            never_left: left.is_zero(),
            rows: case.operations.iter().map(Operation::key).collect(),
            unclear: self.unclear(started, case.operations),
            read_back: verdict.read_back.or(looked).map(Box::new),
            ..self.record(started, &exchange, verdict.outcome)
        };
        let verdict_applied = matches!(settle.outcome, Outcome::Applied(_));
        let outcome = settle.outcome.as_str();
        self.desk.tools.metrics.attempt(outcome, exchange.elapsed);
        tracing::debug!(
            outcome,
            http.status = exchange.status,
            "attempt ended: {outcome}"
        );
        crash_point!("attempt.judged");
        if broken::is(Control::SettleLater) && verdict_applied {
            return self.settle_later(settle);
        }
        let end = self.settle(settle).await;
        crash_point!("attempt.settled");
        if let (End::Settled(entry, _), Some(seat)) = (&end, &self.seat) {
            seat.flying.landed(started.number, entry.is_none());
        }
        match end {
            End::Settled(Some(entry), source) if left.is_zero() => {
                End::NeverLeft(entry, source.inbox_revision)
            }
            end => end,
        }
    }

    async fn settle(&self, mut settle: Settle) -> End {
        let mut pause = SETTLE_AGAIN;
        let mut whole = true;
        loop {
            let command = Command::Settle(settle.clone());
            match self.desk.submit(command).await {
                Ok(Reply::Settled(entry, source)) => {
                    return End::Settled(entry, source);
                }
                Ok(Reply::Denied(source)) => {
                    let of = (&self.desk.organization, self.desk.source.as_str());
                    tell_denied(&self.desk.tools.metrics, of, &settle.client_tx_id);
                    return End::Settled(None, source);
                }
                Ok(_) => {
                    tracing::warn!("fenced: an answer came after the source had changed hands");
                    return End::Fenced;
                }
                Err(error) if whole && error.is_about_the_statement() => {
                    tracing::error!(
                        client_tx_id = settle.client_tx_id,
                        %error,
                        cause = ?error,
                        "an answer cannot be recorded: it is taken for none"
                    );
                    settle = without_answer(settle);
                    whole = false;
                }
                Err(error) => {
                    tracing::warn!(%error, "an answer is not recorded yet");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(SETTLE_SELDOM);
                }
            }
        }
    }

    /// Moves on, and settles some time after.
    fn settle_later(self, settle: Settle) -> End {
        let (tasks, revision) = (self.desk.tools.tasks.clone(), self.revision);
        tasks.spawn(async move {
            tokio::time::sleep(SETTLE_AGAIN.mul_f64(8.0 * settle.jitter)).await;
            self.settle(settle).await;
        });
        End::NotStarted(NotStartable::Finished, revision)
    }

    /// A commit that was sent before may have taken effect before an event that came in between: what
    /// the endpoint answered for its rows may then be older than they are.
    fn unclear(&self, started: &Started, operations: &[Operation]) -> Vec<RowKey> {
        let seat = self.seat.as_ref();
        let unclear = seat.map(|seat| seat.flying.unclear(started.number));
        let unclear = unclear.unwrap_or_default();
        if unclear.is_empty() {
            return Vec::new();
        }
        let rows = operations.iter().map(Operation::key);
        rows.filter(|row| unclear.contains(&lane(&self.desk.organization, &row.model, &row.id)))
            .collect()
    }

    async fn start(&self) -> Result<Reply, Error> {
        let start = Start {
            source: self.desk.source.clone(),
            epoch: self.desk.epoch,
            sequence: self.sequence,
            node: self.desk.node,
            terms: self.terms.clone(),
            revision: self.revision,
            weight: self.weight,
        };
        self.desk.submit(Command::Start(start)).await
    }

    async fn send(&self, case: &Case<'_>, left: Duration) -> Exchange {
        if left.is_zero() {
            let message = "it was not sent: its time was over, no request made room for it, or the source was to be left alone";
            return Exchange::failed(FailureClass::TimeoutConnect, message);
        }
        let (started, keys) = (case.started, &case.equipment.keys);
        let url = match &case.url {
            Ok(url) => url,
            Err(fault) => {
                return Exchange::failed(FailureClass::AddressForbidden, fault.to_string());
            }
        };
        let fresh = broken::is(Control::FreshId) && started.number > 1;
        let id = if fresh { Uuid::new_v4() } else { started.id.0 };
        let webhook_id = CommitId(id).to_string();
        // Without tracing of our own the endpoint still sees the caller's trace, on the first attempt.
        let submitted = started
            .traceparent
            .as_deref()
            .filter(|_| started.number == 1);
        let request = Request {
            url,
            webhook_id: &webhook_id,
            body: started.body.clone(),
            keys,
            timeout: left,
            traceparent: Some(&trace::outgoing(submitted)),
            kind: RequestKind::Commit,
        };
        self.desk.tools.endpoints.send(request).await
    }

    fn record(&self, started: &Started, exchange: &Exchange, outcome: Outcome) -> Settle {
        Settle {
            source: self.desk.source.clone(),
            epoch: self.desk.epoch,
            sequence: self.sequence,
            client_tx_id: started.client_tx_id.clone(),
            started_at: started.started_at,
            duration: exchange.elapsed,
            http_status: exchange.status,
            url: started.url.clone(),
            trigger: started.trigger,
            outcome,
            may_still_apply: !exchange.cannot_apply(),
            excerpt: exchange
                .status
                .filter(|status| *status != 200)
                .map(|_| excerpt(&exchange.body)),
            rows: Vec::new(),
            unclear: Vec::new(),
            read_back: None,
            never_left: false,
            jitter: rand::random(),
            certificate_expires_at: exchange.certificate_expires_at.map(Into::into),
        }
    }
}

/// What is sent: the commit's operations, where it is at hand and all of them are, or the body's.
fn operations<'a>(started: &Started, commit: Option<&'a Commit>) -> Cow<'a, [Operation]> {
    let asked = commit.map(|commit| commit.operations.as_slice());
    let whole = |all: &&[Operation]| wire::sent(all).count() == all.len();
    asked.filter(whole).map_or_else(
        || {
            let sent = wire::operations(&started.body);
            Cow::Owned(sent.expect("the inbox holds bodies that we wrote"))
        },
        Cow::Borrowed,
    )
}

/// What can be recorded of an attempt whose answer cannot: its commit is sent again on the schedule.
fn without_answer(settle: Settle) -> Settle {
    let error = AttemptError {
        class: NOT_RECORDED.to_owned(),
        message: "the database refused to keep the answer".to_owned(),
    };
    Settle {
        outcome: Outcome::Unknown { error },
        may_still_apply: true,
        excerpt: None,
        read_back: None,
        certificate_expires_at: None,
        ..settle
    }
}
