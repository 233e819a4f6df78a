//! The table: a file per section of the rules.

mod add;
mod args;
mod chain;
mod check;
mod del;
mod env;
mod gc;
mod input;
mod killed;
mod output;
mod parallel;
mod replay;
mod result;
mod status;
mod traffic;
mod version;

use super::{bench::Bench, outcome::Check};

/// One rule, one promise, and how it is looked at.
pub(super) struct Row {
    /// The rule's number.
    pub(super) rule: &'static str,
    /// The command that the rule is about.
    pub(super) command: &'static str,
    /// What the plugin has to keep.
    pub(super) promise: String,
    /// Finds out, on a host of its own.
    pub(super) check: Box<dyn Fn(&mut Bench<'_>) -> Check>,
}

/// A row of the table.
fn row(
    rule: &'static str,
    command: &'static str,
    promise: impl Into<String>,
    check: impl Fn(&mut Bench<'_>) -> Check + 'static,
) -> Row {
    Row { rule, command, promise: promise.into(), check: Box::new(check) }
}

/// Every row, section by section.
pub(super) fn all() -> Vec<Row> {
    [
        version::rows(),
        env::rows(),
        input::rows(),
        output::rows(),
        result::rows(),
        add::rows(),
        chain::rows(),
        traffic::rows(),
        del::rows(),
        killed::rows(),
        check::rows(),
        gc::rows(),
        status::rows(),
        args::rows(),
        parallel::rows(),
        replay::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_promise_the_same() {
        let rows = all();
        for (number, row) in rows.iter().enumerate() {
            let same =
                |other: &&Row| (other.rule, other.command, &other.promise) == (row.rule, row.command, &row.promise);
            assert!(!rows[..number].iter().any(|other| same(&other)), "{} {}: {}", row.rule, row.command, row.promise);
        }
    }

    #[test]
    fn every_rule_about_plugins_has_a_row() {
        let rows = all();
        let numbered = [("ENV", 4), ("IN", 7), ("ADD", 9), ("DEL", 6)]
            .into_iter()
            .flat_map(|(section, last)| (1..=last).map(move |number| format!("R-{section}-{number}")));
        let others = ["A0.1", "A0.2", "A0.3", "A0.4", "A0.9", "A0.10", "A0.11", "A0.12", "A3", "A6", "A7", "A8", "A9"];
        for rule in numbered.chain(others.map(str::to_owned)) {
            assert!(rows.iter().any(|row| row.rule == rule), "{rule}");
        }
    }
}
