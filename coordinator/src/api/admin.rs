//! The Admin service: organizations and their keys.

use std::sync::Arc;

use proto::v1;
use proto::v1::admin_server::Admin;
use secrecy::ExposeSecret;
use time::OffsetDateTime;
use tonic::{Request, Response};
use uuid::Uuid;

use super::encode::timestamp;
use super::status::{Answer, status};
use super::{Rooms, names};
use crate::domain::{Mode, OrganizationId};
use crate::keys::NotMade;
use crate::pages::{cut, limit, page_size};
use crate::refusal::{Class, Refusal};
use crate::store::api_keys::{self, ApiKey, Revoked};
use crate::store::organizations::{self, Organization};
use crate::store::{self};

/// What page tokens of this service are bound to.
const ORGANIZATIONS: &str = "admin.list_organizations";
const KEYS: &str = "admin.list_api_keys";

/// Organizations and keys, for the operator.
#[derive(Debug)]
pub(super) struct AdminApi {
    pub(super) rooms: Arc<Rooms>,
}

#[tonic::async_trait]
impl Admin for AdminApi {
    async fn create_organization(
        &self,
        request: Request<v1::CreateOrganizationRequest>,
    ) -> Answer<v1::Organization> {
        answer(self.created(request.into_inner()).await)
    }

    async fn get_organization(
        &self,
        request: Request<v1::GetOrganizationRequest>,
    ) -> Answer<v1::Organization> {
        let id = names::parse_organization("name", &request.into_inner().name).map_err(status)?;
        answer(self.found(id).await.map(encoded))
    }

    async fn list_organizations(
        &self,
        request: Request<v1::ListOrganizationsRequest>,
    ) -> Answer<v1::ListOrganizationsResponse> {
        answer(self.organizations(request.into_inner()).await)
    }

    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Answer<v1::CreateApiKeyResponse> {
        answer(self.made(request.into_inner()).await)
    }

    async fn list_api_keys(
        &self,
        request: Request<v1::ListApiKeysRequest>,
    ) -> Answer<v1::ListApiKeysResponse> {
        answer(self.keys(request.into_inner()).await)
    }

    async fn revoke_api_key(
        &self,
        request: Request<v1::RevokeApiKeyRequest>,
    ) -> Answer<v1::ApiKey> {
        answer(self.revoked(request.into_inner()).await)
    }
}

fn answer<T>(outcome: Result<T, Refusal>) -> Answer<T> {
    outcome.map(Response::new).map_err(status)
}

