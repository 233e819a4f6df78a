//! The report in words, with what it is held against.

use comfy_table::{
    Table,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::report::Report;

/// For a terminal.
pub(super) fn render(report: &Report) -> String {
    format!("{}\n{}", table(report, UTF8_FULL_CONDENSED), notes(report))
}

/// For docs/bench-scale.md.
pub(super) fn document(report: &Report) -> String {
    format!(
        "# Many nodes\n\n\
         What the daemon does beside a real API server and etcd that hold {} Node objects of {:.1} kB each, as kubelets make\n\
         them. Each node says once a minute that it lives.\n\n\
         ```sh\n\
         cargo xtask bench scale --json > docs/bench-scale.json\n\
         cargo xtask bench scale --from docs/bench-scale.json --markdown > docs/bench-scale.md\n\
         ```\n\n\
         {}\n\n{}\n",
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

fn table(report: &Report, style: comfy_table::TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(["what", "found", "target", "verdict"]);
    let mut row = |what: &str, found: String, value: f64, limit: f64, unit: &str| {
        let verdict = if value <= limit {
            "met".to_owned()
        } else if limit > 0.0 {
            format!("missed by {:.0} %", (value / limit - 1.0) * 100.0)
        } else {
            "missed".to_owned()
        };
        table.add_row([what.to_owned(), found, format!("{limit} {unit}"), verdict]);
    };
    let Report { cold_start, event, .. } = report;
    row(
        "exec until all routes are in the kernel, median / slowest",
        format!("{:.2} / {:.2} s", cold_start.median, cold_start.p99),
        cold_start.p99,
        3.0,
        "s",
    );
    row(
        "a node's creation or deletion until its route, median / p99",
        format!("{:.1} / {:.1} ms", event.median, event.p99),
        event.p99,
        100.0,
        "ms",
    );
    row("resident memory, 10 nodes", format!("{:.1} MB", report.memory_few), report.memory_few, 15.0, "MB");
    let memory = format!("{:.1} MB, at most {:.1} MB", report.memory, report.memory_peak);
    row(&format!("resident memory, {} nodes", report.plan.nodes), memory, report.memory, 30.0, "MB");
    row(
        &format!("CPU time with {:.0} heartbeats a minute", report.heartbeats),
        format!("{:.3} % of a core", report.idle_percent),
        report.idle_percent,
        0.2,
        "%",
    );
    let away = format!("changes of routes while the API server is away for {} s, and comes back", report.plan.outage);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
    row(&away, report.outage_changes.to_string(), report.outage_changes as f64, 0.0, "");
    table.add_row([
        "API server ready again until the next node's route".to_owned(),
        format!("{:.1} s", report.back),
        String::new(),
        String::new(),
    ]);
    table
}

fn notes(report: &Report) -> String {
    let (environment, plan) = (&report.environment, &report.plan);
    format!(
        "{} cold starts, {} nodes that came or went beside the heartbeats, {} s of CPU time. The API server, its etcd and the\n\
         heartbeats share the CPUs with the daemon.\n\
         {}, {} CPUs ({}), load {:.1} before and {:.1} after, {} UTC, {} s; minicni {}.",
        plan.starts,
        plan.events,
        plan.idle,
        environment.kernel,
        environment.cpus,
        environment.cpu,
        environment.load[0],
        environment.load[1],
        environment.date,
        environment.seconds,
        environment.minicni,
    )
}
