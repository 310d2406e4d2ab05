//! The service with two organizations and a customer's endpoint, and what its database holds.

use std::fmt::Debug;

use coordinator::lifecycle::Ending;
use integration::app::{Flags, OPERATOR_TOKEN, TestApp, eventually};
use integration::endpoint::Endpoint;
use integration::node::{Authorization, Authorized};
use proto::v1;
use proto::v1::admin_client::AdminClient;
use proto::v1::coordinator_client::CoordinatorClient;
use proto::v1::data_sources_client::DataSourcesClient;
use proto::v1::schemas_client::SchemasClient;
use sqlx::{AssertSqlSafe, PgPool};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::refusal::Refusal;

/// `notes` and `open` are managed, `contacts` live behind the Data Source `crm`.
pub(crate) const SCHEMA: &str = r#"{"models": {
    "notes": {"schema": {"type": "object", "required": ["title"], "properties": {
        "title": {"type": "string", "maxLength": 100},
        "count": {"type": "integer", "minimum": 0},
        "price": {"type": "number"},
        "done": {"type": ["boolean", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}}}}},
    "open": {"schema": {"type": "object", "additionalProperties": true}},
    "contacts": {"backing": {"dataSource": "crm"}, "schema": {
        "type": "object", "required": ["title"], "properties": {
        "title": {"type": "string"},
        "count": {"type": "integer"},
        "price": {"type": "number"},
        "done": {"type": ["boolean", "null"]}}}}}}"#;

/// Where the service's requests may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Public addresses alone.
    Production,
    /// 127.0.0.1 as well.
    Development,
}

/// A service that answers. [`House::close`] ends it in order.
#[derive(Debug)]
pub(crate) struct House {
    /// The customer's endpoint.
    pub(crate) endpoint: Endpoint,
    /// The database behind the service's back.
    pub(crate) pool: PgPool,
    pub(crate) app: TestApp,
    /// An API key of the organization `acme`.
    pub(super) acme: String,
    /// An API key of the organization `rival`.
    pub(super) rival: String,
    channel: Channel,
    tables: String,
}

/// A table, how many rows it has, and a digest of them.
type Contents = Vec<(String, i64, String)>;

impl House {
    /// A service without schema and sources.
    pub(crate) async fn open(policy: Policy) -> Self {
        let subnet = match policy {
            Policy::Production => "",
            Policy::Development => "127.0.0.1/32",
        };
        let app = TestApp::start_with(Flags::default().with("allow-subnet", subnet)).await;
        let acme = app.organization("acme").await;
        let rival = app.organization("rival").await;
        let pool = app.pool();
        let channel = Channel::from_shared(format!("http://{}", app.address())).unwrap();
        Self {
            channel: channel.connect_lazy(),
            endpoint: Endpoint::start(acme.key()).await.unwrap(),
            tables: tables(&pool).await,
            acme: acme.key().to_owned(),
            rival: rival.key().to_owned(),
            pool,
            app,
        }
    }

    /// A service whose organization `acme` has [`SCHEMA`], the source `crm`, and the row `old` in
    /// `notes` and `contacts`.
    pub(crate) async fn furnished() -> Self {
        let house = Self::open(Policy::Development).await;
        house.create_source("crm", &house.endpoint.url()).await;
        house.push_schema(SCHEMA).await;
        for model in ["notes", "contacts"] {
            let create = operation(
                v1::OperationType::Create,
                model,
                "old",
                r#"{"title":"old"}"#,
            );
            house.commit(&format!("old-{model}"), vec![create]).await;
        }
        house
    }

    /// Stops the service; every call and task must end by itself.
    pub(crate) async fn close(mut self) {
        self.pool.close().await;
        assert_eq!(self.app.stop().await, Ending::Drained);
    }

    pub(crate) fn coordinator(&self) -> CoordinatorClient<Authorized> {
        self.coordinator_as(&self.acme)
    }

    pub(super) fn coordinator_as(&self, key: &str) -> CoordinatorClient<Authorized> {
        CoordinatorClient::new(self.door(key))
    }

    pub(super) fn schemas(&self) -> SchemasClient<Authorized> {
        SchemasClient::new(self.door(&self.acme))
    }

    pub(crate) fn sources(&self) -> DataSourcesClient<Authorized> {
        self.sources_as(&self.acme)
    }

    pub(super) fn sources_as(&self, key: &str) -> DataSourcesClient<Authorized> {
        DataSourcesClient::new(self.door(key))
    }

    pub(super) fn admin(&self) -> AdminClient<Authorized> {
        self.admin_as(OPERATOR_TOKEN)
    }

