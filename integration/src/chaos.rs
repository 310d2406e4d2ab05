//! Tries to break the promises: three real nodes over a real Postgres, under load, while everything
//! around them fails; then judges the history that came of it ([`crate::history`]).
//!
//! Between the nodes and everything else stand proxies that can hold, lose and cut off bytes
//! ([`proxy`]). Four endpoints play good, flaky, slow and hostile customers ([`actors`]), which also
//! change rows by themselves. Clients write ([`client`]), some through one stream ([`mod@line`]),
//! subscribers resume ([`subscriber`]), and a nemesis does harm under a seed ([`nemesis`]). In the last
//! fifth of a run nothing is harmed and everything must come to rest ([`rest`]). What was done and seen
//! is put together by [`gather`].

mod actors;
mod client;
mod gather;
mod line;
mod nemesis;
mod proxy;
mod report;
mod rest;
mod subscriber;
mod world;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

pub use self::report::Report;
use self::world::World;

/// Breaks nodes, Postgres, networks and endpoints under load, and checks that no promise broke.
///
/// The last line says `chaos: ok`, or which invariant was violated; then the exit code is 1. The
/// invariants C1 to C13 are those of `integration/src/history.rs`.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo chaos", bin_name = "cargo chaos")]
pub struct Arguments {
    /// How long clients write; in the last fifth nothing is harmed.
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(5..))]
    pub seconds: u64,

    /// Repeats a run, as far as the machine lets it; chosen at random when absent.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// How many commits clients begin a second, all together, at most.
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,

    /// Writes the history as JSON, the nodes' logs and a chart into this folder.
    #[arg(long, value_name = "DIR")]
    pub plot: Option<PathBuf>,

    /// Runs nodes that break a promise, to see that this is noticed.
    #[cfg(feature = "broken")]
    #[arg(long, hide = true, value_name = "CONTROL")]
    pub broken: Option<String>,
}

impl Arguments {
    /// What nodes have in their environment.
    #[cfg_attr(
        not(feature = "broken"),
        expect(clippy::unused_self, reason = "nothing is to be broken")
    )]
    fn environment(&self) -> Vec<(&'static str, String)> {
        #[cfg(feature = "broken")]
        if let Some(control) = &self.broken {
            return vec![(coordinator::broken::CONTROL, control.clone())];
        }
        Vec::new()
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            let executable = std::env::current_exe()?;
            let executable = executable.to_string_lossy();
            tokio::select! {
                outcome = Box::pin(run(&executable, &arguments)) => outcome,
                () = crate::process::interrupted() => Err(anyhow::anyhow!("interrupted")),
            }
        })
    });
    match outcome {
        Ok(report) => {
            // The exit code tells the outcome to whoever has closed standard output.
            drop(writeln!(std::io::stdout(), "{report}"));
            ExitCode::from(u8::from(!report.is_ok()))
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "chaos: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One run. The executable calls [`crate::process::role`] first of all.
///
/// # Errors
/// When it could not be set up.
pub async fn run(executable: &str, arguments: &Arguments) -> anyhow::Result<Report> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    drop(writeln!(std::io::stderr(), "chaos: seed {seed}"));
    let world = Arc::new(World::start(executable, arguments.environment(), seed).await?);
    let length = Duration::from_secs(arguments.seconds);
    let clients = client::start(&world, arguments.rate, seed);
    let subscribers = subscriber::start(&world, seed);
    let outside = actors::start_outside(&world, seed);
    nemesis::harm(&world, length * 4 / 5, seed).await;
    rest::calm(&world).await;
    tokio::time::sleep(length / 5).await;
    world.over.cancel();
    let mut writes = joined(clients).await;
    let events = joined(outside).await;
    let resident = world.resident().await;
    let stuck = rest::resolve(&world, &mut writes, &events).await;
    let readers = subscriber::finish(&world, subscribers).await;
    let histories = gather::histories(&world, writes, events, readers, (resident, stuck)).await?;
    let report = Report::of(&world, histories, seed);
    if let Some(folder) = &arguments.plot {
        report.write(folder)?;
        for (number, node) in world.nodes.iter().enumerate() {
            let log = folder.join(format!("node-{number}.log"));
            std::fs::write(log, node.lock().await.log())?;
        }
    }
    Ok(report)
}

/// What each of these tasks came to; a panic of one is one of all.
async fn joined<T: 'static>(tasks: JoinSet<T>) -> Vec<T> {
    tasks.join_all().await
}

/// The next message of a stream, or how it ended; nothing is said for too long when it hangs.
async fn next<T>(stream: &mut tonic::Streaming<T>) -> Option<T> {
    match tokio::time::timeout(Duration::from_secs(10), stream.next()).await {
        Ok(Some(Ok(message))) => Some(message),
        Ok(Some(Err(_)) | None) | Err(_) => None,
    }
}
