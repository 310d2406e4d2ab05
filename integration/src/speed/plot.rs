//! A chart of one scenario: both sides, pair by pair.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::report::Outcome;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 56.0;

/// Writes `SCENARIO.svg` into the folder, which is made if it is missing.
pub(super) fn write(folder: &Path, outcome: &Outcome) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let file = folder.join(format!("{}.svg", outcome.scenario));
    fs::write(file, svg(outcome))
}

#[expect(clippy::cast_precision_loss, reason = "there are few pairs")]
fn svg(outcome: &Outcome) -> String {
    let pairs = &outcome.pairs.measured;
    let top = outcome.pairs.ours().most.max(outcome.pairs.against().most) * 1.1;
    let top = top.max(f64::MIN_POSITIVE);
    let (width, height) = (WIDTH - 2.0 * MARGIN, HEIGHT - 2.0 * MARGIN);
    let slot = width / pairs.len() as f64;
    let bar = slot / 3.0;
    let ratio = outcome.pairs.ratio();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"16\">{}: {:.2} times ({:.2} to {:.2})</text>\n\
         <text x=\"{MARGIN}\" y=\"44\"><tspan fill=\"#1f6feb\">ours</tspan>, \
         <tspan fill=\"#8b949e\">against</tspan>, in {}</text>\n",
        outcome.scenario, ratio.median, ratio.least, ratio.most, outcome.unit,
    );
    for (index, (ours, against)) in pairs.iter().enumerate() {
        let left = MARGIN + slot * index as f64 + bar / 2.0;
        for (side, (figure, colour)) in [(*ours, "#1f6feb"), (*against, "#8b949e")]
            .into_iter()
            .enumerate()
        {
            let tall = figure / top * height;
            let (x, y) = (left + bar * side as f64, HEIGHT - MARGIN - tall);
            let title = format!("<title>{figure:.3}</title>");
            line(
                &mut svg,
                &format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{tall:.1}\" \
                     fill=\"{colour}\">{title}</rect>"
                ),
            );
        }
    }
    for part in [0.0, 0.5, 1.0] {
        let (figure, y) = (top * part, HEIGHT - MARGIN - height * part);
        let right = WIDTH - MARGIN;
        line(
            &mut svg,
            &format!(
                "<line x1=\"{MARGIN}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#d0d7de\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{figure:.4}</text>",
                MARGIN - 4.0,
                y + 4.0
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, text: &str) {
    writeln!(svg, "{text}").expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Pairs;
    use super::super::report::Target;
    use super::*;

    #[test]
    fn a_chart_has_two_bars_for_each_pair() {
        let mut pairs = Pairs::default();
        pairs.push(1.0, 2.0);
        pairs.push(2.0, 3.0);
        let chart = svg(&Outcome {
            scenario: "bulk",
            unit: "/s",
            target: Target::AtLeast(1.0, 2.0),
            pairs,
            notes: Vec::new(),
        });
        assert_eq!(chart.matches("<title>").count(), 4);
        assert!(chart.starts_with("<svg") && chart.ends_with("</svg>\n"));
    }
}
