//! Request/response on one CPU as bars.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{report::Report, topology::Topology, workload::Workload};
use crate::bench::statistics::Summary;

/// From top to bottom.
const SHOWN: [Topology; 11] = [
    Topology::Loopback,
    Topology::Direct,
    Topology::RedirectPeer,
    Topology::Minicni,
    Topology::Plain,
    Topology::Routed,
    Topology::Bridge,
    Topology::RemoteHosts,
    Topology::RemoteMinicni,
    Topology::RemoteRouted,
    Topology::RemoteVxlan,
];
const SIZE: (u32, u32) = (860, 520);
/// Room for the names.
const NAMES: i32 = 215;
const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);

/// The plot as SVG: ratios to routing with conntrack, on one node and on two, with quartiles; TCP above UDP.
pub(super) fn svg(report: &Report) -> Result<String> {
    let mut text = String::new();
    draw(report, &mut text).map_err(|error| anyhow!("draw the plot: {error}"))?;
    // As text files end.
    Ok(text.trim_end().to_owned() + "\n")
}

fn draw(report: &Report, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let bars = SHOWN.iter().rev().zip(0_u8..).flat_map(|(topology, row)| {
        [(Workload::TcpSameCpu, 0.5), (Workload::UdpSameCpu, 0.14)].into_iter().filter_map(move |(workload, above)| {
            let ratio = report.compared(workload, *topology, topology.baseline())?.ratio;
            Some((*topology, workload, f64::from(row) + above, ratio))
        })
    });
    let bars: Vec<(Topology, Workload, f64, Summary)> = bars.collect();
    let longest = bars.iter().map(|(.., ratio)| ratio.upper_quartile).fold(1.0, f64::max);
    let rows = f64::from(u32::try_from(SHOWN.len())?);

    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Request/response on one CPU, routing with conntrack = 1 (TCP above, UDP below)", ("sans-serif", 19))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..longest * 1.08, 0.0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .max_light_lines(0)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|at| format!("{at:.1}"))
        .draw()?;
    for (topology, row) in SHOWN.iter().rev().zip(0_u8..) {
        let name = Text::new(topology.name(), (8 - NAMES, -5), ("sans-serif", 15));
        chart.draw_series([EmptyElement::at((0.0, f64::from(row) + 0.49)) + name])?;
    }
    for (topology, workload, at, ratio) in bars {
        let ours = matches!(topology, Topology::Minicni | Topology::RemoteMinicni);
        let colour = if ours { OURS } else { OTHERS };
        let colour = if workload == Workload::TcpSameCpu { colour.filled() } else { colour.mix(0.65).filled() };
        chart.draw_series([Rectangle::new([(0.0, at), (ratio.median, at + 0.34)], colour)])?;
        let middle = at + 0.17;
        chart
            .draw_series([PathElement::new([(ratio.lower_quartile, middle), (ratio.upper_quartile, middle)], BLACK)])?;
        let label = Text::new(
            format!("{:.2}", ratio.median),
            (0.02, at + 0.30),
            ("sans-serif", 12).into_font().color(if ours { &WHITE } else { &BLACK }),
        );
        chart.draw_series([label])?;
    }
    chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, rows)], BLACK.mix(0.4))])?;
    area.present()?;
    Ok(())
}
