//! The statements of the control plane, run in a database.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;
use time::OffsetDateTime;
use uuid::Uuid;

use super::api_keys::{Created, LIVE_KEYS, NewKey, Revoked, SealedKey};
use super::attempts::{Position, Query};
use super::pending::Filter;
use super::scratch::{Scratch, acme};
use super::*;
use crate::domain::{Mode, OrganizationId, SourceState, Trigger};

/// Adds an organization.
pub(crate) async fn organization(store: &Store, id: &str) -> OrganizationId {
    let id = OrganizationId::new(id);
    organizations::create(store, id.clone(), String::new(), Mode::Test)
        .await
        .unwrap();
    id
}

/// A store whose database never answers.
pub(crate) fn unreachable() -> Store {
    let nowhere = PgConnectOptions::new_without_pgpass()
        .socket("/nonexistent")
        .username("x");
    Store::open(nowhere, 1, 1)
}

fn key(organization: &OrganizationId) -> NewKey {
    let id = Uuid::new_v4();
    let sealed = SealedKey {
        org_id: organization.to_string(),
        key_id: id,
        sealed: id.as_bytes().to_vec(),
        sealed_under: "m1".to_owned(),
    };
    let sha256 = [*id.as_bytes(), *id.as_bytes()]
        .concat()
        .try_into()
        .unwrap();
    NewKey {
        sealed,
        sha256,
        prefix: "sk_test_abcd".to_owned(),
        display_name: String::new(),
    }
}

