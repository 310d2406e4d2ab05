//! `source`: register Data Sources, change them, and see how they do.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::v1;

use super::conformance::{self, ConformanceArgs};
use super::connection::{Connection, Server, every_page};
use super::output::Output;
use super::status;
use crate::duration;
use crate::failure::Failure;

/// `coordinator source …`
#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: SourceCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    #[command(flatten)]
    Registered(Registered),
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
        #[command(flatten)]
        limits: Limits,
    },
    /// List the sources.
    List,
    /// Show one source.
    Show {
        /// Its id.
        id: String,
    },
    /// Change what the flags name.
    Update {
        /// Its id.
        id: String,
        /// The endpoint.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Take commits again and deliver what was kept.
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
    /// Commits that are not settled, in order.
    Pending {
        /// The source.
        id: String,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

/// What may be set on a source beside its URL.
#[derive(Args, Debug)]
pub(super) struct Limits {
    /// The longest that one request may take: 1s to 30s.
    #[arg(long, value_parser = duration::parse, value_name = "SPAN")]
    pub timeout: Option<Duration>,
    /// Commit requests in flight at most: 1 to 1024.
    #[arg(long, value_name = "N")]
    pub max_in_flight: Option<i32>,
    /// Pauses before the second attempt, the third, …: `5s,5m,30m`.
    #[arg(long, value_delimiter = ',', value_parser = duration::parse, value_name = "SPANS")]
    pub retry: Vec<Duration>,
}

/// Runs `source`.
pub(super) async fn run(args: &SourceArgs, output: &mut Output) -> Result<(), Failure> {
    match &args.command {
        SourceCommand::Registered(command) => {
            registered(&args.connection.as_caller().await?, command, output).await
        }
        SourceCommand::Conformance(checks) => {
            conformance::run(&args.connection, checks, output).await
        }
    }
}

async fn registered(
    server: &Server,
    command: &Registered,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut sources = server.data_sources();
    let source = match command {
        Registered::List => return list(server, output).await,
        Registered::Status { id } => return state(server, id, output).await,
        Registered::Attempts { id, commit, limit } => {
            return attempts(server, (id, commit), *limit, output).await;
        }
        Registered::Pending { id, limit } => return pending(server, id, *limit, output).await,
        Registered::Remove { id } => {
            let request = v1::DeleteDataSourceRequest { name: name(id) };
            sources.delete(server.request(request)).await?;
            return output.record(|| serde_json::json!({"id": id}), &[("removed", id.clone())]);
        }
        Registered::Add { id, url, limits } => {
            let (mut source, _) = settings(Some(url), limits)?;
            source.name = name(id);
            let request = v1::CreateDataSourceRequest {
                data_source_id: id.clone(),
                data_source: Some(source),
            };
            sources.create(server.request(request)).await?
        }
        Registered::Update { id, url, limits } => {
            let (mut source, paths) = settings(url.as_ref(), limits)?;
            if paths.is_empty() {
                return Err(Failure::input(
                    "nothing to change: give --url, --timeout, …",
                ));
            }
            source.name = name(id);
            let request = v1::UpdateDataSourceRequest {
                data_source: Some(source),
                update_mask: Some(prost_types::FieldMask { paths }),
            };
            sources.update(server.request(request)).await?
        }
        Registered::Show { id } => {
            let request = v1::GetDataSourceRequest { name: name(id) };
            sources.get(server.request(request)).await?
        }
        Registered::Enable { id } => {
            let request = v1::EnableDataSourceRequest { name: name(id) };
            sources.enable(server.request(request)).await?
        }
        Registered::Disable { id, reason } => {
            let request = v1::DisableDataSourceRequest {
                name: name(id),
                reason: reason.clone(),
            };
            sources.disable(server.request(request)).await?
        }
    };
    status::source(&source.into_inner(), output)
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

async fn pending(
    server: &Server,
    id: &str,
    limit: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut sources = server.data_sources();
    let mut left = limit;
    let all = every_page(async |page_token| {
        let request = v1::ListPendingRequest {
            name: name(id),
            page_size: page_size(left),
            page_token,
        };
        let page = sources
            .list_pending(server.request(request))
            .await?
            .into_inner();
        left = left.saturating_sub(page.commits.len());
        Ok((
            page.commits,
            if left == 0 {
                String::new()
            } else {
                page.next_page_token
            },
        ))
    });
    status::pending(&all.await?, output)
}

/// A source with what was given, and the paths that name it.
fn settings(
    url: Option<&String>,
    limits: &Limits,
) -> Result<(v1::DataSource, Vec<String>), Failure> {
    let mut source = v1::DataSource::default();
    let mut paths = Vec::new();
    if let Some(url) = url {
        source.url.clone_from(url);
        paths.push("url".to_owned());
    }
    if let Some(timeout) = limits.timeout {
        source.request_timeout = Some(proto_duration(timeout)?);
        paths.push("request_timeout".to_owned());
    }
    if let Some(max_in_flight) = limits.max_in_flight {
        source.max_in_flight = max_in_flight;
        paths.push("max_in_flight".to_owned());
    }
    if !limits.retry.is_empty() {
        let delays = limits.retry.iter().map(|delay| proto_duration(*delay));
        let delays = delays.collect::<Result<_, _>>()?;
        source.retry_policy = Some(v1::RetryPolicy { delays });
        paths.push("retry_policy".to_owned());
    }
    Ok((source, paths))
}

fn proto_duration(span: Duration) -> Result<prost_types::Duration, Failure> {
    span.try_into()
        .map_err(|_| Failure::input("the span of time is too long"))
}

fn name(id: &str) -> String {
    format!("dataSources/{id}")
}

fn page_size(left: usize) -> i32 {
    i32::try_from(left.clamp(1, 1_000)).expect("it was clamped")
}
