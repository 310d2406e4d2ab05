//! The demo: two real data sets go through the coordinator, one into its own Postgres, one into the
//! database of a customer's app that is killed half-way; then every row is compared.

mod front_end;
mod outage;
mod plan;
mod rows;
mod verdict;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use self::front_end::FrontEnd;
use self::outage::CustomerApp;
use self::plan::{Model, Plan};
use self::verdict::Verdict;
use crate::node::{Node, temporary_folder};
use crate::process::interrupted;

/// Rows of one model that are on their way at a time.
const IN_FLIGHT: usize = 128;

/// Loads two real data sets through a coordinator of its own, kills the customer's app half-way,
/// and compares every row in both databases with what it should be.
#[derive(Parser)]
struct Arguments {
    /// Keeps databases and logs in this folder; a temporary one is used, and removed after a
    /// success, otherwise.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Runs the demo. The last line on standard output says what came of it.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Runtime::new().map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = run(arguments) => outcome,
                () = interrupted() => Err(anyhow::anyhow!("interrupted")),
            }
        })
    });
    let (line, code) = match outcome {
        Ok(verdict) if verdict.is_good() => (format!("ok, {verdict}"), ExitCode::SUCCESS),
        Ok(verdict) => {
            say(&verdict.differences());
            (format!("failed, {verdict}"), ExitCode::FAILURE)
        }
        Err(error) => (format!("failed: {error:#}"), ExitCode::FAILURE),
    };
    say(&format!("demo: {line}"));
    code
}

async fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let folder = match &arguments.folder {
        Some(folder) => fs::create_dir_all(folder).map(|()| folder.clone()),
        None => temporary_folder("coordinator-demo-").map(TempDir::keep),
    }?;
    let verdict = Box::pin(demonstrate(&folder))
        .await
        .with_context(|| format!("databases and logs are in {}", folder.display()))?;
    if verdict.is_good() && arguments.folder.is_none() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(verdict)
}

async fn demonstrate(folder: &Path) -> anyhow::Result<Verdict> {
    let started = Instant::now();
    say("starting the coordinator, with a Postgres of its own …");
    let node = Node::start(std::env::current_exe()?, folder)?;
    say("starting the customer's app, with another …");
    let cluster = customer_cluster(folder).await?;
    let mut app = CustomerApp::start(folder, &cluster, node.key()?)?;
    let front_end = FrontEnd::new(node.connect().await?);
    front_end.register(&app.url()?).await?;

    let plan = Plan::new()?;
    say(&plan.to_string());
    let bars = MultiProgress::new();
    let managed = bar(&bars, &plan.managed);
    let source = bar(&bars, &plan.source);
    let half = plan.source.commit_count() / 2;
    let outage = app.crash_when(|| source.position() >= half, &front_end);
    tokio::try_join!(
        load(&front_end, &plan.managed, &managed),
        load(&front_end, &plan.source, &source),
        async {
            say(&outage.await?);
            Ok(())
        },
    )?;
    repeat_settled(&front_end, &plan).await?;
    say(&format!(
        "sent and settled in {:.1} s; comparing …",
        started.elapsed().as_secs_f64()
    ));
    let verdict = verdict::compare(
        &plan,
        &node.database(),
        &cluster.connect_options("customer"),
    )
    .await?;
    app.stop()?;
    node.stop().await?;
    cluster.stop().await?;
    Ok(verdict)
}

/// Sends a model's commits: those of one row in turn, rows beside each other.
async fn load(front_end: &FrontEnd, model: &Model, bar: &ProgressBar) -> anyhow::Result<()> {
    stream::iter(&model.histories)
        .map(anyhow::Ok)
        .try_for_each_concurrent(IN_FLIGHT, |history| async move {
            for commit in &history.commits {
                front_end.settle(commit, history.twice).await?;
                bar.inc(1);
            }
            Ok(())
        })
        .await?;
    bar.finish();
    Ok(())
}

/// Sends some commits again, long after they were confirmed.
async fn repeat_settled(front_end: &FrontEnd, plan: &Plan) -> anyhow::Result<()> {
    let again = plan
        .histories()
        .filter(|history| history.again)
        .flat_map(|it| &it.commits);
    stream::iter(again)
        .map(anyhow::Ok)
        .try_for_each_concurrent(IN_FLIGHT, |commit| front_end.settle(commit, false))
        .await
}

async fn customer_cluster(folder: &Path) -> anyhow::Result<Cluster> {
    let options = ClusterOptions {
        folder: folder.join("customer"),
        binaries: None,
        durability: Durability::Kept,
        settings: Vec::new(),
    };
    let cluster = Cluster::start(options).await?;
    cluster.create_database("customer").await?;
    Ok(cluster)
}

fn bar(bars: &MultiProgress, model: &Model) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>16} {wide_bar} {pos}/{len} commits")
        .expect("the template is well formed");
    let bar = bars.add(ProgressBar::new(model.commit_count()).with_style(style));
    bar.set_prefix(model.name);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn say(line: &str) {
    // The exit code tells the outcome to whoever has closed standard output.
    drop(writeln!(std::io::stdout(), "{line}"));
}
