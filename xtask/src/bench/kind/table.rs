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
         `ptp` is a plain network to compare with, of standard parts, [deploy/bench/ptp.yaml](../deploy/bench/ptp.yaml): the \
         plugins ptp, host-local and portmap of the CNI\nproject, a route per node, and a masquerade for what leaves the \
         cluster, as kindnet has them. kube-proxy is the same with either.\n\n\
         ```sh\n\
         cargo xtask bench kind --json docs/bench-kind.json\n\
         cargo xtask bench kind --cni ptp --json docs/bench-kind-ptp.json\n\
         both=\"--from docs/bench-kind.json --with docs/bench-kind-ptp.json\"\n\
         cargo xtask bench kind $both --markdown > docs/bench-kind.md\n\
         cargo xtask bench kind $both --svg > docs/bench-kind.svg\n\
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
    let columns =
        ["TCP", "pods on", "network", "direct", "by Service", "Service / direct", "fast path: direct, Service"];
    let mut header: Vec<_> = columns.map(str::to_owned).into();
    if let [first, _, ..] = reports {
        header.push(format!("{} / this: direct, Service", first.network));
    }
    table.load_style(style).set_header(header);
    for workload in Workload::ALL {
        for cross_node in [false, true] {
            let paths = [false, true].map(|by_service| Path::new(cross_node, by_service));
            let of = |report: &Report| paths.map(|path| report.series(workload, path).cloned());
            let first = reports.first().map(of);
            for (place, report) in reports.iter().enumerate() {
                let [Some(direct), Some(service)] = of(report) else { continue };
                let mut row = vec![
                    workload.name().to_owned(),
                    if cross_node { "two nodes" } else { "one node" }.to_owned(),
                    report.network.clone(),
                    rate(&direct),
                    rate(&service),
                    range(&Compared::of(&service.rates, &direct.rates).ratio),
                    format!("{}, {}", percent(&direct), percent(&service)),
                ];
                if reports.len() > 1 {
                    row.push(match &first {
                        Some([Some(first_direct), Some(first_service)]) if place > 0 => {
                            format!("{}, {}", apart(first_direct, &direct), apart(first_service, &service))
                        }
                        _ => "-".to_owned(),
                    });
                }
                table.add_row(row);
            }
        }
    }
    table
}

/// How many times as fast one run was as another. Their rounds are no pairs: what could be at most is told by the quartiles.
fn apart(one: &Series, other: &Series) -> String {
    let [one, other] = [one, other].map(|series| Summary::of(&series.rates));
    let [median, low, high] = [
        one.median / other.median,
        one.lower_quartile / other.upper_quartile,
        one.upper_quartile / other.lower_quartile,
    ];
    format!("{median:.2} ({low:.2} .. {high:.2})")
}

fn range(ratio: &Summary) -> String {
    format!("{:.2} ({:.2} .. {:.2})", ratio.median, ratio.lower_quartile, ratio.upper_quartile)
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
            "* each network was measured in a run of its own, one after another. The last column is by the medians of both, \
             with the least and the most that\n  their quartiles allow: where 1 is between them, no difference was seen"
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
            for (place, report) in reports.iter().enumerate() {
                let Some(series) = report.series(workload, path) else { continue };
                let name = match reports {
                    [_] => format!("{}, {path}", workload.word()),
                    _ => format!("{}, {path}, {}", workload.word(), report.network),
                };
                let bars = vec![if place == 0 {
                    Compared::of(&series.rates, &baseline.rates).ratio
                } else {
                    // The rounds of another run are no pairs with ours.
                    let median = Summary::of(&baseline.rates).median;
                    Summary::of(&series.rates.iter().map(|rate| rate / median).collect::<Vec<_>>())
                }];
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
        let docs = crate::command::root().join("docs");
        let mut reports = vec![kept()];
        // Of every network that was measured.
        let other = docs.join("bench-kind-ptp.json");
        if other.exists() {
            reports.push(crate::bench::output::read(&other).unwrap());
        }
        let text = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
        assert_eq!(text("bench-kind.md"), document(&reports));
        assert_eq!(text("bench-kind.svg"), svg(&reports).unwrap());
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

    #[test]
    fn another_network_has_a_column_of_how_many_times_as_fast_the_first_one_is() {
        let mut other = kept();
        other.network = "ptp".to_owned();
        for series in &mut other.series {
            series.rates =
                Vec::from([1.0, 2.0, 3.0, 4.0].map(|rate| rate * if series.path.by_service { 2.0 } else { 1.0 }));
        }
        let mut first = Report { network: MINICNI.to_owned(), ..other.clone() };
        first.series.iter_mut().for_each(|series| series.rates.iter_mut().for_each(|rate| *rate *= 8.0));
        let text = render(&[first.clone(), other]);
        assert!(text.contains("minicni / this: direct, Service"), "{text}");
        assert!(text.contains("8.00 (2.67 .. 24.00), 8.00 (2.67 .. 24.00)"), "{text}");
        assert!(!render(&[first]).contains("/ this"));
    }
}
