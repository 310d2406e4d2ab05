//! A front-end of the coordinator: what an SDK's server does.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use proto::v1;
use proto::v1::coordinator_client::CoordinatorClient;
use proto::v1::data_sources_client::DataSourcesClient;
use proto::v1::schemas_client::SchemasClient;
use serde_json::json;
use tonic::{Code, Status};

use crate::node::Authorized;

/// The customer's database, as the schema names it.
const SOURCE: &str = "crm";
/// Pauses between attempts, short enough to watch.
const RETRY_DELAYS_MS: [u32; 10] = [
    250, 250, 500, 500, 1_000, 1_000, 2_000, 2_000, 5_000, 10_000,
];
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const TRIES: u32 = 300;

#[derive(Debug)]
pub(super) struct FrontEnd {
    service: Authorized,
}

impl FrontEnd {
    pub(super) fn new(service: Authorized) -> Self {
        Self { service }
    }

    /// Registers the customer's app, and pushes a schema with a model in each backing.
    pub(super) async fn register(&self, url: &str) -> anyhow::Result<()> {
        let delays = RETRY_DELAYS_MS.map(|ms| {
            let delay = Duration::from_millis(ms.into());
            delay.try_into().expect("seconds are few")
        });
        let source = v1::CreateDataSourceRequest {
            data_source_id: SOURCE.to_owned(),
            data_source: Some(v1::DataSource {
                url: url.to_owned(),
                retry_policy: Some(v1::RetryPolicy {
                    delays: delays.to_vec(),
                }),
                max_in_flight: 32,
                ..v1::DataSource::default()
            }),
            ..v1::CreateDataSourceRequest::default()
        };
        DataSourcesClient::new(self.service.clone())
            .create(source)
            .await
            .context("the source")?;
        let push = v1::PushSchemaRequest {
            document_json: schema().into_bytes().into(),
            force: false,
        };
        SchemasClient::new(self.service.clone())
            .push(push)
            .await
            .context("the schema")?;
        Ok(())
    }

    /// Sends a commit until it is confirmed, for as long as a rejection does not end it.
    pub(super) async fn settle(
        &self,
        commit: &v1::CommitRequest,
        twice: bool,
    ) -> anyhow::Result<()> {
        if !twice {
            return self.confirm(commit).await.map(drop);
        }
        let (one, other) = tokio::try_join!(self.confirm(commit), self.confirm(commit))?;
        ensure!(
            one == other,
            "{} has two receipts: {one:?} and {other:?}",
            commit.client_tx_id
        );
        Ok(())
    }

    /// What the source's commits came to so far, for a person; none while nothing has failed.
    pub(super) async fn trouble(&self) -> anyhow::Result<Option<String>> {
        let name = format!("dataSources/{SOURCE}");
        let status = DataSourcesClient::new(self.service.clone())
            .get_status(v1::GetDataSourceStatusRequest { name })
            .await?
            .into_inner();
        let error = status.overall.and_then(|overall| overall.last_error);
        Ok(error.map(|it| {
            format!(
                "{} pending, last error: {}",
                status.pending_count, it.error_class
            )
        }))
    }

    async fn confirm(&self, commit: &v1::CommitRequest) -> anyhow::Result<v1::Receipt> {
        let name = &commit.client_tx_id;
        for _ in 0..TRIES {
            let answer = CoordinatorClient::new(self.service.clone())
                .commit(commit.clone())
                .await;
            let receipt = match answer {
                Ok(receipt) => receipt.into_inner(),
                Err(status) if may_succeed(&status) => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
                Err(status) => return Err(status).with_context(|| name.clone()),
            };
            match receipt.state() {
                v1::CommitState::Confirmed => return Ok(receipt),
                v1::CommitState::Queued if !receipt.dead => {}
                _ => bail!("{name} was not confirmed: {receipt:?}"),
            }
        }
        bail!("{name} is not confirmed after {TRIES} calls")
    }
}

/// The same call is safe, and may do better.
fn may_succeed(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled
    )
}

fn schema() -> String {
    let text = json!({"type": "string"});
    let unknown = json!({"type": ["string", "null"]});
    let number = json!({"type": "number"});
    json!({"models": {
        "weatherReports": {"backing": "managed", "schema": {
            "type": "object",
            "properties": {
                "precipitation": number, "temp_max": number, "temp_min": number, "wind": number,
                "weather": text,
            },
            "required": ["precipitation", "temp_max", "temp_min", "wind", "weather"],
            "additionalProperties": false,
        }},
        "airports": {"backing": {"dataSource": SOURCE}, "schema": {
            "type": "object",
            "properties": {
                "name": text, "city": unknown, "state": unknown, "country": text,
                "latitude": number, "longitude": number,
            },
            "required": ["name", "country", "latitude", "longitude"],
            "additionalProperties": false,
        }},
    }})
    .to_string()
}
