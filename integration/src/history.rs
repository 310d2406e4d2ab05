//! What a run came to, as seen from outside, and whether the promises held in it.
//!
//! [`History::faults`] is a pure function of what clients sent and were told, what arrived and took
//! effect at the endpoint, and what the log and the record of attempts say in the end. Every commit
//! has a token of its own and positions are dense, so every order is read off; nothing is searched.

mod effects;
mod log;
mod order;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// A run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The commits that clients sent.
    pub writes: Vec<Write>,
    /// Requests that reached the endpoint, in order.
    pub arrivals: Vec<Arrival>,
    /// What took effect at the endpoint, in order.
    pub executions: Vec<Execution>,
    /// The organization's log, in order.
    pub log: Vec<Position>,
    /// The attempts on record.
    pub attempts: Vec<Attempt>,
    /// In the end: which commit each row was last changed by, as it is read back.
    pub ends: BTreeMap<Row, String>,
    /// In the end: the commits that are still not settled.
    pub unsettled: Vec<String>,
}

/// A row of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Its model.
    pub model: String,
    /// Its id.
    pub id: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.model, self.id)
    }
}

/// A commit that a client sent, under one name however often.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its `client_tx_id`.
    pub token: String,
    /// The rows that it changes, each once.
    pub rows: BTreeSet<Row>,
    /// Whether a Data Source holds the rows.
    pub delivered: bool,
    /// When it was first sent, on the clients' common counter.
    pub sent: u64,
    /// When a receipt first came, queued or settled; none if none came.
    pub acknowledged: Option<u64>,
    /// What settled receipts said, each time that one came.
    pub answers: Vec<Answer>,
}

/// A settled receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Confirmed; rejected otherwise.
    pub confirmed: bool,
    /// Where the log has its changes.
    pub changes: BTreeMap<Row, i64>,
}

/// A commit request that reached the endpoint, whatever became of it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Whose it is.
    pub token: String,
    /// Its `webhook-id`.
    pub webhook_id: String,
    /// Its exact bytes.
    pub body: Vec<u8>,
    /// Whether the signature is right.
    pub signed: bool,
}

/// A commit that changed rows at the endpoint.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Whose it is.
    pub token: String,
    /// The rows that it changed.
    pub rows: BTreeSet<Row>,
}

/// A position of the log.
#[derive(Clone, Debug)]
pub struct Position {
    /// Its sync id.
    pub sync_id: i64,
    /// The commit.
    pub token: String,
    /// The row.
    pub row: Row,
}

/// An attempt on record.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Whose it is.
    pub token: String,
    /// Its `webhook-id`.
    pub webhook_id: String,
    /// What it came to; none if it is not closed.
    pub outcome: Option<String>,
}

/// What must not be in any history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What was acknowledged takes effect.
    Lost,
    /// It does so once.
    Doubled,
    /// Nothing takes effect that nobody sent, or that was rejected.
    Phantom,
    /// Everything comes to an end that its client can read.
    Unresolved,
    /// Two answers agree with each other and with the log.
    Contradicted,
    /// Positions are 1, 2, 3 …
    Gap,
    /// A commit applies whole.
    Torn,
    /// A row changes in one order, everywhere: the one in which its commits were accepted.
    Reordered,
    /// Every request is on record before it leaves, and its record is closed.
    OffRecord,
    /// A retry is the same request, signed.
    Altered,
}

/// A rule that was broken, and how that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub rule: Rule,
    /// For a person.
    pub witness: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.witness)
    }
}

impl Fault {
    fn new(rule: Rule, witness: impl Into<String>) -> Self {
        let witness = witness.into();
        Self { rule, witness }
    }
}

impl History {
    /// Everything that is wrong with it; nothing if the promises held.
    pub fn faults(&self) -> Vec<Fault> {
        let writes: Writes<'_> = self.writes.iter().map(|it| (&*it.token, it)).collect();
        let mut faults = self.resolution();
        faults.extend(self.effects(&writes));
        faults.extend(self.log(&writes));
        faults.extend(self.order(&writes));
        faults.extend(self.record());
        faults
    }

    /// Whether everybody knows what became of each commit, and is told the same.
    fn resolution(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for Write { token, answers, .. } in &self.writes {
            match answers.as_slice() {
                [] => faults.push(Fault::new(Rule::Unresolved, token)),
                [first, rest @ ..] => {
                    let other = rest.iter().find(|it| *it != first);
                    faults.extend(other.map(|it| {
                        let witness = format!("{token} was answered {first:?}, then {it:?}");
                        Fault::new(Rule::Contradicted, witness)
                    }));
                }
            }
        }
        let unsettled = self.unsettled.iter();
        faults.extend(unsettled.map(|it| Fault::new(Rule::Unresolved, format!("{it} is pending"))));
        faults
    }
}

/// Commits by their tokens.
type Writes<'a> = HashMap<&'a str, &'a Write>;

impl Write {
    fn confirmed(&self) -> bool {
        self.answers.first().is_some_and(|it| it.confirmed)
    }

    /// It must take effect sooner or later, as far as its client knows.
    fn promised(&self) -> bool {
        match self.answers.first() {
            Some(answer) => answer.confirmed,
            None => self.acknowledged.is_some(),
        }
    }
}

/// How often each token occurs.
fn counts<'a>(tokens: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for token in tokens {
        *counts.entry(token).or_default() += 1;
    }
    counts
}
