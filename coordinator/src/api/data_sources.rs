//! The `DataSources` service: an organization's sources, and how they do.

mod lists;
mod settings;

use std::sync::Arc;

use proto::v1;
use proto::v1::data_sources_server::DataSources;
use tonic::{Request, Response};

use super::auth::caller;
use super::status::{Answer, status};
use super::{Rooms, encode, names};
use crate::domain::Caller;
use crate::refusal::{Class, Refusal};
use crate::store;

/// The longest reason for disabling a source.
const LONGEST_REASON: usize = 1_000;

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
        let id = names::parse_source(NAME, &request.into_inner().name).map_err(status)?;
        let deleted = self.rooms.service.delete_source(&caller, &id).await;
        answer(deleted.map(|()| v1::DeleteDataSourceResponse {}))
    }

    async fn enable(
        &self,
        request: Request<v1::EnableDataSourceRequest>,
    ) -> Answer<v1::DataSource> {
        let caller = caller(&request)?;
        let id = names::parse_source(NAME, &request.into_inner().name).map_err(status)?;
        self.rooms
            .service
            .enable_source(&caller, &id)
            .await
            .map_err(status)?;
        answer(self.found(&caller, id).await)
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
        let given = request.data_source.ok_or_else(|| required("data_source"))?;
        let settings = settings::all(&given, &self.rooms.egress)?;
        self.rooms
            .service
            .create_source(caller, id, settings)
            .await?;
        self.found(caller, id.to_owned()).await
    }

    async fn updated(
        &self,
        caller: &Caller,
        request: v1::UpdateDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let given = request.data_source.ok_or_else(|| required("data_source"))?;
        let id = names::parse_source("data_source.name", &given.name)?;
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .unwrap_or_default();
        let current = self.stored(caller, id.clone()).await?.settings;
        let settings = settings::masked(current, &given, &paths, &self.rooms.egress)?;
        self.rooms
            .service
            .update_source(caller, &id, settings)
            .await?;
        self.found(caller, id).await
    }

    async fn disabled(
        &self,
        caller: &Caller,
        request: v1::DisableDataSourceRequest,
    ) -> Result<v1::DataSource, Refusal> {
        let id = names::parse_source(NAME, &request.name)?;
        if request.reason.chars().count() > LONGEST_REASON {
            let rule = "has at most 1,000 characters";
            return Err(Refusal::field("field_too_long", "reason", rule));
        }
        names::printable("reason", &request.reason)?;
        self.rooms
            .service
            .disable_source(caller, &id, &request.reason)
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
        source.ok_or_else(|| not_found(&id))
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
            .ok_or_else(|| not_found(&id))
    }
}

fn required(field: &str) -> Refusal {
    Refusal::field("field_required", field, "is required")
}

fn not_found(id: &str) -> Refusal {
    let message = "the organization has no such source";
    Refusal::new(Class::NotFound, "source_not_found", message).with("data_source", id)
}
