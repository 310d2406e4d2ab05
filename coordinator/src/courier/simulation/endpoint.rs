//! The endpoint, and what is on its way to it.

use std::collections::BTreeSet;

use backends::data_source::classify::{AttemptError, Outcome};
use backends::operation::{Change, OperationKind};
use proptest::prelude::*;
use serde_json::json;
use time::OffsetDateTime;

use super::{World, around, ids};
use crate::decide::SIGNATURE_TOLERANCE;
use crate::domain::CommitState;

/// What the endpoint, or the network, does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    /// Applied, and said so.
    Apply,
    /// Applied, and the answer is lost.
    ApplySilently,
    /// Refused, with a reason.
    Refuse,
    /// 503: a copy may still be on its way.
    Fail { copy: bool },
    /// 401.
    Misconfigured,
    /// 410.
    Gone,
    /// Lost.
    Lose,
}

pub(super) fn any_mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        12 => Just(Mood::Apply),
        6 => Just(Mood::ApplySilently),
        6 => Just(Mood::Refuse),
        9 => any::<bool>().prop_map(|copy| Mood::Fail { copy }),
        5 => Just(Mood::Lose),
        1 => Just(Mood::Misconfigured),
        1 => Just(Mood::Gone),
    ]
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) rows: u8,
    pub(super) sent_at: OffsetDateTime,
    /// When its attempt was recorded, and when it ends.
    pub(super) started_at: OffsetDateTime,
    pub(super) deadline: OffsetDateTime,
}

impl Request {
    /// Whether the endpoint may still take it.
    fn may_arrive(&self, now: OffsetDateTime) -> bool {
        now < self.sent_at + SIGNATURE_TOLERANCE
    }
}

/// An endpoint that applies each commit once.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    wire: Vec<Request>,
    /// What it remembers.
    applied: BTreeSet<String>,
    /// What it did: the row, the commit, and that one's place then.
    executions: Vec<(u8, String, i64)>,
}

impl Endpoint {
    /// A request leaves: no other commit's may still be applied at its rows.
    pub(super) fn send(&mut self, request: Request) {
        let now = request.sent_at;
        for other in &self.wire {
            let lasts = other.may_arrive(now) && !self.applied.contains(&other.name);
            assert!(
                other.name == request.name || other.rows & request.rows == 0 || !lasts,
                "{} is sent while {} may still be applied",
                request.name,
                other.name
            );
        }
        self.wire.push(request);
    }

    /// Commits that changed a row, in their order.
    pub(super) fn executed(&self, row: u8) -> impl Iterator<Item = &str> {
        let done = self.executions.iter().filter(move |(one, ..)| *one == row);
        done.map(|(_, name, _)| name.as_str())
    }
}

impl World {
    pub(super) fn arrive(&mut self, which: usize, mood: Mood) {
        let now = self.now;
        self.endpoint.wire.retain(|request| request.may_arrive(now));
        let Some(request) = around(&self.endpoint.wire, which).cloned() else {
            return;
        };
        let place = which % self.endpoint.wire.len();
        if !matches!(mood, Mood::Fail { copy: true }) {
            self.endpoint.wire.remove(place);
        }
        let known = self.endpoint.applied.contains(&request.name);
        if matches!(mood, Mood::Apply | Mood::ApplySilently) && !known {
            self.execute(&request);
        }
        let error = || AttemptError {
            class: "http_status".to_owned(),
            message: "no".to_owned(),
        };
        let applied = || Outcome::Applied(changes(request.rows));
        let answer = match mood {
            Mood::Apply => (applied(), false),
            Mood::Refuse if known => (applied(), false),
            Mood::Refuse => (
                Outcome::Refused {
                    code: "taken".to_owned(),
                    message: "no".to_owned(),
                },
                false,
            ),
            Mood::Fail { .. } => (
                Outcome::Retry {
                    retry_after: None,
                    error: error(),
                },
                true,
            ),
            Mood::Misconfigured => (Outcome::Misconfigured { error: error() }, false),
            Mood::Gone => (Outcome::Gone { error: error() }, false),
            Mood::ApplySilently | Mood::Lose => return,
        };
        self.answer(&request, answer);
    }

    /// Applies all that is on its way, and says so.
    pub(super) fn answer_all(&mut self) {
        while !self.endpoint.wire.is_empty() {
            self.arrive(0, Mood::Apply);
        }
    }

    /// Nothing takes effect that is final already, nor behind what came after it.
    fn execute(&mut self, request: &Request) {
        let (state, place) = self
            .tables
            .standing(&request.name)
            .expect("it was accepted");
        let place = place.expect("it has a place in the inbox");
        assert_eq!(state, CommitState::Queued, "{} is final", request.name);
        for row in ids(request.rows) {
            let before = self.endpoint.executions.iter();
            let last = before
                .filter(|(one, ..)| *one == row)
                .map(|(.., place)| *place);
            assert!(last.max() < Some(place), "{} comes too late", request.name);
            let done = (row, request.name.clone(), place);
            self.endpoint.executions.push(done);
        }
        self.endpoint.applied.insert(request.name.clone());
    }
}

fn changes(rows: u8) -> Vec<Change> {
    let changes = ids(rows).enumerate().map(|(operation, row)| Change {
        operation: Some(operation),
        kind: OperationKind::Update,
        model: "airports".to_owned(),
        id: row.to_string(),
        row: Some(json!({"id": row.to_string(), "n": 1}).try_into().unwrap()),
        transaction_id: None,
    });
    changes.collect()
}
