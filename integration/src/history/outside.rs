//! Changes made outside: each once in the log, in the order of its row.

use std::collections::{BTreeMap, HashMap};

use super::{Fault, History, Position, Row, Rule};

impl History {
    pub(super) fn outside(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut logged: HashMap<&str, Vec<&Position>> = HashMap::new();
        for position in self.log.iter().filter(|it| !it.event.is_empty()) {
            logged.entry(&position.event).or_default().push(position);
        }
        let mut last: BTreeMap<&Row, (i64, &str)> = BTreeMap::new();
        for event in &self.events {
            let (id, row) = (&event.id, &event.row);
            let positions = logged.remove(&**id).unwrap_or_default();
            let [position] = positions.as_slice() else {
                let witness = format!("{id} is in the log {} times", positions.len());
                faults.push(Fault::new(Rule::Missed, witness));
                continue;
            };
            if let Some((before, earlier)) = last.insert(row, (position.sync_id, id))
                && before > position.sync_id
            {
                let witness = format!("{row}: {id} stands before {earlier}, which came first");
                faults.push(Fault::new(Rule::Missed, witness));
            }
        }
        faults.extend(logged.keys().map(|id| {
            Fault::new(
                Rule::Phantom,
                format!("{id} is in the log, and no source told of it"),
            )
        }));
        faults
    }
}
