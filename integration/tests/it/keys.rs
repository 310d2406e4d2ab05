//! Keys that are exchanged while they are used, and the master key that seals them.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coordinator::domain::{Mode, OrganizationId};
use coordinator::keys::{KeyRing, MasterKeys};
use coordinator::store::Store;
use futures_util::{StreamExt, stream};
use integration::app::{Flags, Source, Tenant, TestApp, eventually, intent};
use integration::endpoint::{Arrival, Endpoint, Kind};
use integration::postgres::TestDatabase;
use proto::v1;
use rand::seq::IndexedRandom;
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::command::{coordinator, run, told};

/// A key, and what it is revoked by.
struct Made {
    name: String,
    key: String,
}

async fn make(tenant: &Tenant) -> Made {
    let request = v1::CreateApiKeyRequest {
        parent: format!("organizations/{}", tenant.name()),
        display_name: String::new(),
    };
    let made = tenant
        .admin()
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    Made {
        name: made.api_key.unwrap().name,
        key: made.key,
    }
}

/// Callers that commit without a pause, and how many of its commits each saw confirmed.
struct Callers {
    confirmed: [Arc<AtomicUsize>; 4],
    over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Callers {
    fn of(tenant: &Tenant) -> Self {
        let confirmed: [Arc<AtomicUsize>; 4] = Default::default();
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (caller, confirmed) in confirmed.iter().enumerate() {
            let (tenant, over) = (tenant.connected_anew(), Arc::clone(&over));
            let confirmed = Arc::clone(confirmed);
            tasks.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let name = format!("c{caller}-{}", confirmed.load(Ordering::Relaxed));
                    let create = intent::create("airports", &name, &json!({}));
                    tenant.confirm(intent::commit(&name, vec![create])).await;
                    confirmed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self {
            confirmed,
            over,
            tasks,
        }
    }

    fn counts(&self) -> [usize; 4] {
        self.confirmed
            .each_ref()
            .map(|it| it.load(Ordering::Relaxed))
    }

    /// Whether a commit of every caller has begun and ended since.
    fn all_went_on_since(&self, before: [usize; 4]) -> bool {
        let mut pairs = self.counts().into_iter().zip(before);
        pairs.all(|(now, before)| now >= before + 2)
    }

    async fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        let counts = self.confirmed;
        self.tasks.join_all().await;
        counts.iter().map(|it| it.load(Ordering::Relaxed)).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_exchanged_five_times_a_second_and_no_request_is_refused() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    // No request is given up on before it arrives, however slow the machine is.
    let patient = Source {
        request_timeout: Duration::from_secs(30),
        ..Source::at(&endpoint)
    };
    tenant.update_source(&patient).await;
    // Four keys of five are exchanged; the callers keep theirs, which the endpoint never takes.
    let mut live = VecDeque::new();
    for _ in 0..4 {
        live.push_back(make(&tenant).await);
    }
    endpoint.set_keys(&[&live[1].key]);
    let callers = Callers::of(&tenant);
    let mut switches = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..10 {
        let before = callers.counts();
        // The oldest is left before it is revoked; the newest may be too new for requests that are
        // on their way.
        let taken = [&live[1].key, &live[2].key];
        for _ in 0..10 {
            endpoint.set_keys(&[taken.choose(&mut rand::rng()).unwrap()]);
            switches.tick().await;
        }
        // Whatever is on its way now was signed with all keys that are live.
        eventually("the next commits", async || {
            callers.all_went_on_since(before).then_some(())
        })
        .await;
        let oldest = live.pop_front().unwrap();
        let revoke = v1::RevokeApiKeyRequest { name: oldest.name };
        tenant.admin().revoke_api_key(revoke).await.unwrap();
        live.push_back(make(&tenant).await);
    }
    let committed = callers.end().await;
    assert!(committed >= 80, "{committed}");
    let arrivals = endpoint.arrivals_of(Kind::Commit);
    let refused = arrivals.iter().filter(|it| it.signature_error.is_some());
    let refused: Vec<_> = refused.map(Arrival::client_tx_id).collect();
    assert!(
        refused.is_empty(),
        "{} of {}: {refused:?}",
        refused.len(),
        arrivals.len()
    );
    let signatures = |arrival: &Arrival| arrival.header("webhook-signature").split(' ').count();
    assert!(arrivals.iter().all(|it| (4..=5).contains(&signatures(it))));
    assert_eq!(endpoint.executions().len(), committed);
}

/// How many keys the new master key seals, and how many the old one, at one moment.
async fn sealed(pool: &PgPool) -> (i64, i64) {
    let count = "SELECT count(*) FILTER (WHERE sealed_under = 'new'),
                        count(*) FILTER (WHERE sealed_under = 'old') FROM api_keys";
    sqlx::query_as(count).fetch_one(pool).await.unwrap()
}

/// So many organizations, each with so many keys, sealed by this master key; one of the keys.
async fn furnished(
    database: &TestDatabase,
    master: &str,
    (organizations, keys): (u32, u32),
) -> String {
    let pool = database.pool(1);
    for table in [
        "organizations (org_id, display_name, mode) SELECT 'o' || n, '', 'test'",
        "heads (org_id) SELECT 'o' || n",
    ] {
        let insert = format!("INSERT INTO {table} FROM generate_series(1, {organizations}) AS n");
        sqlx::query(sqlx::AssertSqlSafe(insert))
            .execute(&pool)
            .await
            .unwrap();
    }
    let store = Store::open(database.connect_options(), 2, 4);
    let ring = KeyRing::new(store.clone(), MasterKeys::parse(master).unwrap());
    let names = (1..=organizations).flat_map(|n| (0..keys).map(move |_| format!("o{n}")));
    let made: Vec<_> = stream::iter(names)
        .map(|name| {
            let ring = &ring;
            async move {
                let organization = OrganizationId::new(&name);
                let made = ring.create(&organization, Mode::Test, String::new()).await;
                made.unwrap().unwrap().key
            }
        })
        .buffer_unordered(4)
        .collect()
        .await;
    store.close().await;
    made[0].expose_secret().to_owned()
}

/// Locks the key that is sealed anew after so many others.
const NTH_TO_RESEAL: &str = "
SELECT FROM api_keys WHERE key_id = (
    SELECT key_id FROM api_keys WHERE sealed_under = 'old' ORDER BY org_id, key_id OFFSET $1 LIMIT 1
) FOR UPDATE";

/// Ends the sessions of a coordinator that was killed; true for each that is gone within a minute.
const END_SESSIONS: &str = "
SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'coordinator'";

/// Starts an exchange, and kills it when it has sealed so many more keys, so many in all, and has to
/// wait for the next one's row.
async fn killed_half_way(pool: &PgPool, reseal: &[&str], (more, done): (i64, i64)) {
    let mut hold = pool.begin().await.unwrap();
    let row = sqlx::query(NTH_TO_RESEAL).bind(more);
    let row = row.execute(&mut *hold).await.unwrap();
    assert_eq!(row.rows_affected(), 1);
    let mut child = coordinator(reseal).stdout(Stdio::null()).spawn().unwrap();
    while sealed(pool).await.0 < done && child.try_wait().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Its server process would still seal the row once it is free; or it has noticed, and is ending.
    while !sqlx::query(END_SESSIONS)
        .fetch_all(pool)
        .await
        .unwrap()
        .is_empty()
    {}
    hold.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_the_master_key_that_is_killed_half_way_is_gone_on_with() {
    let database = TestDatabase::migrated().await;
    let (old, new) = (MasterKeys::generate("old"), MasterKeys::generate("new"));
    let (old, new) = (old.expose_secret(), new.expose_secret());
    let key = furnished(&database, old, (100, 5)).await;
    let pool = database.pool(2);
    let both = format!("{new},{old}");
    let url = database.url();
    let reseal = ["reseal", "--database-url", &url, "--master-keys", &both];
    let mut done = 0;
    for more in [1, 59, 140, 150] {
        done += more;
        killed_half_way(&pool, &reseal, (more, done)).await;
        assert_eq!(sealed(&pool).await, (done, 500 - done));
    }
    // The new key alone does not do yet, and says so.
    let (code, said) = told(&run(&["reseal", "--database-url", &url, "--master-keys", new]).await);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("sealed under master key `old`"), "{said}");
    let (code, said) = told(&run(&reseal).await);
    assert_eq!(code, 0, "{said}");
    assert_eq!(sealed(&pool).await, (500, 0));
    let (code, said) = told(&run(&reseal).await);
    assert_eq!((code, said.contains("nothing to do")), (0, true), "{said}");

    // The old master key is not needed any more, and opens nothing.
    let flags = |keys: &str| Flags::default().with("master-keys", keys);
    let mut app = TestApp::over(url.clone(), database.connect_options(), flags(new));
    let address = app.add_node().await;
    let list = [
        "source",
        "list",
        "--server",
        &format!("http://{address}"),
        "--key",
        &key,
    ];
    let (code, said) = told(&run(&list).await);
    assert_eq!(code, 0, "{said}");
    let another = MasterKeys::generate("new");
    for (keys, words) in [
        (old, "sealed under master key `new`"),
        (
            another.expose_secret(),
            "does not open under master key `new`",
        ),
    ] {
        let (code, said) = told(&run(&serve(&url, keys)).await);
        assert_eq!(code, 64, "{said}");
        assert!(said.contains(words), "{said}");
    }
    app.stop().await;
}

fn serve<'a>(url: &'a str, master_keys: &'a str) -> [&'a str; 9] {
    let token = integration::app::OPERATOR_TOKEN;
    [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database-url",
        url,
        "--operator-token",
        token,
        "--master-keys",
        master_keys,
    ]
}
