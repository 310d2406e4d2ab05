//! What an operator bounds: how fast a source is written to, and how much may wait for it.

use std::time::Instant;

use integration::app::{Source, TestApp, reason};
use integration::endpoint::{Endpoint, Kind};
use proto::v1;
use proto::v1::AttemptTrigger;
use tonic::Code;
use tonic_types::StatusExt;

use super::{confirm_all, create, drained, numbered, queue, queued, source_at};

#[tokio::test]
async fn no_more_is_sent_per_second_than_the_source_may_be() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let (rate, burst) = (30.0, 3.0);
    let source = Source {
        max_per_second: 30,
        ..source_at(&endpoint)
    };
    tenant.update_source(&source).await;
    tenant.confirm(create("first")).await;
    let begun = Instant::now();
    confirm_all(&tenant, numbered("row-", 60)).await;
    let mut allowed = burst + 1.0;
    for arrival in endpoint.arrivals_of(Kind::Commit).iter().skip(1) {
        let since = arrival.at.into_std().duration_since(begun).as_secs_f64();
        allowed -= 1.0;
        assert!(allowed + rate * since >= 0.0, "{since} s: {allowed}");
    }
    // Whoever waits for the pace was not tried meanwhile.
    let attempts = tenant.attempts("").await;
    assert_eq!(attempts.len(), 61);
    assert!(
        attempts
            .iter()
            .all(|it| it.trigger() == AttemptTrigger::Accept)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_takes_exactly_so_many_and_takes_more_when_they_are_gone() {
    let mut app = TestApp::start().await;
    let second = app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let source = Source {
        max_pending: 10,
        ..source_at(&endpoint)
    };
    tenant.update_source(&source).await;
    endpoint.hold(Kind::Commit);
    let nodes = [tenant.clone(), tenant.at(&second)];
    let ids = numbered("row-", 40);
    let calls = ids
        .iter()
        .enumerate()
        .map(|(number, id)| nodes[number % 2].commit(queued(id)));
    let answers = futures_util::future::join_all(calls).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (10, 30));
    let refused = refused.into_iter().map(Result::unwrap_err);
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reason(&status), "queue_too_deep");
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(
            (&*metadata["data_source"], &*metadata["max_pending"]),
            ("crm", "10")
        );
        assert!(details.retry_info().unwrap().retry_delay.is_some());
    }
    // What was taken still answers, and nothing was kept of what was not.
    for receipt in taken.into_iter().map(Result::unwrap) {
        let id = receipt.client_tx_id.strip_prefix("create-").unwrap();
        let again = tenant.commit(queued(id)).await.unwrap();
        assert_eq!(again.commit_id, receipt.commit_id);
    }
    let status = tenant.status().await;
    assert_eq!(status.pending_count, 10);
    assert_eq!(
        status.warnings,
        ["10 commits wait; at 10 new ones are refused"]
    );
    endpoint.release(Kind::Commit);
    for receipt in confirm_all(&tenant, ids).await {
        assert_eq!(receipt.attempt_count, 1);
    }
    assert_eq!(tenant.status().await.warnings, [""; 0]);
    assert_eq!(endpoint.executions().len(), 40);
}

#[tokio::test]
async fn two_operators_who_change_one_source_at_once_are_both_heard() {
    let mut app = TestApp::start().await;
    let second = app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let other = tenant.at(&second);
    let change = |path: &str, value: i32| v1::UpdateDataSourceRequest {
        data_source: Some(v1::DataSource {
            name: "dataSources/crm".to_owned(),
            max_in_flight: value,
            max_per_second: value,
            ..v1::DataSource::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
        ..v1::UpdateDataSourceRequest::default()
    };
    for value in 1..=20 {
        let (mut here, mut there) = (tenant.sources(), other.sources());
        let (one, two) = tokio::join!(
            here.update(change("max_in_flight", value)),
            there.update(change("max_per_second", value)),
        );
        one.unwrap();
        two.unwrap();
        let request = v1::GetDataSourceRequest {
            name: "dataSources/crm".to_owned(),
        };
        let source = here.get(request).await.unwrap().into_inner();
        assert_eq!(
            (source.max_in_flight, source.max_per_second),
            (value, value)
        );
    }
}

#[tokio::test]
async fn a_limit_that_is_lifted_lets_go_of_what_waits_at_once() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let slow = Source {
        max_per_second: 1,
        ..source_at(&endpoint)
    };
    tenant.update_source(&slow).await;
    queue(&tenant, numbered("row-", 200)).await;
    assert!(tenant.status().await.pending_count > 100);
    tenant.update_source(&source_at(&endpoint)).await;
    drained(&tenant).await;
}
