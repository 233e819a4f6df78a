//! What a benchmark leaves, the same for all of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

use super::{all::All, html};

/// Arguments of every benchmark.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Few and short rounds: whether it all works and about how fast, not figures to quote
    #[arg(long)]
    pub(super) quick: bool,
    /// Write JSON to a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, group = "format")]
    pub(super) json: Option<PathBuf>,
    /// Print Markdown
    #[arg(long, group = "format")]
    pub(super) markdown: bool,
    /// Write a page with plots and tables, report.html, into a directory
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,
    /// Show the JSON of an earlier run instead of measuring; `bench all` also takes a directory with those of single ones
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
}

impl Options {
    /// An earlier run, if that is to be shown.
    pub(super) fn kept<R: DeserializeOwned>(&self) -> Result<Option<R>> {
        self.from.as_deref().map(read).transpose()
    }

    /// Shows the report of one benchmark: for a terminal, as its document, or in a page.
    pub(super) fn show<R: Serialize + Clone>(
        &self,
        report: &R,
        text: impl Fn(&R) -> String,
        document: impl Fn(&R) -> String,
        all: impl FnOnce(R) -> All,
    ) -> Result<()> {
        self.page(|| all(report.clone()))?;
        if let Some(file) = &self.json {
            json(report, file)?;
        } else if self.markdown {
            print!("{}", document(report));
        } else {
            println!("{}", text(report));
        }
        Ok(())
    }

    /// Writes the page, if there is to be one.
    pub(super) fn page(&self, all: impl FnOnce() -> All) -> Result<()> {
        let Some(directory) = &self.report else { return Ok(()) };
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let page = directory.join("report.html");
        write(&page, &html::page(&all())?)?;
        eprintln!("{} is written", page.display());
        Ok(())
    }
}

/// Reads what [`json`] wrote.
pub(super) fn read<R: DeserializeOwned>(file: &Path) -> Result<R> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report of this benchmark", file.display()))
}

/// Instead of a file: the output.
pub(super) const STDOUT: &str = "-";

/// Whether JSON is to be printed.
pub(super) fn is_stdout(file: &Path) -> bool {
    file.as_os_str() == STDOUT
}

/// Writes a report as JSON.
pub(super) fn json<R: Serialize>(report: &R, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    if is_stdout(file) {
        print!("{text}");
        return Ok(());
    }
    write(file, &text)
}

/// Writes a file that is there as a whole or as it was.
pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let done = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, file));
    done.with_context(|| format!("write {}", file.display()))
}
