//! How a receipt looks, and whether it is a success.

use proto::v1;
use serde_json::{Value, json};

use super::output::{Output, note};
use super::schemas::parsed;
use super::status::moment;
use crate::failure::Failure;

/// Shows a receipt. A rejected commit is a failure, a queued one is not.
pub(super) fn show(receipt: &v1::Receipt, output: &mut Output) -> Result<(), Failure> {
    describe(receipt, output)?;
    verdict(receipt)
}

/// Shows a receipt, whatever it says.
pub(super) fn describe(receipt: &v1::Receipt, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        output.line(&receipt_json(receipt).to_string())
    } else {
        show_to_a_person(receipt, output)
    }
}

/// A failure, if the commit was rejected.
pub(super) fn verdict(receipt: &v1::Receipt) -> Result<(), Failure> {
    match (receipt.state(), &receipt.error) {
        (v1::CommitState::Rejected, Some(error)) => {
            let message = format!("{} was rejected: {}", receipt.client_tx_id, error.message);
            Err(Failure::refused(message).because(&error.code))
        }
        (v1::CommitState::Rejected, None) => Err(Failure::refused(format!(
            "{} was rejected",
            receipt.client_tx_id
        ))),
        _ => Ok(()),
    }
}

fn show_to_a_person(receipt: &v1::Receipt, output: &mut Output) -> Result<(), Failure> {
    let state = if receipt.dead {
        "queued, dead: its attempts are exhausted"
    } else {
        state_word(receipt.state())
    };
    let attempts = match receipt.attempt_count {
        0 => String::new(),
        count => count.to_string(),
    };
    let fields = [
        ("commit", receipt.client_tx_id.clone()),
        ("state", state.to_owned()),
        ("source", receipt.data_source.clone()),
        ("accepted", moment(receipt.accept_time)),
        ("recovered", moment(receipt.reenter_time)),
        ("settled", moment(receipt.settle_time)),
        ("attempts", attempts),
        ("feed read", moment(receipt.feed_read_time)),
    ];
    output.record(|| Value::Null, &fields)?;
    if receipt.changes_expired {
        note("Its changes are older than the log's retention.");
    }
    if receipt.changes.is_empty() {
        return Ok(());
    }
    let header = ["type", "model", "id", "sync id", "stale", "row"];
    output.rows(&receipt.changes, change_json, &header, |change| {
        vec![
            type_word(change.r#type()).to_owned(),
            change.model.clone(),
            change.id.clone(),
            change.sync_id.to_string(),
            if change.stale {
                "stale".to_owned()
            } else {
                String::new()
            },
            String::from_utf8_lossy(&change.row_json).into_owned(),
        ]
    })
}

/// The state in one word.
pub(super) fn state_word(state: v1::CommitState) -> &'static str {
    match state {
        v1::CommitState::Queued => "queued",
        v1::CommitState::Confirmed => "confirmed",
        v1::CommitState::Rejected => "rejected",
        v1::CommitState::Unspecified => "unknown",
    }
}

/// The type of an operation in one word.
pub(super) fn type_word(kind: v1::OperationType) -> &'static str {
    kind.as_str_name().trim_start_matches("OPERATION_TYPE_")
}

/// For a program.
pub(super) fn receipt_json(receipt: &v1::Receipt) -> Value {
    let assigned = receipt
        .assigned_ids
        .iter()
        .map(|one| json!({"operationIndex": one.operation_index, "id": one.id}));
    json!({
        "clientTxId": receipt.client_tx_id,
        "commitId": receipt.commit_id,
        "state": state_word(receipt.state()),
        "changes": receipt.changes.iter().map(change_json).collect::<Vec<_>>(),
        "changesExpired": receipt.changes_expired,
        "error": receipt.error.as_ref().map(|error| {
            json!({"code": error.code, "message": error.message})
        }),
        "dataSource": receipt.data_source,
        "acceptTime": moment(receipt.accept_time),
        "settleTime": receipt.settle_time.map(|time| time.to_string()),
        "attemptCount": receipt.attempt_count,
        "assignedIds": assigned.collect::<Vec<_>>(),
        "dead": receipt.dead,
        "reenterTime": receipt.reenter_time.map(|time| time.to_string()),
        "feedReadTime": receipt.feed_read_time.map(|time| time.to_string()),
    })
}

fn change_json(change: &v1::RowChange) -> Value {
    let row = (!change.row_json.is_empty()).then(|| parsed(&change.row_json));
    json!({
        "operationIndex": change.operation_index,
        "type": type_word(change.r#type()),
        "model": change.model,
        "id": change.id,
        "row": row,
        "syncId": change.sync_id,
        "stale": change.stale,
    })
}
