//! `log`: what an operator does to logs, on the database itself.

use clap::{Args, Subcommand};

use super::output::Output;
use crate::config::{Database, Secret};
use crate::domain::OrganizationId;
use crate::failure::Failure;
use crate::store::Store;

/// `coordinator log …`
#[derive(Args, Debug)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// After the database was restored to an earlier state: let no subscriber go on as if nothing
    /// had happened.
    ///
    /// Cursors that were given out before are refused as `cursor_diverged` from then on, and streams
    /// end with a reset: what they had seen may be no part of the log any more. Best run before the
    /// nodes serve again.
    NewEpoch {
        /// The Postgres that was restored.
        #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
        database_url: Secret,
        /// Only this organization's log; every log when absent.
        #[arg(long, value_name = "ID")]
        organization: Option<String>,
    },
}

/// Runs `log`.
pub(super) async fn run(args: &LogArgs, output: &mut Output) -> Result<(), Failure> {
    let LogCommand::NewEpoch {
        database_url,
        organization,
    } = &args.command;
    let options = Database::parse_url(database_url.expose())
        .map_err(|problem| Failure::config(format!("--database-url (DATABASE_URL): {problem}")))?;
    let store = Store::open(options, 1, 1);
    let organization = organization.as_deref().map(OrganizationId::new);
    let changed = store.new_log_epoch(organization.as_ref()).await;
    store.close().await;
    let changed = changed.map_err(|error| Failure::unavailable(error.to_string()))?;
    if changed == 0 && organization.is_some() {
        let message = "there is no such organization";
        return Err(Failure::refused(message).because("organization_not_found"));
    }
    output.line(&format!("{changed} logs have a new epoch"))
}
