//! Compiled schemas, by organization: the active one, and those that commits in flight still need.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::admit::Schema;
use crate::domain::OrganizationId;
use crate::refusal::{Class, Refusal};
use crate::store::active_schema::{self, ActiveSchema};
use crate::store::{self, Store, schemas};

/// How long a version is believed to be the active one. An append learns of a newer one at once.
const BELIEF: Duration = Duration::from_secs(4);

/// The most organizations whose schemas are kept compiled.
const MAX_ORGANIZATIONS: usize = 2_000;

/// The most versions besides the active one that are kept for one organization.
const MAX_OLDER: usize = 4;

/// Where schemas come from.
pub trait SchemaRecords: Send + Sync + 'static {
    /// As [`active_schema::active`].
    fn active(
        &self,
        organization: OrganizationId,
        known: i32,
    ) -> BoxFuture<'_, Result<Option<ActiveSchema>, store::Error>>;

    /// The document of a version.
    fn document(
        &self,
        organization: OrganizationId,
        version: i32,
    ) -> BoxFuture<'_, Result<Option<String>, store::Error>>;
}

impl SchemaRecords for Store {
    fn active(
        &self,
        organization: OrganizationId,
        known: i32,
    ) -> BoxFuture<'_, Result<Option<ActiveSchema>, store::Error>> {
        active_schema::active(self, organization, known).boxed()
    }

    fn document(
        &self,
        organization: OrganizationId,
        version: i32,
    ) -> BoxFuture<'_, Result<Option<String>, store::Error>> {
        let found = schemas::get(self, organization, version);
        found
            .map(|found| Ok(found?.map(|found| found.document)))
            .boxed()
    }
}

/// Every organization's schema, compiled once per version.
///
/// Concurrent look-ups for one organization are one. When it holds as many organizations as it
/// may, it forgets those that were not asked for lately, or else all.
pub struct SchemaCache {
    records: Arc<dyn SchemaRecords>,
    folders: Mutex<HashMap<OrganizationId, Arc<Folder>>>,
}

/// One organization's schemas.
#[derive(Debug, Default)]
struct Folder {
    kept: Mutex<Kept>,
    /// Held while something is looked up.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    active: Option<Arc<Schema>>,
    /// Since when `active` is known: from before it was looked up.
    since: Option<Instant>,
    older: HashMap<i32, Arc<Schema>>,
}

impl fmt::Debug for SchemaCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaCache").finish_non_exhaustive()
    }
}

impl SchemaCache {
    /// An empty cache.
    pub fn new(records: Arc<dyn SchemaRecords>) -> Self {
        Self {
            records,
            folders: Mutex::default(),
        }
    }

    /// The organization's schema, active within the last 4 s.
    ///
    /// # Errors
    /// `schema_missing` when none has been pushed; what the store answers when it fails.
    pub async fn current(&self, organization: &OrganizationId) -> Result<Arc<Schema>, Refusal> {
        self.active(organization, Kept::is_fresh).await
    }

    /// What `check` makes of a request under the organization's schema, and that schema.
    ///
    /// A refusal is not believed as long as a newer schema may have been pushed through another
    /// node: then it looks, and checks again if there is one.
    ///
    /// # Errors
    /// The refusal of `check` under the newest schema; as [`Self::current`].
    pub async fn checked<T>(
        &self,
        organization: &OrganizationId,
        check: impl Fn(&Schema) -> Result<T, Refusal>,
    ) -> Result<(Arc<Schema>, T), Refusal> {
        let schema = self.current(organization).await?;
        let refusal = match check(&schema) {
            Ok(passed) => return Ok((schema, passed)),
            Err(refusal) => refusal,
        };
        let newest = self.refresh(organization, schema.version + 1).await?;
        if newest.version == schema.version {
            return Err(refusal);
        }
        check(&newest).map(|passed| (newest, passed))
    }

    /// As [`Self::current`], but `None` when none has been pushed.
    pub async fn latest(
        &self,
        organization: &OrganizationId,
    ) -> Result<Option<Arc<Schema>>, Refusal> {
        match self.current(organization).await {
            Err(refusal) if refusal.reason == MISSING => Ok(None),
            found => found.map(Some),
        }
    }

