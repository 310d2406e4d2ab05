//! A customer's endpoint that a test directs: a real server on a loopback port with an honest
//! database in memory, which can be told to be slow, wrong, silent or gone.
//!
//! Every request is on the record twice: as an *arrival*, whatever became of it, and as an
//! *execution* if it changed the database. Both carry a number from one counter that all endpoints
//! of the process share, so that a test can tell what came first. Nothing here sleeps: a test waits
//! for arrivals and executions, and holds requests at gates that it opens itself.

mod connection;
mod database;
mod script;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::connection::Connection;
pub use self::database::{Ledger, Row};
use self::script::Character;
pub use self::script::{Answer, Gate, Kind, Reply};
use self::state::State;

/// What a test waits for comes long before this, or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// Orders the arrivals and executions of all endpoints in this process.
static ORDER: AtomicU64 = AtomicU64::new(1);

/// A request that reached the endpoint.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its place among all arrivals and executions of the process.
    pub order: u64,
    /// When its last byte was read.
    pub at: Instant,
    /// The body's `type`; absent if there was none that is known.
    pub kind: Option<Kind>,
    /// As they came.
    pub headers: HeaderMap,
    /// The bytes, as they came.
    pub bytes: Vec<u8>,
    /// The bytes as JSON; null if they were none.
    pub body: Value,
    /// Why the public library refuses the signature; absent if it does not.
    pub signature_error: Option<String>,
}

impl Arrival {
    /// A header's value; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The request's `webhook-id`.
    pub fn webhook_id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The commit's `clientTxId`; empty for other kinds.
    pub fn client_tx_id(&self) -> &str {
        self.body["clientTxId"].as_str().unwrap_or_default()
    }

    /// Ids of the rows that the commit touches; none for other kinds.
    pub fn rows(&self) -> impl Iterator<Item = &str> {
        let operations = self.body["operations"].as_array().into_iter().flatten();
        operations.filter_map(|it| it["id"].as_str())
    }
}

/// A commit that changed the endpoint's database.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Its place among all arrivals and executions of the process.
    pub order: u64,
    /// The request's `webhook-id`.
    pub webhook_id: String,
    /// The commit's `clientTxId`.
    pub client_tx_id: String,
    /// What was applied.
    pub operations: Vec<Value>,
}

/// The endpoint. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinSet<()>,
}

impl Endpoint {
    /// Opens an honest endpoint on a free loopback port that verifies signatures with one key.
    pub async fn start(key: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut endpoint = Self {
            address,
            state: Arc::new(State::new(key)),
            server: JoinSet::new(),
        };
        endpoint.serve(listener);
        Ok(endpoint)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/ablo", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection; requests inside are cut off.
    pub async fn stop(&mut self) {
        self.server.shutdown().await;
    }

    /// Opens the same port again; the database, the record and the scripts are as they were.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await?;
        self.serve(listener);
        Ok(())
    }

    /// The keys that signatures are verified with, any one of which serves.
    pub fn set_keys(&self, keys: &[&str]) {
        self.state
            .change(|inner| inner.keys = keys.iter().map(ToString::to_string).collect());
    }

    /// By which id commits are told apart.
    pub fn set_ledger(&self, ledger: Ledger) {
        self.state.change(|inner| inner.database.ledger = ledger);
    }

    /// Answers that there is no feed, as an endpoint without an outbox does.
    pub fn without_feed(&self) {
        let none = Answer::error(StatusCode::NOT_FOUND, "source_events_not_configured");
        self.always(Kind::Events, none);
    }

    /// Tells of commits in the feed as well, as an outbox does.
    pub fn echo_commits(&self) {
        self.state.change(|inner| inner.database.echoes = true);
    }

    /// Answers the next request of a kind in one way; calls queue up.
    pub fn script(&self, kind: Kind, answer: Answer) {
        self.state
            .change(|inner| inner.scripts.entry(kind).or_default().push_back(answer));
    }

    /// Answers every request of a kind in one way, once its scripts are used up.
    pub fn always(&self, kind: Kind, answer: Answer) {
        self.state.change(|inner| inner.habits.insert(kind, answer));
    }

    /// Decides anew for each commit how it is answered, unless a script or a habit says so.
    pub fn behave(&self, character: impl FnMut(&Arrival) -> Answer + Send + 'static) {
        let character = Character(Box::new(character));
        self.state.change(|inner| inner.character = Some(character));
    }

    /// Answers every commit that touches a row in one way, whatever it does with others.
    pub fn always_for(&self, row: &str, answer: Answer) {
        self.state
            .change(|inner| inner.rows.insert(row.to_owned(), answer));
    }

    /// The most commit requests that it had at once since its start.
    pub fn most_at_once(&self) -> usize {
        self.state.lock().most_at_once
    }

    /// Forgets scripts and habits of a kind.
    pub fn be_honest(&self, kind: Kind) {
        self.state.change(|inner| {
            inner.scripts.remove(&kind);
            inner.habits.remove(&kind);
        });
    }

