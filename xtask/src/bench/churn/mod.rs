//! Many pods that come and go at once, on a node with none, some and many others, beside `bridge` and `ptp` with
//! `host-local`.

mod at_once;
mod first_packet;
mod plan;
mod report;
mod run;
mod table;

use anyhow::Result;

use self::plan::Plan;
pub(super) use self::{
    report::Report,
    table::{document, judge, svg},
};
use super::{all::All, output::Options};

/// Arguments of `bench churn`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Repeats the order of an earlier run
    #[arg(long)]
    seed: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let report = match options.kept()? {
        Some(report) => report,
        None => run::measure(&Plan::new(options.quick, arguments.seed))?,
    };
    options.show(&report, table::render, document, |report| All { churn: Some(report), ..All::default() })
}

/// A run with nothing but its length chosen.
pub(super) fn measured(quick: bool) -> Result<Report> {
    run::measure(&Plan::new(quick, None))
}
