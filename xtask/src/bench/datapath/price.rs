//! What flows pay that get nothing for it: those that are never promoted.

use comfy_table::{Table, TableStyle};

use super::{
    report::Report,
    target::ratio,
    topology::Topology::{self as T},
    workload::Workload::{self as W},
};

/// What is measured, with our programs and with empty ones in their places.
const PAYING: [(W, T, T); 4] = [
    (W::TcpSameCpu, T::Service, T::ServiceEmpty),
    (W::UdpSameCpu, T::Service, T::ServiceEmpty),
    (W::Connections, T::Service, T::ServiceEmpty),
    (W::Connections, T::Minicni, T::Empty),
];

/// What is left of the rate without any program, and how much of the loss is the kernel's for calling one at all.
pub(super) fn table(report: &Report, style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(["", "empty programs", "minicni", "minicni beside empty programs"]);
    for (workload, ours, empty) in PAYING {
        let baseline = ours.baseline();
        let beside = |subject, baseline| {
            report.compared(workload, subject, baseline).map(|compared| ratio(&compared.ratio)).unwrap_or_default()
        };
        table.add_row([
            format!("{}, {}", workload.name(), if ours == T::Service { "ClusterIP" } else { "pod to pod" }),
            beside(empty, baseline),
            beside(ours, baseline),
            beside(ours, empty),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pays_is_measured_with_our_programs_with_empty_ones_and_with_none() {
        for (workload, ours, empty) in PAYING {
            let measured = workload.topologies();
            assert!([ours, empty, ours.baseline()].iter().all(|topology| measured.contains(topology)), "{workload:?}");
            assert_eq!(ours.baseline(), empty.baseline());
        }
    }
}
