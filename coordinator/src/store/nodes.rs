//! Leases of nodes, and the sources that they deliver to.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::OrganizationId;

/// A source that nobody delivers to.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Orphan {
    /// Whose it is.
    pub org_id: String,
    /// Its id.
    pub source_id: String,
    /// The owner whose lease is over.
    pub owner: Option<Uuid>,
}

/// What a node sees of a source of its own.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Owned {
    /// Whose it is.
    pub org_id: String,
    /// Its id.
    pub source_id: String,
    /// The epoch of its owner.
    pub epoch: i64,
    /// Sequence of its newest commit.
    pub inbox_sequence: i64,
    /// Counts what operators did to its commits.
    pub inbox_revision: i64,
    /// When an operator last changed it.
    pub updated_at: OffsetDateTime,
}

impl Owned {
    /// Its organization.
    pub fn organization(&self) -> OrganizationId {
        OrganizationId::new(&self.org_id)
    }
}

impl Store {
    /// Takes or renews a node's lease, for this long from now on. Tells the database's time.
    pub async fn renew_node(&self, node: Uuid, lease: Duration) -> Result<OffsetDateTime, Error> {
        let renewed = sqlx::query_scalar(include_str!("sql/node_renew.sql"))
            .bind(node)
            .bind(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX))
            .fetch_one(&self.leases)
            .await?;
        Ok(renewed)
    }

    /// Ends a node's lease.
    pub async fn leave_node(&self, node: Uuid) -> Result<(), Error> {
        sqlx::query(include_str!("sql/node_leave.sql"))
            .bind(node)
            .execute(&self.leases)
            .await?;
        Ok(())
    }

    /// At most `limit` sources that nobody delivers to.
    pub async fn orphans(&self, node: Uuid, limit: i64) -> Result<Vec<Orphan>, Error> {
        let orphans = sqlx::query_as(include_str!("sql/orphans.sql"));
        Ok(orphans
            .bind(limit)
            .bind(node)
            .fetch_all(&self.leases)
            .await?)
    }

    /// The sources that a node owns.
    pub async fn owned(&self, node: Uuid) -> Result<Vec<Owned>, Error> {
        let owned = sqlx::query_as(include_str!("sql/owned.sql"));
        Ok(owned.bind(node).fetch_all(&self.leases).await?)
    }
}
