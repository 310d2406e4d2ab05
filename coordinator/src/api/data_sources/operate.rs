//! What operators do to sources and to commits that wait.

use proto::v1;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DataSourcesApi, NAME, actor, required};
use crate::api::{encode, names};
use crate::decide::{Control, Verb};
use crate::domain::Caller;
use crate::pages::{cut, limit, page_size};
use crate::refusal::Refusal;
use crate::service::OperatorCall;
use crate::store::actions;

/// What page tokens of actions are bound to, with the organization and the source.
const ACTIONS: &str = "data_sources.list_actions";

/// The longest reason or message, in characters.
const LONGEST_REASON: usize = 1_000;

/// The longest code of a receipt.
const LONGEST_CODE: usize = 128;

/// Commits that one call names at most.
const MOST_COMMITS: usize = 100;

/// Where a page of actions ends: nanoseconds since 1970, and the action.
type ActionToken = (i128, u128);

impl DataSourcesApi {
    pub(super) async fn deleted(
        &self,
        caller: &Caller,
        request: v1::DeleteDataSourceRequest,
    ) -> Result<v1::DeleteDataSourceResponse, Refusal> {
        let id = names::parse_source(NAME, &request.name)?;
        let actor = actor(request.actor)?;
        self.rooms
            .service
            .delete_source(caller, &id, &actor)
            .await?;
        Ok(v1::DeleteDataSourceResponse {})
    }

    pub(super) async fn enabled(
        &self,
        caller: &Caller,
        request: v1::EnableDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let enable = |id| Ok(Control::EnableSource(id));
        self.controlled(caller, (&request.name, request.actor), enable)
            .await
    }

    pub(super) async fn disabled(
        &self,
        caller: &Caller,
        request: v1::DisableDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let disable = |id| {
            check_reason("reason", &request.reason)?;
            Ok(Control::DisableSource(id, request.reason))
        };
        self.controlled(caller, (&request.name, request.actor), disable)
            .await
    }

    pub(super) async fn paused(
        &self,
        caller: &Caller,
        request: v1::PauseDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let pause = |id| {
            check_reason("reason", &request.reason)?;
            Ok(Control::PauseSource(id, request.reason))
        };
        self.controlled(caller, (&request.name, request.actor), pause)
            .await
    }

    pub(super) async fn resumed(
        &self,
        caller: &Caller,
        request: v1::ResumeDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let resume = |id| Ok(Control::ResumeSource(id));
        self.controlled(caller, (&request.name, request.actor), resume)
            .await
    }

    /// Has an operator's control decided; how the source then stands.
    async fn controlled(
        &self,
        caller: &Caller,
        (name, given): (&str, String),
        control: impl FnOnce(String) -> Result<Control, Refusal>,
    ) -> Result<v1::DataSource, Refusal> {
        let id = names::parse_source(NAME, name)?;
        let actor = actor(given)?;
        let control = control(id.clone())?;
        self.rooms
            .service
            .control_source(caller, control, &actor)
            .await?;
        self.found(caller, id).await
    }

    pub(super) async fn retried(
        &self,
        caller: &Caller,
        request: v1::RetryCommitsRequest,
    ) -> Result<v1::RetryCommitsResponse, Refusal> {
        let call = call(caller, &request.name, request.actor)?;
        let commits = named(request.client_tx_ids)?;
        let reentered = self.rooms.service.retry(&call, commits).await?;
        Ok(v1::RetryCommitsResponse { reentered })
    }

    pub(super) async fn recovered(
        &self,
        caller: &Caller,
        request: v1::RecoverCommitsRequest,
    ) -> Result<v1::RecoverCommitsResponse, Refusal> {
        let call = call(caller, &request.name, request.actor)?;
        let since = request.since.map(moment).transpose()?;
        let count = self.rooms.service.recover(&call, since).await?;
        Ok(v1::RecoverCommitsResponse {
            recovered_count: i64::try_from(count).unwrap_or(i64::MAX),
        })
    }

    pub(super) async fn resolved(
        &self,
        caller: &Caller,
        request: v1::ResolveCommitRequest,
    ) -> Result<v1::Receipt, Refusal> {
        let call = call(caller, &request.name, request.actor)?;
        let commit = commit("client_tx_id", request.client_tx_id)?;
        let service = &self.rooms.service;
        let receipt = match request.resolution {
            None => return Err(required("resolution")),
            Some(v1::resolve_commit_request::Resolution::Applied(applied)) => {
                let rows = &applied.rows_json;
                service.resolve_applied(&call, commit, rows).await?
            }
            Some(v1::resolve_commit_request::Resolution::Rejected(rejected)) => {
                let verb = Verb::Reject {
                    code: code(rejected.code)?,
                    message: check_reason("rejected.message", &rejected.message)?.to_owned(),
                    force: request.force,
                };
                let commits = vec![commit.clone()];
                service.settle_by_hand(&call, commits, verb).await?;
                service.receipt(caller, &commit).await?
            }
        };
        Ok(encode::receipt(receipt))
    }

