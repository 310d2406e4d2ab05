//! What goes over the wire to a Data Source and back (`integration/examples/WIRE.md`).
//!
//! A body is written once and stored; what is signed and sent, and sent again, is those bytes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::operation::{OnStale, Operation, OperationKind};
use crate::query::{Condition, Query};

mod answer;
mod feed;
mod stored;

pub(super) use answer::fields;
pub use answer::id_text;
pub use answer::{
    AnswerFault, ErrorBody, Event, EventsPage, Row, parse_error, parse_event, parse_events,
    parse_list, parse_load,
};
pub use feed::{FeedPage, Unreadable, parse_feed};
pub use stored::{operations, scope};

/// On whose behalf a request is made. What is not known is left out.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Scope {
    /// The participant's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant_id: Option<String>,
    /// `user`, `agent` or `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant_kind: Option<String>,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// Groups that the participant must belong to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_sync_groups: Vec<String>,
    /// `live` or `test`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RequestKind {
    /// Delivers a commit.
    Commit,
    /// Reads one row.
    Load,
    /// Reads rows.
    List,
    /// Polls for changes made outside.
    Events,
}

/// The longest answer that is read, in bytes.
pub const LONGEST_ANSWER: usize = 1 << 20;

/// The longest commit that is sent, in bytes: its answer repeats the rows, and must have room.
pub const LONGEST_COMMIT: usize = LONGEST_ANSWER - (64 << 10);

impl RequestKind {
    /// The body's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Load => "load",
            Self::List => "list",
            Self::Events => "events",
        }
    }
}

/// Asks to apply a commit.
///
/// `client_tx_id` also goes out as `correlationId`: handlers dedupe by the one or the other.
/// `intent_hash` is 64 hex characters. Operations that ask for nothing are left out, so positions
/// in the answer count [`sent`] operations. `readAt` goes out with `onStale: "reject"` or not at
/// all: handlers answer 400 to the other words, and the coordinator has judged already.
pub fn commit_body(
    client_tx_id: &str,
    intent_hash: &str,
    operations: &[Operation],
    scope: &Scope,
) -> Vec<u8> {
    write(&CommitBody {
        kind: RequestKind::Commit.as_str(),
        client_tx_id,
        correlation_id: client_tx_id,
        intent_hash,
        operations: sent(operations)
            .map(|(_, operation)| WireOperation::of(operation))
            .collect(),
        scope,
    })
}

/// The operations that are sent, with their positions in the commit.
pub fn sent(operations: &[Operation]) -> impl Iterator<Item = (usize, &Operation)> {
    operations
        .iter()
        .enumerate()
        .filter(|(_, operation)| !operation.is_empty_update())
}

/// Asks for one row.
pub fn load_body(model: &str, id: &str, scope: &Scope) -> Vec<u8> {
    write(&LoadBody {
        kind: RequestKind::Load.as_str(),
        model,
        id,
        scope,
    })
}

/// Asks for rows of a model.
pub fn list_body(model: &str, query: &Query, scope: &Scope) -> Vec<u8> {
    let order = query.order.as_ref();
    write(&ListBody {
        kind: RequestKind::List.as_str(),
        model,
        query: WireQuery {
            r#where: query.conditions.iter().map(wire_condition).collect(),
            limit: query.limit,
            order_by: order.map(|order| order.field.as_str()),
            order: order.map(|order| if order.descending { "desc" } else { "asc" }),
            cursor: query.cursor.as_deref(),
        },
        scope,
    })
}

/// Asks for changes after a cursor, from the feed's beginning without one.
pub fn events_body(cursor: Option<&str>, limit: u32, scope: &Scope) -> Vec<u8> {
    write(&EventsBody {
        kind: RequestKind::Events.as_str(),
        cursor,
        limit,
        scope,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommitBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    client_tx_id: &'a str,
    correlation_id: &'a str,
    intent_hash: &'a str,
    operations: Vec<WireOperation<'a>>,
    scope: &'a Scope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireOperation<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    model: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_stale: Option<&'static str>,
}

impl<'a> WireOperation<'a> {
    fn of(operation: &'a Operation) -> Self {
        let has_input = matches!(
            operation.kind,
            OperationKind::Create | OperationKind::Update
        );
        let read_at = operation
            .read_at
            .filter(|_| operation.on_stale == OnStale::Reject);
        Self {
            kind: operation.kind.as_str(),
            model: &operation.model,
            id: &operation.id,
            input: has_input.then_some(&operation.input),
            transaction_id: operation.transaction_id.as_deref(),
            read_at,
            on_stale: read_at.map(|_| "reject"),
        }
    }
}

#[derive(Serialize)]
struct LoadBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    model: &'a str,
    id: &'a str,
    scope: &'a Scope,
}

#[derive(Serialize)]
struct ListBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    model: &'a str,
    query: WireQuery<'a>,
    scope: &'a Scope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireQuery<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    r#where: Vec<Value>,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct EventsBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    limit: u32,
    scope: &'a Scope,
}

fn wire_condition(condition: &Condition) -> Value {
    Value::from(vec![
        Value::from(condition.field.as_str()),
        Value::from(condition.operator.as_str()),
        condition.value.clone(),
    ])
}

fn write(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("a body has string keys and no fallible parts")
}

#[cfg(test)]
mod tests;
