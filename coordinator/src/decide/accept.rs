//! Accepting a commit: once, all or nothing, and in the order of decision.

mod managed;
mod source;

use backends::operation::{OnStale, Operation};

use super::append::Append;
use super::state::{LedgerEntry, State, Touched};
use super::{Accept, Reply};
use crate::domain::{Commit, CommitState, OrganizationId, Route};
use crate::refusal::{Class, Refusal};

pub(super) fn touch(accept: &Accept, touched: &mut Touched) {
    let commit = &accept.commit;
    touched.commits.push(commit.client_tx_id.clone());
    match &commit.route {
        Route::Managed => touched
            .rows
            .extend(commit.operations.iter().map(Operation::key)),
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
    if let Some(refusal) = read_ahead(state, commit) {
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

/// Whether the row changed after `read_at`, unless that refuses the commit (contract, section 5).
fn stale(index: usize, operation: &Operation, sync_id: Option<i64>) -> Result<bool, Refusal> {
    let (Some(read_at), Some(sync_id)) = (operation.read_at, sync_id) else {
        return Ok(false);
    };
    if sync_id <= read_at {
        return Ok(false);
    }
    match operation.on_stale {
        OnStale::Reject => Err(Refusal::new(
            Class::Aborted,
            "stale_context",
            "the row has changed since it was read",
        )
        .at_operation(index)
        .with("model", &operation.model)
        .with("id", &operation.id)
        .with("read_at", read_at)
        .with("sync_id", sync_id)),
        OnStale::Force => Ok(false),
        OnStale::Flag => Ok(true),
    }
}

fn entry(state: &State, accept: &Accept, standing: CommitState) -> LedgerEntry {
    let commit = &accept.commit;
    LedgerEntry {
        client_tx_id: commit.client_tx_id.clone(),
        id: commit.id,
        fingerprint: commit.fingerprint,
        participant: commit.participant.clone(),
        source: match &commit.route {
            Route::Managed => None,
            Route::Source(source) => Some(source.clone()),
        },
        schema_version: accept.schema.version,
        state: standing,
        dead: false,
        sync_ids: None,
        error: None,
        assigned: commit.assigned.clone(),
        attempts: 0,
        accepted_at: state.now,
        settled_at: (standing != CommitState::Queued).then_some(state.now),
    }
}

fn record(state: &mut State, append: &mut Append, entry: LedgerEntry) {
    append.commits.push(entry.clone());
    state.ledger.insert(entry.client_tx_id.clone(), entry);
}
