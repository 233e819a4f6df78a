//! `bench scale`: the daemon beside a real API server that holds thousands of nodes.

mod api;
mod daemon;
mod objects;
mod report;
mod run;
mod table;

use anyhow::Result;

use self::{report::Plan, run::measure};
pub(super) use self::{
    report::Report,
    table::{document, judge},
};
use super::{all::All, output::Options};

/// Arguments of `bench scale`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// How many Node objects there are
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(20..=16_000))]
    nodes: Option<u32>,
    /// How long the API server is away, in seconds
    #[arg(long, value_name = "SECONDS")]
    outage: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let report = match options.kept()? {
        Some(report) => report,
        None => measure(Plan::new(options.quick, arguments.nodes, arguments.outage))?,
    };
    options.show(&report, table::render, document, |report| All { scale: Some(report), ..All::default() })
}

/// A run with nothing but its length chosen.
pub(super) fn measured(quick: bool) -> Result<Report> {
    measure(Plan::new(quick, None, None))
}
