use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::*;
use crate::store::scratch::{Scratch, acme};

/// Says which version is active, and counts how often it is asked.
#[derive(Default)]
struct Records {
    version: AtomicI32,
    asked: AtomicUsize,
    away: AtomicUsize,
}

fn document(version: i32) -> String {
    format!(r#"{{"models":{{"m{version}":{{"schema":{{"type":"object"}}}}}}}}"#)
}

impl SchemaRecords for Records {
    fn active(
        &self,
        _: OrganizationId,
        known: i32,
    ) -> BoxFuture<'_, Result<Option<ActiveSchema>, store::Error>> {
        async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if self.away.load(Ordering::Relaxed) > 0 {
                return Err(store::Error::Exhausted);
            }
            let version = self.version.load(Ordering::Relaxed);
            let document = (version != 0 && version != known).then(|| document(version));
            Ok(Some(ActiveSchema { version, document }))
        }
        .boxed()
    }

    fn document(
        &self,
        _: OrganizationId,
        version: i32,
    ) -> BoxFuture<'_, Result<Option<String>, store::Error>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let known = version <= self.version.load(Ordering::Relaxed);
        async move { Ok(known.then(|| document(version))) }.boxed()
    }
}

fn cache(version: i32) -> (SchemaCache, Arc<Records>) {
    let records = Arc::new(Records {
        version: version.into(),
        ..Records::default()
    });
    (
        SchemaCache::new(Arc::clone(&records) as Arc<dyn SchemaRecords>),
        records,
    )
}

async fn version(cache: &SchemaCache) -> Result<i32, &'static str> {
    cache
        .current(&acme())
        .await
        .map(|schema| schema.version)
        .map_err(|refusal| refusal.reason)
}

#[tokio::test(start_paused = true)]
async fn a_new_version_is_seen_within_4_seconds_and_an_old_one_compiled_once() {
    let (cache, records) = cache(1);
    let first = cache.current(&acme()).await.unwrap();
    records.version.store(2, Ordering::Relaxed);
    tokio::time::advance(Duration::from_millis(3_999)).await;
    assert_eq!(version(&cache).await, Ok(1));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(version(&cache).await, Ok(2));

    let second = cache.current(&acme()).await.unwrap();
    tokio::time::advance(BELIEF).await;
    assert!(Arc::ptr_eq(&second, &cache.current(&acme()).await.unwrap()));
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(records.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_looks_no_further_than_it_must() {
    let (cache, records) = cache(1);
    assert_eq!(version(&cache).await, Ok(1));
    records.version.store(2, Ordering::Relaxed);
    assert_eq!(cache.refresh(&acme(), 1).await.unwrap().version, 1);
    assert_eq!(cache.refresh(&acme(), 2).await.unwrap().version, 2);
    assert_eq!(cache.refresh(&acme(), 2).await.unwrap().version, 2);
    assert_eq!(version(&cache).await, Ok(2));
    assert_eq!(records.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_believed_only_under_the_newest_schema() {
    let (cache, records) = cache(1);
    let knows = |name: &'static str| {
        move |schema: &Schema| match schema.model(name) {
            Some(_) => Ok(name),
            None => Err(Refusal::new(Class::Invalid, "model_unknown", name)),
        }
    };
    assert_eq!(cache.checked(&acme(), knows("m1")).await.unwrap().1, "m1");
    let refusal = cache.checked(&acme(), knows("m2")).await.unwrap_err();
    assert_eq!(refusal.reason, "model_unknown");
    records.version.store(2, Ordering::Relaxed);
    let (schema, name) = cache.checked(&acme(), knows("m2")).await.unwrap();
    assert_eq!((schema.version, name), (2, "m2"));
    assert_eq!(records.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn look_ups_that_wait_for_one_that_began_later_share_it() {
    let (cache, records) = cache(1);
    assert_eq!(version(&cache).await, Ok(1));
    let ask = || async { cache.refresh(&acme(), 9).await.map(|schema| schema.version) };
    let answers = tokio::join!(ask(), ask(), ask(), ask());
    assert_eq!(answers, (Ok(1), Ok(1), Ok(1), Ok(1)));
    assert!(records.asked.load(Ordering::Relaxed) <= 3);
}

#[tokio::test]
async fn concurrent_look_ups_are_one() {
    let (cache, records) = cache(1);
    let ask = || version(&cache);
    let answers = tokio::join!(ask(), ask(), ask());
    assert_eq!(answers, (Ok(1), Ok(1), Ok(1)));
    assert_eq!(records.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn no_schema_is_a_refusal_that_is_not_remembered() {
    let (cache, records) = cache(0);
    assert_eq!(version(&cache).await, Err("schema_missing"));
    records.version.store(1, Ordering::Relaxed);
    assert_eq!(version(&cache).await, Ok(1));
}

#[tokio::test]
async fn a_store_that_fails_is_asked_again() {
    let (cache, records) = cache(1);
    records.away.store(1, Ordering::Relaxed);
    assert_eq!(version(&cache).await, Err("overloaded"));
    records.away.store(0, Ordering::Relaxed);
    assert_eq!(version(&cache).await, Ok(1));
}

#[tokio::test]
async fn older_versions_are_found_and_kept_for_a_while() {
    let (cache, records) = cache(9);
    for version in (1..9).chain([8, 9]) {
        assert_eq!(
            cache.of_version(&acme(), version).await.unwrap().version,
            version
        );
    }
    let missing = cache.of_version(&acme(), 10).await.unwrap_err();
    assert_eq!(missing.reason, "schema_not_found");
    assert_eq!(records.asked.load(Ordering::Relaxed), 10);
    assert!(cache.folder(&acme()).kept().older.len() <= MAX_OLDER);
}

#[tokio::test]
async fn it_never_keeps_more_organizations_than_it_may() {
    let (cache, _) = cache(1);
    for number in 0..=MAX_ORGANIZATIONS {
        cache.folder(&OrganizationId::new(&number.to_string()));
        assert!(cache.folders.lock().unwrap().len() <= MAX_ORGANIZATIONS);
    }
}

#[tokio::test]
async fn schemas_come_out_of_postgres() {
    let scratch = Scratch::start().await;
    let cache = SchemaCache::new(Arc::new(scratch.store.clone()));
    assert_eq!(version(&cache).await, Err("schema_missing"));
    scratch
        .run(
            r#"INSERT INTO schemas (org_id, version, document, created_at)
               VALUES ('acme', 1, '{"models":{}}', now()), ('acme', 2, '{"models":{}}', now());
               UPDATE heads SET schema_version = 2"#,
        )
        .await;
    assert_eq!(version(&cache).await, Ok(2));
    assert_eq!(cache.of_version(&acme(), 1).await.unwrap().version, 1);
    assert_eq!(
        cache.of_version(&acme(), 3).await.unwrap_err().reason,
        "schema_not_found"
    );
}
