//! Medians and spreads.

use serde::{Deserialize, Serialize};

/// What is said of many measurements of one thing.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Summary {
    /// How many there are.
    pub(super) count: usize,
    /// The middle one.
    pub(super) median: f64,
    /// A quarter of them is below.
    pub(super) lower_quartile: f64,
    /// A quarter of them is above.
    pub(super) upper_quartile: f64,
    /// One in a hundred is above.
    pub(super) p99: f64,
}

impl Summary {
    /// Of at least one measurement; of none it is not a number.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |percent| percentile(&values, percent);
        Self { count: values.len(), median: at(50), lower_quartile: at(25), upper_quartile: at(75), p99: at(99) }
    }
}

/// Of sorted values, the one that `percent` in a hundred do not exceed; of none not a number.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    // Nearest rank: the smallest that at least so many do not exceed.
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// One thing measured beside another, round by round.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Compared {
    /// What is looked at.
    pub(super) subject: Summary,
    /// What it is compared with.
    pub(super) baseline: Summary,
    /// Subject by baseline of the same round.
    pub(super) ratio: Summary,
}

impl Compared {
    /// Of measurements in pairs.
    pub(super) fn of(subject: &[f64], baseline: &[f64]) -> Self {
        let ratios: Vec<_> = subject.iter().zip(baseline).map(|(subject, baseline)| subject / baseline).collect();
        Self { subject: Summary::of(subject), baseline: Summary::of(baseline), ratio: Summary::of(&ratios) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(one: f64, other: f64) -> bool {
        one.total_cmp(&other).is_eq()
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let summary = Summary::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        let quartiles = [summary.lower_quartile, summary.median, summary.upper_quartile];
        assert!(
            quartiles.iter().zip([2.0, 3.0, 4.0]).all(|(found, expected)| equal(*found, expected)),
            "{quartiles:?}"
        );
        assert!(Summary::of(&[]).median.is_nan());
    }

    #[test]
    fn one_in_a_hundred_is_above_the_p99() {
        let hundred: Vec<_> = (1..=100).map(f64::from).collect();
        assert!(equal(Summary::of(&hundred).p99, 99.0));
        assert!(equal(Summary::of(&[7.0]).p99, 7.0));
    }

    #[test]
    fn a_ratio_is_of_one_round_so_that_a_slow_round_of_both_changes_nothing() {
        let compared = Compared::of(&[1.0, 100.0, 2.0], &[2.0, 200.0, 4.0]);
        assert!(equal(compared.ratio.median, 0.5) && equal(compared.ratio.p99, 0.5));
    }
}
