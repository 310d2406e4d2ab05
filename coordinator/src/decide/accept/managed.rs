//! A commit on managed rows: applied at once, under the positions that follow the head's.

use backends::json::Document;
use backends::managed::{self, Effect, ManagedRow};
use backends::operation::{Change, Operation, OperationKind, RowKey};

use super::{entry, record, stale};
use crate::decide::append::{Append, DeltaRow};
use crate::decide::groups::{Membership, of_row};
use crate::decide::state::{RowVersion, State, StoredRow};
use crate::decide::{Accept, Reply};
use crate::domain::{CommitState, Delta, Receipt};
use crate::refusal::{Class, Refusal};

/// Applies every operation, or none.
pub(super) fn apply(
    state: &mut State,
    append: &mut Append,
    accept: &Accept,
) -> Result<Reply, Refusal> {
    let commit = &accept.commit;
    let effects = effects(state, accept)?;
    let before = state.head.last_sync_id;
    let mut deltas = Vec::with_capacity(effects.len());
    for Applied {
        key,
        change,
        row,
        stale,
    } in effects
    {
        state.head.last_sync_id += 1;
        let delta = Delta {
            sync_id: state.head.last_sync_id,
            change,
            stale,
        };
        let groups = |row: &ManagedRow| of_row(&accept.schema, &key.model, &row.row);
        let stood = state.rows.get(&key);
        let added = stood.is_none() && !append.rows.contains_key(&key);
        let before = stood.map(|stored| groups(&stored.row));
        let stood_at = stood.and_then(|stored| stored.stood_at.clone());
        let membership = Membership::of(
            delta.change.kind,
            before.unwrap_or_default(),
            row.as_ref().map(groups).unwrap_or_default(),
        );
        let stored = row.map(|row| StoredRow {
            row,
            sync_id: delta.sync_id,
            stood_at,
        });
        if let Some(stored) = &stored {
            state.rows.insert(key.clone(), stored.clone());
        } else {
            state.rows.remove(&key);
            state.removed.insert(key.clone(), delta.sync_id);
        }
        state.models_in_use.insert(key.model.clone());
        if added {
            append.rows_added.insert(key.clone());
        }
        append.rows.insert(key, stored);
        append.deltas.push(DeltaRow {
            delta: delta.clone(),
            client_tx_id: Some(commit.client_tx_id.clone()),
            participant: Some(commit.participant.clone()),
            membership,
        });
        deltas.push(delta);
    }
    let after = state.head.last_sync_id;
    let mut entry = entry(state, accept, CommitState::Confirmed);
    entry.sync_ids = (after > before).then_some((before + 1, after));
    let receipt = Receipt {
        deltas,
        ..entry.receipt()
    };
    record(state, append, entry);
    Ok(Reply::Confirmed(Box::new(receipt)))
}

/// One operation's effect on its row.
struct Applied {
    key: RowKey,
    change: Change,
    row: Option<ManagedRow>,
    stale: bool,
}

/// What every operation does to its row, or why one cannot.
fn effects(state: &State, accept: &Accept) -> Result<Vec<Applied>, Refusal> {
    let mut applied = Vec::with_capacity(accept.commit.operations.len());
    for (index, operation) in accept.commit.operations.iter().enumerate() {
        let key = operation.key();
        let stored = state.rows.get(&key);
        let changed = stored.map(|row| row.sync_id);
        let changed = changed.or_else(|| state.removed.get(&key).copied());
        let version = changed.map(|sync_id| RowVersion {
            sync_id,
            unsettled: 0,
        });
        let stale = stale(index, operation, version)?;
        let effect = managed::apply(stored.map(|stored| &stored.row), operation)
            .map_err(|refusal| refused(index, operation, refusal))?;
        let row = match effect {
            Effect::Unchanged => continue,
            Effect::Put(row) => Some(row),
            Effect::Remove => None,
        };
        let fields = row.as_ref().map(|row| row.row.clone());
        if let Some(fields) = &fields
            && operation.kind != OperationKind::Create
        {
            check(accept, index, operation, fields)?;
        }
        let change = Change {
            operation: Some(index),
            kind: operation.kind,
            model: key.model.clone(),
            id: key.id.clone(),
            row: fields,
            transaction_id: operation.transaction_id.clone(),
        };
        applied.push(Applied {
            key,
            change,
            row,
            stale,
        });
    }
    Ok(applied)
}

/// The merged row must satisfy the model as a whole: only here is it known. That of a CREATE is
/// what was admitted.
fn check(
    accept: &Accept,
    index: usize,
    operation: &Operation,
    row: &Document,
) -> Result<(), Refusal> {
    let model = accept
        .schema
        .model(&operation.model)
        .expect("the commit was admitted under this very schema");
    model
        .check_value(row.value())
        .map_err(|fault| fault.refusal(index, &operation.model))
}

fn refused(index: usize, operation: &Operation, refusal: managed::Refusal) -> Refusal {
    let (class, reason, message) = match refusal {
        managed::Refusal::Exists => (Class::Exists, "entity_exists", "the row exists already"),
        managed::Refusal::NotFound => (Class::NotFound, "entity_not_found", "there is no such row"),
    };
    Refusal::new(class, reason, message)
        .at_operation(index)
        .with("model", &operation.model)
        .with("id", &operation.id)
}
