//! Where requests may go, and what happens to those that may not: an endpoint's URL is judged when
//! it is given, and again at each delivery.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use coordinator::lifecycle::Ending;
use integration::app::{Flags, Tenant, TestApp, eventually, intent};
use integration::endpoint::{Answer, Endpoint, Kind};
use integration::postgres::TestDatabase;
use proto::v1::{
    Attempt, CreateDataSourceRequest, DataSource, ListAttemptsRequest, UpdateDataSourceRequest,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::bad_input::{House, Policy, Refusal, field};

/// URLs that are refused, by reason.
const REFUSED: [(&str, &[&str]); 7] = [
    (
        "https_required",
        &[
            "http://example.com/",
            "http://127.0.0.1/",
            "gopher://example.com/",
            "file:///etc/passwd",
            "ftp://example.com/",
            "unix:/run/postgres",
            "data:text/plain,a",
            "ws://example.com/",
        ],
    ),
    (
        "address_forbidden",
        &[
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://0/",
            "https://127。0。0。1/",
            "https://①②⑦.0.0.1/",
            "https://%31%36%39.254.169.254/",
            "https://169.254.169.254./",
            "https:/\\/\\169.254.169.254",
            "https://[::ffff:169.254.169.254]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[2002:7f00:1::]/",
            "https://[::1]/",
            "https://[::]/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://10.0.0.1/",
            "https://100.64.0.1/",
            "https://172.16.0.1/",
            "https://192.168.0.1/",
            "https://198.18.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://168.63.129.16/",
        ],
    ),
    (
        "url_invalid",
        &[
            "",
            "example.com",
            "//example.com/",
            "https://",
            "https://[fe80::1%25eth0]/",
            "https://256.256.256.256/",
            "https://exa\0mple.com/",
            "https://exa\tmple.com/",
            "https://exa\nmple.com/",
            " https://example.com/",
            "https://example.com/a b",
            "https://example.com:65536/",
            "https://example.com:x/",
        ],
    ),
    (
        "userinfo_refused",
        &[
            "https://user:pw@example.com/",
            "https://user@example.com/",
            "https://:pw@example.com/",
            "https://ok.example@169.254.169.254/",
        ],
    ),
    (
        "fragment_refused",
        &[
            "https://ok.example#@169.254.169.254/",
            "https://example.com/#a",
        ],
    ),
    (
        "port_refused",
        &[
            "https://example.com:22/",
            "https://example.com:6379/",
            "https://example.com:0/",
            "https://example.com:80/",
        ],
    ),
    (
        "host_forbidden",
        &[
            "https://localhost/",
            "https://localhost./",
            "https://a.localhost/",
            "https://metadata.google.internal/",
            "https://metadata.example.com/",
            "https://intranet/",
            "https://printer.local/",
            "https://example.com./",
        ],
    ),
];

/// What a delivery may meet in the table, however it came there; `{port}` is a listener's.
const FORBIDDEN: [&str; 10] = [
    "http://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "https://localhost:{port}/",
    "https://2130706433:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://[::1]:{port}/",
    "https://10.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://metadata.google.internal/",
];

const REDIRECTS: [StatusCode; 6] = [
    StatusCode::MULTIPLE_CHOICES,
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

#[tokio::test]
async fn a_url_that_is_not_a_public_https_one_is_refused_and_changes_nothing() {
    let house = House::open(Policy::Production).await;
    house.create_source("crm", "https://1.1.1.1/").await;
    let long = format!("https://example.com/{}", "a".repeat(8 << 10));
    let mut urls: Vec<(&str, Refusal)> = Vec::new();
    for (reason, refused) in REFUSED {
        urls.extend(
            refused
                .iter()
                .map(|url| (*url, field(reason, "data_source.url"))),
        );
    }
    urls.push((&long, field("url_invalid", "data_source.url")));
    let cases = || {
        urls.iter()
            .map(|(url, refusal)| (*url, (*url).to_owned(), refusal.clone()))
            .collect()
    };
    let source = |url| DataSource {
        name: "dataSources/crm".to_owned(),
        url,
        ..DataSource::default()
    };
    let create = async |url| {
        let request = CreateDataSourceRequest {
            data_source_id: "new".to_owned(),
            data_source: Some(source(url)),
            ..CreateDataSourceRequest::default()
        };
        house.sources().create(request).await
    };
    house.refuses(cases(), create).await;
    let update = async |url| {
        let request = UpdateDataSourceRequest {
            data_source: Some(source(url)),
            update_mask: None,
            ..UpdateDataSourceRequest::default()
        };
        house.sources().update(request).await
    };
    house.refuses(cases(), update).await;
    house.close().await;
}

#[tokio::test]
async fn a_url_is_kept_as_what_it_means() {
    let house = House::open(Policy::Production).await;
    let urls = [
        (
            "a",
            "HTTPS://Example.COM:443/a/../b?q",
            "https://example.com/b?q",
        ),
        (
            "b",
            "https://ok.example\\@169.254.169.254/",
            "https://ok.example/@169.254.169.254/",
        ),
        (
            "c",
            "https://bücher.example",
            "https://xn--bcher-kva.example/",
        ),
        ("d", "https://134744072/", "https://8.8.8.8/"),
    ];
    for (id, given, kept) in urls {
        let request = CreateDataSourceRequest {
            data_source_id: id.to_owned(),
            data_source: Some(DataSource {
                url: given.to_owned(),
                ..DataSource::default()
            }),
            ..CreateDataSourceRequest::default()
        };
        let source = house.sources().create(request).await.unwrap().into_inner();
        assert_eq!(source.url, kept);
    }
    house.close().await;
}

#[tokio::test]
async fn the_coordinators_own_address_is_refused_even_in_development() {
    let house = House::open(Policy::Development).await;
    let own = house.app.address();
    let port = own.rsplit(':').next().unwrap();
    let urls = [
        format!("http://{own}/"),
        format!("http://localhost:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
    ];
    let refusal = || field("address_forbidden", "data_source.url");
    let cases = urls
        .iter()
        .map(|url| (url.as_str(), url.clone(), refusal()));
    let create = async |url| {
        let source = DataSource {
            url,
            ..DataSource::default()
        };
        let request = CreateDataSourceRequest {
            data_source_id: "new".to_owned(),
            data_source: Some(source),
            ..CreateDataSourceRequest::default()
        };
        house.sources().create(request).await
    };
    house.refuses(cases.collect(), create).await;
    house.close().await;
}

#[tokio::test]
async fn a_delivery_to_an_address_that_has_become_forbidden_makes_no_connection() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port().to_string();
    let database = TestDatabase::migrated().await;
    let app = |flags| TestApp::over(database.url(), database.connect_options(), flags);

    // Registered where it was allowed …
    let endpoint = Endpoint::start("").await.unwrap();
    let mut development = app(Flags::default());
    development.add_node().await;
    let tenant = development.organization("acme").await;
    let sources: Vec<String> = (0..FORBIDDEN.len()).map(|n| format!("s{n}")).collect();
    furnish(
        &tenant,
        sources.iter().map(|id| (id.as_str(), endpoint.url())),
    )
    .await;
    assert_eq!(development.stop().await, Ending::Drained);
    let pool = development.pool();
    for (id, url) in sources.iter().zip(FORBIDDEN) {
        sqlx::query("UPDATE data_sources SET url = $1 WHERE source_id = $2")
            .bind(url.replace("{port}", &port))
            .bind(id)
            .execute(&pool)
            .await
            .unwrap();
    }

    // … and delivered to where it is not.
    let mut production = app(Flags::default().with("allow-subnet", ""));
    let tenant = tenant.at(&production.add_node().await);
    for (id, url) in sources.iter().zip(FORBIDDEN) {
        let attempt = first_attempt(&tenant, id).await;
        assert_eq!(attempt.error_class, "address_forbidden", "{url}");
        assert_eq!(
            (attempt.outcome.as_str(), attempt.http_status),
            ("misconfigured", 0),
            "{url}"
        );
        let status = tenant.load(&model(id), "x").await.unwrap_err();
        assert_eq!(
            integration::app::reason(&status),
            "source_misconfigured",
            "{url}"
        );
    }
    assert_nobody_came(&target).await;
    assert!(endpoint.arrivals_of(Kind::Commit).is_empty());
    production.leaves_pending("nothing can be delivered to forbidden addresses");
    development.leaves_pending("the same database");
    assert_eq!(production.stop().await, Ending::Drained);
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("http://{}/", target.local_addr().unwrap());
    let mut app = TestApp::start().await;
    let tenant = app.organization("acme").await;
    let mut endpoints = BTreeMap::new();
    for status in REDIRECTS {
        let endpoint = Endpoint::start(tenant.key()).await.unwrap();
        let redirect = || Answer::status(status).with_header("location", &elsewhere);
        endpoint.always(Kind::Commit, redirect());
        endpoint.always(Kind::Load, redirect());
        endpoints.insert(format!("s{}", status.as_u16()), endpoint);
    }
    furnish(
        &tenant,
        endpoints
            .iter()
            .map(|(id, endpoint)| (id.as_str(), endpoint.url())),
    )
    .await;
    for (id, endpoint) in &endpoints {
        let attempt = first_attempt(&tenant, id).await;
        assert_eq!(attempt.error_class, "redirect_refused", "{id}");
        assert_eq!(attempt.outcome, "misconfigured", "{id}");
        assert_eq!(format!("s{}", attempt.http_status), *id);
        let status = tenant.load(&model(id), "x").await.unwrap_err();
        assert_eq!(
            integration::app::reason(&status),
            "source_misconfigured",
            "{id}"
        );
        assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 1, "{id}");
    }
    assert_nobody_came(&target).await;
    app.leaves_pending("a redirect is for a person to mend");
    assert_eq!(app.stop().await, Ending::Drained);
}

/// Registers the sources, and pushes a schema with one model in each.
async fn furnish(tenant: &Tenant, sources: impl Iterator<Item = (&str, String)>) {
    let mut models = serde_json::Map::new();
    for (id, url) in sources {
        let source = DataSource {
            url,
            ..DataSource::default()
        };
        let request = CreateDataSourceRequest {
            data_source_id: id.to_owned(),
            data_source: Some(source),
            ..CreateDataSourceRequest::default()
        };
        tenant.sources().create(request).await.unwrap();
        let fields = json!({"type": "object", "additionalProperties": true});
        models.insert(
            model(id),
            json!({"backing": {"dataSource": id}, "schema": fields}),
        );
    }
    tenant
        .push(&Value::from_iter([("models", models)]).to_string())
        .await;
}

fn model(source: &str) -> String {
    format!("rows_of_{source}")
}

/// Commits a row to a source; its first attempt, once that has ended.
async fn first_attempt(tenant: &Tenant, source: &str) -> Attempt {
    let create = intent::create(&model(source), "x", &json!({}));
    let queued = tenant
        .commit(intent::queued(&format!("to-{source}"), vec![create]))
        .await;
    queued.unwrap();
    eventually("the first attempt's end", async || {
        let request = ListAttemptsRequest {
            name: format!("dataSources/{source}"),
            ..ListAttemptsRequest::default()
        };
        let page = tenant
            .sources()
            .list_attempts(request)
            .await
            .unwrap()
            .into_inner();
        page.attempts
            .into_iter()
            .find(|it| it.number == 1 && !it.outcome.is_empty())
    })
    .await
}

/// The first to connect is this very function.
async fn assert_nobody_came(target: &TcpListener) {
    let visit = TcpStream::connect(target.local_addr().unwrap())
        .await
        .unwrap();
    let (_, visitor) = target.accept().await.unwrap();
    assert_eq!(visitor, visit.local_addr().unwrap());
}
