//! API keys: made once, kept sealed, looked up by their SHA-256, and used to sign.

mod cache;
mod master;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::sign::SigningKey;
use rand::TryRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::domain::{Caller, Mode, OrganizationId};
use crate::refusal::{Class, Refusal};
use crate::store::api_keys::{self, Created, NewKey, SealedKey};
use crate::store::{self, Store};
use cache::Cache;

pub(crate) use master::keyed;
pub use master::{MasterKeyFault, MasterKeys};

/// How long a looked-up key is believed.
pub(crate) const BELIEF: Duration = Duration::from_secs(4);

/// A revoked key is refused everywhere within this time.
pub(crate) const REVOKED_WITHIN: Duration = Duration::from_secs(5);

const _: () = assert!(BELIEF.as_millis() < REVOKED_WITHIN.as_millis());

/// How many keys, and how many organizations' signing keys, are remembered.
const REMEMBERED: usize = 10_000;

/// How many look-ups of keys never seen before run at once: a flood of invented keys must not take
/// the database from those who have one.
const STRANGERS: usize = 4;

/// How many wait for such a look-up; more are refused as `overloaded`.
const WAITING: usize = 1_024;

/// How many keys are sealed anew at a time.
const RESEALED: i64 = 100;

/// Longer tokens are refused unread.
const LONGEST_TOKEN: usize = 255;

/// The characters of a key after its prefix.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How many of them: 62^43 > 2^256.
const KEY_LENGTH: usize = 43;

/// How much of a key is shown to recognise it by: `sk_live_` and four characters.
const SHOWN: usize = 12;

/// Everything that is done with API keys. Cheap to share; keeps what it looked up for [`BELIEF`].
pub struct KeyRing {
    store: Store,
    master: MasterKeys,
    callers: Cache<[u8; 32], Option<Caller>>,
    signing: Cache<OrganizationId, Arc<[SigningKey]>>,
    /// Places to wait in for a turn, and the turns.
    queue: Semaphore,
    strangers: Semaphore,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("master", &self.master)
            .finish_non_exhaustive()
    }
}

/// A key that was just made: the only moment at which it can be shown.
#[derive(Debug)]
pub struct MadeKey {
    /// What will be known of it.
    pub record: api_keys::ApiKey,
    /// The key itself.
    pub key: SecretString,
}

impl KeyRing {
    /// A ring over the store's keys, sealed and opened with `master`.
    pub fn new(store: Store, master: MasterKeys) -> Self {
        Self {
            store,
            master,
            // Invented keys do not push out those that exist.
            callers: Cache::new(REMEMBERED, BELIEF, Option::is_some),
            signing: Cache::new(REMEMBERED, BELIEF, |_| false),
            queue: Semaphore::new(WAITING),
            strangers: Semaphore::new(STRANGERS),
        }
    }

    /// The master keys, to derive other keys from.
    pub fn master(&self) -> &MasterKeys {
        &self.master
    }

    /// Proves that every master key in use is at hand and is the right one; to be called once,
    /// before serving.
    pub async fn check_master_keys(&self) -> Result<(), KeyFault> {
        for sample in api_keys::sealed_samples(&self.store).await? {
            self.master.open(&sample)?;
        }
        Ok(())
    }

    /// Seals every key with the first master key that is not sealed with it yet, so that the others
    /// can be given up. Each row by itself: it may be stopped and run again at any time, on several
    /// nodes at once. Says how many it sealed anew.
    ///
    /// Before the first master key changes, every node must have been given the new one, further
    /// back: what is sealed with it here must open there.
    pub async fn reseal(&self) -> Result<u64, KeyFault> {
        let mut count = 0;
        loop {
            let current = self.master.current().to_owned();
            let others = api_keys::sealed_otherwise(&self.store, current, RESEALED).await?;
            if others.is_empty() {
                return Ok(count);
            }
            for old in others {
                let key = self.master.open(&old)?;
                let new = self
                    .master
                    .seal(&OrganizationId::new(&old.org_id), old.key_id, &key);
                count += u64::from(api_keys::reseal(&self.store, old, new).await?);
            }
        }
    }