    /// Holds every request of a kind after its arrival, before anything else.
    pub fn hold(&self, kind: Kind) {
        self.state
            .change(|inner| inner.gates.insert(kind, Gate::closed()));
    }

    /// Lets go whatever [`Endpoint::hold`] holds, now and from now on.
    pub fn release(&self, kind: Kind) {
        self.state
            .change(|inner| inner.gates.remove(&kind).inspect(Gate::open));
    }

    /// What has arrived, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.state.lock().arrivals.clone()
    }

    /// The status that was sent back to an arrival, if one was.
    pub fn replied(&self, arrival: &Arrival) -> Option<u16> {
        self.state.lock().replies.get(&arrival.order).copied()
    }

    /// What has arrived of one kind, in order.
    pub fn arrivals_of(&self, kind: Kind) -> Vec<Arrival> {
        self.arrivals()
            .into_iter()
            .filter(|arrival| arrival.kind == Some(kind))
            .collect()
    }

    /// What has changed the database, in order.
    pub fn executions(&self) -> Vec<Execution> {
        self.state.lock().executions.clone()
    }

    /// A row, as the database has it.
    pub fn row(&self, model: &str, id: &str) -> Option<Value> {
        self.state
            .lock()
            .database
            .row(model, id)
            .cloned()
            .map(Value::Object)
    }

    /// A model's rows, by id.
    pub fn rows(&self, model: &str) -> BTreeMap<String, Value> {
        let inner = self.state.lock();
        inner
            .database
            .rows(model)
            .map(|(id, row)| (id.clone(), row.clone().into()))
            .collect()
    }

    /// Writes a row past the coordinator, as the customer's own app does, and publishes the event.
    pub fn write_outside(&self, model: &str, id: &str, row: Row) {
        self.state
            .change(|inner| inner.database.write_outside(model, id, row));
    }

    /// As [`Endpoint::write_outside`], under a name that the event and its change have, and at a place
    /// in the feed: its end if none is given.
    pub fn write_outside_at(
        &self,
        place: Option<u64>,
        name: &str,
        (model, id, row): (&str, &str, Row),
    ) {
        self.state.change(|inner| {
            let mut event = inner.database.change_outside(model, id, row);
            event["id"] = name.into();
            event["transactionId"] = name.into();
            let place = place.unwrap_or_else(|| inner.database.next_position());
            inner.database.events.insert(place, event);
        });
    }

    /// A place in the feed that is left free, with this event behind it.
    pub fn leave_a_place_before(&self, name: &str, (model, id, row): (&str, &str, Row)) -> u64 {
        self.state.change(|inner| {
            let free = inner.database.next_position();
            let mut event = inner.database.change_outside(model, id, row);
            event["id"] = name.into();
            event["transactionId"] = name.into();
            inner.database.events.insert(free + 1, event);
            free
        })
    }

    /// Tells of an event once more, at the feed's end.
    pub fn tell_again(&self, name: &str) {
        self.state.change(|inner| {
            let told = inner.database.events.values().find(|it| it["id"] == name);
            if let Some(event) = told.cloned() {
                inner.database.publish(event);
            }
        });
    }

    /// Publishes an event, whatever the rows say.
    pub fn publish(&self, event: Value) {
        self.state.change(|inner| inner.database.publish(event));
    }

    /// Publishes an event at a place of its own in the feed, late if others follow it already.
    pub fn publish_at(&self, position: u64, event: Value) {
        self.state
            .change(|inner| inner.database.events.insert(position, event));
    }

    /// Waits until so many requests of a kind have arrived since the start, and returns them.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn wait_for_arrivals(&self, kind: Kind, count: usize) -> Vec<Arrival> {
        self.wait_for(&format!("{count} arrivals of {kind:?}"), || {
            let of_kind = |it: &&Arrival| it.kind == Some(kind);
            let arrived = self.state.lock().arrivals.iter().filter(of_kind).count();
            (arrived >= count).then(|| self.arrivals_of(kind))
        })
        .await
    }

    /// Waits until so many commits have been executed since the start, and returns them.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn wait_for_executions(&self, count: usize) -> Vec<Execution> {
        self.wait_for(&format!("{count} executions"), || {
            let executed = self.state.lock().executions.len();
            (executed >= count).then(|| self.executions())
        })
        .await
    }

    async fn wait_for<T>(&self, what: &str, met: impl Fn() -> Option<T>) -> T {
        let mut changes = self.state.changes.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = met() {
                    return found;
                }
                changes
                    .changed()
                    .await
                    .expect("the endpoint owns the sender");
            }
        };
        let Ok(found) = timeout(PATIENCE, waiting).await else {
            let arrivals = self.arrivals();
            panic!("waited in vain for {what}; arrived: {arrivals:#?}");
        };
        found
    }

    fn serve(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        self.server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let mut connection = Connection::new(stream);
                    // A connection that fails has nobody left to tell.
                    while let Ok(true) = state.exchange(&mut connection).await {}
                });
                while connections.try_join_next().is_some() {}
            }
        });
    }
}
