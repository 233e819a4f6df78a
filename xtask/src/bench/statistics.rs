//! Medians and spreads.

use serde::Serialize;

/// What is said of many measurements of one thing.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Summary {
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
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at =
            |percent: usize| values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN);
        Self { median: at(50), lower_quartile: at(25), upper_quartile: at(75), p99: at(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let summary = Summary::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        let quartiles = [summary.lower_quartile, summary.median, summary.upper_quartile];
        assert!(quartiles.iter().zip([2.0, 3.0, 4.0]).all(|(found, expected)| found.total_cmp(&expected).is_eq()));
        assert!(Summary::of(Vec::new()).median.is_nan());
    }
}
