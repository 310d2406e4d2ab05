//! Accepting a commit: once, all or nothing, and in the order of decision.

mod managed;
mod source;

pub use source::{lane, lanes};

use backends::operation::{OnStale, Operation};

use super::append::Append;
use super::state::{LedgerEntry, RowVersion, State, Touched};
use super::{Accept, Reply};
use crate::domain::{Commit, CommitState, OrganizationId, Route};
use crate::refusal::{Class, Refusal};

pub(super) fn touch(accept: &Accept, touched: &mut Touched) {
    let commit = &accept.commit;
    touched.commits.push(commit.client_tx_id.clone());
    match &commit.route {
        Route::Managed => {
            let operations = commit.operations.iter();
            touched.rows.extend(operations.clone().map(Operation::key));
            let judged = operations.filter(|it| it.read_at.is_some());
            let judged = judged.filter(|it| it.on_stale != OnStale::Force);
            touched.viewed.extend(judged.map(Operation::key));
        }
        Route::Source(source) => {
            touched.sources.push(source.clone());
            let read = commit.operations.iter().filter(|it| it.read_at.is_some());
            touched.versions.extend(read.map(Operation::key));
        }
    }
}

pub(super) fn accept(
    organization: &OrganizationId,
    state: &mut State,
    append: &mut Append,
    accept: &Accept,
) -> Reply {
    let commit = &accept.commit;
    if let Some(entry) = state.ledger.get(&commit.client_tx_id) {
        return if entry.fingerprint == commit.fingerprint {
            Reply::Replay(Box::new(entry.clone()))
        } else {
            Reply::Refused(Box::new(conflict(commit)))
        };
    }
    if state.head.schema_version != accept.schema.version {
        return Reply::SchemaMoved(state.head.schema_version);
    }
    if let Some(refusal) = read_ahead(state, commit).or_else(|| expired(state, commit)) {
        return Reply::Refused(Box::new(refusal));
    }
    let reply = match &commit.route {
        Route::Managed => managed::apply(state, append, accept),
        Route::Source(source) => source::enqueue(organization, state, append, (accept, source)),
    };
    reply.unwrap_or_else(|refusal| Reply::Refused(Box::new(refusal)))
}

/// A view cannot rest on a position that the log has not reached.
fn read_ahead(state: &State, commit: &Commit) -> Option<Refusal> {
    let last = state.head.last_sync_id;
    let ahead = |operation: &Operation| operation.read_at.is_some_and(|read_at| read_at > last);
    let index = commit.operations.iter().position(ahead)?;
    let rule = format!("is beyond the log, which ends at {last}");
    let field = format!("operations[{index}].read_at");
    Some(Refusal::field("read_at_invalid", field, rule).at_operation(index))
}

fn conflict(commit: &Commit) -> Refusal {
    Refusal::new(
        Class::Exists,
        "idempotency_conflict",
        "this client_tx_id was used for another intent or by another participant",
    )
    .with("client_tx_id", &commit.client_tx_id)
}

fn expired(state: &State, commit: &Commit) -> Option<Refusal> {
    let over = commit.expires_at.is_some_and(|at| at <= state.now);
    over.then(|| {
        let message = "the commit's `expire_time` is over";
        Refusal::new(Class::Precondition, "commit_expired", message)
    })
}

/// Whether the row changed after `read_at`, or may yet by a commit that is pending on it, unless
/// that refuses the commit.
fn stale(
    index: usize,
    operation: &Operation,
    version: Option<RowVersion>,
) -> Result<bool, Refusal> {
    let (Some(read_at), Some(version)) = (operation.read_at, version) else {
        return Ok(false);
    };
    let pending = version.unsettled > 0;
    if version.sync_id <= read_at && !pending {
        return Ok(false);
    }
    if operation.on_stale != OnStale::Reject {
        return Ok(operation.on_stale == OnStale::Flag);
    }
    Err(stale_context(
        (index, &operation.model, &operation.id),
        read_at,
        version,
    ))
}

/// The refusal of an operation whose view of its row is out of date.
pub(super) fn stale_context(
    (index, model, id): (usize, &str, &str),
    read_at: i64,
    version: RowVersion,
) -> Refusal {
    let message = if version.sync_id > read_at {
        "the row has changed since it was read"
    } else {
        "a commit that is pending will change the row"
    };
    let mut refusal = Refusal::new(Class::Aborted, "stale_context", message)
        .at_operation(index)
        .with("model", model)
        .with("id", id)
        .with("read_at", read_at);
    if version.sync_id > 0 {
        refusal = refusal.with("sync_id", version.sync_id);
    }
    if version.unsettled > 0 {
        refusal = refusal.with("pending", "true");
    }
    refusal
}

fn entry(state: &State, accept: &Accept, standing: CommitState) -> LedgerEntry {
    let commit = &accept.commit;
    let source = match &commit.route {
        Route::Managed => None,
        Route::Source(source) => Some(source.clone()),
    };
    let read_at = |source: &String| state.sources.get(source)?.feed_read_at;
    LedgerEntry {
        client_tx_id: commit.client_tx_id.clone(),
        id: commit.id,
        fingerprint: commit.fingerprint,
        participant: commit.participant.clone(),
        feed_read_at: source.as_ref().and_then(read_at),
        source,
        schema_version: accept.schema.version,
        state: standing,
        dead: false,
        sync_ids: None,
        error: None,
        assigned: commit.assigned.clone(),
        attempts: 0,
        accepted_at: state.now,
        settled_at: (standing != CommitState::Queued).then_some(state.now),
        reentered_at: None,
        sequence: None,
    }
}

fn record(state: &mut State, append: &mut Append, entry: LedgerEntry) {
    append.commits.push(entry.clone());
    state.ledger.insert(entry.client_tx_id.clone(), entry);
}
