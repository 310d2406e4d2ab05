//! What a caller asks for, in few words.

use proto::v1;
use serde_json::Value;

/// An operation that has an input.
fn operation(
    kind: v1::OperationType,
    model: &str,
    id: &str,
    input: Option<&Value>,
) -> v1::Operation {
    v1::Operation {
        r#type: kind.into(),
        model: model.to_owned(),
        id: id.to_owned(),
        input_json: input
            .map_or_else(Vec::new, |input| input.to_string().into_bytes())
            .into(),
        ..v1::Operation::default()
    }
}

/// CREATE.
pub fn create(model: &str, id: &str, input: &Value) -> v1::Operation {
    operation(v1::OperationType::Create, model, id, Some(input))
}

/// UPDATE.
pub fn update(model: &str, id: &str, input: &Value) -> v1::Operation {
    operation(v1::OperationType::Update, model, id, Some(input))
}

/// DELETE.
pub fn delete(model: &str, id: &str) -> v1::Operation {
    operation(v1::OperationType::Delete, model, id, None)
}

/// ARCHIVE.
pub fn archive(model: &str, id: &str) -> v1::Operation {
    operation(v1::OperationType::Archive, model, id, None)
}

/// UNARCHIVE.
pub fn unarchive(model: &str, id: &str) -> v1::Operation {
    operation(v1::OperationType::Unarchive, model, id, None)
}

/// Who writes, unless a test says otherwise.
pub fn participant() -> v1::Participant {
    v1::Participant {
        id: "user-1".to_owned(),
        kind: v1::ParticipantKind::User.into(),
    }
}

/// A commit whose caller waits until it is settled.
pub fn commit(client_tx_id: &str, operations: Vec<v1::Operation>) -> v1::CommitRequest {
    v1::CommitRequest {
        client_tx_id: client_tx_id.to_owned(),
        participant: Some(participant()),
        operations,
        required_sync_groups: Vec::new(),
        wait: v1::Wait::Confirmed.into(),
        ..v1::CommitRequest::default()
    }
}

/// A commit whose caller waits until it is durable.
pub fn queued(client_tx_id: &str, operations: Vec<v1::Operation>) -> v1::CommitRequest {
    v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..commit(client_tx_id, operations)
    }
}
