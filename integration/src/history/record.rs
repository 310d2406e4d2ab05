//! Every request is on record, and every retry is the same request.

use std::collections::{BTreeMap, HashMap};

use super::{Arrival, Attempt, Fault, History, Rule, counts};

/// How far the clocks of the database and of whoever notes arrivals may be apart, in microseconds:
/// they are one machine's.
const CLOCKS_AGREE: i64 = 5_000;

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
        faults.extend(self.made_up());
        faults.extend(self.early());
        faults.extend(self.statuses());
        faults.extend(self.standings());
        faults.extend(self.retries());
        faults
    }

    /// Attempts that nobody made: each is recorded when it begins, under its commit's next number.
    fn made_up(&self) -> Vec<Fault> {
        let mut of_commit: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
        for attempt in &self.attempts {
            let others = of_commit.entry(&attempt.webhook_id).or_default();
            others.push(attempt);
        }
        let mut faults = Vec::new();
        for attempts in of_commit.values_mut() {
            attempts.sort_by_key(|it| (it.started, it.number));
            for (place, attempt) in (1..).zip(attempts) {
                let (token, number) = (&attempt.token, attempt.number);
                let witness = if !attempt.begun {
                    format!("an attempt of {token} is on record only since it ended")
                } else if number != place {
                    format!("attempt {place} of {token} is on record as its {number}")
                } else {
                    continue;
                };
                faults.push(Fault::new(Rule::OffRecord, witness));
            }
        }
        faults
    }

    /// Requests that arrived before their attempt was recorded.
    fn early(&self) -> Option<Fault> {
        let mut recorded: HashMap<&str, Vec<i64>> = HashMap::new();
        for attempt in &self.attempts {
            let started = recorded.entry(&attempt.webhook_id).or_default();
            started.push(attempt.started);
        }
        let mut arrived: HashMap<&str, usize> = HashMap::new();
        for arrival in &self.arrivals {
            let number = arrived.entry(&arrival.webhook_id).or_default();
            *number += 1;
            let (Some(at), Some(started)) = (arrival.at, recorded.get(&*arrival.webhook_id)) else {
                continue;
            };
            let before = started
                .iter()
                .filter(|it| **it <= at + CLOCKS_AGREE)
                .count();
            if before < *number {
                let witness = format!(
                    "request {number} of {} arrived when {before} attempts were on record",
                    arrival.token
                );
                return Some(Fault::new(Rule::OffRecord, witness));
            }
        }
        None
    }

    /// Statuses that attempts have on record and nobody sent.
    fn statuses(&self) -> Vec<Fault> {
        let mut sent: HashMap<(&str, u16), usize> = HashMap::new();
        for arrival in &self.arrivals {
            if let Some(status) = arrival.replied {
                *sent.entry((&arrival.webhook_id, status)).or_default() += 1;
            }
        }
        let timed = self.arrivals.iter().any(|it| it.at.is_some());
        let mut faults = Vec::new();
        for attempt in self.attempts.iter().filter(|_| timed) {
            let Some(status) = attempt.status else {
                continue;
            };
            let left = sent.entry((&attempt.webhook_id, status)).or_default();
            if *left == 0 {
                let witness = format!("{} has a {status} on record too many", attempt.token);
                faults.push(Fault::new(Rule::OffRecord, witness));
            }
            *left = left.saturating_sub(1);
        }
        faults
    }

    /// What sources say of their last success and error, against their attempts.
    fn standings(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for standing in &self.standings {
            let source = &standing.source;
            let of_source = self.attempts.iter().filter(|it| &it.source == source);
            let ended = |applied: bool| {
                let ended = of_source.clone().filter(|it| it.outcome.is_some());
                ended.filter(move |it| is(it.outcome.as_ref()) == applied)
            };
            let mut say = |what: &str| {
                let witness = format!("{source}: its last {what} is not that of its attempts");
                faults.push(Fault::new(Rule::OffRecord, witness));
            };
            let last = ended(true).map(|it| it.started).max();
            if standing.success.is_some() != last.is_some() || standing.success < last {
                say("success");
            }
            let last = ended(false).map(|it| it.started).max();
            let told = standing.error.as_ref();
            let known = told
                .is_none_or(|(_, class)| ended(false).any(|it| it.error.as_ref() == Some(class)));
            if !known || told.map(|it| it.0) < last || told.is_some() != last.is_some() {
                say("error");
            }
        }
        faults
    }

    fn retries(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut first: HashMap<&str, &Arrival> = HashMap::new();
        for arrival in &self.arrivals {
            let token = &arrival.token;
            let mut altered = |how: &str| {
                faults.push(Fault::new(Rule::OffRecord, format!("{token} {how}")));
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
