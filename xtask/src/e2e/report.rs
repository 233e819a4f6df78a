//! The table for people, and the document for machines.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::daemons::Cost;

/// What came of a row.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// The row's name, as `--only` takes it.
    pub(super) name: &'static str,
    /// What is promised.
    pub(super) title: &'static str,
    /// What was seen, or why it failed.
    pub(super) result: Result<String, String>,
    /// How long it took.
    pub(super) seconds: f64,
    /// Packets that the nodes redirected meanwhile, of all that they were asked about, in percent; none where no packet was.
    pub(super) fast_percent: Option<f64>,
}

/// What a run gave.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) seconds: f64,
    pub(super) rows: Vec<Outcome>,
    /// What the daemons cost meanwhile.
    pub(super) daemons: Vec<Cost>,
}

impl Report {
    /// Adds the rows up.
    pub(super) fn new(rows: Vec<Outcome>, daemons: Vec<Cost>, took: Duration) -> Self {
        let failed = rows.iter().filter(|row| row.result.is_err()).count();
        Self { passed: rows.len() - failed, failed, seconds: rounded(took), rows, daemons }
    }
}

/// Seconds with one digit.
pub(super) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// The table, each failure, and the sum.
pub(super) fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["row", "promise", "", "seen", "time", "fast path"]);
    for row in &report.rows {
        table.add_row([
            row.name.to_owned(),
            row.title.to_owned(),
            if row.result.is_ok() { "ok".to_owned() } else { "FAILED".to_owned() },
            row.result.clone().unwrap_or_else(|_| "see below".to_owned()),
            format!("{:.1} s", row.seconds),
            row.fast_percent.map_or("-".to_owned(), |percent| format!("{percent:.1} %")),
        ]);
    }
    let mut text = format!("{table}\n{}\n", costs(&report.daemons));
    for row in &report.rows {
        if let Err(error) = &row.result {
            // Writing to a String does not fail.
            let _ = write!(text, "\n{}: {error}\n", row.name);
        }
    }
    text + &format!("\n{} rows passed, {} failed, in {:.0} s", report.passed, report.failed, report.seconds)
}

fn costs(daemons: &[Cost]) -> Table {
    let mut table = Table::new();
    let header = ["daemons of", "how many", "memory", "first", "last", "most", "CPU time", "of a CPU"];
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for cost in daemons {
        let memory = [cost.first, cost.last, cost.most];
        let both = memory.map(|memory| format!("{}\n{}", mebibytes(memory.resident), mebibytes(memory.working_set)));
        let [first, last, most] = both;
        table.add_row([
            cost.node.clone(),
            cost.daemons.to_string(),
            "resident\nworking set".to_owned(),
            first,
            last,
            most,
            format!("{:.2} s in {:.0} s", cost.cpu_seconds, cost.seconds),
            format!("{:.2} %", cost.cpu_seconds * 100.0 / cost.seconds),
        ]);
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} Mi", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_counted_and_says_why() {
        let row = |name, result| Outcome { name, title: "a promise", result, seconds: 1.0, fast_percent: None };
        let rows = vec![row("dns", Ok("2 of 2".to_owned())), row("egress", Err("silence".to_owned()))];
        let report = Report::new(rows, Vec::new(), Duration::from_millis(2_040));
        let text = render(&report);
        assert!(text.contains("FAILED") && text.contains("\negress: silence\n"), "{text}");
        assert!(text.ends_with("1 rows passed, 1 failed, in 2 s"), "{text}");
    }
}
