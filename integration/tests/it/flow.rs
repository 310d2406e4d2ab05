//! Promise 7, nobody else's trouble: what fails, hangs or floods costs its own rows, its own source,
//! its own organization, and nobody else. Judged by what the couriers did, not by the clock.

mod backlog;
mod breaker;
mod limits;
mod neighbours;
mod overload;

use std::time::Duration;

use futures_util::{StreamExt, stream};
use integration::app::{Source, Tenant, eventually, intent};
use integration::endpoint::Endpoint;
use proto::v1;
use serde_json::json;

/// A source whose requests time out for no other reason than that a test holds them.
fn source_at(endpoint: &Endpoint) -> Source {
    Source {
        request_timeout: Duration::from_secs(30),
        ..Source::at(endpoint)
    }
}

fn create(id: &str) -> v1::CommitRequest {
    let create = intent::create("airports", id, &json!({"text": "one"}));
    intent::commit(&format!("create-{id}"), vec![create])
}

fn queued(id: &str) -> v1::CommitRequest {
    v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..create(id)
    }
}

/// Makes these commits durable, in order.
async fn queue(tenant: &Tenant, ids: impl IntoIterator<Item = String>) {
    for id in ids {
        tenant.commit(queued(&id)).await.unwrap();
    }
}

/// Commits these rows, many at a time, until all are confirmed.
async fn confirm_all(tenant: &Tenant, ids: Vec<String>) -> Vec<v1::Receipt> {
    let calls = ids.into_iter().map(|id| {
        let tenant = tenant.clone();
        async move { tenant.confirm(create(&id)).await }
    });
    stream::iter(calls).buffer_unordered(64).collect().await
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{prefix}{number}"))
        .collect()
}

/// Gives the node time for whatever it would still do, by its own measure.
async fn pass_the_time(tenant: &Tenant) {
    for _ in 0..20 {
        let note = intent::create("notes", "", &json!({}));
        let name = uuid::Uuid::new_v4().to_string();
        tenant.confirm(intent::commit(&name, vec![note])).await;
    }
}

/// Waits until nothing is pending any more, for as long as it becomes less.
pub(crate) async fn drained(tenant: &Tenant) {
    let mut seen = tenant.status().await.pending_count;
    while seen > 0 {
        seen = eventually("some more to be delivered", async || {
            let pending = tenant.status().await.pending_count;
            (pending < seen).then_some(pending)
        })
        .await;
    }
}
