use std::sync::Arc;
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::PgPool;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::cursor::Cursors;
use super::entry::Entry;
use super::pages::Pages;
use super::ring::After;
use super::tail::Log;
use super::{Break, Reader};
use crate::keys::MasterKeys;
use crate::store::Error;
use crate::store::log::Logged;
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
    let mut moved = log.watch();
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
    let mut until = async |position: i64| {
        let reached = async {
            while log.reached().position < position {
                moved.changed().await.unwrap();
            }
        };
        let reached = tokio::time::timeout(Duration::from_mins(1), reached).await;
        reached.expect("the tail goes on");
    };
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
