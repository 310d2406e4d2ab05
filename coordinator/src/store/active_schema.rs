//! The schema that commits and reads are checked against.

use super::{Error, Store, detached};
use crate::domain::OrganizationId;

/// Which version is active.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ActiveSchema {
    /// 0 before the first push.
    #[sqlx(rename = "schema_version")]
    pub version: i32,
    /// Its document; absent when the caller knows the version, and before the first push.
    pub document: Option<String>,
}

/// The active version; its document only when it is not the version `known`.
pub async fn active(
    store: &Store,
    organization: OrganizationId,
    known: i32,
) -> Result<Option<ActiveSchema>, Error> {
    detached(&store.ledger, |pool| async move {
        let found = sqlx::query_as(include_str!("sql/active_schema.sql"))
            .bind(organization.as_str())
            .bind(known)
            .fetch_optional(&pool)
            .await?;
        Ok(found)
    })
    .await
}
