use std::net::SocketAddr;
use std::sync::Mutex;

use backends::data_source::egress::EgressPolicy;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::domain::Mode;
use crate::keys::MasterKeys;
use crate::refusal::Class;
use crate::store::scratch::{Scratch, acme};

/// Makes a status and a body of a question.
type Answer = Box<dyn Fn(&Value) -> (u16, Value) + Send>;

/// An endpoint that answers every request in one way.
struct Endpoint {
    address: SocketAddr,
    answer: Mutex<Answer>,
    /// What was asked, newest last.
    asked: Mutex<Vec<Value>>,
    /// One permit lets one answer out.
    gate: Semaphore,
    arrived: Notify,
}

impl Endpoint {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            answer: Mutex::new(Box::new(|_| (200, json!({"row": null})))),
            asked: Mutex::default(),
            gate: Semaphore::new(1_000),
            arrived: Notify::new(),
        });
        let server = Arc::clone(&endpoint);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.serve(stream).await;
            }
        });
        endpoint
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        let body = loop {
            let mut part = [0; 4_096];
            let read = stream.read(&mut part).await.unwrap();
            request.extend_from_slice(&part[..read]);
            let text = String::from_utf8(request.clone()).unwrap().to_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            assert!(head.contains("webhook-signature: v1,"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if body.len() == length {
                break request.split_off(request.len() - length);
            }
        };
        let question: Value = serde_json::from_slice(&body).unwrap();
        self.asked.lock().unwrap().push(question.clone());
        self.arrived.notify_one();
        self.gate.acquire().await.unwrap().forget();
        let (status, body) = (self.answer.lock().unwrap())(&question);
        let body = body.to_string();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        // The client may have gone.
        drop(stream.write_all(answer.as_bytes()).await);
    }

    fn answers(&self, status: u16, body: &Value) {
        let body = body.clone();
        *self.answer.lock().unwrap() = Box::new(move |_| (status, body.clone()));
    }

    fn answers_by(&self, answer: impl Fn(&Value) -> Value + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(move |question| (200, answer(question)));
    }

    /// What each list asked for in this field.
    fn questions(&self, field: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|it| it["query"][field].clone()).collect()
    }

    fn last_question(&self) -> Value {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

struct House {
    scratch: Scratch,
    endpoint: Arc<Endpoint>,
    reads: Reads,
}

const SCHEMA: &str = r#"
    INSERT INTO schemas (org_id, version, document, created_at) VALUES ('acme', 1, '{"models": {
        "reports": {"schema": {"type": "object", "additionalProperties": true}},
        "contacts": {"backing": {"dataSource": "crm"},
                     "schema": {"type": "object", "additionalProperties": true}}
    }}', now());
    UPDATE heads SET schema_version = 1"#;

impl House {
    async fn open() -> Self {
        let (scratch, endpoint) = tokio::join!(Scratch::start(), Endpoint::start());
        scratch.run(SCHEMA).await;
        sqlx::query(
            "INSERT INTO data_sources (org_id, source_id, url, retry_delays_ms,
                 request_timeout_ms, max_in_flight, state, created_at, updated_at)
             VALUES ('acme', 'crm', $1, '{}', 5000, 4, 'enabled', now(), now())",
        )
        .bind(format!("http://{}/hook", endpoint.address))
        .execute(&scratch.store.reads)
        .await
        .unwrap();

