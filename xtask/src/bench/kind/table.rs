//! Runs as one table, and as bars.

use anyhow::{Context as _, Result};
use comfy_table::{
    Table, TableStyle,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};

use super::{
    MINICNI,
    report::{Path, Report, Series, Workload},
};
use crate::bench::{
    plot::{Bars, Row},
    statistics::{Compared, Summary},
};

/// For a terminal.
pub(super) fn render(reports: &[Report]) -> String {
    format!("{}\n{}", table(reports, UTF8_FULL_CONDENSED), notes(reports))
}

/// For docs/bench-kind.md.
pub(super) fn document(reports: &[Report]) -> String {
    format!(
        "# Pods of a cluster\n\n\
         A client in a pod, a server in a pod of the same node and one of another node, each reached by its own address and \
         by the ClusterIP of a Service. All over TCP and\nIPv4. A rate is the median of the rounds with quartiles; a ratio is \
         the median of the ratios of single rounds. What the fast path carries is in percent of\nthe packets that minicni's \
         programs were asked about.\n\n\
         ```sh\n\
         cargo xtask bench kind --json docs/bench-kind.json\n\
         cargo xtask bench kind --from docs/bench-kind.json --markdown > docs/bench-kind.md\n\
         cargo xtask bench kind --from docs/bench-kind.json --svg > docs/bench-kind.svg\n\
         cargo xtask bench kind --from docs/bench-kind.json --with other.json   # another network's run in the same table\n\
         ```\n\n\
         {}\n\n\
         New connections go through the kernel's own stack by design, and so does what a Service translates, on the client's \
         node: [datapath](datapath.md). A server's node sees\nthe translated packets as any others, and promotes them. Client and server run where the scheduler puts them, among \
         all that a node runs, so rates scatter; [performance](performance.md)\nhas what is measured on CPUs of its own, and \
         ratios to quote.\n\n![Bars: what there is in a second](bench-kind.svg)\n\n{}\n",
        table(reports, ASCII_MARKDOWN),
        notes(reports)
    )
}

fn table(reports: &[Report], style: TableStyle) -> Table {
    let mut table = Table::new();
    let header =
        ["TCP", "pods on", "network", "direct", "by Service", "Service / direct", "fast path: direct, Service"];
    table.load_style(style).set_header(header);
    for workload in Workload::ALL {
        for cross_node in [false, true] {
            for report in reports {
                let [direct, service] = [false, true].map(|by| report.series(workload, Path::new(cross_node, by)));
                let (Some(direct), Some(service)) = (direct, service) else { continue };
                let ratio = Compared::of(&service.rates, &direct.rates).ratio;
                table.add_row([
                    workload.name().to_owned(),
                    if cross_node { "two nodes" } else { "one node" }.to_owned(),
                    report.network.clone(),
                    rate(direct),
                    rate(service),
                    format!("{:.2} ({:.2} .. {:.2})", ratio.median, ratio.lower_quartile, ratio.upper_quartile),
                    format!("{}, {}", percent(direct), percent(service)),
                ]);
            }
        }
    }
    table
}

fn rate(series: &Series) -> String {
    let Summary { median, lower_quartile, upper_quartile, .. } = Summary::of(&series.rates);
    let [median, lower, upper] = [median, lower_quartile, upper_quartile].map(|rate| series.workload.rate(rate));
    let number = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    format!("{median} ({} .. {})", number(&lower), number(&upper))
}

fn percent(series: &Series) -> String {
    series.fast_percent.map_or("-".to_owned(), |percent| format!("{percent:.1} %"))
}

fn notes(reports: &[Report]) -> String {
    let mut notes: Vec<_> = reports
        .iter()
        .map(|report| {
            let Report { network, cluster, kubernetes, rounds, milliseconds, environment, .. } = report;
            format!(
                "* {network}: {rounds} rounds in random order, {milliseconds} ms for each measurement; {cluster}, Kubernetes \
                 {kubernetes}; {environment}; source {}",
                environment.minicni
            )
        })
        .collect();
    if reports.len() > 1 {
        notes.push(
            "* each network was measured in a run of its own, one after another: only what differs by more than the \
             quartiles says something"
                .to_owned(),
        );
    }
    notes.join("\n")
}

/// All rates, each by that of the first report's pods on one node, direct.
pub(super) fn svg(reports: &[Report]) -> Result<String> {
    let first = reports.first().context("there is a report")?;
    let mut rows = Vec::new();
    for workload in Workload::ALL {
        let baseline = first.series(workload, Path::FIRST).context("the report lacks the direct path on one node")?;
        for path in Path::ALL {
            for report in reports {
                let Some(series) = report.series(workload, path) else { continue };
                let name = match reports {
                    [_] => format!("{}, {path}", workload.word()),
                    _ => format!("{}, {path}, {}", workload.word(), report.network),
                };
                let bars = vec![Compared::of(&series.rates, &baseline.rates).ratio];
                rows.push(Row { name, ours: report.network == MINICNI, bars });
            }
        }
    }
    let title = format!("TCP between pods, in a second; {} on one node, direct = 1", first.network);
    Bars { title: &title, rows }.svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Report {
        serde_json::from_str(include_str!("../../../../docs/bench-kind.json")).unwrap()
    }

    #[test]
    fn the_document_shows_the_figures_that_are_kept_beside_it() {
        assert_eq!(include_str!("../../../../docs/bench-kind.md"), document(&[kept()]));
    }

    #[test]
    fn runs_of_several_networks_stand_beside_each_other_and_are_said_not_to_be_interleaved() {
        let mut other = kept();
        other.network = "kindnet".to_owned();
        let text = render(&[kept(), other.clone()]);
        let rows: Vec<_> = text.lines().filter(|line| line.contains("request/response")).collect();
        assert!(rows.len() == 4 && rows[0].contains("minicni") && rows[1].contains("kindnet"), "{text}");
        assert!(text.contains("in a run of its own"), "{text}");
        let plot = svg(&[kept(), other]).unwrap();
        assert!(plot.contains("stream, two nodes, by Service, kindnet"), "{plot}");
    }
}
