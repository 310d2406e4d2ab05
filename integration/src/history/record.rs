//! Every request is on record, and every retry is the same request.

use std::collections::HashMap;

use super::{Arrival, Fault, History, Rule, counts};

impl History {
    pub(super) fn record(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let recorded = counts(self.attempts.iter().map(|it| &*it.webhook_id));
        let arrived = counts(self.arrivals.iter().map(|it| &*it.webhook_id));
        for (id, arrivals) in arrived {
            let attempts = recorded.get(id).copied().unwrap_or(0);
            if arrivals > attempts {
                let witness = format!("{id} arrived {arrivals} times in {attempts} attempts");
                faults.push(Fault::new(Rule::OffRecord, witness));
            }
        }
        let applied = self.attempts.iter().filter(|it| is(it.outcome.as_ref()));
        let applied = counts(applied.map(|it| &*it.token));
        let confirmed = self
            .writes
            .iter()
            .filter(|it| it.delivered && it.confirmed());
        for token in confirmed.map(|it| &*it.token) {
            let times = applied.get(token).copied().unwrap_or(0);
            if times != 1 {
                let witness = format!("{token} is confirmed, {times} attempts are applied");
                faults.push(Fault::new(Rule::OffRecord, witness));
            }
        }
        let open = self.attempts.iter().filter(|it| it.outcome.is_none());
        faults.extend(open.map(|it| {
            let witness = format!("an attempt of {} is never closed", it.token);
            Fault::new(Rule::OffRecord, witness)
        }));
        faults.extend(self.retries());
        faults
    }

    fn retries(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut first: HashMap<&str, &Arrival> = HashMap::new();
        for arrival in &self.arrivals {
            let token = &arrival.token;
            let mut altered = |how: &str| {
                faults.push(Fault::new(Rule::Altered, format!("{token} {how}")));
            };
            if !arrival.signed {
                altered("arrived with a wrong signature");
            }
            let before = first.entry(token).or_insert(arrival);
            if before.webhook_id != arrival.webhook_id {
                altered("was sent under two ids");
            }
            if before.body != arrival.body {
                altered("was sent with other bytes");
            }
        }
        faults
    }
}

fn is(outcome: Option<&String>) -> bool {
    outcome.is_some_and(|it| it == "applied")
}
