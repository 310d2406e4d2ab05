//! A commit for a Data Source: made durable in its inbox, to be delivered.

use std::collections::BTreeSet;

use backends::data_source::wire;
use backends::operation::Operation;
use sha2::{Digest, Sha256};

use super::{entry, record, stale};
use crate::decide::append::Append;
use crate::decide::state::{InboxEntry, State};
use crate::decide::{Accept, Reply};
use crate::domain::{Commit, CommitState, OrganizationId, SourceState};
use crate::refusal::{Class, Refusal};

/// Makes the intent durable: from here on it is delivered, whatever happens to this node.
pub(super) fn enqueue(
    organization: &OrganizationId,
    state: &mut State,
    append: &mut Append,
    (accept, source): (&Accept, &str),
) -> Result<Reply, Refusal> {
    let commit = &accept.commit;
    let mut flagged = Vec::new();
    for (index, operation) in commit.operations.iter().enumerate() {
        let version = state.versions.get(&operation.key());
        if stale(index, operation, version.copied())? {
            flagged.extend(i16::try_from(index).ok());
        }
    }
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
    target.inbox_sequence += 1;
    target.pending += 1;
    let sequence = target.inbox_sequence;
    append.put_source(target, false);
    let sent: Vec<(usize, &Operation)> = wire::sent(&commit.operations).collect();
    let pending = InboxEntry {
        source: source.to_owned(),
        sequence,
        client_tx_id: commit.client_tx_id.clone(),
        id: commit.id,
        body: body.clone(),
        lanes: lanes(organization, &sent),
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
    };
    append.inbox.push(pending.clone());
    state.inbox.insert((source.to_owned(), sequence), pending);
    let entry = entry(state, accept, CommitState::Queued);
    record(state, append, entry.clone());
    Ok(Reply::Queued(Box::new(entry), sequence))
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

/// Stable hashes of the rows that these operations touch. Two rows that collide share a lane, which
/// costs them parallelism and nothing else.
fn lanes(organization: &OrganizationId, sent: &[(usize, &Operation)]) -> Vec<i64> {
    let lanes: BTreeSet<i64> = sent
        .iter()
        .map(|(_, operation)| {
            let mut hash = Sha256::new();
            for part in [organization.as_str(), &operation.model, &operation.id] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
            let digest = hash.finalize();
            let (first, _) = digest
                .split_first_chunk::<8>()
                .expect("SHA-256 has 32 bytes");
            i64::from_be_bytes(*first)
        })
        .collect();
    lanes.into_iter().collect()
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
