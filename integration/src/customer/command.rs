//! The app's command line.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::App;

/// A customer's app: one signed endpoint, `/ablo`, in front of a database of its own.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The app's own database.
    #[arg(long)]
    database_url: String,
    /// The organization's API key, which requests are signed with.
    #[arg(long, env = "ABLO_API_KEY", hide_env_values = true)]
    key: String,
}

/// Runs the app until it is told to stop; prints where it listens, as one line of JSON.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let served = Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve(arguments)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails too.
            drop(writeln!(std::io::stderr(), "customer-app: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let pool = PgPoolOptions::new()
        .max_connections(32)
        .connect(&arguments.database_url)
        .await
        .context("could not reach the database")?;
    let app = App::open(pool, &arguments.key)
        .await
        .context("could not make the tables")?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("could not listen on {}", arguments.listen))?;
    writeln!(
        std::io::stdout(),
        r#"{{"listen": "{}"}}"#,
        listener.local_addr()?
    )?;
    axum::serve(listener, app.router())
        .with_graceful_shutdown(async move {
            terminated.recv().await;
        })
        .await?;
    Ok(())
}
