//! Which keys the endpoints of Data Sources take.

use uuid::Uuid;

use super::{Error, Store, detached};
use crate::domain::OrganizationId;

/// Whether an endpoint took a key that was shown alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySeen {
    /// The key.
    pub key: Uuid,
    /// Whether it was taken.
    pub accepted: bool,
}

/// Puts on record which keys a source takes; of keys that are not named, what was known stays.
/// Nothing happens when the source is gone.
pub async fn record(
    store: &Store,
    organization: OrganizationId,
    source: String,
    seen: Vec<KeySeen>,
) -> Result<(), Error> {
    let keys: Vec<Uuid> = seen.iter().map(|one| one.key).collect();
    let accepted: Vec<bool> = seen.iter().map(|one| one.accepted).collect();
    detached(&store.reads, |pool| async move {
        sqlx::query(include_str!("sql/record_source_keys.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(keys)
            .bind(accepted)
            .execute(&pool)
            .await?;
        Ok(())
    })
    .await
}
