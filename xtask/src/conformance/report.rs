//! The table for people, and the document for machines.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::plugin::Plugin;

/// What a run gave.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The executable.
    pub(super) plugin: String,
    /// What its VERSION lists.
    pub(super) supported_versions: Vec<String>,
    pub(super) summary: Summary,
    pub(super) rows: Vec<Reported>,
}

/// The run in numbers.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) not_applicable: usize,
    pub(super) rules: usize,
    pub(super) seconds: f64,
}

/// One row and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Reported {
    pub(super) rule: &'static str,
    pub(super) command: &'static str,
    pub(super) promise: String,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    pub(super) milliseconds: u128,
}

/// The end of a row.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub(super) enum Verdict {
    Passed,
    Failed { expected: String, seen: String },
    NotApplicable { reason: String },
}

impl Reported {
    /// The row on one line, for the progress.
    pub(super) fn line(&self) -> String {
        let Self { rule, command, promise, verdict, .. } = self;
        format!("{rule} {command}: {promise}: {}", verdict.word())
    }
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed { .. } => "FAILED",
            Verdict::NotApplicable { .. } => "n/a",
        }
    }
}

impl Report {
    /// Adds the rows up.
    pub(super) fn new(plugin: &Plugin, rows: Vec<Reported>, took: Duration) -> Self {
        let summary = summary(&rows, took);
        let supported_versions = plugin.versions.clone();
        Self { plugin: plugin.path.display().to_string(), supported_versions, summary, rows }
    }
}

fn summary(rows: &[Reported], took: Duration) -> Summary {
    let count = |word: &str| rows.iter().filter(|row| row.verdict.word() == word).count();
    Summary {
        passed: count("passed"),
        failed: count("FAILED"),
        not_applicable: count("n/a"),
        rules: rows.iter().map(|row| row.rule).collect::<BTreeSet<_>>().len(),
        seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
    }
}

/// The table, what is to be said about rows that did not pass, and the summary.
pub(super) fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["rule", "command", "promise", "result"]);
    let (mut failures, mut others) = (String::new(), String::new());
    for row in &report.rows {
        table.add_row([row.rule, row.command, &row.promise, row.verdict.word()]);
        let Reported { rule, command, promise, verdict, .. } = row;
        // Writing to a String does not fail.
        let _ = match verdict {
            Verdict::Passed => Ok(()),
            Verdict::Failed { expected, seen } => {
                write!(failures, "\n{rule} {command}: {promise}\n    expected: {expected}\n    seen:     {seen}\n")
            }
            Verdict::NotApplicable { reason } => write!(others, "\n{rule} {command}: {promise}: n/a, {reason}"),
        };
    }
    let Summary { passed, failed, not_applicable, rules, seconds } = report.summary;
    let sections = [table.to_string(), failures, others].into_iter().filter(|section| !section.is_empty());
    let summary = format!(
        "{}: {passed} passed, {failed} failed, {not_applicable} not applicable; {} rows for {rules} rules in {seconds:.0} s",
        report.plugin,
        report.rows.len()
    );
    sections.chain([format!("\n{summary}")]).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |rule, verdict| Reported {
            rule,
            command: "DEL",
            promise: "is repeatable".to_owned(),
            verdict,
            milliseconds: 5,
        };
        let failed = Verdict::Failed { expected: "status 0".to_owned(), seen: "status 1".to_owned() };
        let other = Verdict::NotApplicable { reason: "no such thing".to_owned() };
        let rows = vec![row("R-1", Verdict::Passed), row("R-1", failed), row("R-2", other)];
        let summary = summary(&rows, Duration::from_millis(1260));
        Report { plugin: "/p".to_owned(), supported_versions: Vec::new(), summary, rows }
    }

    #[test]
    fn the_summary_counts_rows_by_what_came_of_them() {
        let expected = Summary { passed: 1, failed: 1, not_applicable: 1, rules: 2, seconds: 1.3 };
        assert_eq!(report().summary, expected);
    }

    #[test]
    fn the_table_says_of_a_failure_what_was_expected_and_seen_and_why_a_row_does_not_apply() {
        let text = render(&report());
        assert!(text.contains("expected: status 0") && text.contains("seen:     status 1"), "{text}");
        assert!(text.contains("n/a, no such thing"), "{text}");
        assert!(text.ends_with("/p: 1 passed, 1 failed, 1 not applicable; 3 rows for 2 rules in 1 s"), "{text}");
    }

    #[test]
    fn a_machine_reads_the_result_beside_the_rule() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["rows"][1]["result"], "failed");
        assert_eq!(json["rows"][1]["seen"], "status 1");
        assert_eq!(json["rows"][2]["result"], "not-applicable");
    }
}
