//! A commit, from the admitted intent to its receipt.

use std::sync::Arc;
use std::time::Duration;

use backends::data_source::wire::{self, LONGEST_COMMIT, Scope};
use bytes::Bytes;
use proto::v1;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Instrument;

use super::Service;
use crate::admit;
use crate::admit::schema::Schema;
use crate::broken::crash_point;
use crate::decide::{Accept, Command, LedgerEntry, Reply};
use crate::domain::{Caller, Commit, CommitState, Receipt, Route};
use crate::refusal::{Class, Refusal};
use crate::telemetry::trace;
use crate::wake::Waiter;

/// A caller that waits looks this often without being woken: its commit may be settled on another
/// node, and a wake-up may be lost.
const LOOK: Duration = Duration::from_secs(1);

/// The reason of a refusal of a commit that its endpoint could not repeat in its answer.
const TOO_LARGE: &str = "commit_too_large";

/// Schemas that may be pushed while one call is on its way.
pub(super) const SCHEMA_MOVES: usize = 8;

impl Service {
    /// Decides a commit. With `WAIT_QUEUED`, answers as soon as it is durable; otherwise when it is
    /// settled, or at `deadline` with the durable receipt.
    ///
    /// Dropping the call changes nothing: once submitted, the commit is decided and delivered.
    pub async fn commit(
        &self,
        caller: &Caller,
        request: v1::CommitRequest,
        traceparent: Option<String>,
        deadline: Instant,
    ) -> Result<Receipt, Refusal> {
        let span = tracing::info_span!(
            "commit",
            commit.client_tx_id = request.client_tx_id,
            otel.kind = "server",
        );
        if let Some(traceparent) = &traceparent {
            trace::adopt(&span, traceparent);
        }
        let answer = self.answer(caller, request, traceparent, deadline);
        answer.instrument(span).await
    }

    async fn answer(
        &self,
        caller: &Caller,
        request: v1::CommitRequest,
        traceparent: Option<String>,
        deadline: Instant,
    ) -> Result<Receipt, Refusal> {
        // The attempts that follow, here or on another node, belong to this span's trace.
        let traceparent = trace::current().or(traceparent);
        let settles = request.wait() != v1::Wait::Queued;
        let organization = &caller.organization;
        let client_tx_id = request.client_tx_id.clone();
        let mut waiter = self.wake.commit(organization, &client_tx_id);
        crash_point!("accept.received");
        let decided = self.decide(caller, request, traceparent).await;
        let (route, outcome) = label(decided.as_ref());
        self.metrics.commit(route, outcome);
        crash_point!("accept.decided");
        match decided? {
            Decided::Receipt(receipt) => Ok(*receipt),
            Decided::Entry(entry) => {
                let pending = entry.state == CommitState::Queued && !entry.dead;
                if pending && settles {
                    return self.settled(caller, &entry, (&mut waiter, deadline)).await;
                } else if pending {
                    return Ok(entry.receipt());
                }
                self.recorded(caller, &client_tx_id, Some(entry.accepted_at))
                    .await
            }
        }
    }

    /// The recorded receipt.
    pub async fn receipt(&self, caller: &Caller, client_tx_id: &str) -> Result<Receipt, Refusal> {
        self.recorded(caller, client_tx_id, None).await
    }

    async fn recorded(
        &self,
        caller: &Caller,
        client_tx_id: &str,
        accepted_at: Option<OffsetDateTime>,
    ) -> Result<Receipt, Refusal> {
        crash_point!("receipt.read");
        let receipt = self
            .store
            .receipt_since(&caller.organization, client_tx_id, accepted_at)
            .await?;
        receipt.ok_or_else(|| {
            Refusal::new(
                Class::NotFound,
                "commit_not_found",
                "there is no such commit",
            )
            .with("client_tx_id", client_tx_id)
        })
    }

    /// Admits and submits, again if the schema moves in between.
    async fn decide(
        &self,
        caller: &Caller,
        request: v1::CommitRequest,
        traceparent: Option<String>,
    ) -> Result<Decided, Refusal> {
        let organization = &caller.organization;
        let weight = request
            .operations
            .iter()
            .map(|one| one.input_json.len())
            .sum();
        for _ in 0..SCHEMA_MOVES {
            let admit = |schema: &Schema| admit(caller, &request, schema, traceparent.clone());
            let (schema, (commit, body)) = match self.schemas.checked(organization, admit).await {
                Err(refusal) if by_schema(&refusal) => {
                    self.replayed(caller, &request, refusal).await?
                }
                admitted => admitted?,
            };
            let accept = Accept {
                commit: Arc::new(commit),
                schema,
                body,
                weight,
            };
            crash_point!("accept.admitted");
            let reply = self
                .flushers
                .submit(&caller.organization, Command::Accept(accept))
                .await?;
            match reply {
                Reply::Confirmed(receipt) => return Ok(Decided::Receipt(receipt)),
                Reply::Queued(entry, _) | Reply::Replay(entry) => {
                    return Ok(Decided::Entry(entry));
                }
                Reply::Refused(refusal) => return Err(*refusal),
                Reply::SchemaMoved(version) => {
                    self.schemas.refresh(organization, version).await?;
                }
                reply => return Err(unexpected(&reply)),
            }
        }
        let message = "the schema changed again and again while the call was decided";
        Err(Refusal::new(Class::Unavailable, "schema_moving", message).retry_after(LOOK))
    }

