//! The versions of an organization's schema.

use time::OffsetDateTime;

use super::{Error, Store, detached};
use crate::domain::OrganizationId;
use crate::service::SchemaVersion;

#[derive(sqlx::FromRow)]
struct Row {
    version: i32,
    document: String,
    created_at: OffsetDateTime,
    active: bool,
}

impl From<Row> for SchemaVersion {
    fn from(row: Row) -> Self {
        let Row {
            version,
            document,
            created_at,
            active,
        } = row;
        Self {
            version,
            document,
            created_at,
            active,
        }
    }
}

/// The version, or the active one when `version` is 0.
pub async fn get(
    store: &Store,
    organization: OrganizationId,
    version: i32,
) -> Result<Option<SchemaVersion>, Error> {
    detached(&store.reads, |pool| async move {
        let row: Option<Row> = sqlx::query_as(include_str!("sql/get_schema.sql"))
            .bind(organization.as_str())
            .bind(version)
            .fetch_optional(&pool)
            .await?;
        Ok(row.map(SchemaVersion::from))
    })
    .await
}

/// At most `limit` versions before `before`, newest first, with empty documents.
pub async fn list(
    store: &Store,
    organization: OrganizationId,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<SchemaVersion>, Error> {
    detached(&store.reads, |pool| async move {
        let rows: Vec<Row> = sqlx::query_as(include_str!("sql/list_schemas.sql"))
            .bind(organization.as_str())
            .bind(before)
            .bind(limit)
            .fetch_all(&pool)
            .await?;
        Ok(rows.into_iter().map(SchemaVersion::from).collect())
    })
    .await
}
