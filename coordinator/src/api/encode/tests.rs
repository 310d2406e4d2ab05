use backends::operation::Change;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::domain::CommitId;

fn at(seconds: i64) -> OffsetDateTime {
    datetime!(2030-01-02 03:04:05.678901 UTC) + time::Duration::seconds(seconds)
}

fn error(class: &str, seconds: i64) -> RequestError {
    RequestError {
        at: at(seconds),
        class: class.into(),
        message: String::new(),
        http_status: 0,
    }
}

/// A receipt that confirms rows.
fn confirmed(id: CommitId, rows: &[Value]) -> Receipt {
    let delta = |row: &Value| {
        let change = Change {
            operation: Some(1),
            kind: OperationKind::Create,
            model: "reports".into(),
            id: "r".into(),
            row: Some(row.clone().try_into().unwrap()),
            transaction_id: None,
        };
        Delta {
            sync_id: 9,
            change,
            stale: true,
        }
    };
    Receipt {
        client_tx_id: "tx".into(),
        id,
        state: CommitState::Confirmed,
        deltas: rows.iter().map(delta).collect(),
        changes_expired: false,
        error: None,
        source: Some("crm".into()),
        accepted_at: at(0),
        settled_at: Some(at(1)),
        attempts: 2,
        assigned: vec![1],
        dead: false,
        reentered_at: None,
        feed_read_at: None,
    }
}

#[test]
fn rows_that_do_not_fit_into_one_message_are_left_out_and_marked() {
    let megabyte = json!({"text": "x".repeat(1 << 20)});
    let encoded = receipt(confirmed(
        CommitId::generate(),
        &[megabyte.clone(), megabyte.clone()],
    ));
    assert_eq!((encoded.changes.len(), encoded.changes_expired), (2, false));
    let encoded = receipt(confirmed(CommitId::generate(), &vec![megabyte; 5]));
    assert_eq!((encoded.changes.len(), encoded.changes_expired), (0, true));
    assert_eq!(encoded.state(), v1::CommitState::Confirmed);
}

#[test]
fn a_confirmed_receipt_keeps_the_digits_of_its_rows_and_the_assigned_ids() {
    let id = CommitId::generate();
    let row = serde_json::from_str(r#"{"id":"r","t":1.10,"n":12345678901234567890}"#).unwrap();
    let encoded = receipt(confirmed(id, &[row]));
    let change = &encoded.changes[0];
    assert_eq!(
        change.row_json,
        r#"{"id":"r","n":12345678901234567890,"t":1.10}"#
    );
    assert_eq!(
        (change.operation_index, change.sync_id, change.stale),
        (Some(1), 9, true)
    );
    assert_eq!(encoded.assigned_ids[0].id, id.assigned_id(1));
    assert_eq!(encoded.data_source, "dataSources/crm");
    assert_eq!(encoded.state(), v1::CommitState::Confirmed);
    assert_eq!(encoded.accept_time.unwrap().nanos, 678_901_000);
}

#[test]
fn times_before_1970_keep_positive_nanoseconds() {
    let encoded = timestamp(datetime!(1969-12-31 23:59:59.25 UTC));
    assert_eq!((encoded.seconds, encoded.nanos), (-1, 250_000_000));
}

#[test]
fn the_overall_status_is_the_latest_of_all_kinds() {
    let of = |kind, success: Option<i64>, failed: Option<RequestError>| Requests {
        kind,
        last_success: success.map(at),
        last_error: failed,
    };
    let encoded = source_status(
        "crm",
        Status {
            state: SourceState::Failing,
            state_reason: "away".into(),
            attempts_by_outcome: vec![5, 0, 2, 0, 0, 0],
            retries_by_outcome: vec![1, 0, 2, 0, 0, 0],
            pending: 3,
            max_pending: 3,
            dead: 1,
            oldest_pending: Some(Duration::from_millis(1_500)),
            backoff_until: None,
            certificate_expires_at: Some(at(30)),
            seen_at: at(21),
            failing_since: Some(at(7)),
            requests: vec![
                of(RequestKind::Commit, Some(10), Some(error("timeout", 1))),
                of(RequestKind::Load, Some(5), Some(error("dns", 20))),
            ],
            feed: None,
            pushed: 4,
        },
    );
    let overall = encoded.overall.unwrap();
    assert_eq!(overall.last_success_time, Some(timestamp(at(10))));
    assert_eq!(overall.last_error.unwrap().error_class, "dns");
    assert_eq!(encoded.attempts_by_outcome["retry"], 2);
    assert_eq!(encoded.kinds.len(), 2);
    assert_eq!(encoded.oldest_pending_age.unwrap().nanos, 500_000_000);
    assert_eq!(encoded.failing_since, Some(timestamp(at(7))));
    assert_eq!(encoded.warnings.len(), 2);
    let feed = encoded.feed.unwrap();
    assert_eq!(
        (feed.state(), feed.pushed_count),
        (v1::FeedState::Unspecified, 4)
    );
}
