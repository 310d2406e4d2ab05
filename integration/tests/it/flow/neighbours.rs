//! Sources beside sources, organizations beside organizations.

use axum::http::StatusCode;
use futures_util::future::join_all;
use integration::app::{Flags, Source, Tenant, TestApp, intent};
use integration::endpoint::{Answer, Endpoint, Kind, Reply};
use proto::v1;
use serde_json::json;

use super::{confirm_all, drained, numbered, queue, source_at};

/// Commits for each source.
const EACH: usize = 40;

/// Requests that a source may have in flight.
const IN_FLIGHT: usize = 16;

/// One of many sources of an organization, each with a model of its own name.
struct Neighbour {
    name: String,
    endpoint: Endpoint,
}

impl Neighbour {
    async fn new(tenant: &Tenant, name: &str) -> Self {
        let endpoint = Endpoint::start(tenant.key()).await.unwrap();
        let timeout = prost_types::Duration {
            seconds: 30,
            nanos: 0,
        };
        let request = v1::CreateDataSourceRequest {
            data_source_id: name.to_owned(),
            data_source: Some(v1::DataSource {
                url: endpoint.url(),
                request_timeout: Some(timeout),
                ..v1::DataSource::default()
            }),
            ..v1::CreateDataSourceRequest::default()
        };
        tenant.sources().create(request).await.unwrap();
        Self {
            name: name.to_owned(),
            endpoint,
        }
    }

    fn commit(&self, number: usize) -> v1::CommitRequest {
        let create = intent::create(&self.name, &number.to_string(), &json!({"number": number}));
        intent::commit(&format!("{}-{number}", self.name), vec![create])
    }

    async fn queue(&self, tenant: &Tenant) {
        for number in 0..EACH {
            let request = v1::CommitRequest {
                wait: v1::Wait::Queued.into(),
                ..self.commit(number)
            };
            tenant.commit(request).await.unwrap();
        }
    }

    /// Confirms all of its commits; how many attempts each took.
    async fn confirm(&self, tenant: &Tenant) -> Vec<i32> {
        let calls = (0..EACH).map(|number| tenant.confirm(self.commit(number)));
        let receipts = join_all(calls).await;
        receipts.iter().map(|it| it.attempt_count).collect()
    }

    async fn outcomes(&self, tenant: &Tenant) -> Vec<String> {
        let request = v1::ListAttemptsRequest {
            name: format!("dataSources/{}", self.name),
            page_size: 1_000,
            ..v1::ListAttemptsRequest::default()
        };
        let page = tenant.sources().list_attempts(request).await.unwrap();
        let attempts = page.into_inner().attempts;
        attempts.into_iter().map(|it| it.outcome).collect()
    }
}

