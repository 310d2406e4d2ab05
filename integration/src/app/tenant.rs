//! An organization of the coordinator, with its key.

use std::time::Duration;

use proto::v1;
use proto::v1::admin_client::AdminClient;
use proto::v1::coordinator_client::CoordinatorClient;
use proto::v1::data_sources_client::DataSourcesClient;
use proto::v1::log_client::LogClient;
use proto::v1::schemas_client::SchemasClient;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::{OPERATOR_TOKEN, Patience, eventually, intent};
use crate::endpoint::Endpoint;
use crate::node::{Authorization, Authorized};

/// The tests' Data Source, as their schema names it.
const SOURCE: &str = "crm";
const SOURCE_NAME: &str = "dataSources/crm";

/// Pauses between attempts, so short that a test can wait for all of them.
const RETRY_DELAYS: [Duration; 12] = [Duration::from_millis(50); 12];

/// How the tests' source is set up.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where its endpoint is.
    pub url: String,
    /// Pauses between attempts.
    pub retry_delays: Vec<Duration>,
    /// A second to thirty.
    pub request_timeout: Duration,
    /// Requests in flight.
    pub max_in_flight: u32,
    /// How far the sweep of the feed trails.
    pub feed_lag: Duration,
    /// Requests per second; 0 for no limit.
    pub max_per_second: u32,
    /// Commits that may wait; 0 for the default.
    pub max_pending: u32,
}

impl Source {
    /// A source that retries soon and often. Its requests have so long that none ends because the
    /// machine is busy; who waits for the end of one sets how soon that comes.
    pub fn at(endpoint: &Endpoint) -> Self {
        Self {
            url: endpoint.url(),
            retry_delays: RETRY_DELAYS.to_vec(),
            request_timeout: Duration::from_secs(20),
            max_in_flight: 16,
            feed_lag: Duration::from_mins(1),
            max_per_second: 0,
            max_pending: 0,
        }
    }

    fn message(&self) -> v1::DataSource {
        let duration = |span: Duration| span.try_into().expect("seconds are few");
        let delays = self.retry_delays.iter().copied().map(duration).collect();
        v1::DataSource {
            name: SOURCE_NAME.to_owned(),
            url: self.url.clone(),
            retry_policy: Some(v1::RetryPolicy { delays }),
            request_timeout: Some(duration(self.request_timeout)),
            max_in_flight: i32::try_from(self.max_in_flight).expect("it is small"),
            feed_lag: Some(duration(self.feed_lag)),
            max_per_second: i32::try_from(self.max_per_second).expect("it is small"),
            max_pending: self.max_pending.into(),
            ..v1::DataSource::default()
        }
    }
}

/// The tests' schema: `notes` are managed, `airports` live in the source `crm`.
#[derive(Clone, Copy, Debug)]
pub struct TenantSchema;

impl TenantSchema {
    /// The document to push.
    pub fn document() -> String {
        let fields = json!({
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "number": {"type": "number"},
                "token": {"type": "string"},
            },
            "additionalProperties": false,
        });
        json!({"models": {
            "notes": {"backing": "managed", "schema": fields},
            "airports": {"backing": {"dataSource": SOURCE}, "schema": fields},
        }})
        .to_string()
    }
}

/// An organization with a key, at one node.
#[derive(Clone, Debug)]
pub struct Tenant {
    name: String,
    key: String,
    address: String,
    service: Authorized,
}

