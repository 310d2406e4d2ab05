//! Commits that rest on a view of a row: of two on one view, one wins.

use std::collections::HashMap;

use super::{Fault, History, Row, Rule};

impl History {
    pub(super) fn stale(&self) -> Vec<Fault> {
        let mut rows: HashMap<&Row, Vec<(i64, bool)>> = HashMap::new();
        for position in &self.log {
            let ours = !position.token.is_empty();
            rows.entry(&position.row)
                .or_default()
                .push((position.sync_id, ours));
        }
        let mut faults = Vec::new();
        for write in self.writes.iter().filter(|it| it.confirmed()) {
            let Some((row, read_at)) = &write.guard else {
                continue;
            };
            let applied = write.answer().and_then(|it| it.changes.get(row));
            let (Some(applied), Some(changes)) = (applied, rows.get(row)) else {
                continue;
            };
            // What is changed outside while a request is under way is nobody's to prevent.
            let between = changes
                .iter()
                .find(|(at, ours)| read_at < at && at < applied && (*ours || !write.delivered));
            faults.extend(between.map(|(at, _)| {
                let token = &write.token;
                let witness = format!(
                    "{token} saw {row} at {read_at}, it changed at {at}, {token} won at {applied}"
                );
                Fault::new(Rule::Stale, witness)
            }));
        }
        faults
    }
}
