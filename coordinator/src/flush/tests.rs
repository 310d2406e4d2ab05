//! The flusher against a real database, and against other nodes.

mod ahead;
mod events;
mod memory;
mod several;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::classify::{AttemptError, Outcome};
use backends::data_source::schedule::RetrySchedule;
use backends::operation::{Change, OnStale, Operation, OperationKind, RowKey};
use serde_json::json;
use sqlx::Row;

use super::flusher::Decided;
use super::*;
use crate::admit::schema::Schema;
use crate::decide::{Accept, Control, PushSchema, Settle, Start, Started, State};
use crate::domain::{
    Commit, CommitId, CommitState, Participant, ParticipantKind, Route, SourceSettings,
};
use crate::store::scratch::Scratch;

fn organization() -> OrganizationId {
    OrganizationId::new("acme")
}

fn schema(version: i32) -> Arc<Schema> {
    let fields = json!({"type": "object", "properties": {"n": {"type": "number"}}});
    let document = json!({"models": {
        "notes": {"backing": "managed", "schema": fields},
        "airports": {"backing": {"dataSource": "crm"}, "schema": fields},
    }});
    Arc::new(Schema::compile(version, document.to_string().as_bytes()).unwrap())
}

fn node(scratch: &Scratch) -> Flushers {
    node_on(scratch.store.clone().sharing(64))
}

fn node_on(store: Store) -> Flushers {
    let schemas = Arc::new(SchemaCache::new(Arc::new(store.clone())));
    Flushers::new(
        store,
        schemas,
        Arc::default(),
        Metrics::noop(),
        TaskTracker::new(),
    )
}

/// An organization with a source and a schema.
async fn prepared(scratch: &Scratch) -> Flushers {
    crate::migrate::partitions::ensure(&scratch.store.reads)
        .await
        .unwrap();
    let node = node(scratch);
    let create = Control::CreateSource("crm".to_owned(), settings());
    let reply = node
        .submit(&organization(), Command::Control(create))
        .await
        .unwrap();
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    let push = PushSchema {
        schema: schema(0),
        document: schema(0).canonical_document().to_owned(),
        replaces: 0,
        drops: Vec::new(),
        moves: Vec::new(),
        force: false,
    };
    let push = Command::Control(Control::PushSchema(push));
    let reply = node.submit(&organization(), push).await.unwrap();
    assert!(matches!(reply, Reply::Pushed(1)), "{reply:?}");
    node
}

fn settings() -> SourceSettings {
    SourceSettings {
        url: "https://crm.example/".to_owned(),
        retry: RetrySchedule {
            delays: vec![Duration::from_secs(5)],
        },
        request_timeout: Duration::from_secs(15),
        max_in_flight: 16,
        max_per_second: 0,
        max_pending: 1_000_000,
        feed_lag: Duration::from_mins(1),
    }
}

fn start(sequence: i64, node: uuid::Uuid) -> Command {
    Command::Start(Start {
        source: "crm".to_owned(),
        epoch: 1,
        sequence,
        node,
        terms: None,
        revision: 0,
        weight: 0,
    })
}

fn create(name: &str, model: &str, id: &str) -> Command {
    let route = match model {
        "notes" => Route::Managed,
        _ => Route::Source("crm".to_owned()),
    };
    let body = (route != Route::Managed).then(|| bytes::Bytes::from_static(b"{}"));
    let operation = Operation {
        kind: OperationKind::Create,
        model: model.to_owned(),
        id: id.to_owned(),
        input: json!({"id": id, "n": 1}).as_object().cloned().unwrap(),
        transaction_id: None,
        read_at: None,
        on_stale: OnStale::Reject,
    };
    let commit = Arc::new(Commit {
        client_tx_id: name.to_owned(),
        id: CommitId::generate(),
        fingerprint: [7; 32],
        participant: Participant {
            id: "ann".to_owned(),
            kind: ParticipantKind::User,
        },
        operations: vec![operation],
        assigned: Vec::new(),
        route,
        required_sync_groups: Vec::new(),
        traceparent: None,
        expires_at: None,
    });
    Command::Accept(Accept {
        commit,
        schema: schema(1),
        body,
        weight: 0,
    })
}

