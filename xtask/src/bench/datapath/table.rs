//! The report in words.

use comfy_table::{
    Table,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::{
    control::{Control, Controls},
    cpu_time,
    report::{Report, Series},
    target::{judge, ratio},
    topology::Topology,
    workload::Workload,
};
use crate::bench::statistics::Summary;

/// For a terminal.
pub(super) fn render(report: &Report) -> String {
    let style = UTF8_FULL_CONDENSED;
    let parts = [targets(report, style), rates(report, style), controls(report, style)];
    let parts = parts.map(|table| table.to_string()).join("\n");
    format!("{parts}\n{}\n\n{}", headline(report), notes(report))
}

/// For docs/performance.md.
pub(in crate::bench) fn document(report: &Report) -> String {
    let style = ASCII_MARKDOWN;
    format!(
        include_str!("document.md"),
        headline = headline(report),
        targets = targets(report, style),
        rates = rates(report, style),
        controls = controls(report, style),
        rule = Control::rule(),
        burst = cpu_time::BURST,
        pause = cpu_time::PAUSE.as_micros(),
        pods = report.plan.pods,
        routes = report.plan.routes,
        notes = notes(report),
    )
}

fn targets(report: &Report, style: comfy_table::TableStyle) -> Table {
    let mut table = table(style, &["", "minicni", "beside", "ratio", "target", "verdict"]);
    for row in judge(report) {
        table.add_row([row.id.to_owned(), row.what, row.baseline, row.found, row.target, row.verdict]);
    }
    table
}

fn rates(report: &Report, style: comfy_table::TableStyle) -> Table {
    let mut table = table(style, &["", "", "median", "ratio to", "", "of the way", "redirected"]);
    for workload in Workload::ALL {
        for topology in Topology::ALL.into_iter().filter(|topology| workload.topologies().contains(topology)) {
            if let Some(series) = report.series(workload, topology) {
                table.add_row(rate(report, series));
            }
        }
    }
    table
}

fn rate(report: &Report, series: &Series) -> [String; 7] {
    let Series { workload, topology, ref rounds, redirected } = *series;
    let (unit, factor) = workload.unit();
    let median = Summary::of(rounds).median * factor;
    let digits = usize::from(workload != Workload::CpuTime);
    let baseline = topology.baseline();
    let beside = report.compared(workload, topology, baseline).filter(|_| topology != baseline);
    [
        workload.name().to_owned(),
        topology.name().to_owned(),
        format!("{median:.digits$} {unit}"),
        beside.map(|_| baseline.name().to_owned()).unwrap_or_default(),
        beside.map(|beside| ratio(&beside.ratio)).unwrap_or_default(),
        of_the_way(report, series).unwrap_or_default(),
        match redirected {
            Some(packets) if workload == Workload::Stream => if packets > 0.0 { "yes" } else { "no" }.to_owned(),
            Some(packets) => format!("{packets:.2}"),
            None => String::new(),
        },
    ]
}

/// How far it is from routing with conntrack towards a direct pair.
fn of_the_way(report: &Report, series: &Series) -> Option<String> {
    let between = [Topology::Minicni, Topology::Crowded, Topology::Plain, Topology::RedirectPeer, Topology::Flowtable];
    if !between.contains(&series.topology) {
        return None;
    }
    let rounds = |topology| Some(&report.series(series.workload, topology)?.rounds);
    let (from, to) = (rounds(Topology::Routed)?, rounds(Topology::Direct)?);
    let parts = series.rounds.iter().zip(from).zip(to).map(|((value, from), to)| (value - from) / (to - from));
    let parts: Vec<_> = parts.collect();
    Some(format!("{:.0} %", Summary::of(&parts).median * 100.0))
}

fn controls(report: &Report, style: comfy_table::TableStyle) -> Table {
    let mut table = table(style, &["control", "direct / routed, no netfilter", "first half, second half", ""]);
    for control in Controls::of(report).all {
        let [first, second] = control.halves;
        table.add_row([
            control.workload.name().to_owned(),
            ratio(&control.ratio),
            format!("{first:.3}, {second:.3}"),
            if control.steady() { "steady" } else { "UNSTABLE" }.to_owned(),
        ]);
    }
    table
}

fn table(style: comfy_table::TableStyle, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(header);
    table
}

fn headline(report: &Report) -> &'static str {
    let controls = Controls::of(report);
    if !controls.run_is_steady() {
        "THE RUN IS UNSTABLE: its controls on one CPU left their band, so that there is no verdict. Run it again when \
         nothing else runs."
    } else if controls.all.iter().any(|control| !control.steady()) {
        "The controls on one CPU were steady. Where another left its band, there is no verdict."
    } else {
        "All controls were steady."
    }
}

fn notes(report: &Report) -> String {
    let (environment, plan) = (&report.environment, &report.plan);
    let missing = report.missing.iter().map(|it| format!("* NOT MEASURED: {}: {}", it.topology.name(), it.reason));
    let missing = missing.collect::<Vec<_>>().join("\n");
    format!(
        "{missing}\n* {} rounds, {} ms for each measurement in each, seed {}; {} measurements failed once and were made again\n\
         * {environment}, {} % of the CPUs' time taken by the hypervisor for others\n\
         * minicni {}; containernetworking-plugins {}\n\
         * mitigations: {}",
        plan.rounds,
        plan.milliseconds,
        plan.seed,
        report.repeated,
        report.stolen,
        environment.minicni,
        environment.plugins,
        report.mitigations.join("; "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Report {
        serde_json::from_str(include_str!("../../../../docs/bench-datapath.json")).unwrap()
    }

    #[test]
    fn the_document_shows_the_figures_that_are_kept_beside_it() {
        assert_eq!(include_str!("../../../../docs/performance.md"), document(&kept()));
    }

    #[test]
    fn the_plot_shows_the_figures_that_are_kept_beside_it() {
        assert_eq!(include_str!("../../../../docs/bench-datapath.svg"), super::super::plot::svg(&kept()).unwrap());
    }

    #[test]
    fn there_is_no_verdict_when_the_controls_on_one_cpu_left_their_band() {
        let mut report = kept();
        for series in &mut report.series {
            let better = if series.workload.more_is_better() { 1.2 } else { 0.8 };
            series.rounds.fill(if series.topology == Topology::Direct { better } else { 1.0 });
        }
        let calm = render(&report);
        assert!(!calm.contains("unknown") && calm.contains("missed by"), "{calm}");
        let tcp = report.series.iter_mut().find(|series| series.topology == Topology::Direct).unwrap();
        assert_eq!(tcp.workload, Workload::TcpSameCpu);
        tcp.rounds.fill(2.0);
        let disturbed = render(&report);
        assert!(disturbed.contains("THE RUN IS UNSTABLE"), "{disturbed}");
        assert!(!disturbed.contains("met") && !disturbed.contains("missed by"), "{disturbed}");
    }
}