impl AdminApi {
    async fn created(
        &self,
        request: v1::CreateOrganizationRequest,
    ) -> Result<v1::Organization, Refusal> {
        let id = names::chosen_id("organization_id", &request.organization_id)?;
        let given = request.organization.unwrap_or_default();
        let mode = match given.mode() {
            v1::Mode::Live => Mode::Live,
            v1::Mode::Test => Mode::Test,
            v1::Mode::Unspecified => {
                let rule = "is `MODE_LIVE` or `MODE_TEST`";
                return Err(Refusal::field("field_required", "organization.mode", rule));
            }
        };
        let display_name = names::display_name("organization.display_name", given.display_name)?;
        let store = &self.rooms.store;
        match organizations::create(store, OrganizationId::new(id), display_name, mode).await {
            Ok(organization) => Ok(encoded(organization)),
            Err(store::Error::Exists(_)) => {
                let message = "an organization with this id exists";
                let refusal = Refusal::new(Class::Exists, "organization_exists", message);
                Err(refusal.with("organization", id))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn found(&self, id: OrganizationId) -> Result<Organization, Refusal> {
        let organization = organizations::get(&self.rooms.store, id.clone()).await?;
        organization.ok_or_else(|| no_organization(&id))
    }

    async fn organizations(
        &self,
        request: v1::ListOrganizationsRequest,
    ) -> Result<v1::ListOrganizationsResponse, Refusal> {
        let (store, pages) = (&self.rooms.store, &self.rooms.pages);
        let size = page_size(request.page_size)?;
        let after: Option<String> = pages.open(&[ORGANIZATIONS], &request.page_token)?;
        let mut rows = organizations::list(store, after, limit(size)).await?;
        let more = cut(&mut rows, size);
        let last = rows.last().filter(|_| more);
        let token = last.map(|last| pages.seal(&[ORGANIZATIONS], &last.id.as_str()));
        Ok(v1::ListOrganizationsResponse {
            next_page_token: token.unwrap_or_default(),
            organizations: rows.into_iter().map(encoded).collect(),
        })
    }

    async fn made(
        &self,
        request: v1::CreateApiKeyRequest,
    ) -> Result<v1::CreateApiKeyResponse, Refusal> {
        let id = names::parse_organization("parent", &request.parent)?;
        let display_name = names::display_name("display_name", request.display_name)?;
        let mode = self.found(id.clone()).await?.mode;
        match self.rooms.keys.create(&id, mode, display_name).await? {
            Ok(new) => Ok(v1::CreateApiKeyResponse {
                api_key: Some(encoded_key(&id, new.record)),
                key: new.key.expose_secret().to_owned(),
            }),
            Err(NotMade::NoOrganization) => Err(no_organization(&id)),
            Err(NotMade::TooMany) => {
                let message = "the organization has five live keys; revoke one first";
                Err(Refusal::new(Class::Precondition, "too_many_keys", message)
                    .with("limit", api_keys::LIVE_KEYS))
            }
        }
    }

    async fn keys(
        &self,
        request: v1::ListApiKeysRequest,
    ) -> Result<v1::ListApiKeysResponse, Refusal> {
        let (store, pages) = (&self.rooms.store, &self.rooms.pages);
        let id = names::parse_organization("parent", &request.parent)?;
        self.found(id.clone()).await?;
        let asked = [KEYS, id.as_str()];
        let size = page_size(request.page_size)?;
        let token: Option<(i128, u128)> = pages.open(&asked, &request.page_token)?;
        let before = token.and_then(|(created, key)| {
            OffsetDateTime::from_unix_timestamp_nanos(created)
                .ok()
                .map(|created| (created, Uuid::from_u128(key)))
        });
        let mut rows = api_keys::list(store, id.clone(), before, limit(size)).await?;
        let more = cut(&mut rows, size);
        let last = rows.last().filter(|_| more);
        let token = last.map(|last| {
            pages.seal(
                &asked,
                &(
                    last.created_at.unix_timestamp_nanos(),
                    last.key_id.as_u128(),
                ),
            )
        });
        Ok(v1::ListApiKeysResponse {
            next_page_token: token.unwrap_or_default(),
            api_keys: rows.into_iter().map(|key| encoded_key(&id, key)).collect(),
        })
    }

    async fn revoked(&self, request: v1::RevokeApiKeyRequest) -> Result<v1::ApiKey, Refusal> {
        let (id, key) = names::parse_api_key("name", &request.name)?;
        match api_keys::revoke(&self.rooms.store, id.clone(), key).await? {
            Revoked::Key(key) => Ok(encoded_key(&id, key)),
            Revoked::NoKey => {
                let message = "the organization has no such key";
                Err(Refusal::new(Class::NotFound, "api_key_not_found", message).with("key", key))
            }
            Revoked::InUse => {
                let message = "it is the last live key and signs commits that are pending; make \
                               another one first";
                Err(Refusal::new(Class::Precondition, "last_key_in_use", message).with("key", key))
            }
        }
    }
}

fn no_organization(id: &OrganizationId) -> Refusal {
    let message = "there is no such organization";
    Refusal::new(Class::NotFound, "organization_not_found", message).with("organization", id)
}

fn encoded(organization: Organization) -> v1::Organization {
    let mode = match organization.mode {
        Mode::Live => v1::Mode::Live,
        Mode::Test => v1::Mode::Test,
    };
    v1::Organization {
        name: names::organization(&organization.id),
        display_name: organization.display_name,
        mode: mode.into(),
        create_time: Some(timestamp(organization.created_at)),
    }
}

fn encoded_key(organization: &OrganizationId, key: ApiKey) -> v1::ApiKey {
    v1::ApiKey {
        name: names::api_key(organization, key.key_id),
        display_name: key.display_name,
        prefix: key.prefix,
        create_time: Some(timestamp(key.created_at)),
        revoke_time: key.revoked_at.map(timestamp),
        needed_by: key.needed_by.iter().map(|id| names::source(id)).collect(),
    }
}
