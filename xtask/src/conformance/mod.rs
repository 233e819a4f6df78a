//! `conformance`: the rules of the CNI specification, of its reference library and of the runtimes, as a table of
//! black-box checks for any plugin.

mod answer;
mod bench;
mod outcome;
mod packet;
mod plugin;
mod report;
mod rows;
mod runner;
mod view;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{
    build,
    debian::{self, Tool},
    lab,
};

/// Arguments of `conformance`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plugin to judge, instead of minicni built in release mode
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
    /// Only rows whose rule begins so, such as R-DEL or A8
    #[arg(long, value_name = "PREFIX")]
    rule: Option<String>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// Executes the plugin for every row of the table, shows what came of it, and fails if a rule is broken.
pub fn run(arguments: &Arguments) -> Result<()> {
    lab::need_root()?;
    debian::need(&[Tool {
        program: "ip",
        package: "iproute2",
        purpose: "the suite looks at a plugin's work with it",
    }])?;
    if !Path::new(plugin::CNI_PATH).join("loopback").exists() {
        debian::install(
            &["containernetworking-plugins"],
            "loopback and host-local work beside the plugin that is judged",
        )?;
    }
    let path = match &arguments.plugin {
        Some(path) => path.clone(),
        None => build::portable()?.minicni,
    };
    let report = runner::run(&path, arguments.rule.as_deref().unwrap_or_default())?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report::render(&report));
    }
    if report.summary.failed > 0 {
        bail!("{} of {} rows failed", report.summary.failed, report.rows.len());
    }
    Ok(())
}
