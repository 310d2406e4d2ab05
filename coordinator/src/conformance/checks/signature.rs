//! Who may write.

use std::time::Duration;

use backends::data_source::classify::commit_outcome;
use backends::data_source::exchange::Exchange;
use backends::data_source::wire::parse_error;

use super::super::finding::{Finding, describe, ensure, wrong};
use super::super::probe::{Commit, Probe};
use crate::keys::unknown_key;

/// Twice the skew that receivers forgive.
const TOO_FAR: Duration = Duration::from_mins(10);

pub(super) async fn another_key(probe: &Probe) -> Result<(), Finding> {
    let (id, commit) = one_create(probe);
    let exchange = probe.signed_with(&commit, &[unknown_key()]).await;
    refused(probe, &id, &exchange).await
}

pub(super) async fn old(probe: &Probe) -> Result<(), Finding> {
    let (id, commit) = one_create(probe);
    let exchange = probe.signed_off_by(&commit, false, TOO_FAR).await?;
    refused(probe, &id, &exchange).await
}

pub(super) async fn early(probe: &Probe) -> Result<(), Finding> {
    let (id, commit) = one_create(probe);
    let exchange = probe.signed_off_by(&commit, true, TOO_FAR).await?;
    refused(probe, &id, &exchange).await
}

pub(super) async fn rotated(probe: &Probe) -> Result<(), Finding> {
    let (_, commit) = one_create(probe);
    let exchange = probe.signed_with(&commit, &probe.rotated_keys()).await;
    ensure(exchange.status == Some(200), || seen(&exchange))
}

fn one_create(probe: &Probe) -> (String, Commit) {
    let id = probe.new_id();
    let commit = probe.commit(vec![probe.create(&id)]);
    (id, commit)
}

async fn refused(probe: &Probe, id: &str, exchange: &Exchange) -> Result<(), Finding> {
    ensure(exchange.status == Some(401), || seen(exchange))?;
    if parse_error(&exchange.body).is_none_or(|body| body.error.is_empty()) {
        return wrong("the 401 has no body {\"error\": code}");
    }
    ensure(probe.missing(id).await?, || {
        "the row was written although the request was refused".to_owned()
    })
}

fn seen(exchange: &Exchange) -> String {
    if exchange.status == Some(200) {
        return "the endpoint answered 200".to_owned();
    }
    describe(&commit_outcome(exchange, &[], &[]))
}
