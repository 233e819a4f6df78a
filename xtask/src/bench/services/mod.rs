//! A node with many services: what their rules cost flows that they do not concern, and those that they do.

mod measure;
mod report;

use std::path::PathBuf;

use anyhow::Result;

pub(super) use self::report::{Report, document, judge, svgs};
use super::output::{self, STDOUT};
use crate::{
    build,
    debian::{self, Tool},
    lab,
};

/// Arguments of `bench services`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Few and short rounds: whether it all works and about how fast, not figures to quote
    #[arg(long)]
    quick: bool,
    /// Write JSON to a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, group = "format")]
    json: Option<PathBuf>,
    /// Print the document that is kept in docs/bench-services.md
    #[arg(long, group = "format")]
    markdown: bool,
    /// Show the JSON of an earlier run instead of measuring
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

const TOOLS: [Tool; 3] = [
    Tool { program: "ip", package: "iproute2", purpose: "nodes of the benchmark are wired with it" },
    Tool { program: "iptables-nft-restore", package: "iptables", purpose: "nodes have kube-proxy's rules" },
    Tool { program: "nft", package: "nftables", purpose: "nodes have kube-proxy's rules" },
];

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = match &arguments.from {
        Some(file) => output::read(file)?,
        None => measured(arguments.quick)?,
    };
    if let Some(file) = &arguments.json {
        output::json(&report, file)?;
    } else if arguments.markdown {
        print!("{}", document(&report));
    } else {
        println!("{}", report::render(&report));
    }
    Ok(())
}

/// A run with nothing but its length chosen.
pub(super) fn measured(quick: bool) -> Result<Report> {
    lab::need_root()?;
    let programs = build::release()?;
    debian::need(&TOOLS)?;
    measure::measure(quick, &programs)
}