impl Tenant {
    /// Makes an organization and a key, as the operator does.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn create(address: &str, name: &str) -> Self {
        let mut admin = AdminClient::new(authorized(address, OPERATOR_TOKEN));
        admin
            .create_organization(v1::CreateOrganizationRequest {
                organization_id: name.to_owned(),
                organization: Some(v1::Organization {
                    mode: v1::Mode::Test.into(),
                    ..v1::Organization::default()
                }),
            })
            .await
            .expect("the name is free");
        let made = admin
            .create_api_key(v1::CreateApiKeyRequest {
                parent: format!("organizations/{name}"),
                display_name: String::new(),
            })
            .await
            .expect("an organization may have a key");
        Self::with_key(address, name, &made.into_inner().key)
    }

    fn with_key(address: &str, name: &str, key: &str) -> Self {
        Self {
            name: name.to_owned(),
            key: key.to_owned(),
            address: address.to_owned(),
            service: authorized(address, key),
        }
    }

    /// The same organization at another node.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self::with_key(address, &self.name, &self.key)
    }

    /// Somebody at the same node with this key.
    #[must_use]
    pub fn with_another_key(&self, key: &str) -> Self {
        Self::with_key(&self.address, &self.name, key)
    }

    /// The same organization over a connection of its own.
    #[must_use]
    pub fn connected_anew(&self) -> Self {
        self.at(&self.address)
    }

    /// The same organization with another of its keys.
    #[must_use]
    pub fn with(&self, key: &str) -> Self {
        Self::with_key(&self.address, &self.name, key)
    }

    /// Where its node serves.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The organization's id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `Coordinator` service.
    pub fn coordinator(&self) -> CoordinatorClient<Authorized> {
        CoordinatorClient::new(self.service.clone())
    }

    /// The `Log` service.
    pub fn log(&self) -> LogClient<Authorized> {
        LogClient::new(self.service.clone())
    }

    /// The `DataSources` service.
    pub fn sources(&self) -> DataSourcesClient<Authorized> {
        DataSourcesClient::new(self.service.clone())
    }

    /// The `Schemas` service.
    pub fn schemas(&self) -> SchemasClient<Authorized> {
        SchemasClient::new(self.service.clone())
    }

    /// The `Admin` service, as the operator calls it.
    pub fn admin(&self) -> AdminClient<Authorized> {
        AdminClient::new(authorized(&self.address, OPERATOR_TOKEN))
    }

    /// Registers the source and pushes the schema.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn prepare(&self, source: &Source) {
        let request = v1::CreateDataSourceRequest {
            data_source_id: SOURCE.to_owned(),
            data_source: Some(source.message()),
            ..v1::CreateDataSourceRequest::default()
        };
        self.sources()
            .create(request)
            .await
            .expect("the source is new");
        self.push(&TenantSchema::document()).await;
    }

    /// Makes a document the schema.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn push(&self, document: &str) {
        let request = v1::PushSchemaRequest {
            document_json: document.as_bytes().to_vec().into(),
            force: false,
        };
        let pushed = self.schemas().push(request).await;
        pushed.expect("the schema is valid");
    }

    /// Sends a commit, once.
    pub async fn commit(&self, request: v1::CommitRequest) -> Result<v1::Receipt, Status> {
        let receipt = self.coordinator().commit(request).await?;
        Ok(receipt.into_inner())
    }

    /// Sends a commit for so long.
    pub async fn commit_within(
        &self,
        request: v1::CommitRequest,
        timeout: Duration,
    ) -> Result<v1::Receipt, Status> {
        let mut request = Request::new(request);
        request.set_timeout(timeout);
        let receipt = self.coordinator().commit(request).await?;
        Ok(receipt.into_inner())
    }

    /// Sends a commit again and again until it is settled or dead.
    ///
    /// # Panics
    /// When it is refused before it is accepted, or not settled in a long time.
    pub async fn settle(&self, mut request: v1::CommitRequest) -> v1::Receipt {
        request.set_wait(v1::Wait::Confirmed);
        let name = request.client_tx_id.clone();
        let patience = Patience::begin();
        loop {
            match self.commit(request.clone()).await {
                Ok(receipt) if receipt.state() != v1::CommitState::Queued || receipt.dead => {
                    return receipt;
                }
                Ok(_) => {}
                Err(status) if may_succeed(&status) => {}
                Err(status) => panic!("{name} was refused: {status:?}"),
            }
            patience.before_asking_again(&name).await;
        }
    }

    /// As [`Tenant::settle`], for a commit that is to be confirmed.
    ///
    /// # Panics
    /// When it is not.
    pub async fn confirm(&self, request: v1::CommitRequest) -> v1::Receipt {
        let receipt = self.settle(request).await;
        assert_eq!(receipt.state(), v1::CommitState::Confirmed, "{receipt:?}");
        receipt
    }

    /// The recorded receipt.
    pub async fn receipt(&self, client_tx_id: &str) -> Result<v1::Receipt, Status> {
        let request = v1::GetCommitRequest {
            client_tx_id: client_tx_id.to_owned(),
        };
        let receipt = self.coordinator().get_commit(request).await?;
        Ok(receipt.into_inner())
    }

    /// One row, as the caller sees it, and where it was read.
    pub async fn load(&self, model: &str, id: &str) -> Result<v1::LoadResponse, Status> {
        let request = v1::LoadRequest {
            model: model.to_owned(),
            id: id.to_owned(),
            participant: Some(intent::participant()),
            required_sync_groups: Vec::new(),
        };
        Ok(self.coordinator().load(request).await?.into_inner())
    }

    /// One row as JSON; none when there is no such row.
    ///
    /// # Panics
    /// When the read fails.
    pub async fn row(&self, model: &str, id: &str) -> Option<Value> {
        let loaded = self.load(model, id).await.expect("the row can be read");
        loaded
            .row_json
            .map(|row| serde_json::from_slice(&row).expect("rows are JSON"))
    }

    /// The first page of a model's rows.
    pub async fn list(&self, model: &str) -> Result<v1::ListResponse, Status> {
        let request = v1::ListRequest {
            model: model.to_owned(),
            page_size: 1_000,
            participant: Some(intent::participant()),
            ..v1::ListRequest::default()
        };
        Ok(self.coordinator().list(request).await?.into_inner())
    }

    /// How the source does.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn status(&self) -> v1::DataSourceStatus {
        let name = SOURCE_NAME.to_owned();
        let request = v1::GetDataSourceStatusRequest { name };
        let status = self.sources().get_status(request).await;
        status.expect("the source exists").into_inner()
    }

    /// Attempts, oldest first: of one commit, or of all when the name is empty.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn attempts(&self, client_tx_id: &str) -> Vec<v1::Attempt> {
        let mut request = v1::ListAttemptsRequest {
            name: SOURCE_NAME.to_owned(),
            client_tx_id: client_tx_id.to_owned(),
            page_size: 1_000,
            page_token: String::new(),
        };
        let mut attempts = Vec::new();
        loop {
            let page = self.sources().list_attempts(request.clone()).await;
            let page = page.expect("the source exists").into_inner();
            attempts.extend(page.attempts);
            if page.next_page_token.is_empty() {
                attempts.reverse();
                return attempts;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Attempts of one commit, oldest first, once so many have ended.
    ///
    /// # Panics
    /// When they do not.
    pub async fn ended_attempts(&self, client_tx_id: &str, count: usize) -> Vec<v1::Attempt> {
        eventually(&format!("{count} attempts of {client_tx_id}"), async || {
            let attempts = self.attempts(client_tx_id).await;
            let ended = attempts.iter().filter(|it| !it.outcome.is_empty()).count();
            (ended >= count).then_some(attempts)
        })
        .await
    }

    /// Commits that are not settled, in order.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn pending(&self) -> Vec<v1::PendingCommit> {
        let request = v1::ListPendingRequest {
            name: SOURCE_NAME.to_owned(),
            page_size: 1_000,
            page_token: String::new(),
            ..v1::ListPendingRequest::default()
        };
        let page = self.sources().list_pending(request).await;
        page.expect("the source exists").into_inner().commits
    }

    /// Changes the source's settings.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn update_source(&self, source: &Source) {
        let request = v1::UpdateDataSourceRequest {
            data_source: Some(source.message()),
            update_mask: None,
            ..v1::UpdateDataSourceRequest::default()
        };
        let updated = self.sources().update(request).await;
        updated.expect("the source exists");
    }

    /// Takes and delivers commits again.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn enable(&self) {
        let name = SOURCE_NAME.to_owned();
        let enabled = self
            .sources()
            .enable(v1::EnableDataSourceRequest {
                name,
                ..v1::EnableDataSourceRequest::default()
            })
            .await;
        enabled.expect("the source exists");
    }

    /// Stops taking and delivering commits.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn disable(&self, reason: &str) {
        let request = v1::DisableDataSourceRequest {
            name: SOURCE_NAME.to_owned(),
            reason: reason.to_owned(),
            ..v1::DisableDataSourceRequest::default()
        };
        let disabled = self.sources().disable(request).await;
        disabled.expect("the source exists");
    }
}

/// The reason of a refusal: a code in snake case.
///
/// # Panics
/// When it has none.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("no reason in {status:?}"))
        .reason
}

/// The same call is safe, and may do better.
pub(super) fn may_succeed(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
    )
}

fn authorized(address: &str, token: &str) -> Authorized {
    let url = format!("http://{address}");
    let channel = tonic::transport::Endpoint::from_shared(url)
        .expect("a node's address is well formed")
        .connect_lazy();
    let authorization = Authorization::bearer(token).expect("keys are printable");
    authorization.over(channel)
}
