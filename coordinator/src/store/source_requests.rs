//! What reads of Data Sources need to know, and what they leave on the record.

use std::time::Duration;

use super::{Error, Store, detached};
use crate::domain::{OrganizationId, RequestKind, SourceState};

/// Where a source's rows are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEndpoint {
    /// The log's last sync id, from before any request that follows.
    pub last_sync_id: i64,
    /// As it was judged when it was set.
    pub url: String,
    /// The longest that one request may take.
    pub timeout: Duration,
    /// What the source does with commits.
    pub state: SourceState,
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRequest {
    /// A `snake_case` class.
    pub class: String,
    /// For a person.
    pub message: String,
    /// 0 when no status line came.
    pub http_status: i32,
}

/// What the last requests of one kind came to: the newest of each sort that is not on record yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastRequests {
    /// One succeeded.
    pub succeeded: bool,
    /// One failed like this.
    pub failed: Option<FailedRequest>,
}

#[derive(sqlx::FromRow)]
struct EndpointColumns {
    last_sync_id: i64,
    url: String,
    request_timeout_ms: i64,
    state: String,
}

/// The source's endpoint; `None` when there is no such source.
pub async fn source_endpoint(
    store: &Store,
    organization: OrganizationId,
    id: String,
) -> Result<Option<SourceEndpoint>, Error> {
    detached(&store.reads, |pool| async move {
        let found: Option<EndpointColumns> =
            sqlx::query_as(include_str!("sql/source_endpoint.sql"))
                .bind(organization.as_str())
                .bind(&id)
                .fetch_optional(&pool)
                .await?;
        let Some(found) = found else { return Ok(None) };
        let state = SourceState::parse(&found.state).ok_or(Error::Corrupt {
            table: "data_sources",
            column: "state",
            row: id,
        })?;
        let timeout = u64::try_from(found.request_timeout_ms).unwrap_or_default();
        Ok(Some(SourceEndpoint {
            last_sync_id: found.last_sync_id,
            url: found.url,
            timeout: Duration::from_millis(timeout),
            state,
        }))
    })
    .await
}

/// Puts what requests came to on the record. Nothing happens when the source is gone.
pub async fn record(
    store: &Store,
    organization: OrganizationId,
    id: String,
    kind: RequestKind,
    last: LastRequests,
) -> Result<(), Error> {
    detached(&store.reads, |pool| async move {
        let failed = last.failed.as_ref();
        sqlx::query(include_str!("sql/record_source_request.sql"))
            .bind(organization.as_str())
            .bind(id)
            .bind(kind.as_str())
            .bind(last.succeeded)
            .bind(failed.map(|failed| failed.class.as_str()))
            .bind(failed.map(|failed| failed.message.as_str()))
            .bind(failed.map(|failed| failed.http_status))
            .execute(&pool)
            .await?;
        Ok(())
    })
    .await
}