fn schema(sources: &[Neighbour]) -> String {
    let fields = json!({"type": "object", "properties": {"number": {"type": "number"}}});
    let held = sources.iter().map(|it| {
        let backing = json!({"dataSource": it.name});
        (
            it.name.clone(),
            json!({"backing": backing, "schema": fields}),
        )
    });
    let managed = [(
        "managed".to_owned(),
        json!({"backing": "managed", "schema": fields}),
    )];
    json!({"models": held.chain(managed).collect::<serde_json::Map<_, _>>()}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_a_slow_and_a_hostile_source_are_nobody_elses_trouble() {
    let app = TestApp::start().await;
    let tenant = app.organization("acme").await;
    let names = ["black_hole", "slow", "hostile"].map(str::to_owned);
    let mut sources = Vec::new();
    for name in names.into_iter().chain(numbered("healthy_", 8)) {
        sources.push(Neighbour::new(&tenant, &name).await);
    }
    tenant.push(&schema(&sources)).await;
    let (bad, healthy) = sources.split_at(3);
    let [black_hole, slow, hostile] = bad else {
        panic!("three of them")
    };
    black_hole.endpoint.hold(Kind::Commit);
    slow.endpoint.hold(Kind::Commit);
    let flood = Reply::Fixed(StatusCode::OK, Vec::new(), vec![b'['; 4 << 20]);
    hostile
        .endpoint
        .always(Kind::Commit, Answer::unapplied(flood));
    for source in bad {
        source.queue(&tenant).await;
    }
    for source in [black_hole, slow] {
        source
            .endpoint
            .wait_for_arrivals(Kind::Commit, IN_FLIGHT)
            .await;
    }
    let attempts = join_all(healthy.iter().map(|it| it.confirm(&tenant))).await;
    assert_eq!(attempts, vec![vec![1; EACH]; 8]);
    let managed = (0..EACH).map(|number| {
        let create = intent::create("managed", &number.to_string(), &json!({"number": number}));
        tenant.confirm(intent::commit(&format!("managed-{number}"), vec![create]))
    });
    join_all(managed).await;
    // All of this while everything that they were sent was still on its way: none waited for it.
    for source in [black_hole, slow] {
        assert_eq!(source.outcomes(&tenant).await, vec![""; IN_FLIGHT]);
        assert_eq!(source.endpoint.most_at_once(), IN_FLIGHT);
    }
    let hostile = hostile.outcomes(&tenant).await;
    assert!(
        hostile.iter().all(|it| it.is_empty() || it == "unknown"),
        "{hostile:?}"
    );
    slow.endpoint.release(Kind::Commit);
    assert_eq!(slow.confirm(&tenant).await, vec![1; EACH]);
    app.leaves_pending("a black hole, and one that answers nonsense");
}

/// Two organizations at one node, each with its endpoint.
async fn two_organizations(app: &TestApp, in_flight: u32) -> [(Tenant, Endpoint); 2] {
    let mut made = Vec::new();
    for name in ["big", "small"] {
        let endpoint = Endpoint::start("").await.unwrap();
        let tenant = app.organization(name).await;
        endpoint.set_keys(&[tenant.key()]);
        let source = Source {
            max_in_flight: in_flight,
            ..source_at(&endpoint)
        };
        tenant.prepare(&source).await;
        made.push((tenant, endpoint));
    }
    made.try_into().expect("two were made")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_whose_requests_hang_leaves_others_their_share_of_the_node() {
    let app = TestApp::start_with(Flags::default().with("attempts-in-flight", "16")).await;
    let [(big, hangs), (small, answers)] = two_organizations(&app, 64).await;
    hangs.hold(Kind::Commit);
    queue(&big, numbered("row-", 100)).await;
    hangs.wait_for_arrivals(Kind::Commit, 8).await;
    for receipt in confirm_all(&small, numbered("row-", 50)).await {
        assert_eq!(receipt.attempt_count, 1, "{receipt:?}");
    }
    // It may hold half of what there is, and has let none of it go.
    let attempts = big.attempts("").await;
    assert_eq!(
        (attempts.len(), hangs.arrivals_of(Kind::Commit).len()),
        (8, 8)
    );
    assert!(answers.most_at_once() <= 8);
    hangs.release(Kind::Commit);
    drained(&big).await;
    assert_eq!(hangs.most_at_once(), 8);
    assert_eq!(hangs.executions().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_of_one_organization_does_not_hold_up_the_few_writes_of_another() {
    let backlog = 2_000;
    let app = TestApp::start().await;
    let [(big, flooded), (small, quiet)] = two_organizations(&app, 16).await;
    flooded.hold(Kind::Commit);
    let clients: Vec<_> = (0..8).map(|_| big.connected_anew()).collect();
    let ids = numbered("row-", backlog);
    let queues = ids.chunks(backlog / clients.len()).zip(&clients);
    join_all(queues.map(|(ids, client)| queue(client, ids.iter().cloned()))).await;
    flooded.release(Kind::Commit);
    flooded.wait_for_executions(1).await;
    for receipt in confirm_all(&small, numbered("row-", 50)).await {
        assert_eq!(receipt.attempt_count, 1, "{receipt:?}");
    }
    let last = quiet.executions().last().unwrap().order;
    let first = quiet.arrivals_of(Kind::Commit)[0].order;
    let meanwhile = flooded.executions();
    let meanwhile = meanwhile
        .iter()
        .filter(|it| (first..last).contains(&it.order));
    // Turn about, they are even; it is given ten turns for one.
    let meanwhile = meanwhile.count();
    assert!(
        meanwhile <= 500,
        "{meanwhile} writes of the backlog beside 50"
    );
    drained(&big).await;
    assert_eq!(flooded.executions().len(), backlog);
}
