//! What a run came to, as seen from outside, and whether the promises held in it.
//!
//! [`History::faults`] is a pure function of what clients sent and were told, what arrived and took
//! effect at the endpoint, and what the log and the record of attempts say in the end. Every commit
//! has a token of its own and positions are dense, so every order is read off; nothing is searched.

mod aftermath;
mod effects;
mod log;
mod order;
mod outside;
mod readers;
mod record;
mod stale;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::{Serialize, Serializer};

/// A run, as it concerns one organization.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// Names that stand in everything that belongs to another organization, and to no other.
    pub strangers: Vec<String>,
    /// The commits that clients sent.
    pub writes: Vec<Write>,
    /// How many of them their clients did not know the fate of, after a call.
    pub unknown: u64,
    /// Requests that reached the endpoint, in order.
    pub arrivals: Vec<Arrival>,
    /// What took effect at the endpoint, in order.
    pub executions: Vec<Execution>,
    /// The organization's log, in order, with what its retention has passed over.
    pub log: Vec<Position>,
    /// Positions up to this one may have been passed over by the retention.
    pub expired: i64,
    /// The attempts on record.
    pub attempts: Vec<Attempt>,
    /// Changes made outside, in the order in which their source tells of them.
    pub events: Vec<Event>,
    /// What subscribers put together from all their streams.
    pub readers: Vec<Reader>,
    /// What errors said.
    pub texts: Vec<String>,
    /// In the end: the value of each row, as it is read back.
    #[serde(serialize_with = "pairs")]
    pub ends: BTreeMap<Row, String>,
    /// In the end: the commits that are still not settled.
    pub unsettled: Vec<String>,
    /// In the end: how each source says that its commit requests did.
    pub standings: Vec<Standing>,
    /// In the end: what is left in the database and in the nodes.
    pub aftermath: Aftermath,
}

/// A row of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
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
#[derive(Clone, Debug, Default, Serialize)]
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
    /// Why it was never accepted: a definite refusal, or nobody knows of it in the end.
    pub refused: Option<String>,
    /// It was to apply only if this row had not changed since this position.
    pub guard: Option<(Row, i64)>,
    /// What became of it when it was sent once more, long after.
    pub replays: Vec<Replay>,
    /// An operator recovered it after it was dead: it took a new place, at the end.
    pub reentered: bool,
}

/// A commit that was sent once more under its name.
#[derive(Clone, Debug, Serialize)]
pub struct Replay {
    /// With another intent.
    pub changed: bool,
    /// Whether a receipt came.
    pub accepted: bool,
}

/// A settled receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Confirmed; rejected otherwise.
    pub confirmed: bool,
    /// It came too late to say where the log has its changes.
    pub expired: bool,
    /// Where the log has its changes.
    #[serde(serialize_with = "pairs")]
    pub changes: BTreeMap<Row, i64>,
}

/// A commit request that reached the endpoint, whatever became of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Arrival {
    /// Whose it is.
    pub token: String,
    /// Its `webhook-id`.
    pub webhook_id: String,
    /// Its exact bytes.
    pub body: Vec<u8>,
    /// Whether the signature is right.
    pub signed: bool,
    /// When, in microseconds since 1970; none if nobody looked at the clock.
    pub at: Option<i64>,
    /// The status that was sent back, if one was.
    pub replied: Option<u16>,
}

/// A commit that changed rows at the endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Execution {
    /// Whose it is.
    pub token: String,
    /// The rows that it changed.
    pub rows: BTreeSet<Row>,
}

/// A position of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Its sync id.
    pub sync_id: i64,
    /// The commit; empty for a change made outside.
    pub token: String,
    /// The event that told of a change made outside; empty if none did.
    pub event: String,
    /// The row.
    pub row: Row,
    /// What the row held afterwards.
    pub value: String,
}

/// A change made outside, as its source tells of it; the row then holds its id as its value.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// The row.
    pub row: Row,
}

/// What a subscriber put together, from the oldest change on.
#[derive(Clone, Debug, Serialize)]
pub struct Reader {
    /// Which one.
    pub name: String,
    /// The models that it asked for; all if empty.
    pub models: BTreeSet<String>,
    /// What it saw, in order.
    pub changes: Vec<Position>,
    /// How much it had seen, each time that it began at the oldest change.
    pub beginnings: BTreeSet<usize>,
}