    /// The organization's schema, when the ledger has shown that this version or a newer one is
    /// active.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub async fn refresh(
        &self,
        organization: &OrganizationId,
        at_least_version: i32,
    ) -> Result<Arc<Schema>, Refusal> {
        let version = |kept: &Kept| kept.active.as_ref().map_or(0, |schema| schema.version);
        self.active(organization, |kept, _| version(kept) >= at_least_version)
            .await
    }

    /// A version, active or not.
    ///
    /// # Errors
    /// `schema_not_found`; what the store answers when it fails.
    pub async fn of_version(
        &self,
        organization: &OrganizationId,
        version: i32,
    ) -> Result<Arc<Schema>, Refusal> {
        let folder = self.folder(organization);
        if let Some(schema) = folder.kept().version(version) {
            return Ok(schema);
        }
        let _turn = folder.turn.lock().await;
        if let Some(schema) = folder.kept().version(version) {
            return Ok(schema);
        }
        let document = self.records.document(organization.clone(), version).await?;
        let document = document.ok_or_else(|| {
            let message = format!("the schema has no version {version}");
            Refusal::new(Class::NotFound, "schema_not_found", message)
        })?;
        let schema = compiled(organization, version, document).await?;
        let mut kept = folder.kept();
        if kept.older.len() >= MAX_OLDER {
            kept.older.clear();
        }
        kept.older.insert(version, Arc::clone(&schema));
        Ok(schema)
    }

    /// The active schema as it is kept if that is good enough, or else as it is looked up.
    async fn active(
        &self,
        organization: &OrganizationId,
        good_enough: impl Fn(&Kept, Instant) -> bool,
    ) -> Result<Arc<Schema>, Refusal> {
        let folder = self.folder(organization);
        let ready = || {
            let kept = folder.kept();
            kept.active
                .as_ref()
                .filter(|_| good_enough(&kept, Instant::now()))
                .map(Arc::clone)
        };
        if let Some(schema) = ready() {
            return Ok(schema);
        }
        let begun = Instant::now();
        let _turn = folder.turn.lock().await;
        // Whoever was looking meanwhile began after we did: what was found is as new as can be.
        let shared = || {
            let kept = folder.kept();
            kept.active.clone().filter(|_| kept.since > Some(begun))
        };
        if let Some(schema) = ready().or_else(shared) {
            return Ok(schema);
        }
        let since = Instant::now();
        let held = folder.kept().active.clone();
        let known = held.as_ref().map_or(0, |schema| schema.version);
        let found = Box::pin(self.records.active(organization.clone(), known)).await?;
        let schema = match (held, found) {
            (Some(held), Some(found)) if found.version == known => held,
            (
                _,
                Some(ActiveSchema {
                    version,
                    document: Some(document),
                }),
            ) => Box::pin(compiled(organization, version, document)).await?,
            _ => return Err(missing()),
        };
        let mut kept = folder.kept();
        kept.active = Some(Arc::clone(&schema));
        kept.since = Some(since);
        Ok(schema)
    }

    fn folder(&self, organization: &OrganizationId) -> Arc<Folder> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folders.get(organization) {
            return Arc::clone(folder);
        }
        if folders.len() >= MAX_ORGANIZATIONS {
            let now = Instant::now();
            folders.retain(|_, folder| folder.kept().is_fresh(now));
        }
        if folders.len() >= MAX_ORGANIZATIONS {
            folders.clear();
        }
        Arc::clone(folders.entry(organization.clone()).or_default())
    }
}

impl Folder {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_fresh(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now < since + BELIEF)
    }

    fn version(&self, version: i32) -> Option<Arc<Schema>> {
        let active = self
            .active
            .as_ref()
            .filter(|schema| schema.version == version);
        active.or_else(|| self.older.get(&version)).map(Arc::clone)
    }
}

/// Compiles beside the runtime's threads: a large document takes long.
async fn compiled(
    organization: &OrganizationId,
    version: i32,
    document: String,
) -> Result<Arc<Schema>, Refusal> {
    let compile = move || Schema::compile(version, document.as_bytes());
    match tokio::task::spawn_blocking(compile).await {
        Ok(Ok(schema)) => Ok(Arc::new(schema)),
        Ok(Err(refusal)) => {
            tracing::error!(
                organization.id = %organization,
                schema.version = version,
                error = refusal.message,
                "a schema that was accepted no longer compiles"
            );
            Err(Refusal::internal())
        }
        Err(_) => Err(Refusal::internal()),
    }
}

/// The reason of the refusal when an organization has no schema yet.
const MISSING: &str = "schema_missing";

fn missing() -> Refusal {
    Refusal::new(
        Class::Precondition,
        MISSING,
        "no schema has been pushed yet",
    )
}

#[cfg(test)]
mod tests;
