//! What is found out about an endpoint by asking it, before commits depend on it.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use backends::data_source::clock::{Clock, SystemClock};
use integration::app::{Source, Tenant, TestApp, intent, reason};
use integration::endpoint::{Answer, Endpoint, Kind, Reply};
use proto::v1::{self, RequestKind};
use serde_json::{Value, json};

use crate::command::{run, told};

async fn verified(tenant: &Tenant) -> v1::VerifyDataSourceResponse {
    let request = v1::VerifyDataSourceRequest {
        name: "dataSources/crm".to_owned(),
    };
    let found = tenant.sources().verify(request).await;
    found.unwrap().into_inner()
}

fn check<'a>(found: &'a v1::VerifyDataSourceResponse, name: &str) -> &'a v1::VerificationCheck {
    let check = found.checks.iter().find(|check| check.name == name);
    check.unwrap_or_else(|| panic!("{name} is not in {found:#?}"))
}

async fn house() -> (TestApp, Endpoint, Tenant) {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    (app, endpoint, tenant)
}

/// The command, asked as the tenant; what it says, and its exit code.
async fn command(tenant: &Tenant, address: &str, arguments: &[&str]) -> (i32, String) {
    let server = format!("http://{address}");
    let common = ["--server", &server, "--key", tenant.key()];
    told(&run(&[arguments, &common].concat()).await)
}

#[tokio::test]
async fn an_honest_endpoint_is_verified_and_nothing_is_written_there() {
    let (app, endpoint, tenant) = house().await;
    let found = verified(&tenant).await;
    assert!(found.ok, "{found:#?}");
    let names: Vec<_> = found.checks.iter().map(|it| it.name.as_str()).collect();
    let expected = [
        "reachable",
        "tls",
        "signature",
        "clock",
        "commit",
        "load",
        "list",
        "events",
    ];
    assert_eq!(names, expected);
    assert!(found.keys.len() == 1 && found.keys[0].accepted);
    assert!(endpoint.executions().is_empty());
    // Loads and lists ask for a model that the source has.
    for kind in [Kind::Load, Kind::List] {
        assert_eq!(endpoint.arrivals_of(kind)[0].body["model"], "airports");
    }
    let status = tenant.status().await;
    let mut kinds: Vec<_> = status.kinds.iter().map(v1::RequestStatus::kind).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [RequestKind::Load, RequestKind::List, RequestKind::Events]
    );
    assert!(status.kinds.iter().all(|it| it.last_success_time.is_some()));

    let (code, said) = command(
        &tenant,
        &app.address(),
        &["source", "verify", "crm", "--json"],
    )
    .await;
    assert_eq!(code, 0, "{said}");
    let said: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(
        (&said["ok"], &said["checks"][2]["name"]),
        (&json!(true), &json!("signature"))
    );
}

