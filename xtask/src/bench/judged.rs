//! Targets, and what became of them.

use std::fmt;

use comfy_table::{Table, TableStyle};

use super::statistics::Summary;

/// A target of one benchmark, in words.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// Its name, such as `D1`.
    pub(super) id: &'static str,
    pub(super) what: String,
    pub(super) baseline: String,
    pub(super) found: String,
    pub(super) target: String,
    /// How far it is from what no plugin can exceed on this machine, where that was measured.
    pub(super) ceiling: String,
    pub(super) verdict: Verdict,
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// What would be better still is reached, too.
    Ambitious,
    Met,
    /// By this part of the target; none where the target is 0.
    Missed(Option<f64>),
    /// The target lies inside of the interval.
    Close,
    /// Measured, and it says nothing, for this reason.
    Unknown(&'static str),
    /// For this reason.
    NotMeasured(String),
    /// A figure that nothing is asked of.
    NoTarget,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambitious => f.write_str("met, the ambitious one too"),
            Self::Met => f.write_str("met"),
            Self::Missed(Some(part)) => write!(f, "missed by {:.1} %", part * 100.0),
            Self::Missed(None) => f.write_str("missed"),
            Self::Close => f.write_str("too close to call"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
            Self::NotMeasured(why) => write!(f, "not measured: {why}"),
            Self::NoTarget => f.write_str("no target"),
        }
    }
}

impl Verdict {
    /// As the page colours it.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Ambitious | Self::Met => "met",
            Self::Missed(_) => "missed",
            Self::Close | Self::Unknown(_) | Self::NotMeasured(_) => "unknown",
            Self::NoTarget => "",
        }
    }

    /// Of something that is not to be at all.
    pub(super) fn of_none(found: usize) -> Self {
        if found == 0 { Self::Met } else { Self::Missed(None) }
    }
}

/// Targets as a table.
pub(super) fn table(rows: &[Judged], style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(HEADER);
    for row in rows {
        table.add_row(row.cells());
    }
    table
}

/// Above what [`Judged::cells`] gives.
pub(super) const HEADER: [&str; 7] = ["", "minicni", "beside", "found", "target", "of the ceiling", "verdict"];

impl Judged {
    pub(super) fn cells(&self) -> [String; 7] {
        let Self { id, what, baseline, found, target, ceiling, verdict } = self.clone();
        [id.to_owned(), what, baseline, found, target, ceiling, verdict.to_string()]
    }

    /// One figure that is what it is.
    pub(super) fn figure(
        id: &'static str,
        what: impl Into<String>,
        found: String,
        limits: Limits,
        unit: &str,
        value: f64,
    ) -> Self {
        Self {
            id,
            what: what.into(),
            baseline: String::new(),
            found,
            target: limits.words(unit),
            ceiling: String::new(),
            verdict: limits.judge(value),
        }
    }

    /// Something that is not to be at all.
    pub(super) fn none(id: &'static str, what: impl Into<String>, found: usize) -> Self {
        Self {
            id,
            what: what.into(),
            baseline: String::new(),
            found: found.to_string(),
            target: "0".to_owned(),
            ceiling: String::new(),
            verdict: Verdict::of_none(found),
        }
    }

    /// A target without figures.
    pub(super) fn not_measured(id: &'static str, what: &str, why: String) -> Self {
        Self {
            id,
            what: what.to_owned(),
            baseline: String::new(),
            found: String::new(),
            target: String::new(),
            ceiling: String::new(),
            verdict: Verdict::NotMeasured(why),
        }
    }
}

/// What is to be reached, and what would be better still.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) limit: f64,
    pub(super) ambitious: f64,
    pub(super) more_is_better: bool,
}

impl Limits {
    pub(super) const fn at_least([limit, ambitious]: [f64; 2]) -> Self {
        Self { limit, ambitious, more_is_better: true }
    }

    pub(super) const fn at_most([limit, ambitious]: [f64; 2]) -> Self {
        Self { limit, ambitious, more_is_better: false }
    }

    /// In words.
    pub(super) fn words(&self, unit: &str) -> String {
        let Self { limit, ambitious, more_is_better } = self;
        format!("{} {limit}{unit} ({ambitious})", if *more_is_better { "≥" } else { "≤" })
    }

    /// Of one figure that is what it is, such as a size.
    pub(super) fn judge(&self, found: f64) -> Verdict {
        self.between([found; 2], found)
    }

    /// Of the median of rounds: what holds for all of its interval.
    pub(super) fn judge_median(&self, found: &Summary) -> Verdict {
        match found.interval {
            Some(interval) => self.between(interval, found.median),
            None => Verdict::Unknown("too few rounds"),
        }
    }

    fn between(&self, [low, high]: [f64; 2], median: f64) -> Verdict {
        let (worst, best) = if self.more_is_better { (low, high) } else { (high, low) };
        let reached = |found, limit| if self.more_is_better { found >= limit } else { found <= limit };
        if reached(worst, self.ambitious) {
            Verdict::Ambitious
        } else if reached(worst, self.limit) {
            Verdict::Met
        } else if reached(best, self.limit) {
            Verdict::Close
        } else {
            Verdict::Missed(Some((median / self.limit - 1.0).abs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_says_by_how_much_whichever_way_is_better() {
        let (least, most) = (Limits::at_least, Limits::at_most);
        for (found, limits, words) in [
            (1.25, least([1.18, 1.25]), "met, the ambitious one too"),
            (1.18, least([1.18, 1.25]), "met"),
            (1.0, least([1.25, 1.3]), "missed by 20.0 %"),
            (0.78, most([0.85, 0.78]), "met, the ambitious one too"),
            (0.85, most([0.85, 0.78]), "met"),
            (1.0, most([0.8, 0.7]), "missed by 25.0 %"),
        ] {
            assert_eq!(limits.judge(found).to_string(), words, "{found}");
        }
    }

    #[test]
    fn a_median_is_judged_by_the_whole_of_its_interval() {
        let summary =
            |[low, high]: [f64; 2]| Summary { interval: Some([low, high]), ..Summary::of(&[f64::midpoint(low, high)]) };
        for (interval, more, less) in [
            ([1.3, 1.4], "met, the ambitious one too", "missed by 12.5 %"),
            ([1.22, 1.4], "met", "missed by 9.2 %"),
            ([1.1, 1.4], "too close to call", "too close to call"),
            ([1.12, 1.18], "missed by 4.2 %", "met"),
            ([1.0, 1.1], "missed by 12.5 %", "met, the ambitious one too"),
        ] {
            let found = summary(interval);
            assert_eq!(Limits::at_least([1.2, 1.25]).judge_median(&found).to_string(), more, "{interval:?}");
            assert_eq!(Limits::at_most([1.2, 1.1]).judge_median(&found).to_string(), less, "{interval:?}");
        }
    }

    #[test]
    fn five_rounds_are_too_few_for_a_verdict() {
        let found = Summary::of(&[2.0; 5]);
        assert_eq!(Limits::at_least([1.0, 1.1]).judge_median(&found), Verdict::Unknown("too few rounds"));
    }
}
