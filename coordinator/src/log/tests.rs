use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use backends::json::{Document, parse_stored};
use backends::operation::{Change, OperationKind};
use sqlx::Executor;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::cursor::Cursors;
use super::entry::Entry;
use super::pages::Pages;
use super::ring::After;
use super::tail::Log;
use super::{Break, Reader};
use crate::admit::Filter;
use crate::decide::{Append, DeltaRow, Membership, Touched};
use crate::domain::{Delta, Participant, ParticipantKind};
use crate::keys::MasterKeys;
use crate::store::Error;
use crate::store::append::{Batch, Statement};
use crate::store::log::{Growth, Logged, Span};
use crate::store::scratch::{Scratch, acme};
use crate::telemetry::metrics::Metrics;
use crate::wake::Wake;

fn cursors() -> Cursors {
    let keys = MasterKeys::parse(&format!("m1:{}=", "A".repeat(43))).unwrap();
    Cursors::new(&keys)
}

/// A change as the store reads it.
pub(super) fn logged(position: i64, row: &str) -> Logged {
    Logged::scratch(position, row.to_owned())
}

/// A change as it is kept.
pub(super) fn encoded(logged: Logged) -> Arc<Entry> {
    let seal = cursors().seal(&acme());
    Arc::new(Entry::new(logged, Uuid::nil(), &seal).unwrap())
}

/// An entry at a position, with a row of about this size.
pub(super) fn entry(position: i64, size: usize) -> Arc<Entry> {
    encoded(logged(position, &"x".repeat(size)))
}

/// Waits until the tail has got there.
async fn reaches(log: &Log, position: i64) {
    let mut moved = log.watch();
    let reached = async {
        while log.reached().position < position {
            moved.changed().await.unwrap();
        }
    };
    let reached = tokio::time::timeout(Duration::from_mins(1), reached).await;
    reached.expect("the tail goes on");
}

/// A change of note `a` that a commit made, as an append has it.
fn delta(position: i64, row: Option<&str>) -> DeltaRow {
    let change = Change {
        operation: Some(0),
        kind: OperationKind::Update,
        model: "notes".to_owned(),
        id: "a".to_owned(),
        row: row.map(|row| Document::try_from(parse_stored(row).unwrap()).unwrap()),
        transaction_id: None,
    };
    DeltaRow {
        delta: Delta {
            sync_id: position,
            change,
            stale: false,
        },
        client_tx_id: Some(format!("tx-{position}")),
        participant: None,
        membership: Membership::default(),
    }
}

async fn epoch(pool: &PgPool) -> Uuid {
    let epoch = sqlx::query_scalar("SELECT log_epoch FROM heads");
    epoch.fetch_one(pool).await.unwrap()
}

