//! Targets, and what became of them.

/// A target of one benchmark, in words.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// Its name, such as `D1`.
    pub(super) id: &'static str,
    pub(super) what: String,
    pub(super) baseline: String,
    pub(super) found: String,
    pub(super) target: String,
    pub(super) verdict: String,
}

/// What was found beside what is to be reached, and what would be better still.
pub(super) fn verdict(found: f64, [limit, ambitious]: [f64; 2], more_is_better: bool) -> String {
    let reached = |limit| if more_is_better { found >= limit } else { found <= limit };
    if reached(ambitious) {
        "met, the ambitious one too".to_owned()
    } else if reached(limit) {
        "met".to_owned()
    } else {
        format!("missed by {:.1} %", (found / limit - 1.0).abs() * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_says_by_how_much_whichever_way_is_better() {
        for (found, limits, more, words) in [
            (1.25, [1.18, 1.25], true, "met, the ambitious one too"),
            (1.18, [1.18, 1.25], true, "met"),
            (1.0, [1.25, 1.3], true, "missed by 20.0 %"),
            (0.78, [0.85, 0.78], false, "met, the ambitious one too"),
            (0.85, [0.85, 0.78], false, "met"),
            (1.0, [0.8, 0.7], false, "missed by 25.0 %"),
        ] {
            assert_eq!(verdict(found, limits, more), words, "{found}");
        }
    }
}
