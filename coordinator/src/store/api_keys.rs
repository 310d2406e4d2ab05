//! API keys: looked up by their SHA-256, kept sealed.

use time::OffsetDateTime;
use uuid::Uuid;

use super::organizations::mode;
use super::{Error, Store, detached};
use crate::domain::{Caller, OrganizationId};

/// How many live keys an organization may have: a request carries one signature for each
/// of them (`MAX_KEYS` in `backends/src/data_source/sign.rs`).
pub const LIVE_KEYS: i64 = 5;

/// How often a statement that lost the race for the head is sent again.
const RACES: usize = 50;

/// What is known of a key after it was made.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ApiKey {
    /// Ours.
    pub key_id: Uuid,
    /// The key's first characters.
    pub prefix: String,
    /// For a person.
    pub display_name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Since when it is refused.
    pub revoked_at: Option<OffsetDateTime>,
    /// Sources that took it when they were last verified, and took no newer live one; told by
    /// [`list`] alone.
    #[sqlx(default)]
    pub needed_by: Vec<String>,
}

/// A key as it stands in the database, readable with a master key alone.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SealedKey {
    /// Whose key it is.
    pub org_id: String,
    /// Ours.
    pub key_id: Uuid,
    /// Nonce, then ciphertext.
    pub sealed: Vec<u8>,
    /// Id of the master key that seals it.
    pub sealed_under: String,
}

/// A key to be added.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key, sealed.
    pub sealed: SealedKey,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// The key's first characters.
    pub prefix: String,
    /// For a person.
    pub display_name: String,
}

/// What became of a key to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is live.
    Key(ApiKey),
    /// There is no such organization.
    NoOrganization,
    /// The organization has [`LIVE_KEYS`] already.
    TooMany,
}

/// What became of a key to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It is revoked, now or since earlier.
    Key(ApiKey),
    /// There is no such key.
    NoKey,
    /// It is the last live key, and commits that it signs are pending.
    InUse,
}

#[derive(sqlx::FromRow)]
struct CreateRow {
    found: bool,
    live_keys: i64,
    created_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct RevokeRow {
    #[sqlx(flatten)]
    key: ApiKey,
    other_keys: i64,
    pending_commits: i64,
}

#[derive(sqlx::FromRow)]
struct CallerRow {
    org_id: String,
    mode: String,
    key_id: Uuid,
}

/// Adds a key. After many lost races for the organization's head, [`Error::Exhausted`].
pub async fn create(store: &Store, key: NewKey) -> Result<Created, Error> {
    detached(&store.reads, |pool| async move {
        for _ in 0..RACES {
            let row: CreateRow = sqlx::query_as(include_str!("sql/create_api_key.sql"))
                .bind(&key.sealed.org_id)
                .bind(key.sealed.key_id)
                .bind(&key.sha256[..])
                .bind(&key.sealed.sealed)
                .bind(&key.sealed.sealed_under)
                .bind(&key.prefix)
                .bind(&key.display_name)
                .bind(LIVE_KEYS)
                .fetch_one(&pool)
                .await?;
            if !row.found {
                return Ok(Created::NoOrganization);
            }
            if let Some(created_at) = row.created_at {
                return Ok(Created::Key(ApiKey {
                    key_id: key.sealed.key_id,
                    prefix: key.prefix,
                    display_name: key.display_name,
                    created_at,
                    revoked_at: None,
                    needed_by: Vec::new(),
                }));
            }
            if row.live_keys >= LIVE_KEYS {
                return Ok(Created::TooMany);
            }
        }
        Err(Error::Exhausted)
    })
    .await
}

/// Revokes a key. After many lost races for the organization's head, [`Error::Exhausted`].
pub async fn revoke(
    store: &Store,
    organization: OrganizationId,
    key_id: Uuid,
) -> Result<Revoked, Error> {
    detached(&store.reads, |pool| async move {
        for _ in 0..RACES {
            let row: Option<RevokeRow> = sqlx::query_as(include_str!("sql/revoke_api_key.sql"))
                .bind(organization.as_str())
                .bind(key_id)
                .fetch_optional(&pool)
                .await?;
            let Some(row) = row else {
                return Ok(Revoked::NoKey);
            };
            if row.key.revoked_at.is_some() {
                return Ok(Revoked::Key(row.key));
            }
            if row.other_keys == 0 && row.pending_commits > 0 {
                return Ok(Revoked::InUse);
            }
        }
        Err(Error::Exhausted)
    })
    .await
}

/// At most `limit` keys before the position `before`, newest first, revoked ones included.
pub async fn list(
    store: &Store,
    organization: OrganizationId,
    before: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> Result<Vec<ApiKey>, Error> {
    let (created_at, key_id) = before.unzip();
    detached(&store.reads, |pool| async move {
        Ok(sqlx::query_as(include_str!("sql/list_api_keys.sql"))
            .bind(organization.as_str())
            .bind(created_at)
            .bind(key_id)
            .bind(limit)
            .fetch_all(&pool)
            .await?)
    })
    .await
}

/// Whose live key has this SHA-256.
pub async fn authenticate(store: &Store, sha256: [u8; 32]) -> Result<Option<Caller>, Error> {
    detached(&store.ledger, |pool| async move {
        let row: Option<CallerRow> = sqlx::query_as(include_str!("sql/authenticate.sql"))
            .bind(&sha256[..])
            .fetch_optional(&pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mode = mode(&row.mode, &row.org_id)?;
        Ok(Some(Caller {
            organization: OrganizationId::new(&row.org_id),
            mode,
            key_id: row.key_id,
        }))
    })
    .await
}

/// The organization's live keys, newest first, at most [`LIVE_KEYS`].
pub async fn signing(store: &Store, organization: OrganizationId) -> Result<Vec<SealedKey>, Error> {
    detached(&store.ledger, |pool| async move {
        Ok(sqlx::query_as(include_str!("sql/signing_keys.sql"))
            .bind(organization.as_str())
            .bind(LIVE_KEYS)
            .fetch_all(&pool)
            .await?)
    })
    .await
}

/// One live key for every master key that seals live keys.
pub async fn sealed_samples(store: &Store) -> Result<Vec<SealedKey>, Error> {
    detached(&store.reads, |pool| async move {
        Ok(sqlx::query_as(include_str!("sql/sealed_samples.sql"))
            .fetch_all(&pool)
            .await?)
    })
    .await
}

/// At most `limit` keys that another master key than `current` seals.
pub async fn sealed_otherwise(
    store: &Store,
    current: String,
    limit: i64,
) -> Result<Vec<SealedKey>, Error> {
    detached(&store.reads, |pool| async move {
        Ok(sqlx::query_as(include_str!("sql/sealed_otherwise.sql"))
            .bind(current)
            .bind(limit)
            .fetch_all(&pool)
            .await?)
    })
    .await
}

/// Puts `new` in the place of `old`, the same key sealed anew. False when `old` no longer stands.
pub async fn reseal(store: &Store, old: SealedKey, new: SealedKey) -> Result<bool, Error> {
    detached(&store.reads, |pool| async move {
        let done = sqlx::query(include_str!("sql/reseal.sql"))
            .bind(&old.org_id)
            .bind(old.key_id)
            .bind(&new.sealed)
            .bind(&new.sealed_under)
            .bind(&old.sealed)
            .execute(&pool)
            .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}