fn of_note(name: &str, id: &str, kind: OperationKind) -> Command {
    let Command::Accept(mut accept) = create(name, "notes", id) else {
        unreachable!("a commit is accepted")
    };
    let commit = Arc::make_mut(&mut accept.commit);
    commit.operations[0].kind = kind;
    Command::Accept(accept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_commit_reads_back_with_its_rows() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let reply = node
        .submit(&organization(), create("a", "notes", "1"))
        .await
        .unwrap();
    let Reply::Confirmed(receipt) = reply else {
        panic!("{reply:?}")
    };
    let recorded = scratch.store.receipt(&organization(), "a").await.unwrap();
    assert_eq!(recorded, Some(*receipt));
    let again = node
        .submit(&organization(), create("a", "notes", "1"))
        .await
        .unwrap();
    assert!(matches!(again, Reply::Replay(_)), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_moved_after_it_was_read_is_found_by_its_key() {
    let scratch = Scratch::start().await;
    let (node, organization) = (prepared(&scratch).await, organization());
    // The first leaves a gap, so that the others move up.
    for command in [
        create("a", "notes", "1"),
        create("b", "notes", "2"),
        create("c", "notes", "3"),
        of_note("d", "1", OperationKind::Delete),
    ] {
        node.submit(&organization, command).await.unwrap();
    }
    let commands = [of_note("e", "2", OperationKind::Archive)];
    let touched = touched(&commands);
    let mut round = scratch.store.round().await.unwrap();
    let state = round.read(&organization, &touched).await.unwrap().unwrap();
    let stood_at = |state: &State| state.rows.values().next()?.stood_at.clone();
    let before = stood_at(&state);
    let departures = Departures::default();
    let decided = Decided::new(&organization, (round, state), &commands, departures).unwrap();
    sqlx::query("VACUUM FULL managed_rows")
        .execute(&scratch.store.reads)
        .await
        .unwrap();
    let (written, _) = decided
        .round
        .append(decided.statement.unwrap())
        .await
        .unwrap();
    assert!(written.is_some());
    let mut round = scratch.store.round().await.unwrap();
    let after = round.read(&organization, &touched).await.unwrap().unwrap();
    assert_ne!(before, stood_at(&after));
    let archived = "SELECT array_agg(row_id) FROM managed_rows WHERE archived_at IS NOT NULL";
    let archived: Vec<String> = sqlx::query_scalar(archived)
        .fetch_one(&scratch.store.reads)
        .await
        .unwrap();
    assert_eq!(archived, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_race_for_one_organization_lose_nothing_and_repeat_nothing() {
    let scratch = Scratch::start().await;
    let first = prepared(&scratch).await;
    let second = node(&scratch);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        // Every name is sent to both nodes at once: one of them must find the other's entry.
        for node in [first.clone(), second.clone()] {
            let command = create(&number.to_string(), "notes", &number.to_string());
            calls.spawn(async move { node.submit(&organization(), command).await.unwrap() });
        }
    }
    let replies = calls.join_all().await;
    let confirmed = replies
        .iter()
        .filter(|reply| matches!(reply, Reply::Confirmed(_)))
        .count();
    let replayed = replies
        .iter()
        .filter(|reply| matches!(reply, Reply::Replay(_)))
        .count();
    assert_eq!((confirmed, replayed), (200, 200));
    let rows = sqlx::query("SELECT sync_id, row_id FROM deltas ORDER BY sync_id")
        .fetch_all(&scratch.store.reads)
        .await
        .unwrap();
    let positions: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(positions, (42..=241).collect::<Vec<i64>>());
    let ids: BTreeSet<String> = rows.iter().map(|row| row.get(1)).collect();
    assert_eq!(ids.len(), 200);
}

/// The endpoint answered 503.
fn busy(started: &Started) -> Settle {
    let error = AttemptError {
        class: "http_status".to_owned(),
        message: "503".to_owned(),
    };
    Settle {
        source: "crm".to_owned(),
        epoch: 1,
        sequence: 1,
        client_tx_id: "a".to_owned(),
        started_at: started.started_at,
        duration: Duration::from_millis(3),
        http_status: Some(503),
        outcome: Outcome::Retry {
            retry_after: None,
            error,
        },
        may_still_apply: false,
        excerpt: Some("busy".to_owned()),
        rows: Vec::new(),
        unclear: Vec::new(),
        read_back: None,
        url: "https://crm.example/".to_owned(),
        trigger: started.trigger,
        never_left: false,
        jitter: 0.5,
        certificate_expires_at: None,
    }
}

/// One round of a flusher, which remembers the one before.
async fn round(flusher: &mut Flusher<'_>, command: Command, locked: bool) -> Reply {
    let (answer, mut reply) = oneshot::channel();
    let mut batch = Submitted::one(command, answer);
    let touched = touched(&batch.commands);
    let attempt = flusher.attempt(&mut batch, &touched, locked);
    if !Box::pin(attempt).await.unwrap() {
        // What was remembered did not hold: now it is read.
        flusher.forget();
        let attempt = flusher.attempt(&mut batch, &touched, locked);
        assert!(Box::pin(attempt).await.unwrap());
    }
    reply.try_recv().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_under_the_heads_lock_comes_to_the_same_and_lets_go() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    for (name, locked) in [("a", true), ("b", false), ("c", true)] {
        let mut flusher = Flusher::new(&node.shared, organization());
        let reply = round(&mut flusher, create(name, "notes", name), locked).await;
        assert!(matches!(reply, Reply::Confirmed(_)), "{reply:?}");
    }
    // One that is given up lets go as well: the next round is not held up.
    drop(scratch.store.locked_round(&organization()).await.unwrap());
    let reply = node
        .submit(&organization(), create("d", "notes", "d"))
        .await;
    assert!(matches!(reply.unwrap(), Reply::Confirmed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_batch_that_lost_its_races_the_next_take_the_lock_at_once() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    // As if another node were first each time, until the head's lock is taken first.
    let lose = "CREATE SEQUENCE lost;
                CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    IF EXISTS (
                        SELECT FROM pg_locks WHERE pid = pg_backend_pid()
                            AND relation = 'heads'::regclass AND mode = 'RowShareLock'
                    ) THEN
                        RETURN new;
                    END IF;
                    PERFORM nextval('lost');
                    RETURN NULL;
                END $$;
                CREATE TRIGGER lose BEFORE UPDATE ON heads FOR EACH ROW EXECUTE FUNCTION lose()";
    let lose = sqlx::raw_sql(lose).execute(&scratch.store.reads);
    lose.await.unwrap();
    let mut flusher = Flusher::new(&node.shared, organization());
    for (name, lost) in [("a", 2), ("b", 2), ("c", 2)] {
        let (answer, mut reply) = oneshot::channel();
        let batch = Submitted::one(create(name, "notes", name), answer);
        flusher.flush(batch, None).await;
        let reply = reply.try_recv().unwrap();
        assert!(matches!(reply, Ok(Reply::Confirmed(_))), "{reply:?}");
        let counted = sqlx::query_scalar("SELECT last_value FROM lost");
        let counted: i64 = counted.fetch_one(&scratch.store.reads).await.unwrap();
        assert_eq!(counted, lost, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_for_a_source_is_recorded_started_and_settled() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let organization = organization();
    let owner = uuid::Uuid::new_v4();
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: owner,
        gone: None,
    };
    node.submit(&organization, Command::Control(claim))
        .await
        .unwrap();
    let reply = node
        .submit(&organization, create("a", "airports", "1"))
        .await
        .unwrap();
    assert!(matches!(reply, Reply::Queued(_, 1)), "{reply:?}");
    let start = start(1, owner);
    let reply = node.submit(&organization, start).await.unwrap();
    let Reply::Started(started) = reply else {
        panic!("{reply:?}")
    };
    let settle = busy(&started);
    let reply = node
        .submit(&organization, Command::Settle(settle))
        .await
        .unwrap();
    let Reply::Settled(Some(entry), source) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!((entry.spent, source.pending), (1, 1));
    let window = scratch
        .store
        .window(&organization, "crm", 0, 10)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(window.entries.len(), 1);
    assert_eq!(window.entries[0].lanes.len(), 1);
    assert_eq!(
        window.entries[0].due_at.unix_timestamp(),
        entry.due_at.unix_timestamp()
    );
    let receipt = scratch
        .store
        .receipt(&organization, "a")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((receipt.state, receipt.attempts), (CommitState::Queued, 1));
}

fn airport(id: &str) -> RowKey {
    RowKey {
        model: "airports".to_owned(),
        id: id.to_owned(),
    }
}

/// Some leave a version of their row, and some take it away again.
fn outcome_of(number: i64) -> Outcome {
    let id = number.to_string();
    if number % 2 == 1 {
        return Outcome::Refused {
            code: "taken".to_owned(),
            message: String::new(),
        };
    }
    Outcome::Applied(vec![Change {
        operation: Some(0),
        kind: OperationKind::Create,
        model: "airports".to_owned(),
        row: Some(json!({"id": id}).try_into().unwrap()),
        id,
        transaction_id: None,
    }])
}

/// A statement that was planned while its table was empty must not read it whole ever after.
#[tokio::test(flavor = "multi_thread")]
async fn look_ups_stay_look_ups_while_tables_grow_from_empty() {
    const COMMITS: i64 = 400;
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let organization = organization();
    let owner = uuid::Uuid::new_v4();
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: owner,
        gone: None,
    };
    let submit = |command| node.submit(&organization, command);
    submit(Command::Control(claim)).await.unwrap();
    for number in 1..=COMMITS {
        let id = number.to_string();
        let created = create(&format!("n{id}"), "notes", &id);
        submit(created).await.unwrap();
        submit(create(&id, "airports", &id)).await.unwrap();
        let start = start(number, owner);
        let Reply::Started(started) = submit(start).await.unwrap() else {
            panic!("not started")
        };
        let settle = Settle {
            sequence: number,
            rows: vec![airport(&id)],
            outcome: outcome_of(number),
            client_tx_id: id,
            ..busy(&started)
        };
        submit(Command::Settle(settle)).await.unwrap();
    }
    // A session tells what it read when it ends.
    scratch.store.ledger.close().await;
    let read: Vec<(String, i64)> = sqlx::query_as(
        "SELECT relname::text, coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)
         FROM pg_stat_user_tables
         WHERE relname IN ('commits', 'inbox', 'row_versions')
            OR relname LIKE 'attempts%'",
    )
    .fetch_all(&scratch.store.reads)
    .await
    .unwrap();
    for (table, rows) in read {
        let least = match table.as_str() {
            "commits" | "inbox" => COMMITS,
            "row_versions" => COMMITS / 2,
            _ => 0,
        };
        let range = least..=8 * COMMITS;
        assert!(range.contains(&rows), "{rows} rows of {table} were read");
    }
}
