//! `bench scale`: the daemon beside a real API server that holds thousands of nodes.

mod api;
mod daemon;
mod objects;
mod report;
mod run;
mod table;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use self::{report::Plan, run::measure};

/// Arguments of `bench scale`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How many Node objects there are
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(20..=16_000))]
    nodes: Option<u32>,
    /// 500 nodes and short waits: whether it all works, not figures to quote
    #[arg(long)]
    quick: bool,
    /// How long the API server is away, in seconds
    #[arg(long, value_name = "SECONDS")]
    outage: Option<u64>,
    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the document that is kept in docs/bench-scale.md
    #[arg(long)]
    markdown: bool,
    /// Show the JSON of an earlier run instead of measuring
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = match &arguments.from {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no report of bench scale", file.display()))?
        }
        None => measure(Plan::new(arguments.quick, arguments.nodes, arguments.outage))?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if arguments.markdown {
        print!("{}", table::document(&report));
    } else {
        println!("{}", table::render(&report));
    }
    Ok(())
}
