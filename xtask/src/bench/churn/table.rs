//! The report in words, with what it is held against.

use anyhow::Result;
use comfy_table::{
    Table, TableStyle,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::report::{Report, Series};
use crate::bench::{
    judged::{Judged, Limits, Verdict},
    plot::{self, Bars},
    statistics::Compared,
};

/// What targets are about.
const FIRST: &str = "bridge";

/// For a terminal.
pub(super) fn render(report: &Report) -> String {
    format!("{}\n{}", table(report, UTF8_FULL_CONDENSED), notes(report))
}

/// For docs/bench-churn.md.
pub(in crate::bench) fn document(report: &Report) -> String {
    format!(
        "# Many pods that come and go\n\n\
         What many calls at once take, from the first exec to the last exit, on a node with none, some and many other \
         pods, beside `bridge` and `ptp`\nwith `host-local` in the same run. Each plugin has a node, its pods and its \
         leases for itself. A ratio is the median of the ratios of single\nrounds, with its interval, and judged as \
         [there](performance.md#controls-and-what-a-verdict-means). A target in parentheses is an ambitious one.\n\n\
         ```sh\n\
         cargo xtask bench churn --json docs/bench-churn.json\n\
         cargo xtask bench all --from docs --docs docs   # this document, its plot, and those of the other benchmarks\n\
         ```\n\n\
         {}\n\n![ratios to bridge with host-local](bench-churn.svg)\n\n{}\n",
        table(report, ASCII_MARKDOWN),
        notes(report)
    )
}

/// What is measured, and what it must not exceed.
fn figures(report: &Report, series: &Series) -> [(&'static str, String, Compared, Option<[f64; 2]>); 5] {
    let plan = &report.plan;
    let many = plan.at_once;
    [
        ("C4", format!("{many} ADDs at once"), series.add_wall, Some([0.5, 0.25])),
        ("C4", format!("{many} ADDs at once, p99"), series.add_p99, Some([0.5, 0.25])),
        ("C5", format!("{many} DELs at once"), series.del_wall, Some([0.3, 0.1])),
        ("C5", format!("{many} DELs at once, p99"), series.del_p99, None),
        ("C6", format!("ADD during {} DELs, p99", plan.deleted), series.add_while_deleted, Some([0.5, 0.3])),
    ]
}

fn verdict(report: &Report, series: &Series, compared: &Compared, limits: Limits) -> Option<Verdict> {
    if series.beside != FIRST {
        return None;
    }
    let steady = report.controls.steady();
    Some(if steady { limits.judge_median(&compared.ratio) } else { Verdict::Unknown("the controls drifted") })
}

fn table(report: &Report, style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header([
        "milliseconds, median",
        "present",
        "minicni",
        "beside",
        "",
        "ratio",
        "target",
        "verdict",
    ]);
    for series in &report.series {
        for (_, what, compared, limits) in figures(report, series) {
            let limits = limits.map(Limits::at_most);
            let verdict = limits.and_then(|limits| verdict(report, series, &compared, limits));
            table.add_row([
                what,
                series.present.to_string(),
                format!("{:.1}", compared.subject.median),
                series.beside.clone(),
                format!("{:.1}", compared.baseline.median),
                compared.ratio.with_interval(3),
                verdict.as_ref().and(limits).map(|limits| limits.words("x")).unwrap_or_default(),
                verdict.map(|verdict| verdict.to_string()).unwrap_or_default(),
            ]);
        }
    }
    table
}

/// The verdicts of a run.
pub(in crate::bench) fn judge(report: &Report) -> Vec<Judged> {
    let mut judged: Vec<_> = report.series.iter().flat_map(|series| judge_series(report, series)).collect();
    let (packets, count) = (report.first_packets, report.plan.first_packets);
    judged.extend([
        Judged::none("C8", format!("first packets lost, of {count} pods one by one"), packets.lost_in_turn),
        Judged::none(
            "C8",
            format!("first packets lost, of {count} pods, {} at once", packets.at_once),
            packets.lost_at_once,
        ),
    ]);
    judged
}

fn judge_series(report: &Report, series: &Series) -> Vec<Judged> {
    let judged = |(id, what, compared, limits): (&'static str, String, Compared, Option<[f64; 2]>)| {
        let limits = Limits::at_most(limits?);
        Some(Judged {
            id,
            what: format!("{what}, {} pods present", series.present),
            baseline: format!("{}, host-local", series.beside),
            found: compared.ratio.with_interval(3),
            target: limits.words("x"),
            ceiling: String::new(),
            verdict: verdict(report, series, &compared, limits)?,
        })
    };
    figures(report, series).into_iter().filter_map(judged).collect()
}

/// Ratios to the first of the plugins as bars.
pub(in crate::bench) fn svg(report: &Report) -> Result<String> {
    let beside_first = report.series.iter().filter(|series| series.beside == FIRST);
    let rows = beside_first.flat_map(|series| {
        figures(report, series).map(|(_, what, compared, _)| plot::Row {
            name: format!("{what}, {} present", series.present),
            ours: true,
            bars: vec![compared.ratio],
        })
    });
    Bars { title: "Many calls at once, bridge with host-local = 1, less is better", rows: rows.collect() }.svg()
}

fn notes(report: &Report) -> String {
    let (environment, plan, controls, packets) =
        (&report.environment, &report.plan, &report.controls, &report.first_packets);
    let words = if controls.steady() {
        "The controls were steady"
    } else {
        "THE CONTROLS DRIFTED, so that there is no verdict; run it again when nothing else runs"
    };
    format!(
        "{words}: exec of `true` took {:.2} ms in the first half of the run and {:.2} ms in the second.\n\n\
         * first packets: of {} pods of minicni, one after another, {} lost the first datagram after ADD had returned; \
         of as many, {} at once, {}\n\
         * {} rounds with each number of pods, seed {}; during DELs: one ADD after another until the last DEL exits\n\
         * minicni {}, in eBPF mode with its daemon running; containernetworking-plugins {}; the state of all in memory\n\
         * {environment}",
        controls.process_first_half,
        controls.process_second_half,
        plan.first_packets,
        packets.lost_in_turn,
        packets.at_once,
        packets.lost_at_once,
        plan.rounds,
        plan.seed,
        environment.minicni,
        environment.plugins,
    )
}
