//! How fast the coordinator is, beside what one would otherwise use: both on this machine, in turn,
//! with everything that is acknowledged on disk.
//!
//! Every figure is a ratio. What makes the load, Postgres and the endpoints run on the same cores, and
//! count against us; nothing is prepared in a way that a real client would not get.

pub mod allocations;
mod bare;
mod broadcast;
mod endpoint;
mod fill;
mod followers;
mod ground;
mod load;
mod pairs;
mod pgbench;
mod plot;
mod report;
mod scenarios;
mod service;
mod usage;
mod wire;
mod workload;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;

use self::fill::History;
use self::ground::Ground;
use self::report::{Outcome, heading};

/// Measures the coordinator against what one would otherwise use, in turn, on this machine.
///
/// Takes less than an hour. The exit code is 0 when everything was measured, whatever it came to.
#[derive(Parser)]
#[command(name = "cargo speed", bin_name = "cargo speed")]
struct Arguments {
    /// Says one line of JSON for each scenario, and nothing else on standard output.
    #[arg(long)]
    json: bool,

    /// Measures this scenario; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// Small sizes, one pair each, less than five minutes: shows that it works, not how fast it is.
    #[arg(long)]
    quick: bool,

    /// Draws a chart of each scenario into this folder.
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,

    /// Says which scenarios there are.
    #[arg(long)]
    list: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    pairs: u32,
    /// Of one measurement.
    length: Duration,
    /// Of one that only looks for the best number of callers.
    probe: Duration,
    /// Rows that exist before.
    keys: u64,
    organizations: u32,
    past: History,
    backlog: u64,
    idle_sources: u64,
    /// After which Postgres has counted what it did.
    late: Duration,
}

const FULL: Size = Size {
    pairs: 5,
    length: Duration::from_secs(6),
    probe: Duration::from_secs(3),
    keys: 1_000_000,
    organizations: 64,
    past: History {
        rows: 5_000_000,
        deltas: 5_000_000,
        commits: 1_000_000,
        attempts: 1_000_000,
    },
    backlog: 1_000_000,
    idle_sources: 10_000,
    late: Duration::from_millis(10_500),
};

const QUICK: Size = Size {
    pairs: 1,
    length: Duration::from_secs(1),
    probe: Duration::from_secs(1),
    keys: 10_000,
    organizations: 16,
    past: History {
        rows: 50_000,
        deltas: 50_000,
        commits: 10_000,
        attempts: 10_000,
    },
    backlog: 10_000,
    idle_sources: 500,
    late: Duration::from_millis(1_100),
};

/// Says what came of a scenario, as soon as it is known.
#[derive(Debug)]
struct Report {
    json: bool,
    only: Vec<String>,
    plot: Option<PathBuf>,
}

impl Report {
    /// Whether a scenario is to be measured.
    fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == scenario)
    }

    fn add(&self, outcome: &Outcome) -> anyhow::Result<()> {
        if !self.wants(outcome.scenario) {
            return Ok(());
        }
        if self.json {
            say(&outcome.json().to_string());
        } else {
            say(&outcome.text());
            let again = wire::turned_away();
            if again > 0 {
                say(&format!(
                    "                 {again} calls were turned away and sent again"
                ));
            }
        }
        if let Some(folder) = &self.plot {
            plot::write(folder, outcome)?;
        }
        Ok(())
    }

    /// For people alone.
    fn remark(&self, line: &str) {
        if !self.json {
            say(line);
        }
    }
}

/// Measures what the command line asks for.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: a load that needs more would take from what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = Box::pin(run(arguments)) => outcome,
                () = crate::process::interrupted() => Err(anyhow::anyhow!("interrupted")),
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads what cannot be written.
            drop(writeln!(std::io::stderr(), "speed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let names: Vec<_> = scenarios::names().collect();
    if arguments.list {
        for name in names {
            say(name);
        }
        return Ok(());
    }
    for only in &arguments.only {
        ensure!(
            names.contains(&only.as_str()),
            "there is no scenario {only}; there are {}",
            names.join(", ")
        );
    }
    let size = if arguments.quick { QUICK } else { FULL };
    let report = Report {
        json: arguments.json,
        only: arguments.only,
        plot: arguments.plot,
    };
    let ground = Ground::prepare().await?;
    let settings = ground.checked().await?;
    report.remark(&format!("{}\nPostgres: {settings}", machine()));
    report.remark(&heading());
    scenarios::run(&ground, size, &report).await
}

/// What it runs on, for a person.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores, load {load} before")
}

fn say(line: &str) {
    // The exit code tells the outcome to whoever has closed standard output.
    drop(writeln!(std::io::stdout(), "{line}"));
}
