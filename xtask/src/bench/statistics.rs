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
    /// Between these the median lies with a confidence of 95 %; none of fewer than six measurements.
    #[serde(default)]
    pub(super) interval: Option<[f64; 2]>,
}

impl Summary {
    /// Of at least one measurement; of none it is not a number.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |percent| percentile(&values, percent);
        Self {
            count: values.len(),
            median: at(50),
            lower_quartile: at(25),
            upper_quartile: at(75),
            p99: at(99),
            interval: interval(&values),
        }
    }

    /// The median and its interval, in words.
    pub(super) fn with_interval(&self, digits: usize) -> String {
        let median = format!("{:.digits$}", self.median);
        match self.interval {
            Some([low, high]) => format!("{median} ({low:.digits$} .. {high:.digits$})"),
            None => median,
        }
    }
}

/// The confidence of an interval is at least one minus this.
const ERROR: f64 = 0.05;

/// Of sorted values, the two between which the median of what they are samples of lies. Each sample is above it or below
/// with the same chance, whatever the distribution, so that the number below it is that of heads among as many tosses of a
/// coin: the interval of the sign test. Unlike a bootstrap it needs no random numbers, and promises not too much of few.
fn interval(sorted: &[f64]) -> Option<[f64; 2]> {
    let count = sorted.len();
    let tosses = f64::from(u32::try_from(count).ok()?);
    // The chance of no head at all, and then of one more head each, in logarithms: half to the power of thousands is 0.
    let mut logarithm = tosses * 0.5_f64.ln();
    let (mut below, mut outside) = (0.0, 0_usize);
    for heads in 0..count / 2 {
        below += logarithm.exp();
        if 2.0 * below > ERROR {
            break;
        }
        outside = heads + 1;
        let heads = f64::from(u32::try_from(heads).ok()?);
        logarithm += ((tosses - heads) / (heads + 1.0)).ln();
    }
    let lowest = outside.checked_sub(1)?;
    Some([*sorted.get(lowest)?, *sorted.get(count - 1 - lowest)?])
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
    fn the_interval_of_the_median_is_that_of_the_tables_of_the_sign_test() {
        // Ranks from below and above, at 95 %.
        for (count, rank) in [(6_u32, 1), (9, 2), (20, 6), (21, 6), (50, 18), (100, 40)] {
            let values: Vec<_> = (1..=count).map(f64::from).collect();
            let found = Summary::of(&values).interval.unwrap();
            let expected = [f64::from(rank), f64::from(count + 1 - rank)];
            assert!(found.iter().zip(expected).all(|(found, expected)| equal(*found, expected)), "{count}: {found:?}");
        }
        assert!(Summary::of(&[1.0; 5]).interval.is_none(), "of five all are above with a chance of 1 in 16");
    }

    #[test]
    fn the_interval_holds_the_median_in_19_of_20_runs_however_skewed_the_noise_is() {
        let mut rng = fastrand::Rng::with_seed(1);
        // What disturbs makes slower, and now and then much slower; the median of this is 1 + ln(2).
        let mut disturbed = || 1.0 - (1.0 - rng.f64()).ln();
        let holds = |values: &[f64]| {
            let [low, high] = Summary::of(values).interval.unwrap();
            (low..=high).contains(&(1.0 + std::f64::consts::LN_2))
        };
        let runs = 2_000;
        let held = (0..runs).filter(|_| holds(&std::array::from_fn::<f64, 21, _>(|_| disturbed()))).count();
        assert!(held * 20 >= runs * 19, "{held} of {runs}");
    }

    #[test]
    fn the_interval_of_thousands_is_narrow_and_no_overflow() {
        let values: Vec<_> = (1..=5_000).map(f64::from).collect();
        let [low, high] = Summary::of(&values).interval.unwrap();
        assert!(low > 2_400.0 && high < 2_600.0, "{low} .. {high}");
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
