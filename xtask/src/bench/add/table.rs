//! The report in words, with what it is held against.

use anyhow::Result;
use comfy_table::{
    Table,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::{controls::Summaries, report::Report};
use crate::bench::{
    judged::{self, Judged},
    plot::{self, Bars},
    statistics::{Compared, Summary},
};

/// A line of the table.
struct Row {
    /// The name of its target, where it has one.
    id: &'static str,
    what: String,
    subject: String,
    baseline: String,
    ratio: String,
    /// What was found, and what it is to be.
    target: Option<(f64, Target)>,
}

/// What a figure must not exceed.
#[derive(Clone, Copy)]
struct Target {
    limit: f64,
    /// What would be better still.
    ambitious: f64,
    unit: &'static str,
    rests_on: RestsOn,
}

/// What must have been quiet for a figure to mean something.
#[derive(Clone, Copy)]
enum RestsOn {
    Nothing,
    /// Medians, and ratios of a round.
    Medians,
    /// The slowest calls, which something else may have held up.
    SlowestCalls,
}

impl Target {
    const fn ratio(limit: f64, ambitious: f64) -> Self {
        Self { limit, ambitious, unit: "x", rests_on: RestsOn::Medians }
    }

    const fn median(limit: f64, ambitious: f64) -> Self {
        Self { limit, ambitious, unit: " ms", rests_on: RestsOn::Medians }
    }

    const fn p99(limit: f64, ambitious: f64) -> Self {
        Self { limit, ambitious, unit: " ms", rests_on: RestsOn::SlowestCalls }
    }

    fn words(&self) -> String {
        format!("{}{} ({})", self.limit, self.unit, self.ambitious)
    }

    fn verdict(&self, found: f64, controls: &Summaries) -> String {
        let known = match self.rests_on {
            RestsOn::Nothing => true,
            RestsOn::Medians => controls.steady(),
            // What holds calls up never makes them faster.
            RestsOn::SlowestCalls => controls.steady() && (controls.calm() || found <= self.limit),
        };
        if known {
            judged::verdict(found, [self.limit, self.ambitious], false)
        } else {
            "unknown: controls unstable".to_owned()
        }
    }
}

/// For a terminal.
pub(super) fn render(report: &Report) -> String {
    format!("{}\n{}", table(report, UTF8_FULL_CONDENSED), notes(report))
}

/// For docs/bench-add.md.
pub(in crate::bench) fn document(report: &Report) -> String {
    format!(
        "# ADD and DEL by the clock\n\n\
         What the plugin takes from exec to exit, beside `bridge` with `host-local` in the same run: round by round, in \
         random order.\nA ratio is the median of the ratios of single rounds, with quartiles; absolute times say \
         little about another machine.\n\
         A target in parentheses is an ambitious one.\n\n\
         ```sh\n\
         cargo xtask bench add --json > docs/bench-add.json\n\
         cargo xtask bench add --from docs/bench-add.json --markdown > docs/bench-add.md\n\
         ```\n\n\
         {}\n\n{}\n",
        table(report, ASCII_MARKDOWN),
        notes(report)
    )
}

fn table(report: &Report, style: comfy_table::TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header([
        "milliseconds, median / p99",
        "minicni",
        "bridge",
        "ratio",
        "target",
        "verdict",
    ]);
    for row in rows(report) {
        let (target, verdict) = match row.target {
            None => (String::new(), String::new()),
            Some((found, target)) => (target.words(), target.verdict(found, &report.controls)),
        };
        table.add_row([row.what, row.subject, row.baseline, row.ratio, target, verdict]);
    }
    table
}

/// The verdicts of a run.
pub(in crate::bench) fn judge(report: &Report) -> Vec<Judged> {
    let judged = |row: Row| {
        let (found, target) = row.target?;
        // Where it is beside something else, its name says so.
        let is_beside_bridge = !row.baseline.is_empty() && !row.what.contains(", beside ");
        Some(Judged {
            id: row.id,
            what: row.what,
            baseline: if is_beside_bridge { "bridge, host-local".to_owned() } else { String::new() },
            found: if row.ratio.is_empty() { format!("{found:.2}{}", target.unit) } else { row.ratio },
            target: format!("≤ {}", target.words()),
            verdict: target.verdict(found, &report.controls),
        })
    };
    rows(report).into_iter().filter_map(judged).collect()
}

/// Ratios to `bridge` with `host-local` as bars.
pub(in crate::bench) fn svg(report: &Report) -> Result<String> {
    let (sequence, parallel) = (&report.sequence, &report.parallel);
    let row =
        |name: &str, compared: &Compared| plot::Row { name: name.to_owned(), ours: true, bars: vec![compared.ratio] };
    let many = report.plan.parallel;
    Bars {
        title: "Time from exec to exit, bridge with host-local = 1, less is better",
        rows: vec![
            row("ADD", &sequence.add),
            row("ADD, IPv4 and IPv6", &report.dual_stack.bridge),
            row("CHECK", &sequence.check),
            row("DEL", &sequence.del),
            row(&format!("{many} ADDs at once"), &parallel.add_wall),
            row(&format!("{many} DELs at once"), &parallel.del_wall),
            row(&format!("slowest ADD during {} DELs", report.plan.churn), &report.churn),
        ],
    }
    .svg()
}

fn rows(report: &Report) -> Vec<Row> {
    let (plan, controls) = (&report.plan, &report.controls);
    let (sequence, present, parallel) = (&report.sequence, &report.present, &report.parallel);
    let at_once = |what| format!("{} at once: {what}", plan.parallel);
    let with_present = |command| format!("{command}, {} pods present, beside none", plan.present);
    let many = Target { limit: 1.15, ambitious: 1.05, unit: "x", rests_on: RestsOn::Medians };
    let prompt = Target::p99(20.0, 8.0);
    vec![
        alone("control: exec of `true`", None, &controls.process),
        alone("control: veth pair made", None, &controls.veth_add),
        alone("control: veth pair deleted", None, &controls.veth_del),
        compared("ADD", &sequence.add, Some(Target::ratio(0.35, 0.2))).named("C1"),
        Row {
            id: "C1",
            what: "ADD, the time itself".to_owned(),
            subject: format!("{:.2}", sequence.add.subject.median),
            target: Some((sequence.add.subject.median, Target::median(8.0, 4.0))),
            ..empty()
        },
        compared("DEL", &sequence.del, None),
        compared("CHECK", &sequence.check, None),
        p99("CHECK, p99", &sequence.check.subject, prompt).named("S4"),
        p99("STATUS, p99", &sequence.status, Target::p99(20.0, 5.0)).named("S4"),
        p99("VERSION, p99", &sequence.version, Target::p99(5.0, 2.0)).named("S4"),
        compared("ADD, IPv4 and IPv6", &report.dual_stack.bridge, Some(Target::ratio(0.35, 0.2))).named("C2"),
        compared("ADD, IPv4 and IPv6, beside ptp", &report.dual_stack.ptp, Some(Target::ratio(0.05, 0.01))).named("C2"),
        compared(&with_present("ADD"), &present.add, Some(many)).named("C3"),
        compared(&with_present("CHECK"), &present.check, Some(many)).named("C3"),
        compared(&with_present("STATUS"), &present.status, Some(many)).named("C3"),
        compared(&with_present("DEL"), &present.del, None),
        p99("CHECK with them, p99", &present.check.subject, prompt).named("S4"),
        p99("STATUS with them, p99", &present.status.subject, Target::p99(20.0, 5.0)).named("S4"),
        compared(&at_once("ADD, to the last exit"), &parallel.add_wall, Some(Target::ratio(0.5, 0.25))).named("C4"),
        compared(&at_once("ADD, p99 of a round"), &parallel.add_p99, Some(Target::ratio(0.5, 0.25))).named("C4"),
        compared(&at_once("DEL, to the last exit"), &parallel.del_wall, Some(Target::ratio(0.3, 0.1))).named("C5"),
        compared(&at_once("DEL, p99 of a round"), &parallel.del_p99, None),
        compared(
            &format!("ADD during {} DELs, p99 of a round", plan.churn),
            &report.churn,
            Some(Target::ratio(0.5, 0.3)),
        )
        .named("C6"),
        size(report.plugin_bytes).named("M3"),
    ]
}

impl Row {
    /// With the name of its target.
    fn named(self, id: &'static str) -> Self {
        Self { id, ..self }
    }
}

fn empty() -> Row {
    Row {
        id: "",
        what: String::new(),
        subject: String::new(),
        baseline: String::new(),
        ratio: String::new(),
        target: None,
    }
}

fn compared(what: &str, compared: &Compared, target: Option<Target>) -> Row {
    let ratio = &compared.ratio;
    Row {
        id: "",
        what: what.to_owned(),
        subject: median_and_p99(&compared.subject),
        baseline: median_and_p99(&compared.baseline),
        ratio: format!("{:.3} ({:.3} .. {:.3})", ratio.median, ratio.lower_quartile, ratio.upper_quartile),
        target: target.map(|target| (ratio.median, target)),
    }
}

fn alone(what: &str, target: Option<(f64, Target)>, summary: &Summary) -> Row {
    Row { what: what.to_owned(), subject: median_and_p99(summary), target, ..empty() }
}

fn p99(what: &str, summary: &Summary, target: Target) -> Row {
    alone(what, Some((summary.p99, target)), summary)
}

#[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
fn size(bytes: u64) -> Row {
    let megabytes = bytes as f64 / 1e6;
    Row {
        what: "size of the plugin".to_owned(),
        subject: format!("{megabytes:.2} MB"),
        target: Some((megabytes, Target { limit: 4.0, ambitious: 1.5, unit: " MB", rests_on: RestsOn::Nothing })),
        ..empty()
    }
}

fn median_and_p99(summary: &Summary) -> String {
    // Two or three digits that mean something.
    let digits = if summary.median < 10.0 { 2 } else { 1 };
    format!("{:.digits$} / {:.digits$}", summary.median, summary.p99)
}

fn notes(report: &Report) -> String {
    let (environment, plan, controls) = (&report.environment, &report.plan, &report.controls);
    let words = if !controls.steady() {
        "THE CONTROLS WERE UNSTABLE, so that there is no verdict; run it again when nothing else runs"
    } else if !controls.calm() {
        "Single controls were held up, so that a p99 of single calls that is too long says nothing; run it again when \
         nothing else runs"
    } else {
        "The controls were steady"
    };
    format!(
        "{words}: exec of `true` took {:.2} ms in the first half of the run, {:.2} ms in the second, and {:.2} ms at \
         the p99.\n\n\
         * {} rounds; {} beside `ptp`, which waits up to two seconds for duplicate address detection, as `bridge` did \
         before 1.1.0;\n  {} with many pods at once; seed {}\n\
         * at once: as many processes at the same time, from the first exec to the last exit; during DELs: one ADD after \
         another until the last DEL exits\n\
         * minicni {}, in eBPF mode with its daemon running; containernetworking-plugins {}; the state of both in memory\n\
         * {environment}",
        controls.process_first_half,
        controls.process_second_half,
        controls.process.p99,
        plan.rounds,
        plan.waiting_rounds,
        plan.parallel_rounds,
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

    #[test]
    fn the_document_shows_the_figures_that_are_kept_beside_it() {
        assert_eq!(include_str!("../../../../docs/bench-add.md"), document(&kept()));
    }

    #[test]
    fn there_is_no_verdict_when_the_controls_changed_during_the_run() {
        let mut report = quiet();
        assert!(!render(&report).contains("unknown"));
        report.controls.process_second_half *= 2.0;
        let text = render(&report);
        assert_eq!(text.matches(" met").count(), 1, "the size alone: {text}");
        assert!(!text.contains("missed") && text.contains("UNSTABLE"), "{text}");
    }

    #[test]
    fn slow_calls_are_not_held_against_the_plugin_when_single_controls_were_held_up() {
        let mut report = quiet();
        report.controls.process.p99 *= 10.0;
        for (target, found, verdict) in [
            (Target::p99(20.0, 8.0), 15.0, "met"),
            (Target::p99(20.0, 8.0), 25.0, "unknown: controls unstable"),
            (Target::median(20.0, 8.0), 25.0, "missed by 25.0 %"),
        ] {
            assert_eq!(target.verdict(found, &report.controls), verdict);
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
        report
    }
}