    /// Whose key this is. The refusal says the same of a key that is malformed, unknown or revoked.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, Refusal> {
        if !well_formed(token) {
            return Err(unauthenticated());
        }
        let sha256 = sha256(token);
        let known = matches!(self.callers.last(&sha256), Some(Some(_)));
        let _place = if known {
            None
        } else {
            Some(self.queue.try_acquire().map_err(|_| overloaded())?)
        };
        let caller = self.callers.get(sha256, || async move {
            // Never closed, so that a turn always comes.
            let _turn = if known {
                None
            } else {
                self.strangers.acquire().await.ok()
            };
            Box::pin(api_keys::authenticate(&self.store, sha256)).await
        });
        caller.await?.ok_or_else(unauthenticated)
    }

    /// The organization's live keys, newest first, at most five.
    pub async fn signing_keys(
        &self,
        organization: &OrganizationId,
    ) -> Result<Arc<[SigningKey]>, store::Error> {
        self.signing
            .get(organization.clone(), || {
                Box::pin(async move {
                    let sealed = api_keys::signing(&self.store, organization.clone()).await?;
                    sealed.iter().map(|key| self.signing_key(key)).collect()
                })
            })
            .await
    }

    /// The organization's live keys with what they are known by, newest first, looked up anew.
    pub async fn live_keys(
        &self,
        organization: &OrganizationId,
    ) -> Result<Vec<LiveKey>, store::Error> {
        let sealed = api_keys::signing(&self.store, organization.clone()).await?;
        let opened = sealed.iter().map(|sealed| {
            let key = self.signing_key(sealed)?;
            Ok(LiveKey {
                id: sealed.key_id,
                shown: shown(&key.0).to_owned(),
                key,
            })
        });
        opened.collect()
    }

    fn signing_key(&self, sealed: &SealedKey) -> Result<SigningKey, store::Error> {
        let corrupt = |_| store::Error::Corrupt {
            table: "api_keys",
            column: "sealed",
            row: format!("{}/{}", sealed.org_id, sealed.key_id),
        };
        self.master.open(sealed).map(SigningKey).map_err(corrupt)
    }

    /// Makes a key of the organization.
    pub async fn create(
        &self,
        organization: &OrganizationId,
        mode: Mode,
        display_name: String,
    ) -> Result<Result<MadeKey, NotMade>, store::Error> {
        let key = generate(mode);
        let sealed = self.master.seal(organization, key_id(), &key);
        let new = NewKey {
            sealed,
            sha256: sha256(key.expose_secret()),
            prefix: shown(&key).to_owned(),
            display_name,
        };
        Ok(match api_keys::create(&self.store, new).await? {
            Created::Key(record) => {
                self.signing.forget(organization);
                Ok(MadeKey { record, key })
            }
            Created::NoOrganization => Err(NotMade::NoOrganization),
            Created::TooMany => Err(NotMade::TooMany),
        })
    }
}

/// A key that signs.
#[derive(Debug)]
pub struct LiveKey {
    /// Ours.
    pub id: Uuid,
    /// Its first characters.
    pub shown: String,
    /// The key.
    pub key: SigningKey,
}

/// Why a key was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMade {
    /// There is no such organization.
    NoOrganization,
    /// It has as many live keys as it may have.
    TooMany,
}

/// Why a node must not start with the master keys that it was given.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// A key in the database cannot be opened.
    #[error(transparent)]
    Master(#[from] MasterKeyFault),
    /// The database could not be asked.
    #[error("the keys in use could not be read")]
    Store(#[from] store::Error),
}

/// The refusal of a call that finds no room now.
pub(crate) fn overloaded() -> Refusal {
    Refusal::new(Class::Exhausted, "overloaded", "too much is in flight")
        .retry_after(Duration::from_millis(500))
}

/// The one refusal of a token, whatever is wrong with it.
pub fn unauthenticated() -> Refusal {
    let message = "a valid key is required: `authorization: Bearer <key>`";
    Refusal::new(Class::Unauthenticated, "unauthenticated", message)
}

/// A key that nobody has, to sign with what must be refused.
pub(crate) fn unknown_key() -> SigningKey {
    SigningKey(generate(Mode::Test))
}

/// A key's first characters.
fn shown(key: &SecretString) -> &str {
    &key.expose_secret()[..SHOWN]
}

fn key_id() -> Uuid {
    Uuid::now_v7()
}

/// Whether a token can be a key at all; everything else is refused without a look-up.
fn well_formed(token: &str) -> bool {
    token.len() <= LONGEST_TOKEN
        && (token.starts_with("sk_live_") || token.starts_with("sk_test_"))
        && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a key is looked up by. It has 256 random bits, so no salt is needed.
fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A new key: `sk_live_` or `sk_test_`, then 43 characters that carry 256 random bits.
fn generate(mode: Mode) -> SecretString {
    let mut key = format!("sk_{}_", mode.as_str());
    let mut random = rand::rngs::SysRng;
    while key.len() < "sk_live_".len() + KEY_LENGTH {
        let mut bytes = [0; 64];
        random
            .try_fill_bytes(&mut bytes)
            .expect("the system's random source works");
        let room = "sk_live_".len() + KEY_LENGTH - key.len();
        // 248 = 4 × 62: bytes above it would make the first characters likelier than the others.
        let unbiased = bytes.iter().filter(|byte| **byte < 248).take(room);
        key.extend(unbiased.map(|byte| char::from(BASE62[usize::from(byte % 62)])));
    }
    key.into()
}

#[cfg(test)]
mod tests;
