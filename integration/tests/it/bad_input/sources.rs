//! Data Sources that must not be.

use std::time::Duration;

use integration::endpoint::Kind;
use proto::v1::{
    CommitRequest, CreateDataSourceRequest, DataSource, DeleteDataSourceRequest,
    DisableDataSourceRequest, EnableDataSourceRequest, GetDataSourceRequest,
    GetDataSourceStatusRequest, ListApiKeysRequest, ListAttemptsRequest, ListDataSourcesRequest,
    ListPendingRequest, ListRequest, LoadRequest, OperationType, RetryPolicy, RevokeApiKeyRequest,
    UpdateDataSourceRequest, Wait,
};
use tonic::Code;

use super::house::{House, commit, operation, source};
use super::refusal::{Refusal, field, refused};

const URL: &str = "https://example.com/";

#[tokio::test]
async fn a_source_whose_settings_break_a_rule_is_refused() {
    let house = House::furnished().await;
    let create = async |request| house.sources().create(request).await;
    house.refuses(creations(), create).await;

    let settings = settings().into_iter().map(|(name, given, refusal)| {
        let given = DataSource {
            name: "dataSources/crm".to_owned(),
            ..given
        };
        (name, updated(given, &[]), refusal)
    });
    let update = async |request| house.sources().update(request).await;
    house
        .refuses(settings.chain(updates()).collect(), update)
        .await;
    house.close().await;
}

#[tokio::test]
async fn a_source_that_is_named_badly_or_is_another_organizations_is_refused() {
    let house = House::furnished().await;
    let mut cases = vec![
        (
            "another organization's",
            "dataSources/crm",
            house.rival.clone(),
            missing(),
        ),
        (
            "an unknown one",
            "dataSources/gone",
            house.acme.clone(),
            missing(),
        ),
    ];
    let named = [
        "",
        "crm",
        "dataSources/",
        "dataSources/CRM",
        "dataSources/crm/x",
        "dataSources/é",
        "organizations/acme",
    ];
    let named = named.map(|name| {
        (
            name,
            name,
            house.acme.clone(),
            field("name_invalid", "name"),
        )
    });
    cases.extend(named);
    for (case, name, key, refusal) in cases {
        refuses_all(&house, case, (name, &key), &refusal).await;
    }
    let disabled = |reason: &str| DisableDataSourceRequest {
        name: "dataSources/crm".to_owned(),
        reason: reason.to_owned(),
        ..DisableDataSourceRequest::default()
    };
    let cases = vec![
        (
            "a long reason",
            disabled(&"é".repeat(1_001)),
            field("field_too_long", "reason"),
        ),
        (
            "U+0000 in the reason",
            disabled("\0"),
            field("field_invalid", "reason"),
        ),
    ];
    let disable = async |request| house.sources().disable(request).await;
    house.refuses(cases, disable).await;
    let delete = async |name: &str| {
        let name = name.to_owned();
        house
            .sources()
            .delete(DeleteDataSourceRequest {
                name,
                ..DeleteDataSourceRequest::default()
            })
            .await
    };
    let in_use = refused(Code::FailedPrecondition, "source_in_use");
    house
        .refuses(
            vec![("the schema names it", "dataSources/crm", in_use)],
            delete,
        )
        .await;
    house.close().await;
}

