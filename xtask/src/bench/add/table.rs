//! The report in words, with what it is held against.

use anyhow::Result;
use comfy_table::{
    Table, TableStyle,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::report::Report;
use crate::bench::{
    judged::{Judged, Limits, Verdict},
    plot::{self, Bars},
    statistics::{Compared, Summary},
};

/// Where the ratio of a plugin to itself has to lie.
const SAME: [f64; 2] = [0.97, 1.03];

/// A line of the table.
struct Row {
    /// The name of its target, where it has one.
    id: &'static str,
    what: String,
    subject: String,
    /// Of another plugin.
    beside: String,
    baseline: String,
    ratio: String,
    target: Option<Target>,
}

/// What was found, and what it must not exceed.
#[derive(Clone, Copy)]
struct Target {
    found: Found,
    limits: Limits,
}

#[derive(Clone, Copy)]
enum Found {
    /// By round, in one of which whatever disturbed disturbed both.
    Ratio(Summary),
    /// Milliseconds; the middle one counts.
    Median(Summary),
    /// Milliseconds of the slowest calls, which something else may have held up.
    SlowestCalls(Summary),
}

impl Target {
    fn words(&self) -> String {
        self.limits.words(if matches!(self.found, Found::Ratio(_)) { "x" } else { " ms" })
    }

    fn verdict(&self, report: &Report) -> Verdict {
        let controls = &report.controls;
        match self.found {
            Found::Ratio(_) if differs_from_itself(report) => Verdict::Unknown("minicni differed from itself"),
            Found::Median(_) | Found::SlowestCalls(_) if !controls.steady() => Verdict::Unknown("the controls drifted"),
            Found::Ratio(found) | Found::Median(found) => self.limits.judge_median(&found),
            // What holds calls up never makes them faster.
            Found::SlowestCalls(found) if !controls.calm() && found.p99 > self.limits.limit => {
                Verdict::Unknown("single controls were held up")
            }
            Found::SlowestCalls(found) => self.limits.judge(found.p99),
        }
    }
}

fn differs_from_itself(report: &Report) -> bool {
    let again = report.sequence.again.ratio.interval;
    again.is_none_or(|[low, high]| high < SAME[0] || low > SAME[1])
}

/// For a terminal.
pub(super) fn render(report: &Report) -> String {
    format!("{}\n{}", table(report, UTF8_FULL_CONDENSED), notes(report))
}

/// For docs/bench-add.md.
pub(in crate::bench) fn document(report: &Report) -> String {
    format!(
        "# ADD and DEL by the clock\n\n\
         What the plugin takes from exec to exit, beside `bridge` and `ptp` with `host-local` in the same run: round by \
         round, in random order.\nA ratio is the median of the ratios of single rounds, with its interval, and judged as \
         [there](performance.md#controls-and-what-a-verdict-means); absolute times say\nlittle about another machine. \
         A target in parentheses is an ambitious one.\n\n\
         ```sh\n\
         cargo xtask bench add --json docs/bench-add.json\n\
         cargo xtask bench all --from docs --docs docs   # this document, its plot, and those of the other benchmarks\n\
         ```\n\n\
         {}\n\n![ratios to bridge with host-local](bench-add.svg)\n\n{}\n",
        table(report, ASCII_MARKDOWN),
        notes(report)
    )
}

fn table(report: &Report, style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header([
        "milliseconds, median / p99",
        "minicni",
        "beside",
        "",
        "ratio",
        "target",
        "verdict",
    ]);
    for row in rows(report) {
        let words = row.target.map(|target| target.words()).unwrap_or_default();
        let verdict = row.target.map(|target| target.verdict(report).to_string()).unwrap_or_default();
        table.add_row([row.what, row.subject, row.beside, row.baseline, row.ratio, words, verdict]);
    }
    table
}

/// The verdicts of a run.
pub(in crate::bench) fn judge(report: &Report) -> Vec<Judged> {
    let judged = |row: Row| {
        let target = row.target?;
        let found = match target.found {
            Found::Ratio(_) => row.ratio,
            Found::Median(found) => format!("{} ms", found.with_interval(2)),
            Found::SlowestCalls(found) => format!("{:.2} ms", found.p99),
        };
        let (id, what) = (row.id, row.what);
        let is_add = id == "C1" && matches!(target.found, Found::Median(_));
        let ceiling = if is_add { ceiling(report) } else { String::new() };
        Some(Judged {
            id,
            what,
            baseline: row.beside,
            found,
            target: target.words(),
            ceiling,
            verdict: target.verdict(report),
        })
    };
    rows(report).into_iter().filter_map(judged).collect()
}

/// ADD beside what no plugin can do without: a process, and a pair of devices.
fn ceiling(report: &Report) -> String {
    let least = report.controls.process.median + report.controls.veth_add.median;
    let part = report.sequence.beside.first().map_or(f64::NAN, |beside| least / beside.add.subject.median);
    format!("{:.0} % of an exec and a veth pair, {least:.2} ms", part * 100.0)
}

/// Ratios to the other plugins as bars.
pub(in crate::bench) fn svg(report: &Report) -> Result<String> {
    let row = |name: String, compared: &Compared| plot::Row { name, ours: true, bars: vec![compared.ratio] };
    let single = report.sequence.beside.iter().flat_map(|beside| {
        [("ADD", &beside.add), ("CHECK", &beside.check), ("DEL", &beside.del)]
            .map(|(what, compared)| row(format!("{what}, beside {}", beside.name), compared))
    });
    let dual = &report.dual_stack;
    let both = [("bridge", &dual.bridge), ("ptp", &dual.ptp)]
        .map(|(name, compared)| row(format!("ADD, IPv4 and IPv6, beside {name}"), compared));
    Bars {
        title: "Time from exec to exit, the other plugin with host-local = 1, less is better",
        rows: single.chain(both).collect(),
    }
    .svg()
}

fn rows(report: &Report) -> Vec<Row> {
    let (plan, controls, sequence, present) = (&report.plan, &report.controls, &report.sequence, &report.present);
    let with_present = |command| format!("{command}, {} pods present, beside none", plan.present);
    let dual = &report.dual_stack;
    let mut rows = vec![
        alone("control: exec of `true`", &controls.process),
        alone("control: veth pair made", &controls.veth_add),
        alone("control: veth pair deleted", &controls.veth_del),
        compared("ADD", "itself", &sequence.again),
    ];
    for (number, beside) in sequence.beside.iter().enumerate() {
        if number == 0 {
            rows.push(ratio("C1", "ADD", &beside.name, &beside.add, [0.35, 0.2]));
            let itself = alone("ADD, the time itself", &beside.add.subject);
            rows.push(itself.at_most("C1", Found::Median(beside.add.subject), [8.0, 4.0]));
        } else {
            rows.push(compared("ADD", &beside.name, &beside.add));
        }
        rows.push(compared("DEL", &beside.name, &beside.del));
        rows.push(compared("CHECK", &beside.name, &beside.check));
    }
    if let Some(first) = sequence.beside.first() {
        rows.push(slowest("CHECK, p99", first.check.subject, [20.0, 8.0]));
    }
    rows.extend([
        slowest("STATUS, p99", sequence.status, [20.0, 5.0]),
        slowest("VERSION, p99", sequence.version, [5.0, 2.0]),
        ratio("C2", "ADD, IPv4 and IPv6", "bridge, host-local", &dual.bridge, [0.35, 0.2]),
        ratio("C2", "ADD, IPv4 and IPv6", "ptp, host-local", &dual.ptp, [0.05, 0.01]),
        ratio("C3", &with_present("ADD"), "", &present.add, [1.15, 1.05]),
        ratio("C3", &with_present("CHECK"), "", &present.check, [1.15, 1.05]),
        ratio("C3", &with_present("STATUS"), "", &present.status, [1.15, 1.05]),
        compared(&with_present("DEL"), "", &present.del),
        slowest("CHECK with them, p99", present.check.subject, [20.0, 8.0]),
        slowest("STATUS with them, p99", present.status.subject, [20.0, 5.0]),
    ]);
    rows
}

impl Row {
    /// With its target.
    fn at_most(self, id: &'static str, found: Found, limits: [f64; 2]) -> Self {
        Self { id, target: Some(Target { found, limits: Limits::at_most(limits) }), ..self }
    }
}

fn compared(what: &str, beside: &str, compared: &Compared) -> Row {
    Row {
        id: "",
        what: what.to_owned(),
        subject: median_and_p99(&compared.subject),
        beside: beside.to_owned(),
        baseline: median_and_p99(&compared.baseline),
        ratio: compared.ratio.with_interval(3),
        target: None,
    }
}

/// As [`compared`], with a target for the ratio.
fn ratio(id: &'static str, what: &str, beside: &str, both: &Compared, limits: [f64; 2]) -> Row {
    compared(what, beside, both).at_most(id, Found::Ratio(both.ratio), limits)
}

fn alone(what: &str, summary: &Summary) -> Row {
    Row {
        id: "",
        what: what.to_owned(),
        subject: median_and_p99(summary),
        beside: String::new(),
        baseline: String::new(),
        ratio: String::new(),
        target: None,
    }
}

fn slowest(what: &str, summary: Summary, limits: [f64; 2]) -> Row {
    alone(what, &summary).at_most("S4", Found::SlowestCalls(summary), limits)
}

fn median_and_p99(summary: &Summary) -> String {
    // Two or three digits that mean something.
    let digits = if summary.median < 10.0 { 2 } else { 1 };
    format!("{:.digits$} / {:.digits$}", summary.median, summary.p99)
}

fn notes(report: &Report) -> String {
    let (environment, plan, controls) = (&report.environment, &report.plan, &report.controls);
    let words = if differs_from_itself(report) {
        "MINICNI DIFFERED FROM ITSELF, so that there is no verdict about a ratio; run it again when nothing else runs"
    } else if !controls.steady() {
        "The controls drifted, so that there is no verdict about times themselves"
    } else if !controls.calm() {
        "Single controls were held up, so that a p99 of single calls that is too long says nothing"
    } else {
        "The controls were steady"
    };
    format!(
        "{words}: exec of `true` took {:.2} ms in the first half of the run, {:.2} ms in the second, and {:.2} ms at \
         the p99.\nThe ratio of minicni to itself has to meet {} .. {}.\n\n\
         * {} rounds; {} beside `ptp` with IPv6, which waits up to two seconds for duplicate address detection, as \
         `bridge` did before 1.1.0; seed {}\n\
         * minicni {}, in eBPF mode with its daemon running; containernetworking-plugins {}; the state of all in memory\n\
         * {environment}",
        controls.process_first_half,
        controls.process_second_half,
        controls.process.p99,
        SAME[0],
        SAME[1],
        plan.rounds,
        plan.waiting_rounds,
        plan.seed,
        environment.minicni,
        environment.plugins,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Report {
        serde_json::from_str(include_str!("../../../../docs/bench-add.json")).unwrap()
    }

    fn verdicts(report: &Report) -> Vec<String> {
        judge(report).into_iter().map(|row| row.verdict.to_string()).collect()
    }

    #[test]
    fn there_is_no_verdict_about_a_ratio_when_minicni_differed_from_itself() {
        let mut report = quiet();
        assert!(verdicts(&report).iter().all(|verdict| !verdict.starts_with("unknown")), "{:?}", verdicts(&report));
        report.sequence.again.ratio = Summary { interval: Some([1.05, 1.1]), ..report.sequence.again.ratio };
        for row in judge(&report) {
            assert_eq!(row.verdict.to_string().starts_with("unknown"), row.target.contains('x'), "{row:?}");
        }
    }

    #[test]
    fn there_is_no_verdict_about_a_time_when_the_controls_changed_during_the_run() {
        let mut report = quiet();
        report.controls.process_second_half *= 2.0;
        for row in judge(&report) {
            assert_eq!(row.verdict.to_string().starts_with("unknown"), row.target.contains("ms"), "{row:?}");
        }
    }

    #[test]
    fn slow_calls_are_not_held_against_the_plugin_when_single_controls_were_held_up() {
        let mut report = quiet();
        report.controls.process.p99 *= 10.0;
        for (slow, verdict) in [(15.0, "met"), (25.0, "unknown: single controls were held up")] {
            let summary = Summary { p99: slow, ..report.sequence.status };
            let target = slowest("STATUS", summary, [20.0, 8.0]).target.unwrap();
            assert_eq!(target.verdict(&report).to_string(), verdict);
        }
        assert!(render(&report).contains("held up"));
    }

    /// The kept figures, had nothing else run meanwhile.
    fn quiet() -> Report {
        let mut report = kept();
        let controls = &mut report.controls;
        controls.process_first_half = controls.process.median;
        controls.process_second_half = controls.process.median;
        controls.process.p99 = controls.process.median;
        report.sequence.again.ratio.interval = Some([0.99, 1.01]);
        report
    }
}
