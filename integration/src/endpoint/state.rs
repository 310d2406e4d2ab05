//! What an endpoint knows, and what it does with a request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

use axum::http::StatusCode;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Connection, Request};
use super::database::Database;
use super::script::{Answer, Character, Gate, Kind};
use super::{Arrival, Execution, ORDER};

#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
    /// Counts changes of `inner`, to wake whoever waits for one.
    pub(super) changes: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) keys: Vec<String>,
    pub(super) database: Database,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) executions: Vec<Execution>,
    pub(super) scripts: HashMap<Kind, VecDeque<Answer>>,
    pub(super) habits: HashMap<Kind, Answer>,
    /// Answers to every commit that touches a row.
    pub(super) rows: HashMap<String, Answer>,
    pub(super) character: Option<Character>,
    /// Statuses that were sent back, by the arrival's place.
    pub(super) replies: BTreeMap<u64, u16>,
    pub(super) gates: HashMap<Kind, Gate>,
    /// Commit requests that were not answered yet, and the most that there were at once.
    pub(super) at_once: usize,
    pub(super) most_at_once: usize,
}

impl State {
    pub(super) fn new(key: &str) -> Self {
        let inner = Inner {
            keys: vec![key.to_owned()],
            database: Database::default(),
            arrivals: Vec::new(),
            executions: Vec::new(),
            scripts: HashMap::new(),
            habits: HashMap::new(),
            rows: HashMap::new(),
            character: None,
            replies: BTreeMap::new(),
            gates: HashMap::new(),
            at_once: 0,
            most_at_once: 0,
        };
        Self {
            inner: Mutex::new(inner),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nothing panics while it holds this lock")
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        changed
    }

    /// Reads one request and answers it; says whether the connection goes on.
    pub(super) async fn exchange(&self, connection: &mut Connection) -> io::Result<bool> {
        let Some(request) = connection.request().await? else {
            return Ok(false);
        };
        let (arrival, gate, answer) = self.change(|inner| inner.arrive(request));
        if let Some(gate) = gate {
            gate.passed().await;
        }
        if let Some(gate) = &answer.before {
            gate.passed().await;
        }
        let honest = if answer.applies {
            self.change(|inner| inner.answer(&arrival))
        } else {
            (StatusCode::OK, Value::Null)
        };
        if let Some(gate) = &answer.after {
            gate.passed().await;
        }
        // Before the reply: what it brings about may arrive before we come back.
        if arrival.kind == Some(Kind::Commit) {
            self.lock().at_once -= 1;
        }
        if let Some(status) = answer.reply.status(honest.0) {
            self.lock().replies.insert(arrival.order, status);
        }
        connection.reply(&answer.reply, honest).await
    }
}

impl Inner {
    fn arrive(&mut self, request: Request) -> (Arrival, Option<Gate>, Answer) {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let kind = body["type"].as_str().and_then(Kind::parse);
        let arrival = Arrival {
            order: next_order(),
            at: Instant::now(),
            kind,
            signature_error: self.signature_error(&request),
            headers: request.headers,
            bytes: request.body,
            body,
        };
        self.arrivals.push(arrival.clone());
        if kind == Some(Kind::Commit) {
            self.at_once += 1;
            self.most_at_once = self.most_at_once.max(self.at_once);
        }
        let Some(kind) = kind else {
            return (arrival, None, Answer::honest());
        };
        let scripted = self.scripts.get_mut(&kind).and_then(VecDeque::pop_front);
        let of_row = arrival.rows().find_map(|row| self.rows.get(row));
        let answer = scripted
            .or_else(|| of_row.cloned())
            .or_else(|| self.habits.get(&kind).cloned())
            .or_else(|| match (&mut self.character, kind) {
                (Some(character), Kind::Commit) => Some(character.0(&arrival)),
                _ => None,
            });
        (
            arrival,
            self.gates.get(&kind).cloned(),
            answer.unwrap_or_else(Answer::honest),
        )
    }

    fn signature_error(&self, request: &Request) -> Option<String> {
        let mut error = Some("the endpoint has no key".to_owned());
        for key in &self.keys {
            let verifier = Webhook::from_bytes(key.clone().into_bytes());
            error = match verifier.and_then(|it| it.verify(&request.body, &request.headers)) {
                Ok(()) => return None,
                Err(error) => Some(error.to_string()),
            };
        }
        error
    }

    /// What an honest endpoint does.
    fn answer(&mut self, arrival: &Arrival) -> (StatusCode, Value) {
        if arrival.signature_error.is_some() {
            return (
                StatusCode::UNAUTHORIZED,
                json!({"error": "source_signature_invalid"}),
            );
        }
        let (status, answer, applied) = self.database.answer(&arrival.body, arrival.webhook_id());
        if applied {
            self.executions.push(Execution {
                order: next_order(),
                webhook_id: arrival.webhook_id().to_owned(),
                client_tx_id: arrival.client_tx_id().to_owned(),
                operations: arrival.body["operations"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default(),
            });
        }
        (status, answer)
    }
}

fn next_order() -> u64 {
    ORDER.fetch_add(1, Ordering::SeqCst)
}