    pub(super) fn admin_as(&self, token: &str) -> AdminClient<Authorized> {
        AdminClient::new(self.door(token))
    }

    /// Commits, and waits until it is confirmed.
    pub(crate) async fn commit(&self, name: &str, operations: Vec<v1::Operation>) -> v1::Receipt {
        let request = commit(name, operations);
        let receipt = self.coordinator().commit(request).await.unwrap();
        assert_eq!(receipt.get_ref().state(), v1::CommitState::Confirmed);
        receipt.into_inner()
    }

    pub(crate) async fn push_schema(&self, document: &str) {
        let request = v1::PushSchemaRequest {
            document_json: document.to_owned().into(),
            force: false,
        };
        self.schemas().push(request).await.unwrap();
    }

    /// Registers a source, and waits until the node delivers to it: that too moves the head.
    pub(crate) async fn create_source(&self, id: &str, url: &str) {
        self.sources().create(source(id, url)).await.unwrap();
        let claimed =
            "SELECT EXISTS (SELECT FROM data_sources WHERE source_id = $1 AND owner IS NOT NULL)";
        eventually("the source's owner", async || {
            let claimed = sqlx::query_scalar(claimed).bind(id);
            let claimed: bool = claimed.fetch_one(&self.pool).await.unwrap();
            claimed.then_some(())
        })
        .await;
    }

    /// Makes every call, each of which must be refused as expected and change nothing. Tells of all
    /// that are not.
    pub(crate) async fn refuses<R: Debug, A: Debug>(
        &self,
        cases: Vec<(&str, R, Refusal)>,
        call: impl AsyncFn(R) -> Result<Response<A>, Status>,
    ) {
        let before = self.contents().await;
        let mut wrong = Vec::new();
        for (name, request, expected) in cases {
            match call(request).await {
                Ok(answer) => wrong.push(format!("{name}: answered {:.200?}", answer.into_inner())),
                Err(status) => {
                    let given = Refusal::of(&status);
                    if given != expected {
                        let message = status.message();
                        wrong.push(format!("{name}: {given:?}, not {expected:?}: {message}"));
                    }
                }
            }
            assert_eq!(self.contents().await, before, "{name} changed something");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// All that the tables hold, but what nodes and sources tell of themselves as time goes by.
    pub(super) async fn contents(&self) -> Contents {
        sqlx::query_as(AssertSqlSafe(self.tables.clone()))
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    pub(super) async fn key_of(&self, organization: &str) -> v1::CreateApiKeyResponse {
        let request = v1::CreateApiKeyRequest {
            parent: format!("organizations/{organization}"),
            display_name: String::new(),
        };
        let made = self.admin().create_api_key(request).await.unwrap();
        made.into_inner()
    }

    fn door(&self, token: &str) -> Authorized {
        let authorization = Authorization::bearer(token).unwrap();
        authorization.over(self.channel.clone())
    }
}

/// One operation.
pub(crate) fn operation(
    kind: v1::OperationType,
    model: &str,
    id: &str,
    input: impl AsRef<[u8]>,
) -> v1::Operation {
    v1::Operation {
        r#type: kind.into(),
        model: model.to_owned(),
        id: id.to_owned(),
        input_json: input.as_ref().to_vec().into(),
        ..v1::Operation::default()
    }
}

/// A commit by a person.
pub(crate) fn commit(name: &str, operations: Vec<v1::Operation>) -> v1::CommitRequest {
    v1::CommitRequest {
        client_tx_id: name.to_owned(),
        participant: Some(person("ada")),
        operations,
        ..v1::CommitRequest::default()
    }
}

pub(super) fn person(id: &str) -> v1::Participant {
    v1::Participant {
        id: id.to_owned(),
        kind: v1::ParticipantKind::User.into(),
    }
}

/// A request for a source.
pub(crate) fn source(id: &str, url: &str) -> v1::CreateDataSourceRequest {
    let source = v1::DataSource {
        url: url.to_owned(),
        ..v1::DataSource::default()
    };
    v1::CreateDataSourceRequest {
        data_source_id: id.to_owned(),
        data_source: Some(source),
        ..v1::CreateDataSourceRequest::default()
    }
}

/// The statement that reads [`Contents`].
async fn tables(pool: &PgPool) -> String {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
             AND NOT relispartition AND relname NOT IN ('nodes', 'source_requests')
         ORDER BY relname",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let one = |name: &String| {
        format!(
            "SELECT '{name}', count(*), md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), ''))
             FROM {name} t"
        )
    };
    let all: Vec<String> = names.iter().map(one).collect();
    all.join(" UNION ALL ")
}
