//! A customer's app, to copy from: one signed endpoint in front of a database of its own.
//!
//! The order of things is what matters here. The signature is verified over the raw bytes before
//! anything is parsed, and before any transaction opens (`signature`). A commit, its place in the
//! ledger, its rows and its events are one transaction, so that it happens once however often it is
//! sent (`commit`). A refusal is an answer with a code; trouble is a bare 500, which is retried.

mod airports;
mod command;
mod commit;
mod events;
mod query;
mod signature;
#[cfg(test)]
mod tests;
mod wire;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use sqlx::PgPool;

pub use self::command::main;
use self::signature::Verifier;
use self::wire::Request;

/// The tables, their outbox trigger included; safe to run again.
const TABLES: &str = include_str!("customer/tables.sql");

/// More than the largest commit: 500 operations share one request.
const BODY_LIMIT: usize = 16 << 20;

/// The app's state.
#[derive(Clone, Debug)]
pub struct App {
    pool: PgPool,
    verifier: Verifier,
}

/// Why a request is not done.
#[derive(Debug)]
enum Refusal {
    /// It is wrong, and will be wrong again.
    Final(StatusCode, &'static str, String),
    /// The database failed; the same request may succeed later.
    Database(sqlx::Error),
}

impl App {
    /// An app on a database, whose tables are made unless they exist.
    ///
    /// The key is the organization's API key, as it is: `sk_…`.
    pub async fn open(pool: PgPool, key: &str) -> Result<Self, sqlx::Error> {
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        Ok(Self {
            pool,
            verifier: Verifier::new(key),
        })
    }

    /// The app's routes: the one that the Data Source's URL names.
    pub fn router(self) -> Router {
        Router::new()
            .route("/ablo", post(receive))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(self)
    }

    async fn answer(&self, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
        self.verifier.verify(headers, body)?;
        let request = serde_json::from_slice(body).map_err(|error| {
            let message = error.to_string();
            Refusal::Final(StatusCode::BAD_REQUEST, "source_commit_invalid", message)
        })?;
        match request {
            Request::Commit(commit) => commit::apply(&self.pool, &commit).await,
            Request::Load { model, id } => {
                airports::check_model(&model)?;
                let row = airports::load(&self.pool, &id).await?;
                Ok(json!({"row": row}))
            }
            Request::List { model, query } => {
                airports::check_model(&model)?;
                query::list(&self.pool, &query).await
            }
            Request::Events { cursor, limit } => {
                events::read(&self.pool, cursor.as_deref(), limit).await
            }
        }
    }
}

async fn receive(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let (status, answer) = match app.answer(&headers, &body).await {
        Ok(answer) => (StatusCode::OK, answer),
        Err(Refusal::Final(status, code, message)) => {
            (status, json!({"error": code, "message": message}))
        }
        Err(Refusal::Database(error)) => {
            tracing::error!("the database failed: {error}");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        answer.to_string(),
    )
        .into_response()
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}
