//! What the coordinator sends.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A request, by the body's `type`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Request {
    Commit(Commit),
    Load {
        model: String,
        id: String,
    },
    List {
        model: String,
        #[serde(default)]
        query: Query,
    },
    Events {
        cursor: Option<String>,
        limit: Option<i64>,
    },
}

/// Operations that apply together or not at all.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Commit {
    pub(super) client_tx_id: String,
    pub(super) intent_hash: String,
    pub(super) operations: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operation {
    #[serde(rename = "type")]
    pub(super) kind: OperationKind,
    pub(super) model: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) input: Map<String, Value>,
    pub(super) transaction_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum OperationKind {
    Create,
    Update,
    Delete,
    Archive,
    Unarchive,
}

impl OperationKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Archive => "ARCHIVE",
            Self::Unarchive => "UNARCHIVE",
        }
    }
}

/// Which rows, in which order, and how many.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Query {
    /// Each `[field, value]` or `[field, operator, value]`.
    #[serde(default, rename = "where")]
    pub(super) conditions: Vec<Vec<Value>>,
    pub(super) limit: Option<i64>,
    pub(super) order_by: Option<String>,
    pub(super) order: Option<String>,
    pub(super) cursor: Option<String>,
}
