//! What a commit's attempts rest on: the time by which they must start, and views of its rows.

use std::collections::HashMap;

use backends::operation::RowKey;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::state::RowVersion;

/// What a start has to look at besides the inbox entry itself. Most commits have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The commit, by its caller's name.
    pub client_tx_id: String,
    /// No attempt starts after this.
    pub expires_at: Option<OffsetDateTime>,
    /// Its operations that rest on a view of their row; empty once an attempt was made.
    pub guards: Vec<Guard>,
}

/// An operation that rests on a view of its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Its position in the commit.
    pub operation: i16,
    /// Its row's model.
    pub model: String,
    /// Its row's id.
    pub id: String,
    /// The sync id that the writer's view of the row rests on.
    pub read_at: i64,
    /// Apply it all the same, and mark it: FLAG. Otherwise REJECT.
    pub flag: bool,
}

impl Guard {
    /// The row.
    pub fn key(&self) -> RowKey {
        RowKey {
            model: self.model.clone(),
            id: self.id.clone(),
        }
    }
}

/// Positions of operations whose rows have changed since the commit was accepted and that said
/// FLAG, or the rule that refuses the commit. Commits that were pending on a row then were judged
/// then; those that are now come after this one.
pub(super) fn judge(
    versions: &HashMap<RowKey, RowVersion>,
    guards: &[Guard],
) -> Result<Vec<i16>, String> {
    let mut flagged = Vec::new();
    for guard in guards {
        let version = versions.get(&guard.key());
        if version.is_none_or(|version| version.sync_id <= guard.read_at) {
            continue;
        }
        if !guard.flag {
            return Err(format!(
                "operations[{}]: the row has changed since it was read",
                guard.operation
            ));
        }
        flagged.push(guard.operation);
    }
    Ok(flagged)
}