    pub(super) async fn discarded(
        &self,
        caller: &Caller,
        request: v1::DiscardCommitsRequest,
    ) -> Result<v1::DiscardCommitsResponse, Refusal> {
        let call = call(caller, &request.name, request.actor)?;
        let commits = named(request.client_tx_ids)?;
        let verb = Verb::Discard {
            reason: check_reason("reason", &request.reason)?.to_owned(),
            force: request.force,
        };
        self.rooms
            .service
            .settle_by_hand(&call, commits, verb)
            .await?;
        Ok(v1::DiscardCommitsResponse {})
    }

    pub(super) async fn actions(
        &self,
        caller: &Caller,
        request: v1::ListActionsRequest,
    ) -> Result<v1::ListActionsResponse, Refusal> {
        let (store, pages) = (&self.rooms.store, &self.rooms.pages);
        let source = names::parse_source(NAME, &request.name)?;
        let asked = [ACTIONS, caller.organization.as_str(), &source];
        let size = page_size(request.page_size)?;
        let before = pages.open(&asked, &request.page_token)?.and_then(position);
        let key = (caller.organization.clone(), source.clone());
        let mut rows = actions::list(store, key, before, limit(size)).await?;
        let more = cut(&mut rows, size);
        if rows.is_empty() && self.stored(caller, source.clone()).await.is_err() {
            return Err(Refusal::no_source(&source));
        }
        let last = rows.last().filter(|_| more);
        let token = last.map(|last| {
            let acted = last.acted_at.unix_timestamp_nanos();
            let position: ActionToken = (acted, last.action_id.as_u128());
            pages.seal(&asked, &position)
        });
        Ok(v1::ListActionsResponse {
            actions: rows.into_iter().map(action).collect(),
            next_page_token: token.unwrap_or_default(),
        })
    }
}

fn position((acted, action): ActionToken) -> Option<(OffsetDateTime, Uuid)> {
    let acted_at = OffsetDateTime::from_unix_timestamp_nanos(acted).ok()?;
    Some((acted_at, Uuid::from_u128(action)))
}

fn action(action: actions::Action) -> v1::Action {
    v1::Action {
        time: Some(encode::timestamp(action.acted_at)),
        verb: action.verb,
        client_tx_id: action.client_tx_id.unwrap_or_default(),
        api_key_id: action.key_id.to_string(),
        actor: action.actor,
        detail: action.detail,
    }
}

fn call(caller: &Caller, name: &str, given: String) -> Result<OperatorCall, Refusal> {
    Ok(OperatorCall {
        caller: caller.clone(),
        source: names::parse_source(NAME, name)?,
        actor: actor(given)?,
    })
}

/// The names of the commits that a call is about.
fn named(client_tx_ids: Vec<String>) -> Result<Vec<String>, Refusal> {
    if !(1..=MOST_COMMITS).contains(&client_tx_ids.len()) {
        let rule = format!("names 1 to {MOST_COMMITS} commits");
        return Err(Refusal::field("field_invalid", "client_tx_ids", rule));
    }
    let numbered = client_tx_ids.into_iter().enumerate();
    numbered
        .map(|(index, name)| commit(&format!("client_tx_ids[{index}]"), name))
        .collect()
}

fn commit(field: &str, client_tx_id: String) -> Result<String, Refusal> {
    if client_tx_id.is_empty() {
        return Err(required(field));
    }
    names::display_name(field, client_tx_id)
}

fn check_reason<'a>(field: &str, reason: &'a str) -> Result<&'a str, Refusal> {
    if reason.chars().count() > LONGEST_REASON {
        let rule = "has at most 1,000 characters";
        return Err(Refusal::field("field_too_long", field, rule));
    }
    names::printable(field, reason)?;
    Ok(reason)
}

/// A receipt's code.
fn code(given: String) -> Result<String, Refusal> {
    if given.is_empty() {
        return Ok("resolved_by_hand".to_owned());
    }
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if given.len() <= LONGEST_CODE && given.bytes().all(word) {
        return Ok(given);
    }
    let rule = "must be at most 128 of `a-z`, `0-9` and `_`";
    Err(Refusal::field("field_invalid", "rejected.code", rule))
}

fn moment(given: prost_types::Timestamp) -> Result<OffsetDateTime, Refusal> {
    let nanos = i128::from(given.seconds) * 1_000_000_000 + i128::from(given.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .map_err(|_| Refusal::field("field_invalid", "since", "is not a time"))
}
