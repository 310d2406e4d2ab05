//! What the operations do.

use backends::data_source::classify::Outcome;
use backends::json;
use backends::operation::{Change, OperationKind};
use serde_json::{Map, Value};

use super::super::finding::{Finding, describe, ensure, wrong};
use super::super::probe::{Commit, Probe};
use super::super::sample::{carries, carries_exactly};

/// Two-byte, three-byte and four-byte characters, a combining one, and what JSON has to escape.
const TEXT: &str = "Zürich – 東京 🛫 e\u{301} \"quoted\" \\ back\tslash\nline </script> 'it''s'";

pub(super) async fn creates(probe: &Probe) -> Result<(), Finding> {
    let id = probe.new_id();
    let commit = probe.commit(vec![probe.create(&id)]);
    let answered = row(&probe.apply(&commit).await?, &id)?;
    carries(&answered, &probe.sample.row())?;
    let loaded = probe.found(&id).await?;
    ensure(json::same(&answered.into(), &loaded.into()), || {
        "load answers another row than the commit did".to_owned()
    })
}

pub(super) async fn updates(probe: &Probe) -> Result<(), Finding> {
    let id = probe.created().await?;
    let before = probe.found(&id).await?;
    let [change, _] = probe.sample.changes()?;
    let commit = probe.commit(vec![probe.update(&id, change.clone())]);
    let answered = row(&probe.apply(&commit).await?, &id)?;
    carries(&answered, &change)?;
    carries(&probe.found(&id).await?, &change)?;
    let kept = probe.sample.row().into_iter();
    let kept: Vec<_> = kept
        .filter(|(name, _)| !change.contains_key(name))
        .collect();
    for (name, _) in kept {
        ensure(answered.get(&name) == before.get(&name), || {
            format!("{name} was not named and has changed")
        })?;
    }
    Ok(())
}

pub(super) async fn deletes(probe: &Probe) -> Result<(), Finding> {
    let id = probe.created().await?;
    for time in ["first", "second"] {
        let commit = probe.commit(vec![probe.delete(&id)]);
        if let Err(Finding::Wrong(seen)) = probe.apply(&commit).await {
            return wrong(format!("the {time} DELETE: {seen}"));
        }
        ensure(probe.missing(&id).await?, || {
            "load still finds the row".to_owned()
        })?;
    }
    Ok(())
}

pub(super) async fn archives(probe: &Probe) -> Result<(), Finding> {
    let id = probe.created().await?;
    for kind in [OperationKind::Archive, OperationKind::Unarchive] {
        let operation = probe.operation(kind, &id, Map::new());
        match probe.send(&probe.commit(vec![operation])).await {
            Outcome::Applied(_) => {}
            Outcome::Refused { code, .. } if kind == OperationKind::Archive => {
                return Err(Finding::Untried(format!(
                    "the endpoint does not archive: it refused with {code}"
                )));
            }
            other => return wrong(format!("{}: {}", kind.as_str(), describe(&other))),
        }
    }
    carries(&probe.found(&id).await?, &probe.sample.row())
}

pub(super) async fn refuses_existing(probe: &Probe) -> Result<(), Finding> {
    let id = probe.created().await?;
    let before = probe.found(&id).await?;
    refused(probe, &probe.commit(vec![probe.create(&id)])).await?;
    ensure(probe.found(&id).await? == before, || {
        "the row has changed".to_owned()
    })
}

pub(super) async fn refuses_missing(probe: &Probe) -> Result<(), Finding> {
    let id = probe.new_id();
    let [change, _] = probe.sample.changes()?;
    refused(probe, &probe.commit(vec![probe.update(&id, change)])).await?;
    ensure(probe.missing(&id).await?, || {
        "the row was made by the UPDATE".to_owned()
    })
}

pub(super) async fn atomic(probe: &Probe) -> Result<(), Finding> {
    let (existing, fresh) = (probe.created().await?, probe.new_id());
    let operations = vec![probe.create(&fresh), probe.create(&existing)];
    if let Outcome::Applied(_) = probe.send(&probe.commit(operations)).await {
        return Err(Finding::Untried(
            "the endpoint takes a CREATE of a row that exists, so no operation fails".to_owned(),
        ));
    }
    ensure(probe.missing(&fresh).await?, || {
        "the first operation was applied although the second failed".to_owned()
    })
}

pub(super) async fn exact_numbers(probe: &Probe) -> Result<(), Finding> {
    let numbers = probe.sample.exact_numbers()?;
    let id = probe.new_id();
    let commit = probe.commit(vec![probe.create(&id)]);
    carries_exactly(&row(&probe.apply(&commit).await?, &id)?, &numbers)?;
    carries_exactly(&probe.found(&id).await?, &numbers)
}

pub(super) async fn unicode(probe: &Probe) -> Result<(), Finding> {
    let change = probe.sample.text(TEXT)?;
    let id = probe.created().await?;
    let commit = probe.commit(vec![probe.update(&id, change.clone())]);
    carries(&row(&probe.apply(&commit).await?, &id)?, &change)?;
    carries(&probe.found(&id).await?, &change)
}

/// The row that a commit of one operation answered.
fn row(changes: &[Change], id: &str) -> Result<Map<String, Value>, Finding> {
    let mut rows = changes.iter().filter(|change| change.id == id);
    match rows.next_back().and_then(|change| change.row.as_ref()) {
        Some(row) => Ok(Map::clone(row)),
        None => wrong("the answer does not have the row"),
    }
}

async fn refused(probe: &Probe, commit: &Commit) -> Result<(), Finding> {
    match probe.send(commit).await {
        Outcome::Refused { .. } => Ok(()),
        other => wrong(describe(&other)),
    }
}
