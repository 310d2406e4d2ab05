//! Two sides, measured in turn: numbers of a shared machine drift, their ratios less.

/// What one side measured at a time.
pub(super) type Figure = f64;

/// Middle and ends of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: Figure,
    pub(super) least: Figure,
    pub(super) most: Figure,
}

impl Spread {
    /// Of at least one figure.
    fn of(figures: impl IntoIterator<Item = Figure>) -> Self {
        let mut figures: Vec<_> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        let (least, most) = (figures[0], figures[figures.len() - 1]);
        Self {
            median,
            least,
            most,
        }
    }
}

/// What both sides measured, pair by pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    /// Ours, then what we are compared with.
    pub(super) measured: Vec<(Figure, Figure)>,
}

impl Pairs {
    /// One more pair.
    pub(super) fn push(&mut self, ours: Figure, against: Figure) {
        self.measured.push((ours, against));
    }

    pub(super) fn ours(&self) -> Spread {
        Spread::of(self.measured.iter().map(|pair| pair.0))
    }

    pub(super) fn against(&self) -> Spread {
        Spread::of(self.measured.iter().map(|pair| pair.1))
    }

    /// Of each pair, not of the medians.
    pub(super) fn ratio(&self) -> Spread {
        let ratio = |(ours, against): &(Figure, Figure)| ours / against.max(f64::MIN_POSITIVE);
        Spread::of(self.measured.iter().map(ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_middle_of_the_pairs_ratios() {
        let mut pairs = Pairs::default();
        for (ours, against) in [(10.0, 10.0), (30.0, 10.0), (40.0, 20.0)] {
            pairs.push(ours, against);
        }
        let ratio = pairs.ratio();
        assert_eq!((ratio.median, ratio.least, ratio.most), (2.0, 1.0, 3.0));
        let medians = (pairs.ours().median, pairs.against().median);
        assert_eq!(medians, (30.0, 10.0));
    }

    #[test]
    fn an_even_number_of_figures_has_its_middle_between_two() {
        let spread = Spread::of([1.0, 4.0, 2.0, 9.0]);
        let (median, ends) = (spread.median, (spread.least, spread.most));
        assert_eq!((median, ends), (3.0, (1.0, 9.0)));
    }
}