    /// A commit that the active schema refuses may be a replay of one that an older schema took.
    async fn replayed(
        &self,
        caller: &Caller,
        request: &v1::CommitRequest,
        refusal: Refusal,
    ) -> Result<(Arc<Schema>, Admitted), Refusal> {
        let (organization, name) = (&caller.organization, &request.client_tx_id);
        let Some(version) = self.store.admitted_under(organization, name).await? else {
            return Err(refusal);
        };
        let older = self.schemas.of_version(organization, version).await?;
        let admitted = admit(caller, request, &older, None).map_err(|_| refusal)?;
        Ok((older, admitted))
    }

    /// The receipt of a commit that is pending, once it is settled or dead; at the deadline, as it
    /// stands. Settled on this node, it comes with the ring; the rest is looked up. The waiter is older
    /// than what is known of the commit, so that no ring is missed.
    async fn settled(
        &self,
        caller: &Caller,
        entry: &LedgerEntry,
        (waiter, deadline): (&mut Waiter<'_, Option<Arc<Receipt>>>, Instant),
    ) -> Result<Receipt, Refusal> {
        let (organization, client_tx_id) = (&caller.organization, &entry.client_tx_id);
        let recorded = || self.recorded(caller, client_tx_id, Some(entry.accepted_at));
        loop {
            let look = deadline.min(Instant::now() + LOOK);
            let rung = tokio::select! {
                () = waiter.rung() => true,
                () = tokio::time::sleep_until(look) => false,
                () = self.draining.cancelled() => return recorded().await,
            };
            if let Some(receipt) = waiter.receipt() {
                return Ok(receipt);
            }
            let over = Instant::now() >= deadline;
            // A ring is worth the whole receipt at once; a look on the off chance is not.
            if rung || over || self.store.settled(organization, client_tx_id).await? {
                let receipt = recorded().await?;
                if over || receipt.dead || receipt.state != CommitState::Queued {
                    return Ok(receipt);
                }
            }
        }
    }
}

/// Whether another schema might have taken the commit.
fn by_schema(refusal: &Refusal) -> bool {
    let reason = refusal.reason;
    reason.starts_with("field_")
        || ["model_unknown", "commit_backing_mixed", TOO_LARGE].contains(&reason)
}

/// What the ledger says of a commit.
enum Decided {
    Receipt(Box<Receipt>),
    Entry(Box<LedgerEntry>),
}

fn label(decided: Result<&Decided, &Refusal>) -> (&'static str, &'static str) {
    let (source, state) = match decided {
        Ok(Decided::Receipt(receipt)) => (&receipt.source, receipt.state),
        Ok(Decided::Entry(entry)) => (&entry.source, entry.state),
        Err(refusal) => return ("none", refusal.reason),
    };
    (
        if source.is_some() {
            "data_source"
        } else {
            "managed"
        },
        state.as_str(),
    )
}

/// A commit, and for a Data Source the exact bytes that it will be sent.
type Admitted = (Commit, Option<Bytes>);

fn admit(
    caller: &Caller,
    request: &v1::CommitRequest,
    schema: &Schema,
    traceparent: Option<String>,
) -> Result<Admitted, Refusal> {
    let commit = admit::commit(request.clone(), schema, traceparent)?;
    let sends = wire::sent(&commit.operations).next().is_some();
    if commit.route == Route::Managed || !sends {
        return Ok((commit, None));
    }
    let scope = Scope {
        participant_id: Some(commit.participant.id.clone()),
        participant_kind: Some(commit.participant.kind.as_str().to_owned()),
        organization_id: Some(caller.organization.to_string()),
        required_sync_groups: commit.required_sync_groups.clone(),
        mode: Some(caller.mode.as_str().to_owned()),
    };
    let intent_hash = hex(&commit.fingerprint);
    let (name, operations) = (&commit.client_tx_id, &commit.operations);
    let body = Bytes::from(wire::commit_body(name, &intent_hash, operations, &scope));
    if body.len() > LONGEST_COMMIT {
        let rule = format!(
            "come to {} bytes; at most {LONGEST_COMMIT} are sent",
            body.len()
        );
        return Err(Refusal::field(TOO_LARGE, "operations", rule));
    }
    Ok((commit, Some(body)))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes every write");
            text
        })
}

/// A reply that does not answer its command: a fault of ours.
pub(super) fn unexpected(reply: &Reply) -> Refusal {
    tracing::error!(?reply, "a command got a reply that does not answer it");
    Refusal::internal()
}
