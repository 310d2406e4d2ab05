//! Reads what a commit came to.

use backends::operation::{Change, OperationKind};
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::read::stored_object;
use super::{Error, Store, detached};
use crate::domain::{CommitId, CommitState, Delta, OrganizationId, Receipt};

impl Store {
    /// The receipt of a commit, deltas and all; `None` when there is no such commit.
    pub async fn receipt(
        &self,
        organization: &OrganizationId,
        client_tx_id: &str,
    ) -> Result<Option<Receipt>, Error> {
        self.receipt_since(organization, client_tx_id, None).await
    }

    /// The same for less, if it is known when the commit was accepted.
    pub async fn receipt_since(
        &self,
        organization: &OrganizationId,
        client_tx_id: &str,
        accepted_at: Option<OffsetDateTime>,
    ) -> Result<Option<Receipt>, Error> {
        let (key, name) = (organization.clone(), client_tx_id.to_owned());
        let rows = detached(&self.ledger, |pool| async move {
            let receipt = sqlx::query(include_str!("sql/receipt.sql"));
            Ok(receipt
                .bind(key.as_str())
                .bind(name)
                .bind(accepted_at)
                .fetch_all(&pool)
                .await?)
        })
        .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let mut receipt = without_deltas(first, client_tx_id)?;
        let expected: Option<i64> = first.try_get("first_sync_id")?;
        for row in &rows {
            receipt.deltas.extend(delta(row)?);
        }
        receipt.changes_expired = expected.is_some() && receipt.deltas.is_empty();
        Ok(Some(receipt))
    }

    /// The version of the schema that a commit was admitted under; `None` when there is no such
    /// commit.
    pub async fn admitted_under(
        &self,
        organization: &OrganizationId,
        client_tx_id: &str,
    ) -> Result<Option<i32>, Error> {
        let (key, name) = (organization.clone(), client_tx_id.to_owned());
        detached(&self.ledger, |pool| async move {
            let version = sqlx::query_scalar(include_str!("sql/admitted_under.sql"));
            Ok(version
                .bind(key.as_str())
                .bind(name)
                .fetch_optional(&pool)
                .await?)
        })
        .await
    }

    /// Whether a commit is settled or dead: what a caller that waits needs to know.
    pub async fn settled(
        &self,
        organization: &OrganizationId,
        client_tx_id: &str,
    ) -> Result<bool, Error> {
        let (key, name) = (organization.clone(), client_tx_id.to_owned());
        let settled = detached(&self.ledger, |pool| async move {
            let settled = sqlx::query_scalar(include_str!("sql/settled.sql"));
            Ok(settled
                .bind(key.as_str())
                .bind(name)
                .fetch_optional(&pool)
                .await?)
        })
        .await?;
        Ok(settled.unwrap_or(false))
    }
}

fn without_deltas(row: &PgRow, client_tx_id: &str) -> Result<Receipt, Error> {
    let state: String = row.try_get("state")?;
    let error: (Option<String>, Option<String>) =
        (row.try_get("error_code")?, row.try_get("error_message")?);
    let assigned: Vec<i64> = row.try_get("assigned")?;
    Ok(Receipt {
        client_tx_id: client_tx_id.to_owned(),
        id: CommitId(row.try_get("commit_id")?),
        state: CommitState::parse(&state).ok_or_else(|| Error::Corrupt {
            table: "commits",
            column: "state",
            row: client_tx_id.to_owned(),
        })?,
        deltas: Vec::new(),
        changes_expired: false,
        error: error.0.zip(error.1),
        source: row.try_get("source_id")?,
        accepted_at: row.try_get("accepted_at")?,
        settled_at: row.try_get("settled_at")?,
        attempts: row.try_get("attempts")?,
        assigned: assigned
            .into_iter()
            .filter_map(|index| i16::try_from(index).ok())
            .collect(),
        dead: row.try_get("dead")?,
        reentered_at: row.try_get("reentered_at")?,
        feed_read_at: row.try_get("feed_read_at")?,
    })
}

fn delta(row: &PgRow) -> Result<Option<Delta>, Error> {
    let Some(sync_id) = row.try_get::<Option<i64>, _>("sync_id")? else {
        return Ok(None);
    };
    let corrupt = |column| Error::Corrupt {
        table: "deltas",
        column,
        row: sync_id.to_string(),
    };
    let kind: String = row.try_get("kind")?;
    let operation: Option<i16> = row.try_get("operation")?;
    let fields: Option<String> = row.try_get("row")?;
    let fields = match fields {
        Some(text) => Some(stored_object(&text).ok_or_else(|| corrupt("row"))?),
        None => None,
    };
    Ok(Some(Delta {
        sync_id,
        change: Change {
            operation: operation.and_then(|at| usize::try_from(at).ok()),
            kind: OperationKind::parse(&kind).ok_or_else(|| corrupt("kind"))?,
            model: row.try_get("model")?,
            id: row.try_get("row_id")?,
            row: fields,
            transaction_id: row.try_get("transaction_id")?,
        },
        stale: row.try_get("stale")?,
    }))
}
