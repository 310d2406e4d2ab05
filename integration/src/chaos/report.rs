//! What a run came to: the table to publish, the verdict, and a chart.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use super::nemesis::brings_about;
use super::world::World;
use crate::history::{self, Fault, History, Rule};

const SECOND: u64 = 1_000_000_000;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 240.0;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    histories: Vec<History>,
    violations: Vec<Fault>,
    harm: Vec<(u64, &'static str)>,
    takeovers: Vec<f64>,
    resets: u64,
}

impl Report {
    /// Judges the histories.
    pub(super) fn of(world: &World, histories: Vec<History>, seed: u64) -> Self {
        Self {
            seed,
            violations: histories.iter().flat_map(History::faults).collect(),
            histories,
            harm: world.faults(),
            takeovers: world.takeovers(),
            resets: world.resets(),
        }
    }

    /// Whether no promise was broken.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }

    /// The invariants that were violated.
    pub fn violated(&self) -> Vec<Rule> {
        let mut rules: Vec<_> = self.violations.iter().map(|it| it.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// How many commits clients sent.
    pub fn writes(&self) -> usize {
        self.histories.iter().map(|it| it.writes.len()).sum()
    }

    /// How many faults the dice brought, besides those that schedules bring about.
    pub fn harm(&self) -> usize {
        let diced = self.harm.iter().filter(|(_, kind)| !brings_about(kind));
        diced.count()
    }

    /// The histories as JSON, and a chart.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        let file = fs::File::create(folder.join("history.json"))?;
        serde_json::to_writer(std::io::BufWriter::new(file), &self.histories)?;
        fs::write(folder.join("chaos.svg"), self.chart())?;
        Ok(())
    }

    /// When commits were acknowledged, in order.
    fn acknowledged(&self) -> Vec<u64> {
        let writes = self.histories.iter().flat_map(|it| &it.writes);
        let mut moments: Vec<_> = writes.filter_map(|it| it.acknowledged).collect();
        moments.sort_unstable();
        moments
    }

    /// How many seconds after each fault of these kinds somebody was told that a commit is taken.
    #[expect(clippy::cast_precision_loss, reason = "it is shown with two digits")]
    fn back_after(&self, kinds: &[&str]) -> Vec<f64> {
        let moments = self.acknowledged();
        let faults = self.harm.iter().filter(|(_, kind)| kinds.contains(kind));
        let next = |at: u64| moments[moments.partition_point(|it| *it <= at)..].first();
        let spans = faults.filter_map(|(at, _)| next(*at).map(|next| next - at));
        spans.map(|it| it as f64 / SECOND as f64).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a chart is drawn in pixels")]
    fn chart(&self) -> String {
        let moments = self.acknowledged();
        let last = moments.last().copied().unwrap_or(1).max(1);
        let mut seconds: BTreeMap<u64, u64> = BTreeMap::new();
        for moment in &moments {
            *seconds.entry(moment / SECOND).or_default() += 1;
        }
        let most = seconds.values().max().copied().unwrap_or(1);
        let x = |moment: u64| moment as f64 / (last + SECOND) as f64 * WIDTH;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"8\" y=\"16\">commits acknowledged each second, {most} at most; \
             faults in red; seed {}</text>\n",
            self.seed
        );
        for (second, count) in &seconds {
            let tall = *count as f64 / most as f64 * (HEIGHT - 40.0);
            let (left, wide) = (x(second * SECOND), (x(SECOND) - 1.0).max(1.0));
            let line = format!(
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{tall:.1}\" \
                 fill=\"#1f6feb\"/>",
                HEIGHT - tall
            );
            writeln!(svg, "{line}").expect("a String takes every write");
        }
        for (at, kind) in &self.harm {
            let left = x(*at);
            let line = format!(
                "<line x1=\"{left:.1}\" x2=\"{left:.1}\" y1=\"24\" y2=\"{HEIGHT}\" \
                 stroke=\"#cf222e\" stroke-width=\"1.5\"><title>{kind}</title></line>"
            );
            writeln!(svg, "{line}").expect("a String takes every write");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = || self.histories.iter().flat_map(|it| &it.writes);
        let count = |of: fn(&History) -> usize| self.histories.iter().map(of).sum::<usize>();
        let acknowledged = writes().filter(|it| it.acknowledged.is_some()).count();
        let refused = writes().filter(|it| it.refused.is_some()).count();
        let rejected = writes().filter(|it| it.answers.first().is_some_and(|it| !it.confirmed));
        let mut line = |name: &str, value: String| writeln!(f, "{name:<28}{value}");
        line("seed", self.seed.to_string())?;
        line("writes invoked", writes().count().to_string())?;
        line("  acknowledged", acknowledged.to_string())?;
        line("  of these, rejected", rejected.count().to_string())?;
        line("  refused or unheard of", refused.to_string())?;
        let unknown = self.histories.iter().map(|it| it.unknown).sum::<u64>();
        line("  unknown after a call", unknown.to_string())?;
        let given_up = |it: &&history::Write| it.acknowledged.is_none() && it.refused.is_none();
        let given_up = writes().filter(given_up).count();
        line("  of these, until the end", given_up.to_string())?;
        line(
            "requests at endpoints",
            count(|it| it.arrivals.len()).to_string(),
        )?;
        line("  executions", count(|it| it.executions.len()).to_string())?;
        line(
            "changes made outside",
            count(|it| it.events.len()).to_string(),
        )?;
        line(
            "positions of the logs",
            count(|it| it.log.len()).to_string(),
        )?;
        line("changes seen by readers", {
            let readers = self.histories.iter().flat_map(|it| &it.readers);
            readers
                .map(|it| it.changes.len())
                .sum::<usize>()
                .to_string()
        })?;
        line("  told to begin anew", self.resets.to_string())?;
        let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
        for (_, kind) in &self.harm {
            *kinds.entry(kind).or_default() += 1;
        }
        line("faults", self.harm.len().to_string())?;
        for (kind, times) in kinds {
            line(&format!("  {kind}"), times.to_string())?;
        }
        line("last renewal to takeover", spans(self.takeovers.clone()))?;
        let back = self.back_after(&["Postgres stopped", "backend killed"]);
        line("Postgres fault to next ack", spans(back))?;
        line("violations", self.violations.len().to_string())?;
        for rule in self.violated() {
            let times = self.violations.iter().filter(|it| it.rule == rule).count();
            line(&format!("  of {rule}"), times.to_string())?;
        }
        for violation in self.violations.iter().take(20) {
            writeln!(f, "{violation}")?;
        }
        match self.violations.first() {
            None => write!(f, "chaos: ok, {} writes, 0 violations", self.writes()),
            Some(first) => write!(f, "chaos: VIOLATED {first}"),
        }
    }
}

/// Half of them, nearly all, and all are within so many seconds.
fn spans(mut spans: Vec<f64>) -> String {
    spans.sort_by(f64::total_cmp);
    let Some(most) = spans.last() else {
        return "none".to_owned();
    };
    let at = |share: usize| spans[(spans.len() - 1) * share / 100];
    let (p50, p90, times) = (at(50), at(90), spans.len());
    format!("p50 {p50:.2} s, p90 {p90:.2} s, most {most:.2} s ({times} times)")
}
