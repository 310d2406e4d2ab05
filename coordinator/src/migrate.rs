//! The database's schema: brought up to date by `coordinator migrate`, checked by `serve`.
//!
//! Old code runs beside a newer schema while a deployment rolls, so a migration only ever adds; a
//! node refuses to start on a schema that lacks one of its own migrations.

pub mod partitions;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions, Connection};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Postgres says this of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";

/// Why the schema could not be brought up to date, or is not fit to run on.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database did not answer.
    #[error("the database did not answer")]
    Unavailable(#[source] sqlx::Error),
    /// Migrations of ours have not been applied.
    #[error("the database lacks migrations {0:?}: run `coordinator migrate`")]
    Behind(Vec<i64>),
    /// An applied migration is not the one we know by its number.
    #[error("migration {0} was applied in another version than this program's")]
    Differs(i64),
    /// A migration could not be applied. Those before it stand.
    #[error("a migration failed")]
    Failed(#[from] MigrateError),
}

/// A migration that was applied just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub version: i64,
    /// What it does.
    pub description: String,
}

/// Applies what is missing, one node at a time, and says what that was. Migrations of a newer
/// program are left alone.
pub async fn migrate(options: &PgConnectOptions) -> Result<Vec<Applied>, SchemaError> {
    let mut connection = options.connect().await.map_err(SchemaError::Unavailable)?;
    let before = versions(&applied(&mut connection).await?);
    let mut migrator = Migrator {
        ..Migrator::DEFAULT
    };
    migrator.migrations.clone_from(&MIGRATIONS.migrations);
    migrator.set_ignore_missing(true);
    migrator.run_direct(None, &mut connection, false).await?;
    connection.close().await.map_err(SchemaError::Unavailable)?;
    let new = MIGRATIONS
        .iter()
        .filter(|migration| !before.contains(&migration.version));
    let described = new.map(|migration| Applied {
        version: migration.version,
        description: migration.description.to_string(),
    });
    Ok(described.collect())
}

/// Whether this program can run on the database as it is. A newer schema is accepted and logged.
pub async fn check(pool: &PgPool) -> Result<(), SchemaError> {
    let mut connection = pool.acquire().await.map_err(SchemaError::Unavailable)?;
    judge(&applied(&mut connection).await?)
}

fn judge(applied: &[AppliedMigration]) -> Result<(), SchemaError> {
    let ours = MIGRATIONS.iter();
    let missing: Vec<i64> = ours
        .map(|migration| migration.version)
        .filter(|version| !versions(applied).contains(version))
        .collect();
    if !missing.is_empty() {
        return Err(SchemaError::Behind(missing));
    }
    for migration in applied {
        match MIGRATIONS
            .iter()
            .find(|ours| ours.version == migration.version)
        {
            Some(ours) if ours.checksum == migration.checksum => {}
            Some(ours) => return Err(SchemaError::Differs(ours.version)),
            None => tracing::info!(
                version = migration.version,
                "the database has migration {}, which this program does not know",
                migration.version
            ),
        }
    }
    Ok(())
}

fn versions(applied: &[AppliedMigration]) -> BTreeSet<i64> {
    applied.iter().map(|migration| migration.version).collect()
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, SchemaError> {
    let refused = match connection
        .list_applied_migrations(&MIGRATIONS.table_name)
        .await
    {
        Ok(applied) => return Ok(applied),
        Err(MigrateError::Execute(error)) => error,
        Err(error) => return Err(SchemaError::Failed(error)),
    };
    match refused
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
    {
        Some(code) if code == UNDEFINED_TABLE => Ok(Vec::new()),
        _ => Err(SchemaError::Unavailable(refused)),
    }
}