fn reader(scratch: &Scratch) -> Reader {
    Reader {
        store: scratch.store.clone(),
        cursors: cursors(),
        metrics: Metrics::noop(),
        tasks: TaskTracker::new(),
        turns: Semaphore::new(2),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_read_is_told_to_who_follows_and_the_tail_goes_on() {
    let scratch = Scratch::start().await;
    let partitions = crate::migrate::partitions::ensure(&scratch.store.reads);
    partitions.await.unwrap();
    let wake = Arc::<Wake>::default();
    let log = Arc::new(Log::new(acme(), Arc::new(reader(&scratch))));
    assert!(log.start(&wake).await.unwrap());
    let follows = async |position: i64, kind: &str| {
        let sql = format!(
            "INSERT INTO deltas (org_id, sync_id, created_at, kind, model, row_id, row)
             VALUES ('acme', {position}, clock_timestamp(), '{kind}', 'notes', 'a', '{{}}');
             UPDATE heads SET last_sync_id = {position}"
        );
        let written = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        scratch.store.reads.execute(written).await.unwrap();
        wake.ring_log(&acme());
    };
    let until = async |position: i64| reaches(&log, position).await;
    let start = log.reached().position;
    follows(start + 1, "UPDATE").await;
    until(start + 1).await;
    follows(start + 2, "NONSENSE").await;
    until(start + 2).await;
    let era = log.era();
    let told = log.after(era, start + 1, (9, 9_999));
    assert!(matches!(told, Ok(After::Behind)), "{told:?}");
    let told = log.page(era, start + 1).await;
    assert!(matches!(told, Err(Error::Corrupt { .. })), "{told:?}");
    follows(start + 3, "UPDATE").await;
    until(start + 3).await;
    let after = log.after(era, start + 2, (9, 9_999));
    assert!(matches!(after, Ok(After::Entries(_))), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_read_once_for_all_and_say_what_is_missing_and_why() {
    let scratch = Scratch::start().await;
    let partitions = crate::migrate::partitions::ensure(&scratch.store.reads);
    partitions.await.unwrap();
    scratch
        .run(
            "INSERT INTO deltas (org_id, sync_id, created_at, kind, model, row_id, row)
             SELECT 'acme', position, clock_timestamp(), 'UPDATE', 'notes', 'a', '{}'
             FROM generate_series(3, 600) AS position WHERE position <> 550;
             UPDATE heads SET last_sync_id = 600",
        )
        .await;
    let reader = reader(&scratch);
    let (pages, organization) = (Pages::default(), acme());
    let epoch = epoch(&scratch.store.reads).await;
    let after = |position| pages.after(&reader, &organization, (epoch, position));

    let asked = (300..340).map(after);
    let read = futures_util::future::join_all(asked).await;
    let read = read.into_iter().map(|page| page.unwrap().unwrap());
    let mut shared: Option<Arc<Entry>> = None;
    for (page, position) in read.zip(300..) {
        assert_eq!(page.entries[0].sync_id, position + 1);
        let last = page.entries.last().unwrap();
        assert_eq!(last.sync_id, 512);
        let first = shared.get_or_insert_with(|| Arc::clone(last));
        assert!(Arc::ptr_eq(first, last), "it was read again for {position}");
    }
    // The page that others begin at is not kept any more, what follows is.
    let oldest = after(2).await.unwrap().unwrap();
    assert_eq!(oldest.entries[0].sync_id, 3);
    let broken = |read: Result<_, _>| read.map(|_: Arc<super::pages::Page>| ()).unwrap_err();
    assert_eq!(broken(after(1).await.unwrap()), Break::Expired);
    // A position that is missing between others is a fault, and nobody gets past it.
    assert_eq!(broken(after(549).await.unwrap()), Break::Gap);
    assert_eq!(broken(after(601).await.unwrap()), Break::Diverged);
    let other = pages.after(&reader, &organization, (Uuid::nil(), 300));
    assert_eq!(broken(other.await.unwrap()), Break::Diverged);
}

#[tokio::test]
async fn what_this_node_appends_is_handed_on_as_it_would_be_read() {
    let scratch = Scratch::start().await;
    let partitions = crate::migrate::partitions::ensure(&scratch.store.reads);
    partitions.await.unwrap();
    let mut round = scratch.store.round().await.unwrap();
    let state = round.read(&acme(), &Touched::default()).await;
    let state = state.unwrap().unwrap();
    let mut changed = delta(42, Some(r#"{"id": "a", "text": "\u00e9 1.50", "n": 1e2}"#));
    changed.delta.change.transaction_id = Some("mine".to_owned());
    changed.delta.stale = true;
    changed.participant = Some(Participant {
        id: "ann".to_owned(),
        kind: ParticipantKind::Agent,
    });
    let mut removed = delta(43, None);
    removed.delta.change.kind = OperationKind::Delete;
    removed.delta.change.operation = None;
    removed.client_tx_id = None;
    removed.membership = Membership {
        groups: vec!["b\"\\".to_owned(), "a,{}".to_owned()],
        left: vec!["é".to_owned(), String::new()],
    };
    let append = Append {
        last_sync_id: 43,
        schema_version: state.head.schema_version,
        deltas: vec![changed, removed],
        ..Append::default()
    };
    let statement = Statement::new(Batch::new(&acme(), &state, &append)).unwrap();
    let (appended, _) = round.append(statement).await.unwrap();
    let written = (state.now, appended.unwrap().log_epoch);
    let growth = Growth::of(&append, written).unwrap();
    let span = Span {
        after: 41,
        count: 9,
        bytes: 9_999,
        since: None,
    };
    let page = scratch
        .store
        .log_page(&acme(), span)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page.changes, growth.changes);
    assert_eq!((page.head.epoch, page.head.position), (growth.epoch, 43));
}

#[test]
fn much_is_not_handed_on() {
    let of = |count: usize, row: &str| {
        let append = Append {
            deltas: vec![delta(1, Some(row)); count],
            ..Append::default()
        };
        Growth::of(&append, (OffsetDateTime::UNIX_EPOCH, Uuid::nil()))
    };
    let large = format!(r#"{{"id": "a", "text": "{}"}}"#, "x".repeat(40_000));
    assert!(of(64, r#"{"id": "a"}"#).is_some() && of(1, &large).is_some());
    assert!(of(65, r#"{"id": "a"}"#).is_none() && of(2, &large).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_follows_is_taken_in_unread() {
    let scratch = Scratch::start().await;
    let partitions = crate::migrate::partitions::ensure(&scratch.store.reads);
    partitions.await.unwrap();
    let wake = Arc::<Wake>::default();
    let log = Arc::new(Log::new(acme(), Arc::new(reader(&scratch))));
    assert!(log.start(&wake).await.unwrap());
    let until = async |position: i64| reaches(&log, position).await;
    let own = epoch(&scratch.store.reads).await;
    let tell = |position: i64, epoch: Uuid| {
        let append = Append {
            deltas: vec![delta(position, Some(r#"{"told": 1}"#))],
            ..Append::default()
        };
        let written = (OffsetDateTime::UNIX_EPOCH, epoch);
        wake.appended(&acme(), &append, (written, &HashSet::new()));
    };
    let write = async |positions: std::ops::RangeInclusive<i64>| {
        let (first, last) = (positions.start(), positions.end());
        let sql = format!(
            r#"INSERT INTO deltas (org_id, sync_id, created_at, kind, model, row_id, row)
               SELECT 'acme', position, clock_timestamp(), 'UPDATE', 'notes', 'a', '{{"read": 1}}'
               FROM generate_series({first}, {last}) AS position;
               UPDATE heads SET last_sync_id = {last}"#
        );
        let written = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        scratch.store.reads.execute(written).await.unwrap();
    };
    let start = log.reached().position;
    let era = log.era();
    while !wake.is_followed(&acme()) {
        tokio::task::yield_now().await;
    }
    // The database does not have it, so it was not read.
    tell(start + 1, own);
    until(start + 1).await;
    // Another node came in between: what is missing is read, and the rest with it.
    write(start + 1..=start + 3).await;
    tell(start + 3, own);
    until(start + 3).await;
    // Another log's.
    write(start + 4..=start + 4).await;
    tell(start + 4, Uuid::nil());
    until(start + 4).await;
    // The second one overtakes the first, or follows it: nothing is left out.
    write(start + 5..=start + 6).await;
    tell(start + 5, own);
    tell(start + 6, own);
    until(start + 6).await;
    let Ok(After::Entries(entries)) = log.after(era, start, (9, 9_999)) else {
        panic!("it is the same log");
    };
    let rows = entries.iter().map(|entry| {
        let frame = entry.seen_by(&Filter::default()).unwrap();
        frame.windows(6).any(|some| some == br#""told""#)
    });
    let rows: Vec<bool> = rows.collect();
    assert_eq!(rows[..4], [true, false, false, false]);
    assert_eq!(rows.len(), 6);
}