/// An attempt on record.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Attempt {
    /// Whose it is.
    pub token: String,
    /// Its `webhook-id`.
    pub webhook_id: String,
    /// Where it went.
    pub source: String,
    /// How many-eth of its commit it is, from 1 on.
    pub number: i32,
    /// Whether it was recorded when it began, with time to run in.
    pub begun: bool,
    /// When it was recorded, in microseconds since 1970.
    pub started: i64,
    /// What it came to; none if it is not closed.
    pub outcome: Option<String>,
    /// The status that came back, if one did.
    pub status: Option<u16>,
    /// How it failed, if it did.
    pub error: Option<String>,
}

/// How a source says that its commit requests did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Standing {
    /// The source.
    pub source: String,
    /// When one last succeeded, in microseconds since 1970.
    pub success: Option<i64>,
    /// When one last failed, and how.
    pub error: Option<(i64, String)>,
}

/// What is left when everything is over.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Aftermath {
    /// Commits that are queued although nothing hinders them.
    pub queued: i64,
    /// Sessions that have been idle in a transaction for seconds.
    pub idle_in_transaction: i64,
    /// Sessions that wait for a lock.
    pub waiting: i64,
    /// Of each node, the bytes resident when the faults ended, and now.
    pub resident: Vec<(u64, u64)>,
}

/// What must not be in any history. The numbers are those that reports name them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Rule {
    /// What was acknowledged takes effect.
    Lost = 1,
    /// It does so once.
    Doubled,
    /// Nothing takes effect that nobody sent, or that was rejected; nor more of it than was sent.
    Phantom,
    /// Everything comes to an end that its client can read, and that is what happened.
    Unresolved,
    /// A row changes in one order, everywhere.
    Reordered,
    /// That order is the one in which its commits were accepted, as far as clients can tell.
    Overtaken,
    /// Positions are 1, 2, 3 …; each subscriber sees each of them once, in order.
    Gap,
    /// A commit changes each of its rows once in the log, all of them together.
    Torn,
    /// Every request is on record before it leaves, and its record is true; a retry is the same
    /// request, signed.
    OffRecord,
    /// A change made outside is in the log once, and no row goes back to an earlier one.
    Missed,
    /// Nothing changes a row between a view of it and the commit that rests on that view.
    Stale,
    /// When the faults are over everything comes to rest.
    Stuck,
    /// Nothing of another organization is seen.
    Leaked,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}").to_lowercase();
        write!(f, "C{} {name}", *self as u8)
    }
}

/// How much of a witness a report shows, in characters.
const SHOWN: usize = 1_000;

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
        write!(f, "{}: {:.*}", self.rule, SHOWN, self.witness)
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
        faults.extend(self.outside());
        faults.extend(self.readers());
        faults.extend(self.stale());
        faults.extend(self.aftermath());
        faults
    }

    /// Whether everybody knows what became of each commit, and is told the same.
    fn resolution(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for write in &self.writes {
            let Write { token, answers, .. } = write;
            match write.answer() {
                None if write.refused.is_some() && write.acknowledged.is_none() => {}
                None => faults.push(Fault::new(
                    Rule::Unresolved,
                    format!("{token} has no answer"),
                )),
                Some(one) => {
                    let other = answers.iter().find(|it| !it.agrees(one));
                    faults.extend(other.map(|it| {
                        let witness = format!("{token} was answered {one:?}, and also {it:?}");
                        Fault::new(Rule::Unresolved, witness)
                    }));
                }
            }
        }
        for write in &self.writes {
            for Replay { changed, accepted } in &write.replays {
                let token = &write.token;
                let (rule, what) = match (changed, accepted) {
                    (true, true) => (Rule::Phantom, "was accepted with another intent"),
                    (false, false) => (Rule::Unresolved, "was acknowledged, then refused"),
                    _ => continue,
                };
                faults.push(Fault::new(rule, format!("{token} {what}")));
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
    /// It must not take effect, as far as its client knows.
    fn denied(&self) -> bool {
        self.answers.iter().any(|it| !it.confirmed)
            || (self.refused.is_some() && self.answers.is_empty())
    }

    fn confirmed(&self) -> bool {
        self.answer().is_some_and(|it| it.confirmed)
    }

    /// The first answer that says most.
    fn answer(&self) -> Option<&Answer> {
        let whole = self.answers.iter().find(|it| !it.expired);
        whole.or(self.answers.first())
    }

    /// It must take effect sooner or later, as far as its client knows.
    fn promised(&self) -> bool {
        match self.answer() {
            Some(answer) => answer.confirmed,
            None => self.acknowledged.is_some(),
        }
    }
}

impl Answer {
    /// Whether both can be true.
    fn agrees(&self, other: &Self) -> bool {
        self.confirmed == other.confirmed
            && (self.expired || other.expired || self.changes == other.changes)
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

/// JSON has no keys but texts.
fn pairs<S: Serializer, V: Serialize>(
    map: &BTreeMap<Row, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map)
}
