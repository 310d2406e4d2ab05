//! One round of reading, deciding and appending.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Transaction};
use tokio::time::Instant;
use uuid::Uuid;

use super::append::{Statement, Written};
use super::clock::DatabaseClock;
use super::{Error, Store, in_time, read, told_apart};
use crate::decide::{State, Touched};
use crate::domain::OrganizationId;

/// How a round keeps its organization's state from moving between its read and its append.
#[derive(Debug)]
pub enum Round {
    /// Not at all: the append writes nothing if the head has moved. One connection serves both, since
    /// each release to the pool costs round trips of its own.
    Optimistic(PgPool, PoolConnection<Postgres>),
    /// By the head's lock, for an organization that many nodes write at once. The only place where
    /// a lock spans a round trip.
    Locked(PgPool, Box<Transaction<'static, Postgres>>),
}

/// What an append that was written tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    /// The database's clock.
    pub(crate) clock: DatabaseClock,
    /// The epoch of the log that it was written to.
    pub(crate) log_epoch: Uuid,
}

/// A connection on which statements serve several organizations, one after the other.
#[derive(Debug)]
pub(crate) struct Several(PgPool, PoolConnection<Postgres>);

impl Several {
    /// What batches of commits on managed rows touch, as one snapshot shows it; `None` for an
    /// organization that must be read alone.
    pub(crate) async fn read(
        &mut self,
        wanted: &[(&OrganizationId, &Touched)],
    ) -> Result<Vec<Option<State>>, Error> {
        let Self(pool, connection) = self;
        let read = in_time(read::read_several(connection, wanted)).await;
        read.map_err(|error| told_apart(pool, error))
    }

    /// Which of several batches were written, as places, and to which epochs of their logs: of another, the head has moved since its
    /// state was read, or is held, and nothing happened.
    pub(crate) async fn append(
        &mut self,
        statement: Statement,
    ) -> Result<Vec<(usize, Uuid)>, Error> {
        let Self(pool, connection) = self;
        let written = in_time(statement.run(&mut **connection)).await;
        let written = written.map_err(|error| told_apart(pool, error))?;
        let written = written.iter().map(|one| (one.place, one.log_epoch));
        Ok(written.collect())
    }
}

impl Store {
    /// A connection for several organizations.
    pub(crate) async fn several(&self) -> Result<Several, Error> {
        let apart = |error: sqlx::Error| told_apart(&self.ledger, error.into());
        let connection = self.ledger.acquire().await.map_err(apart)?;
        Ok(Several(self.ledger.clone(), connection))
    }

    /// A round that may find itself too late.
    pub async fn round(&self) -> Result<Round, Error> {
        let apart = |error: sqlx::Error| told_apart(&self.ledger, error.into());
        let connection = self.ledger.acquire().await.map_err(apart)?;
        Ok(Round::Optimistic(self.ledger.clone(), connection))
    }

    /// A round for work that is done ahead of its time; `None` when others need the connections.
    pub async fn spare_round(&self) -> Option<Round> {
        if !roomy(&self.ledger) {
            return None;
        }
        self.round().await.ok()
    }

    /// A round that waits for its turn and is not overtaken. Call it from a task that is not dropped.
    pub async fn locked_round(&self, organization: &OrganizationId) -> Result<Round, Error> {
        let apart = |error: sqlx::Error| told_apart(&self.ledger, error.into());
        in_time(async {
            let mut transaction = self.ledger.begin().await.map_err(apart)?;
            sqlx::query(include_str!("sql/lock_head.sql"))
                .bind(organization.as_str())
                .execute(&mut *transaction)
                .await?;
            Ok(Round::Locked(self.ledger.clone(), Box::new(transaction)))
        })
        .await
    }
}

/// Whether somebody who needs another connection finds one.
fn roomy(pool: &PgPool) -> bool {
    pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections()
}

impl Round {
    /// What the batch touches, as one snapshot shows it; `None` when the organization has no head.
    pub async fn read(
        &mut self,
        organization: &OrganizationId,
        touched: &Touched,
    ) -> Result<Option<State>, Error> {
        let (pool, read) = match self {
            Self::Optimistic(pool, connection) => {
                let found = in_time(read::read(connection, organization, touched)).await;
                (&*pool, found)
            }
            Self::Locked(pool, transaction) => {
                let found = in_time(read::read(transaction, organization, touched)).await;
                (&*pool, found)
            }
        };
        read.map_err(|error| told_apart(pool, error))
    }

    /// What is known once the append is written; `None` when the head has moved since the state
    /// was read that it rests on, and nothing happened. With it a round for the next batch, if
    /// nobody else needs its connection.
    pub(crate) async fn append(
        self,
        statement: Statement,
    ) -> Result<(Option<Appended>, Option<Self>), Error> {
        let asked = Instant::now();
        let heard = |written: Vec<Written>| {
            written.first().map(|written| Appended {
                clock: DatabaseClock::heard_since(asked, written.now),
                log_epoch: written.log_epoch,
            })
        };
        match self {
            Self::Optimistic(pool, mut connection) => {
                let written = in_time(statement.run(&mut *connection))
                    .await
                    .map_err(|error| told_apart(&pool, error))?;
                let next = roomy(&pool).then(|| Self::Optimistic(pool, connection));
                Ok((heard(written), next))
            }
            Self::Locked(_, mut transaction) => {
                let appending = async {
                    let written = statement.run(&mut **transaction).await?;
                    transaction.commit().await?;
                    Ok(heard(written))
                };
                Ok((in_time(appending).await?, None))
            }
        }
    }
}
