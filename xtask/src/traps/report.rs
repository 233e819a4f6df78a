//! The table for people, and the document for machines.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::{
    matrix::{Kind, Rules, Traffic, word},
    outcome::{Outcome, Verdict},
};

/// What a run gave.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) summary: Summary,
    pub(super) cells: Vec<Outcome>,
}

/// The run in numbers.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) not_run: usize,
    /// Cells that exist, and that `--only` left out.
    pub(super) left_out: usize,
    pub(super) seconds: f64,
}

impl Report {
    /// Adds the cells up.
    pub(super) fn new(cells: Vec<Outcome>, left_out: usize, took: Duration) -> Self {
        let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
        let mut summary = Summary { left_out, seconds, ..Summary::default() };
        for outcome in &cells {
            match outcome.verdict {
                Verdict::Passed => summary.passed += 1,
                Verdict::Failed { .. } => summary.failed += 1,
                Verdict::NotRun { .. } => summary.not_run += 1,
            }
        }
        Self { summary, cells }
    }
}

/// The table, each failure, and the summary.
pub(super) fn render(report: &Report) -> String {
    let columns: Vec<_> = Rules::ALL.into_iter().flat_map(|rules| [(rules, false), (rules, true)]).collect();
    let columns: Vec<_> =
        columns.into_iter().filter(|column| report.cells.iter().any(|outcome| column_of(outcome) == *column)).collect();
    let mut table = Table::new();
    let mut header = vec!["what".to_owned(), "with".to_owned()];
    header.extend(
        columns.iter().map(|(rules, ipv6)| format!("{}\n{}", word(rules), if *ipv6 { "IPv6" } else { "IPv4" })),
    );
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for kind in Kind::ALL {
        for traffic in Traffic::ALL {
            let row: Vec<_> = report
                .cells
                .iter()
                .filter(|outcome| (outcome.cell.kind, outcome.cell.traffic) == (kind, traffic))
                .collect();
            if row.is_empty() {
                continue;
            }
            let mut words = vec![kind.title().to_owned(), traffic.title().to_owned()];
            words.extend(columns.iter().map(|column| {
                square(&row.iter().copied().filter(|outcome| column_of(outcome) == *column).collect::<Vec<_>>())
            }));
            table.add_row(words);
        }
    }
    let mut text = format!("{table}\n");
    // Writing to a String does not fail.
    for ((expected, seen), cells) in failures(&report.cells) {
        let _ = write!(text, "\n{}\n    expected: {expected}\n    seen:     {seen}\n", cells.join("\n"));
    }
    let reasons: BTreeSet<_> = report
        .cells
        .iter()
        .filter_map(|outcome| match &outcome.verdict {
            Verdict::NotRun { reason } => Some((word(outcome.cell.setting.rules), reason)),
            _ => None,
        })
        .collect();
    for (rules, reason) in reasons {
        let _ = write!(text, "\n{rules}: NOT RUN: {reason}\n");
    }
    let Summary { passed, failed, not_run, left_out, seconds } = report.summary;
    text + &format!(
        "\n{passed} cells passed, {failed} failed, {not_run} not run, {left_out} not asked for, in {seconds:.0} s"
    )
}

/// What was expected and seen, with the cells of which that is true, in the order of the first ones.
fn failures(outcomes: &[Outcome]) -> Vec<((&str, &str), Vec<String>)> {
    let mut failures: Vec<((&str, &str), Vec<String>)> = Vec::new();
    for Outcome { cell, verdict, .. } in outcomes {
        let Verdict::Failed { expected, seen } = verdict else { continue };
        let key = (expected.as_str(), seen.trim_end());
        match failures.iter_mut().find(|(known, _)| *known == key) {
            Some((_, cells)) => cells.push(cell.to_string()),
            None => failures.push((key, vec![cell.to_string()])),
        }
    }
    failures
}

fn column_of(outcome: &Outcome) -> (Rules, bool) {
    (outcome.cell.setting.rules, outcome.cell.setting.ipv6)
}

/// All phases of one row and column.
fn square(outcomes: &[&Outcome]) -> String {
    let failed = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Failed { .. })).count();
    let not_run = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::NotRun { .. })).count();
    match outcomes.len() {
        0 => "-".to_owned(),
        all if failed > 0 => format!("FAILED {failed} of {all}"),
        _ if not_run > 0 => "NOT RUN".to_owned(),
        _ => "ok".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::matrix::{Cell, Conntrack, Phase, Setting},
        *,
    };

    fn report() -> Report {
        let outcome = |rules, phase, verdict| Outcome {
            cell: Cell {
                setting: Setting { rules, ipv6: false, conntrack: Conntrack::Liberal },
                kind: Kind::DirectLocal,
                traffic: Traffic::Udp,
                phase,
            },
            verdict,
            milliseconds: 1,
        };
        let failed = Verdict::Failed { expected: "an answer".to_owned(), seen: "silence".to_owned() };
        let cells = vec![
            outcome(Rules::IptablesNft, Phase::Before, Verdict::Passed),
            outcome(Rules::IptablesNft, Phase::Promoted, failed),
            outcome(Rules::Nftables, Phase::Before, Verdict::Passed),
            outcome(Rules::Ipvs, Phase::Before, Verdict::NotRun { reason: "no such thing".to_owned() }),
        ];
        Report::new(cells, 0, Duration::from_millis(1_260))
    }

    #[test]
    fn a_square_is_ok_only_if_all_of_its_phases_are() {
        let text = render(&report());
        let row = text.lines().find(|line| line.contains("direct to a local pod")).unwrap();
        let squares: Vec<_> = row.split(['│', '┆']).map(str::trim).collect();
        assert_eq!(squares[3..6], ["FAILED 1 of 2", "ok", "NOT RUN"], "{text}");
    }

    #[test]
    fn a_failure_says_what_was_expected_and_seen_and_what_was_not_run_says_why() {
        let text = render(&report());
        assert!(
            text.contains("iptables-nft/ipv4/liberal/direct-local/udp/promoted\n    expected: an answer"),
            "{text}"
        );
        assert!(text.contains("ipvs: NOT RUN: no such thing"), "{text}");
        assert!(text.ends_with("2 cells passed, 1 failed, 1 not run, 0 not asked for, in 1 s"), "{text}");
    }

    #[test]
    fn a_machine_reads_the_axes_and_the_result_of_each_cell() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["cells"][1]["rules"], "iptables-nft");
        assert_eq!(json["cells"][1]["phase"], "promoted");
        assert_eq!(json["cells"][1]["result"], "failed");
        assert_eq!(json["cells"][1]["seen"], "silence");
    }
}
