//! Changes made outside: each once in the log, in the order of its row.

use std::collections::{BTreeMap, HashMap};

use super::{Fault, History, Position, Row, Rule, counts};

impl History {
    pub(super) fn outside(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let events = self.log.iter().filter(|it| !it.event.is_empty());
        let mut logged = counts(events.map(|it| &*it.event));
        for event in &self.events {
            let (id, times) = (&event.id, logged.remove(&*event.id).unwrap_or(0));
            if times != 1 {
                let witness = format!("{id} is in the log {times} times");
                faults.push(Fault::new(Rule::Missed, witness));
            }
        }
        faults.extend(logged.keys().map(|id| {
            Fault::new(
                Rule::Phantom,
                format!("{id} is in the log, and no source told of it"),
            )
        }));
        faults.extend(self.backwards());
        faults
    }

    /// Rows that go back to what they held before. An event that is found late may come after later
    /// ones of its row, but then with what the row holds by now: that counts for no event's own, and is
    /// no older than the event.
    fn backwards(&self) -> Vec<Fault> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (place, event) in self.events.iter().enumerate() {
            places.insert(&event.id, place);
        }
        let mut faults = Vec::new();
        let mut reached: BTreeMap<&Row, usize> = BTreeMap::new();
        for position in &self.log {
            let Some(place) = places.get(&*position.event) else {
                continue;
            };
            if position.value != position.event {
                let held = places.get(&*position.value);
                faults.extend(held.filter(|it| *it < place).map(|_| {
                    let Position {
                        row, event, value, ..
                    } = position;
                    let witness = format!("{row} is told of by {event} as {value}, of before it");
                    Fault::new(Rule::Missed, witness)
                }));
                continue;
            }
            let before = reached.insert(&position.row, *place);
            let before = before.filter(|it| it > place);
            faults.extend(before.map(|before| {
                let (row, value) = (&position.row, &position.value);
                let later = &self.events[before].id;
                let witness = format!("{row} goes back from {later} to {value}");
                Fault::new(Rule::Missed, witness)
            }));
        }
        faults
    }
}
