//! What the datapath carries and costs, beside what people run and beside what the kernel can at best.

mod bpf;
mod connections;
mod control;
mod cpu_time;
mod pace;
mod path;
mod peers;
mod plan;
mod plot;
mod program;
mod report;
mod request_response;
mod rules;
mod run;
mod scene;
mod stream;
mod table;
mod target;
mod task;
mod topology;
mod workload;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use self::{peers::BRIDGE, plan::Plan, report::Report};
use crate::{
    build,
    debian::{self, Tool},
    lab,
};

/// Arguments of `bench datapath`.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(super) struct Arguments {
    /// Few and short rounds, in a minute: whether it all works and about how fast, not figures to quote
    #[arg(long)]
    quick: bool,
    /// Repeats the order of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long, group = "format")]
    json: bool,
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
    let report: Report = if let Some(file) = &arguments.from {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report of bench datapath", file.display()))?
    } else {
        lab::need_root()?;
        let programs = build::release()?;
        debian::need(&TOOLS)?;
        run::measure(&Plan::new(arguments.quick, arguments.seed), &programs)?
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if arguments.markdown {
        print!("{}", table::document(&report));
    } else if arguments.svg {
        print!("{}", plot::svg(&report)?);
    } else {
        println!("{}", table::render(&report));
    }
    Ok(())
}
