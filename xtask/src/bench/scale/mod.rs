//! `bench scale`: the daemon beside a real API server that holds thousands of nodes.

mod api;
mod daemon;
mod objects;
mod report;
mod run;
mod table;

use std::path::PathBuf;

use anyhow::Result;

use self::{report::Plan, run::measure};
pub(super) use self::{
    report::Report,
    table::{document, judge},
};
use super::output::{self, STDOUT};

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
    /// Write JSON to a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, conflicts_with = "markdown")]
    json: Option<PathBuf>,
    /// Print the document that is kept in docs/bench-scale.md
    #[arg(long)]
    markdown: bool,
    /// Show the JSON of an earlier run instead of measuring
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = match &arguments.from {
        Some(file) => output::read(file)?,
        None => measure(Plan::new(arguments.quick, arguments.nodes, arguments.outage))?,
    };
    if let Some(file) = &arguments.json {
        output::json(&report, file)?;
    } else if arguments.markdown {
        print!("{}", document(&report));
    } else {
        println!("{}", table::render(&report));
    }
    Ok(())
}

/// A run with nothing but its length chosen.
pub(super) fn measured(quick: bool) -> Result<Report> {
    measure(Plan::new(quick, None, None))
}
