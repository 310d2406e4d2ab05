//! What operators did.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, detached};
use crate::domain::OrganizationId;

/// Something that an operator did to a source or to one of its commits.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Action {
    /// When.
    pub acted_at: OffsetDateTime,
    /// Tells apart what happened at one moment.
    pub action_id: Uuid,
    /// What was done.
    pub verb: String,
    /// The commit that it was done to, if one.
    pub client_tx_id: Option<String>,
    /// The API key that the call carried.
    pub key_id: Uuid,
    /// Who asked, as the caller said.
    pub actor: String,
    /// Particulars, for a person.
    pub detail: String,
}

/// At most `limit` actions before the position `before`, newest first; the source may be gone.
pub async fn list(
    store: &Store,
    (organization, source): (OrganizationId, String),
    before: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> Result<Vec<Action>, Error> {
    let (acted_at, action_id) = before.unzip();
    detached(&store.reads, |pool| async move {
        Ok(sqlx::query_as(include_str!("sql/list_actions.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(acted_at)
            .bind(action_id)
            .bind(limit)
            .fetch_all(&pool)
            .await?)
    })
    .await
}
