//! The report in words.

use comfy_table::{
    Table,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::{
    control::{Control, controls as all_controls},
    cpu_time, price,
    report::{Report, Series},
    target::{judge, judge_ratios, ratio},
    topology::Topology,
    workload::Workload,
};
use crate::bench::{judged, statistics::Summary};

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
        price = price::table(report, style),
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

/// For docs/bench-flowtable.md: a run in which instructions were counted.
pub(in crate::bench) fn counted(report: &Report) -> String {
    let style = ASCII_MARKDOWN;
    format!(
        include_str!("counted.md"),
        targets = judged::table(&judge_ratios(report), style),
        rates = rates(report, style),
        controls = controls(report, style),
        notes = notes(report),
    )
}

fn targets(report: &Report, style: comfy_table::TableStyle) -> Table {
    judged::table(&judge(report), style)
}

fn rates(report: &Report, style: comfy_table::TableStyle) -> Table {
    let mut table = table(style, &["", "", "median", "ratio to", "", "of the way", "redirected"]);
    for workload in Workload::ALL {
        for topology in Topology::all().filter(|topology| workload.topologies().contains(topology)) {
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
    let baseline = topology.baseline();
    let beside = report.compared(workload, topology, baseline).filter(|_| topology != baseline);
    [
        workload.name().to_owned(),
        topology.name().to_owned(),
        if workload == Workload::CpuTime {
            format!("{median:.0} ns, {:.0} k per CPU second", 1e6 / median)
        } else {
            format!("{median:.1} {unit}")
        },
        beside.map(|_| baseline.name().to_owned()).unwrap_or_default(),
        beside.map(|beside| ratio(&beside.ratio)).unwrap_or_default(),
        of_the_way(report, series).unwrap_or_default(),
        match redirected {
            Some(packets) if workload.is_stream() => if packets > 0.0 { "yes" } else { "no" }.to_owned(),
            Some(packets) => format!("{packets:.2}"),
            None => String::new(),
        },
    ]
}

/// How far it is from routing with conntrack towards a direct pair.
fn of_the_way(report: &Report, series: &Series) -> Option<String> {
    let between = [Topology::Minicni, Topology::Crowded, Topology::Plain, Topology::RedirectPeer, Topology::Flowtable];
    if !between.contains(&series.topology) && !matches!(series.topology, Topology::Peer(_)) {
        return None;
    }
    let rounds = |topology| Some(&report.series(series.workload, topology)?.rounds);
    let (from, to) = (rounds(Topology::Routed)?, rounds(Topology::Direct)?);
    let parts = series.rounds.iter().zip(from).zip(to).map(|((value, from), to)| (value - from) / (to - from));
    let parts: Vec<_> = parts.collect();
    Some(format!("{:.0} %", Summary::of(&parts).median * 100.0))
}

fn controls(report: &Report, style: comfy_table::TableStyle) -> Table {
    let header = ["control", "direct / routed, no netfilter", "first half, second half", "routed / itself", ""];
    let mut table = table(style, &header);
    for control in all_controls(report) {
        table.add_row([
            control.workload.name().to_owned(),
            ratio(&control.direct),
            control.halves.each_ref().map(ratio).join(", "),
            control.again.as_ref().map_or_else(String::new, ratio),
            control.disturbed().unwrap_or("steady").to_owned(),
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
    let controls = all_controls(report);
    let disturbed = controls.iter().filter(|control| control.disturbed().is_some()).count();
    if disturbed == controls.len() {
        "THE RUN WAS DISTURBED: none of its controls held, so that there is no verdict. Run it again when nothing else runs."
    } else if disturbed > 0 {
        "Not all controls held. Where one did not, there is no verdict."
    } else {
        "All controls held."
    }
}

fn notes(report: &Report) -> String {
    let (environment, plan) = (&report.environment, &report.plan);
    let missing = report.missing.iter().map(|it| format!("* NOT MEASURED: {}: {}", it.topology.name(), it.reason));
    let missing = missing.collect::<Vec<_>>().join("\n");
    let seldom = match plan.seldom {
        1 => String::new(),
        rounds => format!("what no target is about, and takes long, in one of {rounds}; "),
    };
    format!(
        "{missing}\n* {} rounds after one for warming up, {} ms for each measurement in each, seed {}; {seldom}{} measurements failed once and were \
         made again\n\
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
    fn there_is_no_verdict_about_a_workload_whose_control_left_its_band() {
        let mut report = kept();
        for series in &mut report.series {
            let better = if series.workload.more_is_better() { 1.2 } else { 0.8 };
            series.rounds.fill(if series.topology == Topology::Direct { better } else { 1.0 });
        }
        let calm: Vec<_> = judge(&report).into_iter().map(|row| row.verdict.to_string()).collect();
        assert!(!calm.iter().any(|verdict| verdict.starts_with("unknown")), "{calm:?}");
        assert!(calm.iter().any(|verdict| verdict.starts_with("missed by")), "{calm:?}");
        for series in report.series.iter_mut().filter(|series| series.topology == Topology::Direct) {
            series.rounds.fill(if series.workload == Workload::TcpSameCpu { 2.0 } else { 1.2 });
        }
        let disturbed: Vec<_> = judge(&report).into_iter().filter(|row| row.id == "D1").collect();
        assert_eq!(disturbed[0].verdict.to_string(), "unknown: a control left its band");
        assert!(disturbed[1].verdict.to_string().starts_with("missed by"), "{disturbed:?}");
    }
}
