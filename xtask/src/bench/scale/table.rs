//! The report in words, with what it is held against.

use comfy_table::{
    Table,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::report::Report;
use crate::bench::judged::{Judged, Limits};

/// For a terminal.
pub(super) fn render(report: &Report) -> String {
    format!("{}\n{}", table(report, UTF8_FULL_CONDENSED), notes(report))
}

/// For docs/bench-scale.md.
pub(in crate::bench) fn document(report: &Report) -> String {
    format!(
        "# Many nodes\n\n\
         What the daemon does beside a real API server and etcd that hold {} Node objects of {:.1} kB each, as kubelets make\n\
         them. Each node says once a minute that it lives.\n\n\
         ```sh\n\
         cargo xtask bench scale --json docs/bench-scale.json\n\
         cargo xtask bench all --from docs --docs docs   # this document, and those of the other benchmarks\n\
         ```\n\n\
         {}\n\n\
         M2: the API server sends the whole object for every heartbeat, and nothing but its fields tells a heartbeat from a\n\
         change. What is left is waking up for it, reading, decrypting and unpacking; most of it is skipped in protobuf.\n\
         Kubelets that only renew their lease cause none of it: they write their node's status every five minutes, a fifth\n\
         of what is measured here.\n\n\
         S1: a route waits until the table of nftables knows the new node, because a flow that was masqueraded once stays\n\
         so. The daemon changes the sets by netlink; `nft` would read all nodes in them first. The first node after a second\n\
         without any waits up to 40 ms more, in which the daemon rests; most of those that are measured follow another one.\n\n{}\n",
        report.plan.nodes,
        kilobytes(report),
        table(report, ASCII_MARKDOWN),
        notes(report)
    )
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn kilobytes(report: &Report) -> f64 {
    report.object_bytes as f64 / 1e3
}

/// The verdicts of a run.
pub(in crate::bench) fn judge(report: &Report) -> Vec<Judged> {
    let Report { cold_start, event, .. } = report;
    let row = |id, what: String, found, value, limits, unit: &str| {
        Judged::figure(id, what, found, Limits::at_most(limits), unit, value)
    };
    let starts = format!("{:.2} / {:.2} s", cold_start.median, cold_start.p99);
    let events = format!("{:.1} / {:.1} ms", event.median, event.p99);
    let few = format!("{:.1} MB", report.memory_few);
    let memory = format!("{:.1} MB, at most {:.1} MB", report.memory, report.memory_peak);
    let idle = format!("{:.3} % of a core", report.idle_percent);
    let until_routes = "exec until all routes are in the kernel, median / slowest".to_owned();
    let until_route = "a node's creation or deletion until its route, median / p99".to_owned();
    let with_heartbeats = format!("CPU time with {:.0} heartbeats a minute", report.heartbeats);
    vec![
        row("S2", until_routes, starts, cold_start.p99, [3.0, 1.0], " s"),
        row("S1", until_route, events, event.p99, [100.0, 20.0], " ms"),
        row("M1", "resident memory, 10 nodes".to_owned(), few, report.memory_few, [15.0, 8.0], " MB"),
        row("M1", format!("resident memory, {} nodes", report.plan.nodes), memory, report.memory, [30.0, 16.0], " MB"),
        row("M2", with_heartbeats, idle, report.idle_percent, [0.2, 0.05], " %"),
        Judged::none(
            "S3",
            format!("changes of routes while the API server is away for {} s, and comes back", report.plan.outage),
            report.outage_changes,
        ),
    ]
}

fn table(report: &Report, style: comfy_table::TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(["", "what", "found", "target", "verdict"]);
    for row in judge(report) {
        table.add_row([row.id.to_owned(), row.what, row.found, row.target, row.verdict.to_string()]);
    }
    let back = format!("{:.1} s", report.back);
    table.add_row(["", "API server ready again until the next node's route", &back, "", ""]);
    table
}

fn notes(report: &Report) -> String {
    let (environment, plan) = (&report.environment, &report.plan);
    format!(
        "{} cold starts, {} nodes that came or went beside the heartbeats, {} s of CPU time. The API server, its etcd and the\n\
         heartbeats share the CPUs with the daemon.\n\
         {environment}; minicni {}.",
        plan.starts, plan.events, plan.idle, environment.minicni,
    )
}
