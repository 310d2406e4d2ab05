//! `source`: register Data Sources, change them, and see how they do.

mod limits;

use clap::{Args, Subcommand};
use proto::v1;

use super::conformance::{self, ConformanceArgs};
use super::connection::{Connection, Server, every_page};
use super::output::Output;
use super::{feed, operate, status, verification};
use crate::failure::Failure;

use self::limits::{Limits, settings};

/// `coordinator source …`
#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Who asks, for the record of actions.
    #[arg(
        long,
        global = true,
        env = "USER",
        default_value = "",
        value_name = "NAME"
    )]
    pub actor: String,
    #[command(subcommand)]
    pub command: SourceCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    #[command(flatten)]
    Registered(Registered),
    #[command(flatten)]
    Operated(operate::Operated),
    #[command(flatten)]
    Feed(FeedCommand),
    /// Check that an endpoint does what a Data Source must; asks no coordinator.
    #[command(after_help = conformance::EXAMPLE)]
    Conformance(ConformanceArgs),
}

/// What the coordinator does with its Data Sources.
#[derive(Debug, Subcommand)]
pub(super) enum Registered {
    /// Register a source; it is enabled at once.
    #[command(after_help = "Example: coordinator source add crm https://app.example/ablo")]
    Add {
        /// What a schema's backing names: 1 to 63 of a-z, 0-9, - and _.
        id: String,
        /// The endpoint of the customer's app.
        url: String,
        /// Verify the endpoint first, and register nothing unless every check passes.
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        limits: Limits,
    },
    /// Make signed round trips with the endpoint, and say what to mend; nothing is written there.
    #[command(after_help = verification::EXIT_CODE)]
    Verify {
        /// Its id.
        id: String,
    },
    /// List the sources.
    List,
    /// Show one source.
    Show {
        /// Its id.
        id: String,
    },
    /// Change what the flags name.
    #[command(group = limits::changes())]
    Update {
        /// Its id.
        id: String,
        /// The endpoint.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Take commits again and deliver what was kept; a paused source stays paused.
    Enable {
        /// Its id.
        id: String,
    },
    /// Refuse new commits; keep what is pending.
    Disable {
        /// Its id.
        id: String,
        /// Why, for people.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Forget a source that nothing needs.
    Remove {
        /// Its id.
        id: String,
    },
    /// How it does at this moment.
    Status {
        /// Its id.
        id: String,
    },
    /// Delivery attempts, newest first.
    Attempts {
        /// The source.
        id: String,
        /// Only of this commit.
        #[arg(long, value_name = "CLIENT_TX_ID", default_value = "")]
        commit: String,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
}

/// The feed of changes made outside.
#[derive(Debug, Subcommand)]
pub(super) enum FeedCommand {
    /// Take in changes made outside, from a file of JSON, one event a line.
    #[command(after_help = feed::EXAMPLE)]
    PushEvents {
        /// The source.
        id: String,
        /// The file; - for standard input.
        file: String,
    },
    /// Events that could not be taken in, newest first.
    Quarantine {
        /// The source.
        id: String,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Read the feed anew: after the endpoint had none, or refused our cursor.
    ResetFeed {
        /// The source.
        id: String,
        /// Where to begin; the feed's start when absent.
        #[arg(long, default_value = "")]
        cursor: String,
        /// Who asks, for the record.
        #[arg(long, default_value = "")]
        actor: String,
    },
}

/// Runs `source`.
pub(super) async fn run(args: &SourceArgs, output: &mut Output) -> Result<(), Failure> {
    match &args.command {
        SourceCommand::Registered(command) => {
            let server = args.connection.as_caller().await?;
            registered(&server, command, &args.actor, output).await
        }
        SourceCommand::Operated(command) => {
            let server = args.connection.as_caller().await?;
            operate::run(&server, command, &args.actor, output).await
        }
        SourceCommand::Feed(command) => {
            feed::run(&args.connection.as_caller().await?, command, output).await
        }
        SourceCommand::Conformance(checks) => {
            conformance::run(&args.connection, checks, output).await
        }
    }
}

async fn registered(
    server: &Server,
    command: &Registered,
    actor: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    let actor = actor.to_owned();
    let mut sources = server.data_sources();
    let source = match command {
        Registered::List => return list(server, output).await,
        Registered::Verify { id } => return verification::run(server, id, output).await,
        Registered::Status { id } => return state(server, id, output).await,
        Registered::Attempts { id, commit, limit } => {
            return attempts(server, (id, commit), *limit, output).await;
        }
        Registered::Remove { id } => return remove(server, id, actor, output).await,
        Registered::Add {
            id,
            url,
            verify,
            limits,
        } => {
            let mut request = registration((id, url), *verify, limits)?;
            request.actor = actor;
            sources.create(server.request(request)).await?
        }
        Registered::Update { id, url, limits } => {
            let mut request = change((id, url.as_ref()), limits)?;
            request.actor = actor;
            sources.update(server.request(request)).await?
        }
        Registered::Show { id } => {
            let request = v1::GetDataSourceRequest { name: name(id) };
            sources.get(server.request(request)).await?
        }
        Registered::Enable { id } => {
            let request = v1::EnableDataSourceRequest {
                name: name(id),
                actor,
            };
            sources.enable(server.request(request)).await?
        }
        Registered::Disable { id, reason } => {
            let request = v1::DisableDataSourceRequest {
                name: name(id),
                reason: reason.clone(),
                actor,
            };
            sources.disable(server.request(request)).await?
        }
    };
    status::source(&source.into_inner(), output)
}

async fn remove(
    server: &Server,
    id: &str,
    actor: String,
    output: &mut Output,
) -> Result<(), Failure> {
    let name = name(id);
    let request = v1::DeleteDataSourceRequest { name, actor };
    server
        .data_sources()
        .delete(server.request(request))
        .await?;
    output.record(
        || serde_json::json!({"id": id}),
        &[("removed", id.to_owned())],
    )
}

/// What `source add` asks for.
fn registration(
    (id, url): (&str, &String),
    verify: bool,
    limits: &Limits,
) -> Result<v1::CreateDataSourceRequest, Failure> {
    let (mut source, _) = settings(Some(url), limits)?;
    source.name = name(id);
    Ok(v1::CreateDataSourceRequest {
        data_source_id: id.to_owned(),
        data_source: Some(source),
        verify,
        ..v1::CreateDataSourceRequest::default()
    })
}

/// What `source update` asks for.
fn change(
    (id, url): (&str, Option<&String>),
    limits: &Limits,
) -> Result<v1::UpdateDataSourceRequest, Failure> {
    let (mut source, paths) = settings(url, limits)?;
    source.name = name(id);
    Ok(v1::UpdateDataSourceRequest {
        data_source: Some(source),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..v1::UpdateDataSourceRequest::default()
    })
}

async fn list(server: &Server, output: &mut Output) -> Result<(), Failure> {
    let mut sources = server.data_sources();
    let all = every_page(async |page_token| {
        let request = v1::ListDataSourcesRequest {
            page_size: 1_000,
            page_token,
        };
        let page = sources.list(server.request(request)).await?.into_inner();
        Ok((page.data_sources, page.next_page_token))
    });
    status::sources(&all.await?, output)
}

async fn state(server: &Server, id: &str, output: &mut Output) -> Result<(), Failure> {
    let request = v1::GetDataSourceStatusRequest { name: name(id) };
    let answer = server
        .data_sources()
        .get_status(server.request(request))
        .await?;
    status::status(&answer.into_inner(), output)
}

async fn attempts(
    server: &Server,
    (id, client_tx_id): (&str, &str),
    limit: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut sources = server.data_sources();
    let mut left = limit;
    let all = every_page(async |page_token| {
        let request = v1::ListAttemptsRequest {
            name: name(id),
            client_tx_id: client_tx_id.to_owned(),
            page_size: page_size(left),
            page_token,
        };
        let page = sources
            .list_attempts(server.request(request))
            .await?
            .into_inner();
        left = left.saturating_sub(page.attempts.len());
        Ok((
            page.attempts,
            if left == 0 {
                String::new()
            } else {
                page.next_page_token
            },
        ))
    });
    status::attempts(&all.await?, output)
}

pub(super) fn name(id: &str) -> String {
    format!("dataSources/{id}")
}

pub(super) fn page_size(left: usize) -> i32 {
    i32::try_from(left.clamp(1, 1_000)).expect("it was clamped")
}
