//! The `DataSources` service: an organization's sources, and how they do.

mod feed;
mod lists;
mod operate;
mod settings;
mod verify;

use std::sync::Arc;

use proto::v1;
use proto::v1::data_sources_server::DataSources;
use tonic::{Request, Response};

use super::auth::caller;
use super::status::{Answer, status};
use super::{Rooms, encode, names};
use crate::domain::Caller;
use crate::refusal::Refusal;
use crate::store;

/// An organization's sources, for whoever has its live API key.
#[derive(Debug)]
pub(super) struct DataSourcesApi {
    pub(super) rooms: Arc<Rooms>,
}

/// The field of most requests that names the source.
const NAME: &str = "name";

#[tonic::async_trait]
impl DataSources for DataSourcesApi {
    async fn create(
        &self,
        request: Request<v1::CreateDataSourceRequest>,
    ) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        answer(self.created(&caller, request.into_inner()).await)
    }

    async fn get(&self, request: Request<v1::GetDataSourceRequest>) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        answer(self.named(&caller, &request.into_inner().name).await)
    }

    async fn list(
        &self,
        request: Request<v1::ListDataSourcesRequest>,
    ) -> Answer<v1::ListDataSourcesResponse> {
        let caller = caller(&request)?;
        answer(self.sources(&caller, request.into_inner()).await)
    }

    async fn update(
        &self,
        request: Request<v1::UpdateDataSourceRequest>,
    ) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        answer(self.updated(&caller, request.into_inner()).await)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteDataSourceRequest>,
    ) -> Answer<v1::DeleteDataSourceResponse> {
        let caller = caller(&request)?;
        answer(self.deleted(&caller, request.into_inner()).await)
    }

    async fn enable(
        &self,
        request: Request<v1::EnableDataSourceRequest>,
    ) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        answer(self.enabled(&caller, request.into_inner()).await)
    }

    async fn disable(
        &self,
        request: Request<v1::DisableDataSourceRequest>,
    ) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        answer(self.disabled(&caller, request.into_inner()).await)
    }

    async fn get_status(
        &self,
        request: Request<v1::GetDataSourceStatusRequest>,
    ) -> Answer<v1::DataSourceStatus> {
        let caller = caller(&request)?;
        answer(self.status_of(&caller, &request.into_inner().name).await)
    }

    async fn list_attempts(
        &self,
        request: Request<v1::ListAttemptsRequest>,
    ) -> Answer<v1::ListAttemptsResponse> {
        let caller = caller(&request)?;
        answer(self.attempts(&caller, request.into_inner()).await)
    }

    async fn list_pending(
        &self,
        request: Request<v1::ListPendingRequest>,
    ) -> Answer<v1::ListPendingResponse> {
        let caller = caller(&request)?;
        answer(self.pending(&caller, request.into_inner()).await)
    }

    async fn pause(&self, request: Request<v1::PauseDataSourceRequest>) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        answer(self.paused(&caller, request.into_inner()).await)
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeDataSourceRequest>,
    ) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        answer(self.resumed(&caller, request.into_inner()).await)
    }

    async fn retry_commits(
        &self,
        request: Request<v1::RetryCommitsRequest>,
    ) -> Answer<v1::RetryCommitsResponse> {
        let caller = caller(&request)?;
        answer(self.retried(&caller, request.into_inner()).await)
    }

    async fn recover_commits(
        &self,
        request: Request<v1::RecoverCommitsRequest>,
    ) -> Answer<v1::RecoverCommitsResponse> {
        let caller = caller(&request)?;
        answer(self.recovered(&caller, request.into_inner()).await)
    }

    async fn resolve_commit(
        &self,
        request: Request<v1::ResolveCommitRequest>,
    ) -> Answer<v1::Receipt> {
        let caller = caller(&request)?;
        answer(self.resolved(&caller, request.into_inner()).await)
    }

    async fn discard_commits(
        &self,
        request: Request<v1::DiscardCommitsRequest>,
    ) -> Answer<v1::DiscardCommitsResponse> {
        let caller = caller(&request)?;
        answer(self.discarded(&caller, request.into_inner()).await)
    }

    async fn list_actions(
        &self,
        request: Request<v1::ListActionsRequest>,
    ) -> Answer<v1::ListActionsResponse> {
        let caller = caller(&request)?;
        answer(self.actions(&caller, request.into_inner()).await)
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyDataSourceRequest>,
    ) -> Answer<v1::VerifyDataSourceResponse> {
        let caller = caller(&request)?;
        answer(self.verified(&caller, &request.into_inner().name).await)
    }

    async fn push_events(
        &self,
        request: Request<v1::PushEventsRequest>,
    ) -> Answer<v1::PushEventsResponse> {
        let caller = caller(&request)?;
        answer(self.pushed(&caller, request.into_inner()).await)
    }

    async fn list_quarantined_events(
        &self,
        request: Request<v1::ListQuarantinedEventsRequest>,
    ) -> Answer<v1::ListQuarantinedEventsResponse> {
        let caller = caller(&request)?;
        answer(self.quarantined(&caller, request.into_inner()).await)
    }

    async fn reset_feed(
        &self,
        request: Request<v1::ResetFeedRequest>,
    ) -> Answer<v1::DataSourceStatus> {
        let caller = caller(&request)?;
        answer(self.feed_reset(&caller, request.into_inner()).await)
    }
}

