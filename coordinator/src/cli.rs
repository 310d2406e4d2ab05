//! The command line: one binary that serves, migrates, runs the embedded default, and asks a running
//! coordinator for things.

mod commit;
mod condition;
mod conformance;
mod connection;
mod feed;
mod log;
mod operate;
mod organizations;
mod output;
mod reads;
mod receipt;
mod reseal;
mod schemas;
mod sources;
mod status;
#[cfg(test)]
mod tests;
mod verification;
mod watch;

use std::num::NonZero;
use std::process::ExitCode;
use std::{env, io, thread};

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use self::connection::Connection;
pub(crate) use self::connection::Server;
pub(crate) use self::output::Output;
use crate::config::{Secret, Settings};
use crate::failure::Failure;
use crate::{app, dev};

const EXIT_CODES: &str = "\
Exit codes:
   0  done; also a commit that is durable and still queued
   1  refused by the coordinator, or rejected by the commit's backing
   2  the command line is wrong
  64  the configuration is wrong
  65  a file is not what it should be
  69  the coordinator or its database cannot be reached
  70  a fault of the program
  75  stopped before everything was finished; it is taken up at the next start";

/// A write coordinator: durable, ordered, exactly-once writes to its own Postgres or to customers'
/// databases behind signed HTTPS endpoints.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, against the Postgres of `DATABASE_URL`.
    Serve(Box<Settings>),
    /// Serve with everything included: a private Postgres, an organization and a key, in one folder.
    Dev(dev::DevArgs),
    /// Bring the database's schema up to date.
    Migrate {
        /// The Postgres to migrate.
        #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
        database_url: Secret,
    },
    /// Seal every API key anew under the first master key, so that the others can be given up.
    #[command(after_help = reseal::EXAMPLE)]
    Reseal(reseal::ResealArgs),
    /// Tend the logs after the database was restored (operator).
    Log(log::LogArgs),
    #[command(flatten)]
    Ask(Ask),
}

/// What a running coordinator is asked.
#[derive(Debug, Subcommand)]
enum Ask {
    /// Add and list organizations (operator).
    Org(organizations::OrgArgs),
    /// Make, list and revoke API keys (operator).
    Key(organizations::KeyArgs),
    /// Push and read the organization's schema.
    Schema(schemas::SchemaArgs),
    /// Register Data Sources, see how they do, and mend what fails.
    Source(sources::SourceArgs),
    /// Apply operations, together and once.
    Commit(Box<commit::CommitArgs>),
    /// Read one row.
    Load(reads::LoadArgs),
    /// Read rows that meet conditions.
    List(Box<reads::ListArgs>),
    /// What became of a commit.
    Receipt(reads::ReceiptArgs),
    /// See changes as they happen.
    Watch(watch::WatchArgs),
}

/// The process, from its arguments to its exit code.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::internal(format!("no runtime: {error}")), false),
    };
    runtime.block_on(Box::pin(obey(command)))
}

/// One thread fewer than there are cores, at least one, unless tokio's own variable says how many. On
/// two cores a second thread costs more, by waking and stealing, than it does: a write waits for
/// Postgres most of the time, which needs the other core.
fn runtime() -> io::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    if env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        runtime.worker_threads(cores.saturating_sub(1).max(1));
    }
    runtime.enable_all().build()
}

async fn obey(command: Command) -> ExitCode {
    match command {
        Command::Serve(settings) => ended(app::serve(&settings).await),
        Command::Dev(args) => ended(dev::dev(&args).await),
        Command::Migrate { database_url } => {
            let mut output = Output::standard(false);
            finished(migrate(&database_url, &mut output).await, false)
        }
        Command::Reseal(args) => {
            let mut output = Output::standard(false);
            finished(reseal::run(&args, &mut output).await, false)
        }
        Command::Log(args) => {
            let mut output = Output::standard(false);
            finished(log::run(&args, &mut output).await, false)
        }
        Command::Ask(ask) => {
            let connection = ask.connection();
            let json = connection.json;
            let mut output = Output::standard(json);
            finished(Box::pin(ask.run(&mut output)).await, json)
        }
    }
}

impl Ask {
    fn connection(&self) -> &Connection {
        match self {
            Self::Org(args) => &args.connection,
            Self::Key(args) => &args.connection,
            Self::Schema(args) => &args.connection,
            Self::Source(args) => &args.connection,
            Self::Commit(args) => &args.connection,
            Self::Load(args) => &args.connection,
            Self::List(args) => &args.connection,
            Self::Receipt(args) => &args.connection,
            Self::Watch(args) => &args.connection,
        }
    }

    async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let server = async || match self {
            Self::Org(_) | Self::Key(_) => self.connection().as_operator().await,
            _ => self.connection().as_caller().await,
        };
        match self {
            Self::Org(args) => organizations::org(&server().await?, &args.command, output).await,
            Self::Key(args) => organizations::key(&server().await?, &args.command, output).await,
            Self::Schema(args) => schemas::run(&server().await?, &args.command, output).await,
            Self::Source(args) => sources::run(args, output).await,
            Self::Watch(args) => watch::run(args, output).await,
            Self::Commit(args) => commit::run(&server().await?, args, output).await,
            Self::Load(args) => reads::load(&server().await?, args, output).await,
            Self::List(args) => reads::list(&server().await?, args, output).await,
            Self::Receipt(args) => reads::receipt(&server().await?, args, output).await,
        }
    }
}

async fn migrate(url: &Secret, output: &mut Output) -> Result<(), Failure> {
    let options = crate::config::Database::parse_url(url.expose())
        .map_err(|problem| Failure::config(format!("--database-url (DATABASE_URL): {problem}")))?;
    let applied = crate::migrate::migrate(&options)
        .await
        .map_err(Failure::from_schema)?;
    if applied.is_empty() {
        return output.line("nothing to apply: the schema is up to date");
    }
    for migration in applied {
        output.line(&format!(
            "applied {:04} {}",
            migration.version, migration.description
        ))?;
    }
    Ok(())
}

fn finished(outcome: Result<(), Failure>, json: bool) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, json),
    }
}

fn ended(outcome: Result<crate::lifecycle::Ending, Failure>) -> ExitCode {
    match outcome {
        Ok(ending) => ExitCode::from(ending.exit_code()),
        Err(failure) => failed(&failure, false),
    }
}

fn failed(failure: &Failure, json: bool) -> ExitCode {
    output::complain(failure, json);
    ExitCode::from(failure.exit_code())
}
