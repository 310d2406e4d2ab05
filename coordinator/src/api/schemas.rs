//! The Schemas service.

use std::sync::Arc;

use proto::v1;
use proto::v1::schemas_server::Schemas;
use tonic::{Request, Response};

use super::auth::caller;
use super::status::{Answer, status};
use super::{Rooms, encode};
use crate::domain::Caller;
use crate::pages::{cut, limit, page_size};
use crate::refusal::{Class, Refusal};
use crate::service::SchemaVersion;
use crate::store;

/// What a page token of this service is bound to, with the organization.
const LIST: &str = "schemas.list_versions";

/// An organization's schemas, for whoever has its live API key.
#[derive(Debug)]
pub(super) struct SchemasApi {
    pub(super) rooms: Arc<Rooms>,
}

#[tonic::async_trait]
impl Schemas for SchemasApi {
    async fn push(&self, request: Request<v1::PushSchemaRequest>) -> Answer<v1::Schema> {
        let caller = caller(&request)?;
        let v1::PushSchemaRequest {
            document_json,
            force,
        } = request.into_inner();
        let pushed = self
            .rooms
            .service
            .push_schema(&caller, &document_json, force)
            .await;
        pushed
            .map(encode::schema)
            .map(Response::new)
            .map_err(status)
    }

    async fn get(&self, request: Request<v1::GetSchemaRequest>) -> Answer<v1::Schema> {
        let caller = caller(&request)?;
        let found = self.found(caller, request.into_inner().version).await;
        found.map(encode::schema).map(Response::new).map_err(status)
    }

    async fn list_versions(
        &self,
        request: Request<v1::ListSchemaVersionsRequest>,
    ) -> Answer<v1::ListSchemaVersionsResponse> {
        let caller = caller(&request)?;
        self.listed(caller, request.into_inner())
            .await
            .map(Response::new)
            .map_err(status)
    }
}

impl SchemasApi {
    async fn found(&self, caller: Caller, version: i32) -> Result<SchemaVersion, Refusal> {
        if version < 0 {
            return Err(Refusal::field(
                "version_invalid",
                "version",
                "must not be negative",
            ));
        }
        let found = store::schemas::get(&self.rooms.store, caller.organization, version).await?;
        found.ok_or_else(|| {
            let message = "there is no such version of the schema";
            Refusal::new(Class::NotFound, "schema_not_found", message).with("version", version)
        })
    }

    async fn listed(
        &self,
        caller: Caller,
        request: v1::ListSchemaVersionsRequest,
    ) -> Result<v1::ListSchemaVersionsResponse, Refusal> {
        let organization = caller.organization;
        let asked = [LIST, organization.as_str()];
        let size = page_size(request.page_size)?;
        let before: Option<i32> = self.rooms.pages.open(&asked, &request.page_token)?;
        let store = &self.rooms.store;
        let mut versions =
            store::schemas::list(store, organization.clone(), before, limit(size)).await?;
        let more = cut(&mut versions, size);
        let last = versions.last().filter(|_| more);
        Ok(v1::ListSchemaVersionsResponse {
            next_page_token: last
                .map(|last| self.rooms.pages.seal(&asked, &last.version))
                .unwrap_or_default(),
            schemas: versions.into_iter().map(encode::schema).collect(),
        })
    }
}
