//! What came of a scenario, for people and for programs.

use serde_json::{Value, json};

use super::pairs::{Pairs, Spread};

/// What a scenario is to reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Our figure by the other, at least this; better, that.
    AtLeast(f64, f64),
    /// At most this; better, that.
    AtMost(f64, f64),
}

impl Target {
    fn must(self) -> f64 {
        match self {
            Self::AtLeast(must, _) | Self::AtMost(must, _) => must,
        }
    }

    fn aim(self) -> f64 {
        match self {
            Self::AtLeast(_, aim) | Self::AtMost(_, aim) => aim,
        }
    }

    fn met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(must, _) => ratio >= must,
            Self::AtMost(must, _) => ratio <= must,
        }
    }

    fn sign(self) -> char {
        match self {
            Self::AtLeast(..) => '≥',
            Self::AtMost(..) => '≤',
        }
    }
}

/// A line of the report.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) scenario: &'static str,
    /// What both figures count.
    pub(super) unit: &'static str,
    pub(super) target: Target,
    pub(super) pairs: Pairs,
    /// What else is worth knowing, for a person.
    pub(super) notes: Vec<String>,
}

impl Outcome {
    pub(super) fn ok(&self) -> bool {
        self.target.met(self.pairs.ratio().median)
    }

    /// For programs: one line.
    pub(super) fn json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "ours": rounded(self.pairs.ours().median),
            "against": rounded(self.pairs.against().median),
            "ratio": rounded(self.pairs.ratio().median),
            "must": self.target.must(),
            "aim": self.target.aim(),
            "ok": self.ok(),
        })
    }

    /// For people: as wide as [`heading`], and a line for each note.
    pub(super) fn text(&self) -> String {
        let ratio = self.pairs.ratio();
        let (must, aim) = (self.target.must(), self.target.aim());
        let sign = self.target.sign();
        let verdict = if self.ok() { "ok" } else { "MISSED" };
        let mut text = format!(
            "{:<16} {:>12} {:>12} {:>22}   {sign} {must:<5} {aim:<5} {verdict}",
            self.scenario,
            figure(self.pairs.ours(), self.unit),
            figure(self.pairs.against(), self.unit),
            format!(
                "{:.2}× ({:.2} to {:.2})",
                ratio.median, ratio.least, ratio.most
            ),
        );
        for note in &self.notes {
            text.push_str("\n                 ");
            text.push_str(note);
        }
        text
    }
}

/// Over the lines for people.
pub(super) fn heading() -> String {
    format!(
        "{:<16} {:>12} {:>12} {:>22}   must    aim",
        "scenario", "ours", "against", "ratio (least to most)"
    )
}

fn figure(spread: Spread, unit: &str) -> String {
    let median = spread.median;
    if median >= 100.0 {
        format!("{median:.0} {unit}")
    } else {
        format!("{median:.3} {unit}")
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(target: Target) -> Outcome {
        let mut pairs = Pairs::default();
        pairs.push(120.0, 100.0);
        Outcome {
            scenario: "managed_unary",
            unit: "/s",
            target,
            pairs,
            notes: vec!["two statements".to_owned()],
        }
    }

    #[test]
    fn programs_get_the_medians_and_the_verdict() {
        let line = outcome(Target::AtLeast(1.0, 1.4)).json().to_string();
        let expected = concat!(
            r#"{"aim":1.4,"against":100.0,"must":1.0,"ok":true,"#,
            r#""ours":120.0,"ratio":1.2,"scenario":"managed_unary"}"#
        );
        let (line, expected): (Value, Value) = (
            serde_json::from_str(&line).unwrap(),
            serde_json::from_str(expected).unwrap(),
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn a_bound_holds_in_its_direction() {
        assert!(!outcome(Target::AtMost(1.1, 1.0)).ok());
        assert!(outcome(Target::AtMost(1.5, 1.0)).ok());
        assert!(!outcome(Target::AtLeast(1.4, 2.0)).ok());
        let text = outcome(Target::AtLeast(1.4, 2.0)).text();
        assert!(
            text.contains("MISSED") && text.contains("two statements"),
            "{text}"
        );
    }
}