#[tokio::test]
async fn an_endpoint_with_another_key_is_told_from_one_that_takes_any() {
    let (app, endpoint, tenant) = house().await;
    endpoint.set_keys(&["sk_test_of_somebody_else"]);
    let found = verified(&tenant).await;
    let signature = check(&found, "signature");
    assert!(!found.ok && !signature.ok);
    let shown = &tenant.key()[..12];
    for words in [
        "answered 401 source_signature_invalid",
        "not one of this organization's",
        shown,
    ] {
        assert!(signature.message.contains(words), "{}", signature.message);
    }
    assert!(!signature.message.contains(tenant.key()));
    assert!(!found.keys[0].accepted);
    let (code, said) = command(&tenant, &app.address(), &["source", "verify", "crm"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("verification_failed"), "{said}");

    endpoint.set_keys(&[tenant.key()]);
    let anybody = Answer::json(StatusCode::OK, &json!({"events": []}));
    endpoint.always(Kind::Events, anybody);
    let signature = check(&verified(&tenant).await, "signature").clone();
    assert!(!signature.ok);
    assert!(
        signature
            .message
            .contains("a key that nobody has was answered 200")
    );
}

#[tokio::test]
async fn a_source_that_does_not_pass_is_not_registered() {
    let (app, endpoint, tenant) = house().await;
    endpoint.always(
        Kind::Commit,
        Answer::error(StatusCode::NOT_FOUND, "source_commit_not_configured"),
    );
    let create = |verify| v1::CreateDataSourceRequest {
        data_source_id: "new".to_owned(),
        data_source: Some(v1::DataSource {
            url: endpoint.url(),
            ..v1::DataSource::default()
        }),
        verify,
        ..v1::CreateDataSourceRequest::default()
    };
    let refused = tenant.sources().create(create(true)).await.unwrap_err();
    assert_eq!(reason(&refused), "verification_failed");
    assert!(
        refused.message().contains("commit: "),
        "{}",
        refused.message()
    );
    let get = v1::GetDataSourceRequest {
        name: "dataSources/new".to_owned(),
    };
    let missing = tenant.sources().get(get).await.unwrap_err();
    assert_eq!(reason(&missing), "source_not_found");

    endpoint.be_honest(Kind::Commit);
    let add = ["source", "add", "new", &endpoint.url(), "--verify"];
    let (code, said) = command(&tenant, &app.address(), &add).await;
    assert_eq!(code, 0, "{said}");
    let keys = needed_by(&tenant).await;
    assert_eq!(
        keys,
        [["dataSources/new".to_owned()]],
        "it was seen to take the key"
    );
}

/// For each of the tenant's keys, newest first, the sources that need it.
async fn needed_by(tenant: &Tenant) -> Vec<Vec<String>> {
    let request = v1::ListApiKeysRequest {
        parent: format!("organizations/{}", tenant.name()),
        ..v1::ListApiKeysRequest::default()
    };
    let keys = tenant
        .admin()
        .list_api_keys(request)
        .await
        .unwrap()
        .into_inner();
    keys.api_keys.into_iter().map(|key| key.needed_by).collect()
}

#[tokio::test]
async fn a_key_that_a_source_needs_is_not_revoked_by_mistake() {
    let (app, endpoint, tenant) = house().await;
    assert!(verified(&tenant).await.ok);
    let parent = format!("organizations/{}", tenant.name());
    let create = v1::CreateApiKeyRequest {
        parent: parent.clone(),
        display_name: String::new(),
    };
    let made = tenant.admin().create_api_key(create).await.unwrap();
    let new = made.into_inner().key;
    assert!(verified(&tenant).await.ok);
    assert_eq!(
        needed_by(&tenant).await,
        [vec![], vec!["dataSources/crm".to_owned()]]
    );
    let list = v1::ListApiKeysRequest {
        parent,
        ..v1::ListApiKeysRequest::default()
    };
    let keys = tenant
        .admin()
        .list_api_keys(list)
        .await
        .unwrap()
        .into_inner();
    let old = keys.api_keys[1].name.rsplit('/').next().unwrap().to_owned();
    let server = format!("http://{}", app.address());
    let token = integration::app::OPERATOR_TOKEN;
    let revoke = [
        "key",
        "revoke",
        tenant.name(),
        &old,
        "--server",
        &server,
        "--operator-token",
        token,
    ];
    let (code, said) = told(&run(&revoke).await);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("crm") && said.contains("key_needed"),
        "{said}"
    );

    // The customer takes both for a while, and the source is verified: nobody needs the old one.
    endpoint.set_keys(&[&new, tenant.key()]);
    let found = verified(&tenant).await;
    assert!(found.keys.iter().all(|key| key.accepted), "{found:#?}");
    assert_eq!(
        needed_by(&tenant).await,
        [vec!["dataSources/crm".to_owned()], vec![]]
    );
    let (code, said) = told(&run(&revoke).await);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn verification_ends_in_time_whatever_the_endpoint_and_the_sources_state() {
    let (_app, mut endpoint, tenant) = house().await;
    tenant.disable("to see").await;
    assert!(
        verified(&tenant).await.ok,
        "a disabled source is verified too"
    );
    let source = Source {
        request_timeout: Duration::from_secs(2),
        ..Source::at(&endpoint)
    };
    tenant.update_source(&source).await;
    for kind in [Kind::Commit, Kind::Load, Kind::List, Kind::Events] {
        endpoint.always(kind, Answer::unapplied(Reply::Silence));
    }
    let begun = Instant::now();
    let found = verified(&tenant).await;
    // Its requests may take two seconds each, and none waits for another.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let reachable = check(&found, "reachable");
    assert!(
        !reachable.ok && reachable.message.contains("did not answer"),
        "{found:#?}"
    );

    endpoint.stop().await;
    let found = verified(&tenant).await;
    let message = &check(&found, "reachable").message;
    assert!(
        message.contains("connection refused; start the app"),
        "{message}"
    );
    let unknown = v1::VerifyDataSourceRequest {
        name: "dataSources/nowhere".to_owned(),
    };
    let missing = tenant.sources().verify(unknown).await.unwrap_err();
    assert_eq!(reason(&missing), "source_not_found");
}

#[tokio::test]
async fn an_endpoint_whose_clock_is_off_is_told_so_by_attempts_and_by_verification() {
    let (_app, endpoint, tenant) = house().await;
    let date = httpdate::fmt_http_date(SystemClock.now() + Duration::from_mins(7));
    let expired = Answer::error(StatusCode::UNAUTHORIZED, "source_timestamp_expired");
    let expired = expired.with_header("date", &date);
    endpoint.script(Kind::Commit, expired.clone());
    let create = intent::create("airports", "a", &json!({}));
    tenant
        .commit(intent::queued("early", vec![create]))
        .await
        .unwrap();
    let attempts = tenant.ended_attempts("early", 1).await;
    let words = "401 Unauthorized: source_timestamp_expired";
    assert!(
        attempts[0].message.contains(words),
        "{}",
        attempts[0].message
    );
    let words = "the endpoint's clock is 7 min ahead of ours";
    assert!(
        attempts[0].message.ends_with(words),
        "{}",
        attempts[0].message
    );
    assert_eq!(attempts[0].outcome, "misconfigured");

    for kind in [Kind::Load, Kind::List, Kind::Events] {
        endpoint.always(kind, expired.clone());
    }
    let found = verified(&tenant).await;
    assert!(check(&found, "clock").message.contains(words), "{found:#?}");
    assert!(found.clock_skew.unwrap().seconds >= 410, "{found:#?}");
    for kind in [Kind::Load, Kind::List, Kind::Events] {
        endpoint.be_honest(kind);
    }
    // Nothing was rejected: set right, the endpoint gets the commit.
    tenant.update_source(&Source::at(&endpoint)).await;
    let create = intent::create("airports", "a", &json!({}));
    tenant.confirm(intent::commit("early", vec![create])).await;
}
