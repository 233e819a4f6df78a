//! All benchmarks, one after another, and one table of verdicts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use comfy_table::{
    Table,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};
use serde::{Deserialize, Serialize};

use super::{
    add, datapath, html,
    judged::Judged,
    output::{self, STDOUT},
    scale, services,
};

/// Arguments of `bench all`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Few and short rounds: whether it all works and about how fast, not figures to quote
    #[arg(long)]
    quick: bool,
    /// Write JSON to a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, group = "format")]
    json: Option<PathBuf>,
    /// Print the table of verdicts as Markdown
    #[arg(long, group = "format")]
    markdown: bool,
    /// Write a page with all plots and tables into a directory, and the plots beside it
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Show the JSON of earlier runs instead of measuring: of `bench all`, or a directory with those of the single ones
    #[arg(long, value_name = "FILE|DIR")]
    from: Option<PathBuf>,
}

/// What all benchmarks found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct All {
    pub(super) add: add::Report,
    pub(super) datapath: datapath::Report,
    pub(super) services: services::Report,
    /// `None` of figures that were kept without it.
    pub(super) scale: Option<scale::Report>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let all = match &arguments.from {
        Some(path) if path.is_dir() => All::kept(path)?,
        Some(file) => output::read(file)?,
        None => All::measured(arguments.quick)?,
    };
    if let Some(directory) = &arguments.report {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let page = directory.join("report.html");
        fs::write(&page, html::page(&all)?).with_context(|| format!("write {}", page.display()))?;
        eprintln!("{} is written", page.display());
    }
    if let Some(file) = &arguments.json {
        output::json(&all, file)?;
    } else {
        let style = if arguments.markdown { ASCII_MARKDOWN } else { UTF8_FULL_CONDENSED };
        let mut table = Table::new();
        table.load_style(style).set_header(["", "minicni", "beside", "found", "target", "verdict"]);
        for row in all.judged() {
            table.add_row([row.id.to_owned(), row.what, row.baseline, row.found, row.target, row.verdict]);
        }
        println!("{table}");
    }
    Ok(())
}

impl All {
    fn measured(quick: bool) -> Result<Self> {
        Ok(Self {
            add: add::measured(quick)?,
            datapath: datapath::measured(quick, None)?,
            services: services::measured(quick)?,
            scale: Some(scale::measured(quick)?),
        })
    }

    /// As docs/ keeps them.
    pub(super) fn kept(directory: &Path) -> Result<Self> {
        Ok(Self {
            add: output::read(&directory.join("bench-add.json"))?,
            datapath: output::read(&directory.join("bench-datapath.json"))?,
            services: output::read(&directory.join("bench-services.json"))?,
            scale: Some(directory.join("bench-scale.json"))
                .filter(|file| file.exists())
                .map(|file| output::read(&file))
                .transpose()?,
        })
    }

    /// The verdicts of all.
    pub(super) fn judged(&self) -> Vec<Judged> {
        let Self { add, datapath, services, scale } = self;
        let scale = scale.as_ref().map(scale::judge).unwrap_or_default();
        [datapath::judge(datapath), services::judge(services), add::judge(add), scale].concat()
    }
}
