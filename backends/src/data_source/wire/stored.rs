//! Reads back what a stored commit body asked for: the bytes that were signed are the only copy.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Scope;
use crate::operation::{OnStale, Operation, OperationKind};

/// The operations of a body that [`super::commit_body`] wrote; `None` for other bytes.
pub fn operations(body: &[u8]) -> Option<Vec<Operation>> {
    let mut body: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let Value::Array(operations) = body.remove("operations")? else {
        return None;
    };
    operations.into_iter().map(operation).collect()
}

/// On whose behalf a body that [`super::commit_body`] wrote is sent; `None` for other bytes.
pub fn scope(body: &[u8]) -> Option<Scope> {
    #[derive(Deserialize)]
    struct Body {
        scope: Scope,
    }
    serde_json::from_slice::<Body>(body).ok().map(|it| it.scope)
}

fn operation(value: Value) -> Option<Operation> {
    let Value::Object(mut fields) = value else {
        return None;
    };
    let input = match fields.remove("input") {
        Some(Value::Object(input)) => input,
        _ => Map::new(),
    };
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let kind = OperationKind::parse(&text("type")?)?;
    let (model, id) = (text("model")?, text("id")?);
    let transaction_id = text("transactionId");
    let read_at = fields.get("readAt").and_then(Value::as_i64);
    Some(Operation {
        kind,
        model,
        id,
        input,
        transaction_id,
        read_at,
        on_stale: OnStale::Reject,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data_source::wire::commit_body;

    #[test]
    fn a_commit_body_reads_back_as_the_operations_that_were_sent() {
        let operation = |kind, input: Value| Operation {
            kind,
            model: "airports".to_owned(),
            id: "00M".to_owned(),
            input: input.as_object().cloned().unwrap_or_default(),
            transaction_id: Some("t1".to_owned()),
            read_at: Some(7),
            on_stale: OnStale::Reject,
        };
        let sent = [
            operation(OperationKind::Create, json!({"latitude": 31.950})),
            operation(OperationKind::Delete, json!({})),
        ];
        let empty = operation(OperationKind::Update, json!({}));
        let all = [sent[0].clone(), empty, sent[1].clone()];
        let whose = Scope {
            participant_id: Some("ann".to_owned()),
            required_sync_groups: vec!["crew".to_owned()],
            ..Scope::default()
        };
        let body = commit_body("tx", "00", &all, &whose);
        assert_eq!(operations(&body).as_deref(), Some(&sent[..]));
        assert_eq!(scope(&body), Some(whose));
        assert_eq!(scope(b"{}"), None);
        assert_eq!(operations(b"{\"operations\":[{}]}"), None);
    }
}