#[tokio::test]
async fn a_page_of_sources_attempts_or_commits_that_is_asked_for_badly_is_refused() {
    let house = House::furnished().await;
    house.create_source("erp", URL).await;
    let size = || field("page_size_invalid", "page_size");
    let token = || field("page_token_invalid", "page_token");

    let page = |page_size, page_token: &str| ListDataSourcesRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let list = async |request| house.sources().list(request).await;
    let given = list(page(1, ""))
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    assert!(!given.is_empty());
    let cases = vec![
        ("a negative page", page(-1, ""), size()),
        ("a cut token", page(1, &given[1..]), token()),
    ];
    house.refuses(cases, list).await;
    let by_rival = async |request| house.sources_as(&house.rival).list(request).await;
    house
        .refuses(
            vec![("another organization's token", page(1, &given), token())],
            by_rival,
        )
        .await;

    let page = |page_size, page_token: &str, commit: &str| ListAttemptsRequest {
        name: "dataSources/crm".to_owned(),
        client_tx_id: commit.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let cases = vec![
        ("a negative page", page(-1, "", ""), size()),
        ("a token of sources", page(1, &given, ""), token()),
        (
            "a long commit id",
            page(1, "", &"a".repeat(256)),
            field("field_too_long", "client_tx_id"),
        ),
        (
            "U+0000 in the commit id",
            page(1, "", "\0"),
            field("field_invalid", "client_tx_id"),
        ),
    ];
    let attempts = async |request| house.sources().list_attempts(request).await;
    house.refuses(cases, attempts).await;

    let page = |page_size, page_token: &str| ListPendingRequest {
        name: "dataSources/crm".to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        ..ListPendingRequest::default()
    };
    let cases = vec![
        ("a negative page", page(-1, ""), size()),
        ("a token of sources", page(1, &given), token()),
    ];
    let pending = async |request| house.sources().list_pending(request).await;
    house.refuses(cases, pending).await;
    house.close().await;
}

#[tokio::test]
async fn a_disabled_source_takes_no_commits_and_gives_no_rows() {
    let house = House::furnished().await;
    let disable = DisableDataSourceRequest {
        name: "dataSources/crm".to_owned(),
        reason: "moving house".to_owned(),
        ..DisableDataSourceRequest::default()
    };
    house.sources().disable(disable).await.unwrap();
    let asked = || {
        [Kind::Commit, Kind::Load, Kind::List].map(|kind| house.endpoint.arrivals_of(kind).len())
    };
    let before = asked();
    let disabled = || refused(Code::FailedPrecondition, "source_disabled");
    let create = operation(OperationType::Create, "contacts", "x", r#"{"title":"a"}"#);
    let cases = vec![(
        "a commit",
        commit("to-crm", vec![create.clone()]),
        disabled(),
    )];
    let send = async |request| house.coordinator().commit(request).await;
    house.refuses(cases, send).await;
    let load = LoadRequest {
        model: "contacts".to_owned(),
        id: "old".to_owned(),
        ..LoadRequest::default()
    };
    let read = async |request| house.coordinator().load(request).await;
    house
        .refuses(vec![("a load", load, disabled())], read)
        .await;
    let list = ListRequest {
        model: "contacts".to_owned(),
        ..ListRequest::default()
    };
    let read = async |request| house.coordinator().list(request).await;
    house
        .refuses(vec![("a list", list, disabled())], read)
        .await;
    assert_eq!(asked(), before);

    let name = "dataSources/crm".to_owned();
    house
        .sources()
        .enable(EnableDataSourceRequest {
            name,
            ..EnableDataSourceRequest::default()
        })
        .await
        .unwrap();
    house.commit("to-crm", vec![create]).await;
    house.close().await;
}

#[tokio::test]
async fn the_last_key_stays_while_it_signs_what_is_pending() {
    let house = House::furnished().await;
    house.endpoint.hold(Kind::Commit);
    let create = operation(OperationType::Create, "contacts", "x", r#"{"title":"a"}"#);
    let queued = CommitRequest {
        wait: Wait::Queued.into(),
        ..commit("pending", vec![create.clone()])
    };
    house.coordinator().commit(queued).await.unwrap();
    // The one of furnishing, and this: its attempt is on record, and nothing moves any more.
    house.endpoint.wait_for_arrivals(Kind::Commit, 2).await;
    let keys = ListApiKeysRequest {
        parent: "organizations/acme".to_owned(),
        ..ListApiKeysRequest::default()
    };
    let keys = house
        .admin()
        .list_api_keys(keys)
        .await
        .unwrap()
        .into_inner();
    let name = keys.api_keys[0].name.clone();
    let in_use = refused(Code::FailedPrecondition, "last_key_in_use");
    let revoke = async |name| {
        house
            .admin()
            .revoke_api_key(RevokeApiKeyRequest { name })
            .await
    };
    house
        .refuses(vec![("the last key", name, in_use)], revoke)
        .await;
    house.endpoint.release(Kind::Commit);
    house.commit("pending", vec![create]).await;
    house.close().await;
}

/// Every method that takes a name refuses this one.
async fn refuses_all(house: &House, case: &str, (name, key): (&str, &str), refusal: &Refusal) {
    let before = house.contents().await;
    let mut sources = house.sources_as(key);
    let name = || name.to_owned();
    let page = ListAttemptsRequest {
        name: name(),
        ..ListAttemptsRequest::default()
    };
    let pending = ListPendingRequest {
        name: name(),
        ..ListPendingRequest::default()
    };
    let disable = DisableDataSourceRequest {
        name: name(),
        reason: String::new(),
        ..DisableDataSourceRequest::default()
    };
    let answers = [
        sources
            .get(GetDataSourceRequest { name: name() })
            .await
            .err(),
        sources
            .get_status(GetDataSourceStatusRequest { name: name() })
            .await
            .err(),
        sources.list_attempts(page).await.err(),
        sources.list_pending(pending).await.err(),
        sources
            .enable(EnableDataSourceRequest {
                name: name(),
                ..EnableDataSourceRequest::default()
            })
            .await
            .err(),
        sources.disable(disable).await.err(),
        sources
            .delete(DeleteDataSourceRequest {
                name: name(),
                ..DeleteDataSourceRequest::default()
            })
            .await
            .err(),
    ];
    for (method, status) in answers.into_iter().enumerate() {
        let status = status.unwrap_or_else(|| panic!("{case}: method {method} answered"));
        assert_eq!(Refusal::of(&status), *refusal, "{case}, method {method}");
    }
    let given = DataSource {
        name: name(),
        url: URL.to_owned(),
        ..DataSource::default()
    };
    let status = sources.update(updated(given, &[])).await.unwrap_err();
    let fields = refusal
        .fields
        .iter()
        .map(|field| format!("data_source.{field}"))
        .collect();
    let expected = Refusal {
        code: refusal.code,
        reason: refusal.reason.clone(),
        fields,
    };
    assert_eq!(Refusal::of(&status), expected, "{case}, update");
    assert_eq!(house.contents().await, before, "{case} changed something");
}

fn creations() -> Vec<(&'static str, CreateDataSourceRequest, Refusal)> {
    let named = |id: &str| source(id, URL);
    let id = || field("id_invalid", "data_source_id");
    let absent = CreateDataSourceRequest {
        data_source: None,
        ..named("new")
    };
    let names = vec![
        ("no id", named(""), id()),
        ("capitals", named("CRM"), id()),
        ("64 characters", named(&"a".repeat(64)), id()),
        ("a slash", named("a/b"), id()),
        ("SQL for an id", named("x'; DROP TABLE heads; --"), id()),
        ("U+0000", named("a\0"), id()),
        (
            "nothing but an id",
            absent,
            field("field_required", "data_source"),
        ),
        (
            "no URL",
            source("new", ""),
            field("url_invalid", "data_source.url"),
        ),
        (
            "one that exists",
            named("crm"),
            refused(Code::AlreadyExists, "source_exists"),
        ),
    ];
    let settings = settings().into_iter().map(|(name, given, refusal)| {
        let request = CreateDataSourceRequest {
            data_source: Some(given),
            ..named("new")
        };
        (name, request, refusal)
    });
    names.into_iter().chain(settings).collect()
}

/// Settings that neither Create nor Update takes.
fn settings() -> Vec<(&'static str, DataSource, Refusal)> {
    let good = || DataSource {
        url: URL.to_owned(),
        ..DataSource::default()
    };
    let delays = |delays: Vec<(i64, i32)>| {
        let delays = delays.into_iter().map(duration).collect();
        DataSource {
            retry_policy: Some(RetryPolicy { delays }),
            ..good()
        }
    };
    let timeout = |given| DataSource {
        request_timeout: Some(duration(given)),
        ..good()
    };
    let in_flight = |max_in_flight| DataSource {
        max_in_flight,
        ..good()
    };
    let policy = |place: &str| {
        field(
            "retry_policy_invalid",
            &format!("data_source.retry_policy.delays{place}"),
        )
    };
    let timed = || field("request_timeout_invalid", "data_source.request_timeout");
    let flying = || field("max_in_flight_invalid", "data_source.max_in_flight");
    let day = i64::try_from(Duration::from_hours(24).as_secs()).unwrap();
    vec![
        ("31 pauses", delays(vec![(1, 0); 31]), policy("")),
        ("25 days", delays(vec![(day, 0); 25]), policy("")),
        (
            "pauses that overflow",
            delays(vec![(i64::MAX, 0); 2]),
            policy(""),
        ),
        ("no pause", delays(vec![(5, 0), (0, 0)]), policy("[1]")),
        ("a negative pause", delays(vec![(-5, 0)]), policy("[0]")),
        (
            "a pause of mixed signs",
            delays(vec![(0, -1)]),
            policy("[0]"),
        ),
        ("no time", timeout((0, 0)), timed()),
        ("too little time", timeout((0, 999_999_999)), timed()),
        ("too much time", timeout((30, 1)), timed()),
        ("negative time", timeout((-1, 0)), timed()),
        ("endless time", timeout((i64::MAX, i32::MAX)), timed()),
        ("negative flight", in_flight(-1), flying()),
        ("too much in flight", in_flight(1_025), flying()),
    ]
}

fn updates() -> Vec<(&'static str, UpdateDataSourceRequest, Refusal)> {
    let crm = || DataSource {
        name: "dataSources/crm".to_owned(),
        url: URL.to_owned(),
        ..DataSource::default()
    };
    let masked = |path: &str| updated(crm(), &[path]);
    let mask = || field("field_mask_invalid", "update_mask");
    let absent = UpdateDataSourceRequest {
        data_source: None,
        update_mask: None,
        ..UpdateDataSourceRequest::default()
    };
    vec![
        ("nothing", absent, field("field_required", "data_source")),
        ("an empty path", masked(""), mask()),
        ("an unknown path", masked("color"), mask()),
        ("an output", masked("state"), mask()),
        ("the name", masked("name"), mask()),
        ("a path from elsewhere", masked("data_source.url"), mask()),
        (
            "a path too deep",
            masked("retry_policy.delays.seconds"),
            mask(),
        ),
        (
            "a good path and a bad one",
            updated(crm(), &["url", "color"]),
            mask(),
        ),
        ("a star among others", updated(crm(), &["*", "url"]), mask()),
    ]
}

fn updated(given: DataSource, paths: &[&str]) -> UpdateDataSourceRequest {
    let paths = paths.iter().map(ToString::to_string).collect();
    UpdateDataSourceRequest {
        data_source: Some(given),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..UpdateDataSourceRequest::default()
    }
}

fn duration((seconds, nanos): (i64, i32)) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

fn missing() -> Refusal {
    refused(Code::NotFound, "source_not_found")
}
