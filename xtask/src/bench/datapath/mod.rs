//! What the datapath carries and costs, beside what people run and beside what the kernel can at best.

mod bpf;
pub(super) mod connections;
mod control;
mod cpu_time;
mod pace;
pub(super) mod path;
mod peers;
mod plan;
mod plot;
mod program;
mod report;
pub(super) mod request_response;
mod rules;
pub(super) mod run;
pub(super) mod scene;
mod stream;
mod table;
mod target;
pub(super) mod task;
mod topology;
mod workload;

use std::path::PathBuf;

use anyhow::Result;

use self::{peers::BRIDGE, plan::Plan};
pub(super) use self::{
    plot::{others, svg},
    report::Report,
    table::document,
    target::judge,
};
use crate::{
    bench::output::{self, STDOUT},
    build,
    debian::{self, Tool},
    lab,
};

/// Arguments of `bench datapath`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Few and short rounds, in a minute: whether it all works and about how fast, not figures to quote
    #[arg(long)]
    quick: bool,
    /// Repeats the order of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Write JSON to a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, group = "format")]
    json: Option<PathBuf>,
    /// Print the document that is kept in docs/performance.md
    #[arg(long, group = "format")]
    markdown: bool,
    /// Print the plot that is kept in docs/bench-datapath.svg
    #[arg(long, group = "format")]
    svg: bool,
    /// Show the JSON of an earlier run instead of measuring
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Programs that make the peers.
const TOOLS: [Tool; 4] = [
    tool("ip", "iproute2", "peers of the benchmark are wired with it"),
    tool("iptables-restore", "iptables", "nodes of the benchmark have rules like kube-proxy's"),
    tool("nft", "nftables", "a node of the benchmark has a flowtable"),
    tool(BRIDGE, "containernetworking-plugins", "bridge is what minicni is measured against"),
];

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { program, package, purpose }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = match &arguments.from {
        Some(file) => output::read(file)?,
        None => measured(arguments.quick, arguments.seed)?,
    };
    if let Some(file) = &arguments.json {
        output::json(&report, file)?;
    } else if arguments.markdown {
        print!("{}", document(&report));
    } else if arguments.svg {
        print!("{}", svg(&report)?);
    } else {
        println!("{}", table::render(&report));
    }
    Ok(())
}

/// A run with nothing but its length and order chosen.
pub(super) fn measured(quick: bool, seed: Option<u64>) -> Result<Report> {
    lab::need_root()?;
    let programs = build::release()?;
    debian::need(&TOOLS)?;
    run::measure(&Plan::new(quick, seed), &programs)
}
