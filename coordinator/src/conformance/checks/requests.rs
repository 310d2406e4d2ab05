//! What a request may look like.

use backends::data_source::classify::{Outcome, commit_outcome};
use backends::data_source::wire::{RequestKind, parse_error};
use serde_json::{Value, json};

use super::super::finding::{Finding, describe, ensure, wrong};
use super::super::probe::Probe;
use crate::admit::commit::MAX_OPERATIONS;

/// What the coordinator takes from its own callers in one message.
const LARGE_BODY: usize = 4 << 20;

pub(super) async fn unknown_kind(probe: &Probe) -> Result<(), Finding> {
    let body = json!({"type": "conformance", "model": probe.model, "scope": {}});
    let exchange = probe
        .read(RequestKind::Load, body.to_string().into_bytes())
        .await;
    let refused = exchange.status.is_some_and(|s| (400..500).contains(&s));
    ensure(
        refused && parse_error(&exchange.body).is_some_and(|body| !body.error.is_empty()),
        || match exchange.status {
            Some(status) => format!("the endpoint answered {status} without a body of that kind"),
            None => "the endpoint did not answer".to_owned(),
        },
    )
}

pub(super) async fn unknown_model(probe: &Probe) -> Result<(), Finding> {
    let mut operation = probe.create(&probe.new_id());
    "conformance_no_such_model".clone_into(&mut operation.model);
    match probe.send(&probe.commit(vec![operation])).await {
        Outcome::Refused { .. } => Ok(()),
        other => wrong(describe(&other)),
    }
}

pub(super) async fn unknown_fields(probe: &Probe) -> Result<(), Finding> {
    let id = probe.new_id();
    let mut commit = probe.commit(vec![probe.create(&id)]);
    let mut body: Value =
        backends::json::parse(&commit.body).expect("the body was written as JSON");
    let extra = json!({"since": "tomorrow"});
    body["conformance"] = extra.clone();
    body["scope"]["conformance"] = extra.clone();
    body["operations"][0]["conformance"] = extra;
    commit.body = body.to_string().into_bytes();
    probe.apply(&commit).await?;
    probe.found(&id).await.map(drop)
}

pub(super) async fn largest_commit(probe: &Probe) -> Result<(), Finding> {
    let ids: Vec<_> = (0..MAX_OPERATIONS).map(|_| probe.new_id()).collect();
    let creates = ids.iter().map(|id| probe.create(id)).collect();
    probe.apply(&probe.commit(creates)).await?;
    let last = ids.last().expect("there are 500");
    probe.found(last).await?;
    let deletes = ids.iter().map(|id| probe.delete(id)).collect();
    probe.apply(&probe.commit(deletes)).await?;
    probe.removed(&ids);
    Ok(())
}

pub(super) async fn large_body(probe: &Probe) -> Result<(), Finding> {
    let id = probe.new_id();
    let mut commit = probe.commit(vec![probe.create(&id)]);
    let end = commit.body.pop();
    debug_assert_eq!(end, Some(b'}'), "the body is an object");
    commit.body.extend_from_slice(b",\"padding\":\"");
    commit.body.resize(LARGE_BODY - 2, b'x');
    commit.body.extend_from_slice(b"\"}");
    let exchange = probe.exchange(&commit).await;
    let models = std::slice::from_ref(&probe.model);
    match commit_outcome(&exchange, &commit.operations, models) {
        Outcome::Applied(_) => Ok(()),
        other => wrong(describe(&other)),
    }
}