        let master = MasterKeys::generate("a");
        let master = || MasterKeys::parse(master.expose_secret()).unwrap();
        let keys = Arc::new(KeyRing::new(scratch.store.clone(), master()));
        keys.create(&acme(), Mode::Test, "test".to_owned())
            .await
            .unwrap()
            .unwrap();
        let policy = EgressPolicy {
            allowed_subnets: vec!["127.0.0.0/8".parse().unwrap()],
            ..EgressPolicy::default()
        };
        let client = EndpointClient::new(policy).unwrap();
        let schemas = Arc::new(SchemaCache::new(Arc::new(scratch.store.clone())));
        let pages = Arc::new(PageTokens::new(&master()));
        let reads = Reads::new(scratch.store.clone(), schemas, client, keys, pages);
        Self {
            scratch,
            endpoint,
            reads,
        }
    }

    async fn load(&self, model: &str, id: &str) -> Result<v1::LoadResponse, Refusal> {
        let participant = v1::Participant {
            id: "ada".to_owned(),
            kind: 1,
        };
        let request = v1::LoadRequest {
            model: model.to_owned(),
            id: id.to_owned(),
            participant: Some(participant),
            required_sync_groups: vec!["g".to_owned()],
        };
        self.reads.load(&caller(), request).await
    }

    /// Rows' ids of every page, one page after the other.
    async fn pages(&self, mut request: v1::ListRequest) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        loop {
            let page = self.reads.list(&caller(), request.clone()).await.unwrap();
            assert_eq!(page.read_at, 41);
            pages.push(page.rows_json.iter().map(|row| id(row)).collect());
            if page.next_page_token.is_empty() {
                return pages;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The record of one kind of request: whether any succeeded, and the class of the last error.
    async fn record(&self, kind: &str) -> Option<(bool, Option<String>, Option<i32>)> {
        sqlx::query_as(
            "SELECT last_success_at IS NOT NULL, last_error_class, last_error_status
             FROM source_requests WHERE kind = $1 AND source_id = 'crm'",
        )
        .bind(kind)
        .fetch_optional(&self.scratch.store.reads)
        .await
        .unwrap()
    }
}

fn caller() -> Caller {
    Caller {
        key_id: uuid::Uuid::nil(),
        organization: acme(),
        mode: Mode::Test,
    }
}

fn id(row: &[u8]) -> String {
    let row: Value = serde_json::from_slice(row).unwrap();
    row["id"].as_str().unwrap().to_owned()
}

fn list(model: &str, page_size: i32) -> v1::ListRequest {
    v1::ListRequest {
        model: model.to_owned(),
        page_size,
        ..v1::ListRequest::default()
    }
}

fn at_least(number: i32) -> v1::Condition {
    v1::Condition {
        field: "n".to_owned(),
        operator: v1::Operator::Ge.into(),
        value_json: number.to_string().into(),
    }
}

const ROWS: &str = r"
    INSERT INTO managed_rows (org_id, model, row_id, row, sync_id, archived_at)
    SELECT 'acme', 'reports', 'r' || n, jsonb_build_object('id', 'r' || n, 'n', n % 3), n,
           CASE WHEN n = 5 THEN now() END
    FROM generate_series(1, 7) AS n";

#[tokio::test]
async fn managed_rows_are_read_from_postgres() {
    let house = House::open().await;
    house.scratch.run(ROWS).await;
    let found = house.load("reports", "r5").await.unwrap();
    assert_eq!(
        (id(&found.row_json.unwrap()), found.read_at, found.archived),
        ("r5".into(), 41, true)
    );
    let missing = house.load("reports", "r9").await.unwrap();
    assert_eq!(
        (missing.row_json, missing.read_at, missing.archived),
        (None, 41, false)
    );

    assert_eq!(
        house.pages(list("reports", 4)).await,
        [vec!["r1", "r2", "r3", "r4"], vec!["r6", "r7"]]
    );
    let ordered = v1::ListRequest {
        order_by: "n desc".to_owned(),
        r#where: vec![at_least(1)],
        include_archived: true,
        ..list("reports", 2)
    };
    assert_eq!(
        house.pages(ordered).await,
        [vec!["r2", "r5"], vec!["r1", "r4"], vec!["r7"]]
    );
}

#[tokio::test]
async fn a_page_token_continues_its_own_list_only() {
    let house = House::open().await;
    house.scratch.run(ROWS).await;
    let first = house
        .reads
        .list(&caller(), list("reports", 2))
        .await
        .unwrap();
    let with = |request: v1::ListRequest| v1::ListRequest {
        page_token: first.next_page_token.clone(),
        ..request
    };
    assert!(
        house
            .reads
            .list(&caller(), with(list("reports", 3)))
            .await
            .is_ok()
    );
    for request in [
        list("contacts", 2),
        v1::ListRequest {
            r#where: vec![at_least(1)],
            ..list("reports", 2)
        },
        v1::ListRequest {
            order_by: "id".to_owned(),
            ..list("reports", 2)
        },
        v1::ListRequest {
            include_archived: true,
            ..list("reports", 2)
        },
    ] {
        let refusal = house
            .reads
            .list(&caller(), with(request))
            .await
            .unwrap_err();
        assert_eq!(
            (refusal.class, refusal.reason),
            (Class::Invalid, "page_token_invalid")
        );
    }
}

#[tokio::test]
async fn a_row_behind_a_source_is_asked_for_and_the_answer_put_on_record() {
    let house = House::open().await;
    house
        .endpoint
        .answers(200, &json!({"row": {"id": "c1", "name": "Ada"}}));
    let found = house.load("contacts", "c1").await.unwrap();
    assert_eq!(found.row_json.unwrap(), r#"{"id":"c1","name":"Ada"}"#);
    assert_eq!((found.read_at, found.archived), (41, false));
    let scope = json!({
        "participantId": "ada", "participantKind": "user", "organizationId": "acme",
        "requiredSyncGroups": ["g"], "mode": "test",
    });
    let question = json!({"type": "load", "model": "contacts", "id": "c1", "scope": scope});
    assert_eq!(house.endpoint.last_question(), question);
    assert_eq!(house.record("load").await, Some((true, None, None)));

    house.endpoint.answers(200, &json!({"row": null}));
    assert_eq!(house.load("contacts", "c2").await.unwrap().row_json, None);
}

#[tokio::test]
async fn a_source_that_fails_is_named_and_put_on_record() {
    let house = House::open().await;
    let cases = [
        (503, json!({}), Class::Unavailable, "source_unavailable"),
        (
            200,
            json!({"row": 7}),
            Class::Unavailable,
            "source_unavailable",
        ),
        (
            401,
            json!({"error": "source_signature_invalid"}),
            Class::Precondition,
            "source_misconfigured",
        ),
        (
            404,
            json!({"error": "source_load_not_configured"}),
            Class::Precondition,
            "source_misconfigured",
        ),
        (
            403,
            json!({"error": "not_your_region"}),
            Class::Precondition,
            "source_refused",
        ),
        (
            403,
            json!({"error": "source_forbidden"}),
            Class::Precondition,
            "source_misconfigured",
        ),
        (410, json!({}), Class::Precondition, "source_misconfigured"),
    ];
    for (status, body, class, reason) in cases {
        house.endpoint.answers(status, &body);
        let refusal = house.load("contacts", "c1").await.unwrap_err();
        assert_eq!((refusal.class, refusal.reason), (class, reason), "{status}");
        assert_eq!(refusal.retry_after.is_some(), class == Class::Unavailable);
        let (succeeded, error, http_status) = house.record("load").await.unwrap();
        assert!(!succeeded && error.is_some());
        assert_eq!(http_status, Some(i32::from(status)));
    }
    assert_eq!(house.record("list").await, None);

    house
        .scratch
        .run("UPDATE data_sources SET url = 'http://10.0.0.1/hook'")
        .await;
    let refusal = house.load("contacts", "c1").await.unwrap_err();
    assert_eq!(
        (refusal.class, refusal.reason),
        (Class::Precondition, "source_misconfigured")
    );
}

#[tokio::test]
async fn a_disabled_source_is_not_asked() {
    let house = House::open().await;
    house
        .scratch
        .run("UPDATE data_sources SET state = 'disabled'")
        .await;
    let refusal = house.load("contacts", "c1").await.unwrap_err();
    assert_eq!(
        (refusal.class, refusal.reason),
        (Class::Precondition, "source_disabled")
    );
    assert!(house.endpoint.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_ignores_everything_is_listed_page_by_page_all_the_same() {
    let house = House::open().await;
    let row = |n: i32| json!({"id": format!("c{n}"), "n": n});
    house.endpoint.answers(
        200,
        &json!({"rows": [row(5), row(2), row(4), row(1), row(3), row(0)]}),
    );
    let request = v1::ListRequest {
        r#where: vec![at_least(1)],
        ..list("contacts", 2)
    };
    let pages = house.pages(request.clone()).await;
    assert_eq!(pages, [vec!["c1", "c2"], vec!["c3", "c4"], vec!["c5"]]);
    let query = &house.endpoint.last_question()["query"];
    assert_eq!(query["where"], json!([["n", ">=", 1]]));
    // Six rows for six that were asked for may be a part: the last page was made sure of.
    assert_eq!(query["limit"].to_string(), "1000");
    assert_eq!(house.record("list").await, Some((true, None, None)));
    let descending = v1::ListRequest {
        order_by: "n desc".to_owned(),
        ..request
    };
    assert_eq!(house.pages(descending).await[0], ["c5", "c4"]);
}

/// Rows of an endpoint that honours the limit alone.
fn up_to(count: u32) -> impl Fn(&Value) -> Value {
    move |question| {
        let limit = question["query"]["limit"].as_u64().unwrap();
        let rows = (0..count).map(|n| json!({"id": format!("c{n:04}"), "n": n}));
        json!({"rows": rows.take(usize::try_from(limit).unwrap()).collect::<Vec<_>>()})
    }
}

#[tokio::test]
async fn an_endpoint_that_honours_the_limit_alone_is_asked_for_more_and_ordered_here() {
    let house = House::open().await;
    house.endpoint.answers_by(up_to(7));
    let request = v1::ListRequest {
        r#where: vec![at_least(2)],
        order_by: "n desc".to_owned(),
        ..list("contacts", 3)
    };
    let pages = house.pages(request.clone()).await;
    assert_eq!(
        pages,
        [vec!["c0006", "c0005", "c0004"], vec!["c0003", "c0002"]]
    );
    let page = house.reads.list(&caller(), request).await.unwrap();
    assert!(!page.incomplete);
    let limits = house.endpoint.questions("limit");
    assert_eq!(limits, [3, 1_000, 1_000, 3, 1_000]);
}

#[tokio::test]
async fn a_list_that_may_go_on_out_of_reach_says_so_on_each_of_its_pages() {
    let house = House::open().await;
    for (held, incomplete) in [(999, false), (1_000, true), (1_500, true)] {
        house.endpoint.answers_by(up_to(held));
        let first = house.reads.list(&caller(), list("contacts", 600)).await;
        let first = first.unwrap();
        assert_eq!(first.incomplete, incomplete, "{held}");
        let rest = v1::ListRequest {
            page_token: first.next_page_token,
            ..list("contacts", 600)
        };
        let rest = house.reads.list(&caller(), rest).await.unwrap();
        assert_eq!(rest.incomplete, incomplete, "{held}");
        assert_eq!(rest.rows_json.len(), held.min(1_000) as usize - 600);
        assert_eq!(rest.next_page_token, "");
    }
}

#[tokio::test]
async fn an_endpoints_own_cursor_is_followed_until_it_stands_still() {
    let house = House::open().await;
    house
        .endpoint
        .answers(200, &json!({"rows": [{"id": "c1"}], "nextCursor": "x"}));
    assert_eq!(house.pages(list("contacts", 2)).await, [["c1"], ["c1"]]);
    assert_eq!(house.endpoint.last_question()["query"]["cursor"], "x");
}

/// Rows 0 to 9 of an endpoint that honours limit and cursor, and gives them in this order.
fn by_cursor(numbers: [i32; 10]) -> impl Fn(&Value) -> Value {
    move |question| {
        let text = question["query"]["cursor"].as_str().unwrap_or("0");
        let from: usize = text.parse().unwrap();
        let limit = usize::try_from(question["query"]["limit"].as_u64().unwrap()).unwrap();
        let rows = numbers
            .iter()
            .map(|n| json!({"id": format!("c{n}"), "n": n}));
        let next = (from + limit < 10).then(|| (from + limit).to_string());
        json!({"rows": rows.skip(from).take(limit).collect::<Vec<_>>(), "nextCursor": next})
    }
}

#[tokio::test]
async fn an_endpoint_that_pages_in_another_order_is_told_of_on_its_pages() {
    let house = House::open().await;
    let mut upwards = [0; 10];
    upwards.iter_mut().zip(0..).for_each(|(it, n)| *it = n);
    let mixed = [0, 1, 2, 5, 4, 3, 6, 7, 8, 9];
    let swapped = [5, 6, 7, 8, 9, 0, 1, 2, 3, 4];
    // What is asked for, the endpoint's order, the size of pages, and what each says of itself.
    let cases: [(&str, _, _, &[bool]); 7] = [
        ("n", upwards, 4, &[false, false, false]),
        ("", swapped, 5, &[false, false]),
        ("n desc", upwards, 5, &[true, true]),
        (
            "n desc",
            upwards,
            1,
            &[false, true, true, true, true, true, true, true, true, true],
        ),
        ("n", mixed, 5, &[true, true]),
        ("n", mixed, 3, &[false, true, false, false]),
        ("n", swapped, 5, &[false, true]),
    ];
    for (order, numbers, page_size, incomplete) in cases {
        house.endpoint.answers_by(by_cursor(numbers));
        let mut request = v1::ListRequest {
            order_by: order.to_owned(),
            ..list("contacts", page_size)
        };
        let (mut told, mut ids) = (Vec::new(), Vec::new());
        loop {
            let page = house.reads.list(&caller(), request.clone()).await.unwrap();
            let mut page_ids: Vec<String> = page.rows_json.iter().map(|row| id(row)).collect();
            told.push(page.incomplete);
            assert!(
                order.is_empty() || page_ids.is_sorted() != (order == "n desc" && page_size > 1)
            );
            ids.append(&mut page_ids);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(told, incomplete, "{order} {numbers:?} {page_size}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 10);
    }
}

#[tokio::test]
async fn an_empty_cursor_is_none() {
    let house = House::open().await;
    house
        .endpoint
        .answers(200, &json!({"rows": [{"id": "c1"}], "nextCursor": ""}));
    assert_eq!(house.pages(list("contacts", 2)).await, [["c1"]]);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_record_true() {
    let house = House::open().await;
    house.endpoint.gate.forget_permits(1_000);
    tokio::select! {
        _ = house.load("contacts", "c1") => panic!("the endpoint has not answered"),
        () = house.endpoint.arrived.notified() => {}
    }
    house.endpoint.gate.add_permits(1);
    let recorded = async {
        while house.record("load").await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), recorded)
        .await
        .unwrap();
    assert_eq!(house.record("load").await, Some((true, None, None)));
}
