//! The log has every confirmed commit once, whole, where its receipt says, and no gap.

use std::collections::{BTreeMap, HashMap};

use super::{Fault, History, Position, Row, Rule, Write, Writes};

impl History {
    pub(super) fn log(&self, writes: &Writes<'_>) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (expected, position) in (1..).zip(&self.log) {
            if position.sync_id != expected {
                let witness = format!("{} stands where {expected} belongs", position.sync_id);
                faults.push(Fault::new(Rule::Gap, witness));
                break;
            }
        }
        let mut logged: HashMap<&str, Vec<&Position>> = HashMap::new();
        for position in self.log.iter().filter(|it| !it.token.is_empty()) {
            logged.entry(&position.token).or_default().push(position);
        }
        for (token, positions) in &logged {
            match writes.get(token) {
                Some(write) => faults.extend(judge(write, positions)),
                None => faults.push(Fault::new(
                    Rule::Phantom,
                    format!("{token} is in the log, and nobody sent it"),
                )),
            }
        }
        let missing = self
            .writes
            .iter()
            .filter(|it| it.confirmed() && !logged.contains_key(&*it.token));
        faults.extend(missing.map(|it| {
            let witness = format!("{} was confirmed and is not in the log", it.token);
            Fault::new(Rule::Lost, witness)
        }));
        faults
    }
}

/// What the log has of one commit.
fn judge(write: &Write, positions: &[&Position]) -> Option<Fault> {
    let token = &write.token;
    let changes: BTreeMap<Row, i64> = positions
        .iter()
        .map(|it| (it.row.clone(), it.sync_id))
        .collect();
    let fault = |rule, what: &str| Some(Fault::new(rule, format!("{token} {what}: {changes:?}")));
    if changes.len() < positions.len() {
        return fault(Rule::Torn, "changed a row twice in the log");
    }
    if !changes.keys().eq(&write.rows) {
        return fault(Rule::Torn, "has not its own rows in the log");
    }
    let together = positions
        .windows(2)
        .all(|pair| pair[1].sync_id == pair[0].sync_id + 1);
    if !together {
        return fault(Rule::Torn, "is spread over the log");
    }
    match write.answer() {
        _ if write.denied() => fault(Rule::Phantom, "is in the log, and refused"),
        Some(answer) if !answer.expired && answer.changes != changes => {
            fault(Rule::Unresolved, "has another receipt than the log")
        }
        _ => None,
    }
}