async fn made(store: &Store, organization: &OrganizationId) -> Uuid {
    match api_keys::create(store, key(organization)).await.unwrap() {
        Created::Key(key) => key.key_id,
        refused => panic!("{refused:?}"),
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_unavailable() {
    let outcome = organizations::list(&unreachable(), None, 1).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_and_keys_follow_their_rules() {
    let scratch = Scratch::start().await;
    organizations_are_listed_by_id_and_have_heads(&scratch).await;
    at_most_five_keys_are_live_however_many_are_made_at_once(&scratch.store).await;
    the_last_live_key_stays_while_commits_are_pending(&scratch).await;
}

async fn organizations_are_listed_by_id_and_have_heads(scratch: &Scratch) {
    let store = &scratch.store;
    for id in ["b", "a", "c"] {
        organization(&scratch.store, id).await;
    }
    let again =
        organizations::create(store, OrganizationId::new("a"), String::new(), Mode::Live).await;
    assert!(matches!(again, Err(Error::Exists(_))));
    let page = organizations::list(store, Some("a".to_owned()), 2)
        .await
        .unwrap();
    assert_eq!(
        page.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(),
        ["acme", "b"]
    );
    let heads: i64 = sqlx::query_scalar("SELECT count(*) FROM heads")
        .fetch_one(&store.reads)
        .await
        .unwrap();
    assert_eq!(heads, 4);
    let missing = organizations::get(store, OrganizationId::new("d"))
        .await
        .unwrap();
    assert_eq!(missing, None);
}

async fn at_most_five_keys_are_live_however_many_are_made_at_once(store: &Store) {
    let acme = OrganizationId::new("a");
    let making = (0..12).map(|_| api_keys::create(store, key(&acme)));
    let outcomes = futures_util::future::join_all(making).await;
    let made = outcomes
        .iter()
        .filter(|one| matches!(one, Ok(Created::Key(_))))
        .count();
    let refused = outcomes
        .iter()
        .filter(|one| matches!(one, Ok(Created::TooMany)))
        .count();
    assert_eq!((made, refused), (5, 7), "{outcomes:?}");
    let sealed = api_keys::signing(store, acme.clone()).await.unwrap();
    assert_eq!(i64::try_from(sealed.len()), Ok(LIVE_KEYS));
    let nobody = OrganizationId::new("nobody");
    assert_eq!(
        api_keys::create(store, key(&nobody)).await.unwrap(),
        Created::NoOrganization
    );

    let newest = api_keys::list(store, acme.clone(), None, 2).await.unwrap();
    let next = Some((newest[1].created_at, newest[1].key_id));
    let rest = api_keys::list(store, acme.clone(), next, 10).await.unwrap();
    assert_eq!((newest.len(), rest.len()), (2, 3));
    assert!(
        rest.iter()
            .all(|key| key.created_at <= newest[1].created_at)
    );
}

async fn the_last_live_key_stays_while_commits_are_pending(scratch: &Scratch) {
    let (store, org) = (&scratch.store, OrganizationId::new("b"));
    let (first, last) = (made(store, &org).await, made(store, &org).await);
    scratch
        .run(
            "INSERT INTO data_sources (org_id, source_id, url, retry_delays_ms, request_timeout_ms,
                 max_in_flight, state, pending_count, created_at, updated_at)
             VALUES ('b', 'crm', 'https://x/', '{1}', 1000, 1, 'enabled', 1, now(), now())",
        )
        .await;
    let revoked = api_keys::revoke(store, org.clone(), first).await.unwrap();
    let Revoked::Key(revoked) = revoked else {
        panic!("{revoked:?}")
    };
    assert!(revoked.revoked_at.is_some());
    let again = api_keys::revoke(store, org.clone(), first).await.unwrap();
    assert_eq!(again, Revoked::Key(revoked));
    assert_eq!(
        api_keys::revoke(store, org.clone(), last).await.unwrap(),
        Revoked::InUse
    );
    let stranger = OrganizationId::new("a");
    assert_eq!(
        api_keys::revoke(store, stranger, last).await.unwrap(),
        Revoked::NoKey
    );
    scratch
        .run("UPDATE data_sources SET pending_count = 0")
        .await;
    let revoked = api_keys::revoke(store, org.clone(), last).await.unwrap();
    assert!(matches!(revoked, Revoked::Key(_)));
    assert_eq!(api_keys::signing(store, org).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_read_as_they_stand() {
    let scratch = Scratch::start().await;
    let org = acme();
    organization(&scratch.store, "other").await;
    scratch.run(include_str!("tests/sources.sql")).await;
    status_gathers_every_kind_and_the_oldest_pending(&scratch.store, &org).await;
    pending_commits_come_in_order_with_their_participants(&scratch.store, &org).await;
    attempts_come_newest_first_in_pages(&scratch.store, &org).await;
    schema_versions_come_newest_first(&scratch.store, &org).await;
}

async fn status_gathers_every_kind_and_the_oldest_pending(store: &Store, org: &OrganizationId) {
    let id = "crm".to_owned();
    let status = sources::status(store, org.clone(), id.clone())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (status.state, status.pending, status.dead),
        (SourceState::Failing, 2, 1)
    );
    assert!(status.oldest_pending.unwrap() >= Duration::from_mins(1));
    assert_eq!(status.requests.len(), 2);
    assert_eq!(
        status.requests[0].last_error.as_ref().unwrap().class,
        "timeout"
    );
    assert_eq!(status.attempts_by_outcome, [5, 0, 2, 0, 0, 0]);
    let quiet = sources::status(store, org.clone(), "quiet".to_owned())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((quiet.requests, quiet.oldest_pending), (vec![], None));
    let stranger = OrganizationId::new("other");
    assert_eq!(sources::status(store, stranger, id).await.unwrap(), None);
    let page = sources::list(store, org.clone(), Some("crm".to_owned()), 9)
        .await
        .unwrap();
    assert_eq!(
        page.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(),
        ["quiet"]
    );
    assert_eq!(
        page[0].settings.retry.delays,
        [Duration::from_secs(5), Duration::from_mins(5)]
    );
}

async fn pending_commits_come_in_order_with_their_participants(
    store: &Store,
    org: &OrganizationId,
) {
    let crm = || "crm".to_owned();
    let all = pending::list(store, (org.clone(), crm()), Filter::All, 0, 9)
        .await
        .unwrap();
    assert_eq!(
        all.iter().map(|one| one.sequence).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(all[1].participant.id, "ann");
    assert!(all[0].dead && all[0].due_at.is_none() && all[0].last_error.is_some());
    assert!(all[2].due_at.is_some() && all[2].last_error.is_none());
    let rest = pending::list(store, (org.clone(), crm()), Filter::All, 2, 9)
        .await
        .unwrap();
    assert_eq!(rest, all[2..]);
    for (filter, wanted) in [
        (Filter::Waiting, &all[1..]),
        (Filter::Failing, &[]),
        (Filter::Dead, &all[..1]),
    ] {
        let some = pending::list(store, (org.clone(), crm()), filter, 0, 9);
        assert_eq!(some.await.unwrap(), wanted, "{filter:?}");
        assert!(wanted.iter().all(|one| filter.takes(one)), "{filter:?}");
    }
}

/// Whoever looks for the few that failed reads no others.
#[tokio::test(flavor = "multi_thread")]
async fn failed_commits_are_found_among_many_that_wait() {
    let scratch = Scratch::start().await;
    scratch.run(include_str!("tests/sources.sql")).await;
    scratch
        .run(
            "INSERT INTO inbox (org_id, source_id, sequence, client_tx_id, commit_id, body, lanes,
                 due_at, accepted_at, first_failed_at)
             SELECT 'acme', 'crm', n, 'm' || n, gen_random_uuid(), 'x', '{}', now(), now(),
                 CASE n % 1000 WHEN 0 THEN now() END
             FROM generate_series(10, 5000) AS n;
             ANALYZE inbox, commits",
        )
        .await;
    let dead = include_str!("sql/list_pending.sql").replace("{filter}", "inbox.dead");
    let failing = include_str!("sql/list_pending.sql").replace(
        "{filter}",
        "inbox.first_failed_at IS NOT NULL AND NOT inbox.dead",
    );
    let recovered = include_str!("sql/pending_failed.sql").to_owned();
    for (statement, parameters) in [
        (dead, "'acme', 'crm', 0, 100"),
        (failing, "'acme', 'crm', 0, 100"),
        (recovered, "'acme', 'crm', NULL, 0, 5000, 100"),
    ] {
        let mut connection = scratch.store.reads.acquire().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE looked AS {statement}")))
            .execute(&mut *connection)
            .await
            .unwrap();
        let explain = format!("EXPLAIN EXECUTE looked ({parameters})");
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        assert!(plan.join("\n").contains("inbox_failed"), "{plan:#?}");
        sqlx::raw_sql("DEALLOCATE looked")
            .execute(&mut *connection)
            .await
            .unwrap();
    }
}

async fn attempts_come_newest_first_in_pages(store: &Store, org: &OrganizationId) {
    let query = |client_tx_id: Option<&str>, before, limit| Query {
        organization: org.clone(),
        source: "crm".to_owned(),
        client_tx_id: client_tx_id.map(str::to_owned),
        before,
        limit,
    };
    let all = attempts::list(store, query(None, None, 9)).await.unwrap();
    let numbers: Vec<_> = all
        .iter()
        .map(|one| (one.client_tx_id.as_str(), one.number))
        .collect();
    assert_eq!(numbers, [("t2", 1), ("t1", 2), ("t1", 1)]);
    assert_eq!(
        (all[0].trigger, all[0].outcome.as_deref()),
        (Trigger::Accept, None)
    );
    let at = |one: &attempts::Attempt| Position {
        started_at: one.started_at,
        commit: one.commit.0,
        number: one.number,
    };
    let rest = attempts::list(store, query(None, Some(at(&all[0])), 9))
        .await
        .unwrap();
    assert_eq!(rest, all[1..]);
    let of_t1 = attempts::list(store, query(Some("t1"), Some(at(&all[1])), 9))
        .await
        .unwrap();
    assert_eq!(of_t1, all[2..]);
}

async fn schema_versions_come_newest_first(store: &Store, org: &OrganizationId) {
    let active = schemas::get(store, org.clone(), 0).await.unwrap().unwrap();
    assert_eq!(
        (active.version, active.document.as_str(), active.active),
        (2, "{\"v\":2}", true)
    );
    let first = schemas::get(store, org.clone(), 1).await.unwrap().unwrap();
    assert!(!first.active);
    assert_eq!(schemas::get(store, org.clone(), 9).await.unwrap(), None);
    let other = OrganizationId::new("other");
    assert_eq!(schemas::get(store, other, 0).await.unwrap(), None);
    let page = schemas::list(store, org.clone(), None, 9).await.unwrap();
    assert_eq!(
        page.iter().map(|one| one.version).collect::<Vec<_>>(),
        [2, 1]
    );
    assert!(page[0].created_at <= OffsetDateTime::now_utc() && page[0].document.is_empty());
    assert_eq!(
        schemas::list(store, org.clone(), Some(2), 9)
            .await
            .unwrap()
            .len(),
        1
    );
}