fn answer<T>(outcome: Result<T, Refusal>) -> Answer<T> {
    outcome.map(Response::new).map_err(status)
}

impl DataSourcesApi {
    async fn created(
        &self,
        caller: &Caller,
        request: v1::CreateDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let id = names::chosen_id("data_source_id", &request.data_source_id)?;
        let actor = actor(request.actor)?;
        let given = request.data_source.ok_or_else(|| required("data_source"))?;
        let settings = settings::all(&given, &self.rooms.egress)?;
        let verified = if request.verify {
            Some(self.passed(caller, &settings).await?)
        } else {
            None
        };
        self.rooms
            .service
            .create_source(caller, id, settings, &actor)
            .await?;
        if let Some(verified) = verified {
            self.rooms
                .verifier
                .record_keys(caller, id, &verified)
                .await?;
        }
        self.found(caller, id.to_owned()).await
    }

    async fn updated(
        &self,
        caller: &Caller,
        request: v1::UpdateDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let given = request.data_source.ok_or_else(|| required("data_source"))?;
        let id = names::parse_source("data_source.name", &given.name)?;
        let actor = actor(request.actor)?;
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .unwrap_or_default();
        let patch = settings::masked(&given, &paths, &self.rooms.egress)?;
        self.rooms
            .service
            .update_source(caller, &id, patch, &actor)
            .await?;
        self.found(caller, id).await
    }

    async fn named(&self, caller: &Caller, name: &str) -> Result<v1::DataSource, Refusal> {
        self.found(caller, names::parse_source(NAME, name)?).await
    }

    async fn found(&self, caller: &Caller, id: String) -> Result<v1::DataSource, Refusal> {
        self.stored(caller, id).await.map(encode::source)
    }

    async fn stored(&self, caller: &Caller, id: String) -> Result<store::sources::Source, Refusal> {
        let organization = caller.organization.clone();
        let source = store::sources::get(&self.rooms.store, organization, id.clone()).await?;
        source.ok_or_else(|| Refusal::no_source(&id))
    }

    async fn status_of(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::DataSourceStatus, Refusal> {
        let id = names::parse_source(NAME, name)?;
        let organization = caller.organization.clone();
        let status = store::sources::status(&self.rooms.store, organization, id.clone()).await?;
        status
            .map(|status| encode::source_status(&id, status))
            .ok_or_else(|| Refusal::no_source(&id))
    }
}

/// Who asks, for the record.
fn actor(given: String) -> Result<String, Refusal> {
    names::display_name("actor", given)
}

fn required(field: &str) -> Refusal {
    Refusal::field("field_required", field, "is required")
}
