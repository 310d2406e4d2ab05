//! A row has one history: the log's, the endpoint's, and the one that clients saw from outside.

use std::collections::BTreeMap;

use super::{Fault, History, Row, Rule, Write, Writes};

/// By row, the commits that changed it, in order.
type Orders<'a> = BTreeMap<&'a Row, Vec<&'a str>>;

impl History {
    pub(super) fn order(&self, writes: &Writes<'_>) -> Vec<Fault> {
        let mut logged = Orders::new();
        let mut last = BTreeMap::new();
        for position in &self.log {
            last.insert(&position.row, &position.value);
            if !position.token.is_empty() {
                let order = logged.entry(&position.row).or_default();
                order.push(&position.token);
            }
        }
        let mut executed = Orders::new();
        for execution in &self.executions {
            for row in &execution.rows {
                executed.entry(row).or_default().push(&execution.token);
            }
        }
        let mut faults = Vec::new();
        for (row, order) in &executed {
            faults.extend(difference(row, order, logged.get(row).map_or(&[], |it| it)));
        }
        for (row, order) in &logged {
            let order: Vec<_> = order.iter().filter_map(|it| writes.get(it)).collect();
            faults.extend(overtaking(row, &order));
        }
        for (row, end) in &self.ends {
            let last = last.get(row);
            if last.is_none_or(|last| *last != end) {
                let witness = format!("{row} ends on {end}, in the log on {last:?}");
                faults.push(Fault::new(Rule::Reordered, witness));
            }
        }
        faults
    }
}

/// Where the endpoint's order and the log's part. One that is only longer is reported as lost or
/// doubled.
fn difference(row: &Row, executed: &[&str], logged: &[&str]) -> Option<Fault> {
    let (there, here) = executed.iter().zip(logged).find(|(a, b)| a != b)?;
    let witness = format!("{row}: the endpoint executed {there} where the log has {here}");
    Some(Fault::new(Rule::Reordered, witness))
}

/// A commit that stands before another, although that was acknowledged before it was even sent.
fn overtaking(row: &Row, order: &[&&Write]) -> Option<Fault> {
    let mut latest: Option<&Write> = None;
    for write in order.iter().filter(|it| !it.reentered) {
        if let (Some(before), Some(acknowledged)) = (latest, write.acknowledged)
            && acknowledged < before.sent
        {
            let witness = format!(
                "{row}: {} stands before {}, and was sent after that was acknowledged",
                before.token, write.token
            );
            return Some(Fault::new(Rule::Overtaken, witness));
        }
        if latest.is_none_or(|before| before.sent < write.sent) {
            latest = Some(write);
        }
    }
    None
}
