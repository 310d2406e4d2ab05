//! A commit as its caller asks for it, checked whole before anything is decided.

use std::collections::HashMap;
use std::time::Duration;

use prost_types::Timestamp;
use proto::v1;
use time::OffsetDateTime;

pub(super) use self::operation::Admitted;
use self::operation::Place;
use super::model::Backing;
use super::schema::Schema;
use super::{fingerprint, text};
use crate::domain::{Commit, CommitId, Participant, ParticipantKind, Route};
use crate::refusal::Refusal;

mod operation;

/// The most operations of one commit.
pub const MAX_OPERATIONS: usize = 500;

/// Checks a request by every rule that needs no state but the schema.
///
/// CREATE is checked whole, with its id. UPDATE is checked field by field: what a managed row
/// comes to is checked when it is decided.
///
/// # Errors
/// The first rule that it breaks, in the order of the request's fields and operations. Nothing is
/// recorded, so the corrected commit may reuse the id.
pub fn commit(
    request: v1::CommitRequest,
    schema: &Schema,
    traceparent: Option<String>,
) -> Result<Commit, Refusal> {
    text::printable(
        "client_tx_id_invalid",
        "client_tx_id",
        &request.client_tx_id,
    )?;
    let participant = request
        .participant
        .as_ref()
        .ok_or_else(|| Refusal::field("participant_required", "participant", "is required"))?;
    let participant = self::participant(participant)?;
    let count = request.operations.len();
    if !(1..=MAX_OPERATIONS).contains(&count) {
        let rule = format!("must be 1 to {MAX_OPERATIONS}, not {count}");
        return Err(Refusal::field("operations_count", "operations", rule));
    }
    text::sync_groups(&request.required_sync_groups)?;
    if v1::Wait::try_from(request.wait).is_err() {
        let rule = "must be QUEUED or CONFIRMED";
        return Err(Refusal::field("wait_invalid", "wait", rule));
    }

    let expires_at = request.expire_time.map(time_of).transpose()?;

    let id = CommitId::generate();
    let operations = request.operations.into_iter().enumerate();
    let operations = operations
        .map(|(index, operation)| operation::admit(operation, Place { commit: id, index }, schema))
        .collect::<Result<Vec<_>, _>>()?;
    check_rows_differ(&operations)?;
    let route = route(&operations)?;

    let fingerprint = fingerprint::of(&participant, &operations, &request.required_sync_groups);
    let assigned = (0..).zip(&operations).filter(|(_, one)| one.assigned);
    Ok(Commit {
        client_tx_id: request.client_tx_id,
        id,
        fingerprint,
        participant,
        assigned: assigned.map(|(index, _)| index).collect(),
        operations: operations.into_iter().map(|one| one.operation).collect(),
        route,
        required_sync_groups: request.required_sync_groups,
        traceparent,
        expires_at,
    })
}

fn time_of(given: Timestamp) -> Result<OffsetDateTime, Refusal> {
    let nanos = u32::try_from(given.nanos)
        .ok()
        .filter(|it| *it < 1_000_000_000);
    let at = OffsetDateTime::from_unix_timestamp(given.seconds).ok();
    at.zip(nanos)
        .map(|(at, nanos)| at + Duration::from_nanos(nanos.into()))
        .ok_or_else(|| {
            let rule = "must be a time in the years 1 to 9999";
            Refusal::field("expire_time_invalid", "expire_time", rule)
        })
}

/// Checks who writes or reads.
pub(super) fn participant(given: &v1::Participant) -> Result<Participant, Refusal> {
    text::printable("participant_invalid", "participant.id", &given.id)?;
    let kind = match v1::ParticipantKind::try_from(given.kind) {
        Ok(v1::ParticipantKind::User) => ParticipantKind::User,
        Ok(v1::ParticipantKind::Agent) => ParticipantKind::Agent,
        Ok(v1::ParticipantKind::System) => ParticipantKind::System,
        Ok(v1::ParticipantKind::Unspecified) | Err(_) => {
            let rule = "must be USER, AGENT or SYSTEM";
            return Err(Refusal::field(
                "participant_invalid",
                "participant.kind",
                rule,
            ));
        }
    };
    Ok(Participant {
        id: given.id.clone(),
        kind,
    })
}

fn check_rows_differ(operations: &[Admitted<'_>]) -> Result<(), Refusal> {
    let mut seen = HashMap::with_capacity(operations.len());
    for (index, Admitted { operation, .. }) in operations.iter().enumerate() {
        let key = (operation.model.as_str(), operation.id.as_str());
        if let Some(earlier) = seen.insert(key, index) {
            let rule = format!("operations[{earlier}] names the same row");
            return Err(operation::refusal(
                "row_repeated",
                index,
                &operation.model,
                "id",
                rule,
            ));
        }
    }
    Ok(())
}

fn route(operations: &[Admitted<'_>]) -> Result<Route, Refusal> {
    let backing = &operations[0].model.backing;
    for (index, Admitted { model, .. }) in operations.iter().enumerate() {
        if model.backing != *backing {
            let rule = "lives in another backing than the commit's first model";
            return Err(operation::refusal(
                "commit_backing_mixed",
                index,
                &model.name,
                "model",
                rule,
            ));
        }
    }
    Ok(match backing {
        Backing::Managed => Route::Managed,
        Backing::Source(id) => Route::Source(id.clone()),
    })
}

#[cfg(test)]
mod tests;
