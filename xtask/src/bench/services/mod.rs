//! A node with many services: what their rules cost flows that they do not concern, and those that they do.

mod measure;
mod report;

use anyhow::Result;

pub(super) use self::report::{Report, document, judge, svg, svgs};
use super::{all::All, output::Options};
use crate::{
    build,
    debian::{self, Tool},
    lab,
};

/// Arguments of `bench services`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: Options,
}

const TOOLS: [Tool; 3] = [
    Tool { program: "ip", package: "iproute2", purpose: "nodes of the benchmark are wired with it" },
    Tool { program: "iptables-nft-restore", package: "iptables", purpose: "nodes have kube-proxy's rules" },
    Tool { program: "nft", package: "nftables", purpose: "nodes have kube-proxy's rules" },
];

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let report = match options.kept()? {
        Some(report) => report,
        None => measured(options.quick)?,
    };
    options.show(&report, report::render, document, |report| All { services: Some(report), ..All::default() })
}

/// A run with nothing but its length chosen.
pub(super) fn measured(quick: bool) -> Result<Report> {
    lab::need_root()?;
    let programs = build::portable()?;
    debian::need(&TOOLS)?;
    measure::measure(quick, &programs)
}
