//! Applies a commit once.

use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

use super::wire::{Commit, Operation, OperationKind};
use super::{Refusal, airports};

/// Applies a commit, or answers what it came to when it was applied before. A refusal leaves
/// nothing behind, not even in the ledger.
pub(super) async fn apply(pool: &PgPool, commit: &Commit) -> Result<Value, Refusal> {
    let mut transaction = pool.begin().await?;
    if !enter(&mut transaction, commit).await? {
        return replay(&mut transaction, commit).await;
    }
    let mut deltas = Vec::with_capacity(commit.operations.len());
    for operation in &commit.operations {
        deltas.push(perform(&mut transaction, operation).await?);
    }
    let answer = json!({"deltas": deltas});
    sqlx::query("UPDATE coordinator_commits SET answer = $2 WHERE client_tx_id = $1")
        .bind(&commit.client_tx_id)
        .bind(Json(&answer))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(answer)
}

/// Takes the commit's place in the ledger; says whether it was free. While another copy of the
/// commit is being applied, this waits for its end.
async fn enter(connection: &mut PgConnection, commit: &Commit) -> Result<bool, sqlx::Error> {
    let entered = sqlx::query(
        "INSERT INTO coordinator_commits (client_tx_id, intent_hash) VALUES ($1, $2)
         ON CONFLICT DO NOTHING",
    )
    .bind(&commit.client_tx_id)
    .bind(&commit.intent_hash)
    .execute(&mut *connection)
    .await?;
    // The outbox's trigger reads this; it lasts as long as the transaction.
    sqlx::query("SELECT set_config('coordinator.client_tx_id', $1, true)")
        .bind(&commit.client_tx_id)
        .execute(connection)
        .await?;
    Ok(entered.rows_affected() == 1)
}

async fn replay(connection: &mut PgConnection, commit: &Commit) -> Result<Value, Refusal> {
    let (intent_hash, Json(answer)): (String, Json<Value>) = sqlx::query_as(
        "SELECT intent_hash, answer FROM coordinator_commits WHERE client_tx_id = $1",
    )
    .bind(&commit.client_tx_id)
    .fetch_one(connection)
    .await?;
    if intent_hash != commit.intent_hash {
        return Err(Refusal::Final(
            StatusCode::CONFLICT,
            "idempotency_conflict",
            format!("{} was used for another intent", commit.client_tx_id),
        ));
    }
    Ok(answer)
}

async fn perform(connection: &mut PgConnection, operation: &Operation) -> Result<Value, Refusal> {
    airports::check_model(&operation.model)?;
    let id = &operation.id;
    let row = match operation.kind {
        OperationKind::Create => Some(airports::insert(connection, id, &operation.input).await?),
        OperationKind::Update => Some(airports::update(connection, id, &operation.input).await?),
        OperationKind::Archive => Some(airports::archive(connection, id, true).await?),
        OperationKind::Unarchive => Some(airports::archive(connection, id, false).await?),
        OperationKind::Delete => {
            airports::delete(connection, id).await?;
            None
        }
    };
    let mut delta = json!({
        "model": operation.model, "id": id, "type": operation.kind.as_str(),
    });
    if let Some(row) = row {
        delta["data"] = row;
    }
    if let Some(transaction_id) = &operation.transaction_id {
        delta["transactionId"] = transaction_id.as_str().into();
    }
    Ok(delta)
}
