//! `source`: what an operator does when a source fails.

mod show;

use std::time::SystemTime;

use backends::data_source::clock::{Clock, SystemClock};
use clap::{Args, Subcommand};
use proto::v1;
use proto::v1::resolve_commit_request::Resolution;

use super::connection::{Server, every_page};
use super::output::Output;
use super::sources::{name, page_size};
use super::{receipt, status};
use crate::duration;
use crate::failure::Failure;

/// What is done to a source's commits by hand.
#[derive(Debug, Subcommand)]
pub(super) enum Operated {
    /// Commits that are not settled, in order.
    Pending(PendingArgs),
    /// Make the next attempt of commits now; dead ones re-enter at the end.
    #[command(after_help = "Example: coordinator source retry crm order-17 order-18")]
    Retry {
        /// The source.
        id: String,
        /// The commits.
        #[arg(required = true, value_name = "CLIENT_TX_ID")]
        commits: Vec<String>,
    },
    /// Retry every commit that is dead or failing, in order, as fast as the source's answers allow.
    #[command(after_help = "Example: coordinator source recover crm --since 6h")]
    Recover {
        /// The source.
        id: String,
        /// Only those whose last attempt failed since: a span before now, `90m`, or a time, RFC 3339.
        #[arg(long, value_parser = since, value_name = "SPAN|TIME")]
        since: Option<prost_types::Timestamp>,
    },
    /// Settle a commit by hand, as applied or as rejected.
    #[command(after_help = RESOLVE_EXAMPLES)]
    Resolve(ResolveArgs),
    /// Give commits up: they are rejected as `discarded`.
    Discard {
        /// The source.
        id: String,
        /// The commits.
        #[arg(required = true, value_name = "CLIENT_TX_ID")]
        commits: Vec<String>,
        /// Why, for their receipts.
        #[arg(long, default_value = "")]
        reason: String,
        /// Although an earlier attempt may still be applied.
        #[arg(long)]
        force: bool,
    },
    /// Take commits and deliver none.
    Pause {
        /// The source.
        id: String,
        /// Why, for people.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Deliver again what a paused source kept.
    Resume {
        /// The source.
        id: String,
    },
    /// What operators did, newest first.
    Actions {
        /// The source; it may be gone.
        id: String,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

const RESOLVE_EXAMPLES: &str = "\
Examples:
  coordinator source resolve crm order-17 --applied '{\"id\":\"17\",\"total\":9.50}'
  coordinator source resolve crm order-17 --rejected --code sold_out --message 'sold out'";

/// `coordinator source pending …`
#[derive(Args, Debug)]
pub(super) struct PendingArgs {
    /// The source.
    id: String,
    /// Only those that have not failed yet.
    #[arg(long, group = "which")]
    waiting: bool,
    /// Only those that failed and are tried again.
    #[arg(long, group = "which")]
    failing: bool,
    /// Only those whose attempts are exhausted.
    #[arg(long, group = "which")]
    dead: bool,
    /// Only this one, with what it waits for.
    #[arg(long, value_name = "CLIENT_TX_ID", default_value = "")]
    commit: String,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// `coordinator source resolve …`
#[derive(Args, Debug)]
pub(super) struct ResolveArgs {
    /// The source.
    id: String,
    /// The commit.
    #[arg(value_name = "CLIENT_TX_ID")]
    commit: String,
    /// It was applied: the row of each operation as the endpoint holds it, JSON; empty for a DELETE.
    #[arg(long, num_args = 1.., value_name = "ROW", group = "outcome")]
    applied: Vec<String>,
    /// It was not applied, and shall not be.
    #[arg(long, group = "outcome", required_unless_present = "applied")]
    rejected: bool,
    /// The receipt's code.
    #[arg(long, default_value = "", requires = "rejected")]
    code: String,
    /// For a person.
    #[arg(long, default_value = "", requires = "rejected")]
    message: String,
    /// Reject although an earlier attempt may still be applied.
    #[arg(long, requires = "rejected")]
    force: bool,
}

/// A time, or a span before now.
fn since(text: &str) -> Result<prost_types::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let span = duration::parse(text).map_err(|_| "is neither a span of time nor RFC 3339")?;
    let now = SystemClock.now();
    let then = now.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(then.into())
}

/// Runs one of them.
pub(super) async fn run(
    server: &Server,
    command: &Operated,
    actor: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    let actor = actor.to_owned();
    let mut sources = server.data_sources();
    match command {
        Operated::Pending(args) => pending(server, args, output).await,
        Operated::Actions { id, limit } => actions(server, id, *limit, output).await,
        Operated::Resolve(args) => resolve(server, args, actor, output).await,
        Operated::Retry { id, commits } => {
            let request = v1::RetryCommitsRequest {
                name: name(id),
                client_tx_ids: commits.clone(),
                actor,
            };
            let answer = sources.retry_commits(server.request(request)).await?;
            show::retried(commits.len(), &answer.into_inner(), output)
        }
        Operated::Recover { id, since } => {
            let request = v1::RecoverCommitsRequest {
                name: name(id),
                since: *since,
                actor,
            };
            let answer = sources.recover_commits(server.request(request)).await?;
            show::count("recovered", answer.into_inner().recovered_count, output)
        }
        Operated::Discard {
            id,
            commits,
            reason,
            force,
        } => {
            let request = v1::DiscardCommitsRequest {
                name: name(id),
                client_tx_ids: commits.clone(),
                reason: reason.clone(),
                force: *force,
                actor,
            };
            sources.discard_commits(server.request(request)).await?;
            let count = i64::try_from(commits.len()).unwrap_or(i64::MAX);
            show::count("discarded", count, output)
        }
        Operated::Pause { id, reason } => {
            let request = v1::PauseDataSourceRequest {
                name: name(id),
                reason: reason.clone(),
                actor,
            };
            let paused = sources.pause(server.request(request)).await?;
            status::source(&paused.into_inner(), output)
        }
        Operated::Resume { id } => {
            let name = name(id);
            let request = v1::ResumeDataSourceRequest { name, actor };
            let resumed = sources.resume(server.request(request)).await?;
            status::source(&resumed.into_inner(), output)
        }
    }
}

async fn resolve(
    server: &Server,
    args: &ResolveArgs,
    actor: String,
    output: &mut Output,
) -> Result<(), Failure> {
    let resolution = if args.rejected {
        Resolution::Rejected(v1::ResolvedRejected {
            code: args.code.clone(),
            message: args.message.clone(),
        })
    } else {
        let rows = args.applied.iter().map(|row| row.clone().into());
        Resolution::Applied(v1::ResolvedApplied {
            rows_json: rows.collect(),
        })
    };
    let request = v1::ResolveCommitRequest {
        name: name(&args.id),
        client_tx_id: args.commit.clone(),
        resolution: Some(resolution),
        force: args.force,
        actor,
    };
    let mut sources = server.data_sources();
    let answer = sources.resolve_commit(server.request(request)).await?;
    receipt::describe(&answer.into_inner(), output)
}

async fn pending(server: &Server, args: &PendingArgs, output: &mut Output) -> Result<(), Failure> {
    let filter = match (args.waiting, args.failing, args.dead) {
        (true, ..) => v1::PendingFilter::Waiting,
        (_, true, _) => v1::PendingFilter::Failing,
        (.., true) => v1::PendingFilter::Dead,
        _ => v1::PendingFilter::Unspecified,
    };
    let mut sources = server.data_sources();
    let mut left = args.limit;
    let all = every_page(async |page_token| {
        let request = v1::ListPendingRequest {
            name: name(&args.id),
            page_size: page_size(left),
            page_token,
            filter: filter.into(),
            client_tx_id: args.commit.clone(),
        };
        let page = sources
            .list_pending(server.request(request))
            .await?
            .into_inner();
        left = left.saturating_sub(page.commits.len());
        Ok((page.commits, token(left, page.next_page_token)))
    });
    show::pending(&all.await?, output)
}

async fn actions(
    server: &Server,
    id: &str,
    limit: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut sources = server.data_sources();
    let mut left = limit;
    let all = every_page(async |page_token| {
        let request = v1::ListActionsRequest {
            name: name(id),
            page_size: page_size(left),
            page_token,
        };
        let page = sources
            .list_actions(server.request(request))
            .await?
            .into_inner();
        left = left.saturating_sub(page.actions.len());
        Ok((page.actions, token(left, page.next_page_token)))
    });
    show::actions(&all.await?, output)
}

/// The next page's token, while anything is left to ask for.
fn token(left: usize, next: String) -> String {
    if left == 0 { String::new() } else { next }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn since_is_a_span_before_now_or_a_time() {
        let time = since("2026-08-01T12:00:00Z").unwrap();
        assert_eq!(time.seconds, 1_785_585_600);
        let hour = Duration::from_hours(1);
        let ago = SystemTime::try_from(since("1h").unwrap()).unwrap();
        let passed = SystemClock.now().duration_since(ago);
        assert!((hour..2 * hour).contains(&passed.unwrap()));
        assert!(since("yesterday").is_err());
    }
}
