//! A commit for a Data Source: made durable in its inbox, to be delivered.

use std::collections::BTreeSet;
use std::time::Duration;

use backends::data_source::wire;
use backends::operation::{OnStale, Operation};
use sha2::{Digest, Sha256};

use super::{entry, record, stale};
use crate::decide::append::Append;
use crate::decide::state::{InboxEntry, LedgerEntry, Source, State};
use crate::decide::{Accept, Guard, Reply, start, versions};
use crate::domain::{Commit, CommitState, OrganizationId, SourceState};
use crate::refusal::{Class, Refusal};

/// When a caller whose source has too much to do may ask again.
const TOO_DEEP: Duration = Duration::from_secs(5);

/// Makes the intent durable: from here on it is delivered, whatever happens to this node.
pub(super) fn enqueue(
    organization: &OrganizationId,
    state: &mut State,
    append: &mut Append,
    (accept, source): (&Accept, &str),
) -> Result<Reply, Refusal> {
    let commit = &accept.commit;
    let flagged = flagged(state, commit)?;
    let Some(target) = state.sources.get_mut(source) else {
        return Err(source_gone(source));
    };
    if target.state == SourceState::Disabled {
        return Err(source_disabled(source, &target.state_reason));
    }
    let Some(body) = &accept.body else {
        let entry = entry(state, accept, CommitState::Confirmed);
        let receipt = entry.receipt();
        record(state, append, entry);
        return Ok(Reply::Confirmed(Box::new(receipt)));
    };
    if target.pending >= target.settings.max_pending {
        return Err(queue_too_deep(target));
    }
    target.inbox_sequence += 1;
    target.pending += 1;
    let sequence = target.inbox_sequence;
    append.put_source(target, false);
    let sent: Vec<(usize, &Operation)> = wire::sent(&commit.operations).collect();
    let mut pending = InboxEntry {
        source: source.to_owned(),
        sequence,
        client_tx_id: commit.client_tx_id.clone(),
        id: commit.id,
        body: body.clone(),
        lanes: lanes(organization, &commit.operations),
        dead: false,
        positions: positions(commit, &sent),
        flagged,
        attempts: 0,
        spent: 0,
        due_at: state.now,
        failed_at: None,
        open: None,
        may_apply_until: None,
        last_error: None,
        traceparent: commit.traceparent.clone(),
        accepted_at: state.now,
        expires_at: commit.expires_at,
        next_cause: None,
        echoed: false,
        first_failed_at: None,
        read_back: None,
        guards: guards(commit),
        schema_version: Some(accept.schema.version),
    };
    start::depart(state, append, (commit, &mut pending));
    let rows = sent.iter().map(|(_, operation)| operation.key());
    versions::accepted(state, append, rows);
    append.inbox.push(pending.clone());
    state.inbox.insert((source.to_owned(), sequence), pending);
    let entry = LedgerEntry {
        sequence: Some(sequence),
        ..entry(state, accept, CommitState::Queued)
    };
    record(state, append, entry.clone());
    Ok(Reply::Queued(Box::new(entry), sequence))
}

/// Positions of its operations that are stale and say FLAG.
fn flagged(state: &State, commit: &Commit) -> Result<Vec<i16>, Refusal> {
    let mut flagged = Vec::new();
    for (index, operation) in commit.operations.iter().enumerate() {
        let version = state.versions.get(&operation.key());
        if stale(index, operation, version.copied())? {
            flagged.extend(i16::try_from(index).ok());
        }
    }
    Ok(flagged)
}

/// Its operations that are judged again when the first attempt starts. FORCE is not, nor what is
/// not sent.
fn guards(commit: &Commit) -> Vec<Guard> {
    wire::sent(&commit.operations)
        .filter(|(_, operation)| operation.on_stale != OnStale::Force)
        .filter_map(|(position, operation)| {
            Some(Guard {
                operation: i16::try_from(position).ok()?,
                model: operation.model.clone(),
                id: operation.id.clone(),
                read_at: operation.read_at?,
                flag: operation.on_stale == OnStale::Flag,
            })
        })
        .collect()
}

/// Positions of the operations that are sent; empty when all are.
fn positions(commit: &Commit, sent: &[(usize, &Operation)]) -> Vec<i16> {
    if sent.len() == commit.operations.len() {
        return Vec::new();
    }
    sent.iter()
        .filter_map(|(position, _)| i16::try_from(*position).ok())
        .collect()
}

/// The lanes of the rows that these operations touch, of those that are sent. Two rows that collide
/// share a lane, which costs them parallelism and nothing else.
pub fn lanes(organization: &OrganizationId, operations: &[Operation]) -> Vec<i64> {
    let lanes: BTreeSet<i64> = wire::sent(operations)
        .map(|(_, operation)| lane(organization, &operation.model, &operation.id))
        .collect();
    lanes.into_iter().collect()
}

/// A row's lane: a stable hash of its name.
pub fn lane(organization: &OrganizationId, model: &str, id: &str) -> i64 {
    let mut hash = Sha256::new();
    for part in [organization.as_str(), model, id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let first = digest.iter().take(8);
    first.fold(0, |lane, byte| (lane << 8) | i64::from(*byte))
}

fn source_gone(source: &str) -> Refusal {
    let message = "the model's Data Source does not exist";
    Refusal::new(Class::Precondition, "source_unknown", message).with("data_source", source)
}

fn source_disabled(source: &str, reason: &str) -> Refusal {
    let message = "the model's Data Source is disabled";
    let refusal = Refusal::new(Class::Precondition, "source_disabled", message);
    refusal
        .with("data_source", source)
        .with("state_reason", reason)
}

fn queue_too_deep(source: &Source) -> Refusal {
    let message = "too many commits wait for the model's Data Source";
    Refusal::new(Class::Exhausted, "queue_too_deep", message)
        .with("data_source", &source.id)
        .with("max_pending", source.settings.max_pending)
        .retry_after(TOO_DEEP)
}
