//! What makes two commits the same intent.

use std::collections::BTreeSet;

use backends::operation::OnStale;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::commit::Admitted;
use crate::domain::Participant;

/// SHA-256 of the canonical JSON of the caller's intent (`intentHash` on the wire).
///
/// The object is
///
/// ```json
/// {"operations": [{"id"?, "input"?, "model", "onStale"?, "readAt"?, "transactionId"?, "type"}],
///  "participant": {"id", "kind"},
///  "requiredSyncGroups": [...]}
/// ```
///
/// with keys sorted by code point, no white space, and numbers as they were written. An operation's
/// `id` is left out when the coordinator assigned it, `input` when its type takes none, `onStale`
/// (`reject`, `force` or `flag`) when there is no `readAt`; the groups are a set, sorted. Waiting
/// and deadlines are no part of the intent.
pub(super) fn of(
    participant: &Participant,
    operations: &[Admitted<'_>],
    groups: &[String],
) -> [u8; 32] {
    Sha256::digest(text(participant, operations, groups)).into()
}

fn text(participant: &Participant, operations: &[Admitted<'_>], groups: &[String]) -> String {
    let operations: Vec<_> = operations.iter().map(operation).collect();
    let groups: BTreeSet<_> = groups.iter().map(|group| quoted(group)).collect();
    let groups: Vec<_> = groups.into_iter().collect();
    format!(
        r#"{{"operations":[{}],"participant":{{"id":{},"kind":{}}},"requiredSyncGroups":[{}]}}"#,
        operations.join(","),
        quoted(&participant.id),
        quoted(participant.kind.as_str()),
        groups.join(","),
    )
}

fn operation(admitted: &Admitted<'_>) -> String {
    let operation = &admitted.operation;
    let id = (!admitted.assigned).then(|| quoted(&operation.id));
    let on_stale = match operation.on_stale {
        OnStale::Reject => "reject",
        OnStale::Force => "force",
        OnStale::Flag => "flag",
    };
    let fields = [
        ("id", id),
        ("input", admitted.input.clone()),
        ("model", Some(quoted(&operation.model))),
        ("onStale", operation.read_at.map(|_| quoted(on_stale))),
        (
            "readAt",
            operation.read_at.map(|read_at| read_at.to_string()),
        ),
        (
            "transactionId",
            operation.transaction_id.as_deref().map(quoted),
        ),
        ("type", Some(quoted(operation.kind.as_str()))),
    ];
    let fields: Vec<_> = fields
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| format!("\"{key}\":{value}")))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use backends::json;
    use backends::operation::{OnStale, Operation, OperationKind};
    use serde_json::Map;

    use super::{Participant, of, text};
    use crate::admit::Schema;
    use crate::admit::commit::Admitted;
    use crate::domain::ParticipantKind;

    #[test]
    fn the_text_is_the_canonical_json_of_the_documented_object() {
        let document = br#"{"models": {"m": {"schema": {"type": "object"}}}}"#;
        let schema = Schema::compile(1, document).unwrap();
        let admitted = Admitted {
            operation: Operation {
                kind: OperationKind::Create,
                model: "m".to_owned(),
                id: "r\"1".to_owned(),
                input: Map::new(),
                transaction_id: Some("t".to_owned()),
                read_at: Some(3),
                on_stale: OnStale::Force,
            },
            model: schema.model("m").unwrap(),
            input: Some(r#"{"a":1.0}"#.to_owned()),
            assigned: false,
        };
        let participant = Participant {
            id: "ada".to_owned(),
            kind: ParticipantKind::Agent,
        };
        let operations = [admitted];
        let text = text(&participant, &operations, &["b".to_owned(), "a".to_owned()]);
        let expected = concat!(
            r#"{"operations":[{"id":"r\"1","input":{"a":1.0},"model":"m","onStale":"force","#,
            r#""readAt":3,"transactionId":"t","type":"CREATE"}],"#,
            r#""participant":{"id":"ada","kind":"agent"},"requiredSyncGroups":["a","b"]}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(
            json::canonical(&json::parse(text.as_bytes()).unwrap()),
            text
        );
        let digest = of(&participant, &operations, &["a".to_owned(), "b".to_owned()]);
        assert!(format!("{digest:02x?}").starts_with("[a5, 50, c1, f8, fd, a3, 81, 79,"));
    }
}
