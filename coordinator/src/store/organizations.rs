//! Tenants.

use time::OffsetDateTime;

use super::{Error, Store, detached};
use crate::domain::{Mode, OrganizationId};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Chosen by the operator.
    pub id: OrganizationId,
    /// For a person.
    pub display_name: String,
    /// Fixed at creation.
    pub mode: Mode,
    /// When it was added.
    pub created_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct Row {
    org_id: String,
    display_name: String,
    mode: String,
    created_at: OffsetDateTime,
}

impl Row {
    fn organization(self) -> Result<Organization, Error> {
        Ok(Organization {
            mode: mode(&self.mode, &self.org_id)?,
            id: OrganizationId::new(&self.org_id),
            display_name: self.display_name,
            created_at: self.created_at,
        })
    }
}

/// Reads `organizations.mode`.
pub(super) fn mode(word: &str, organization: &str) -> Result<Mode, Error> {
    Mode::parse(word).ok_or_else(|| Error::Corrupt {
        table: "organizations",
        column: "mode",
        row: organization.to_owned(),
    })
}

/// Adds a tenant and its head. A taken id is [`Error::Exists`].
pub async fn create(
    store: &Store,
    id: OrganizationId,
    display_name: String,
    mode: Mode,
) -> Result<Organization, Error> {
    detached(&store.reads, |pool| async move {
        let row: Row = sqlx::query_as(include_str!("sql/create_organization.sql"))
            .bind(id.as_str())
            .bind(display_name)
            .bind(mode.as_str())
            .fetch_one(&pool)
            .await?;
        row.organization()
    })
    .await
}

/// One tenant, if there is one with this id.
pub async fn get(store: &Store, id: OrganizationId) -> Result<Option<Organization>, Error> {
    detached(&store.reads, |pool| async move {
        let row: Option<Row> = sqlx::query_as(include_str!("sql/get_organization.sql"))
            .bind(id.as_str())
            .fetch_optional(&pool)
            .await?;
        row.map(Row::organization).transpose()
    })
    .await
}

/// At most `limit` tenants after the id `after`, by id.
pub async fn list(
    store: &Store,
    after: Option<String>,
    limit: i64,
) -> Result<Vec<Organization>, Error> {
    detached(&store.reads, |pool| async move {
        let rows: Vec<Row> = sqlx::query_as(include_str!("sql/list_organizations.sql"))
            .bind(after)
            .bind(limit)
            .fetch_all(&pool)
            .await?;
        rows.into_iter().map(Row::organization).collect()
    })
    .await
}
