//! What a benchmark leaves.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Reads what [`json`] wrote.
pub(super) fn read<R: DeserializeOwned>(file: &Path) -> Result<R> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report of this benchmark", file.display()))
}

/// Instead of a file: the output.
pub(super) const STDOUT: &str = "-";

/// Writes a report as JSON.
pub(super) fn json<R: Serialize>(report: &R, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    if file.as_os_str() == STDOUT {
        print!("{text}");
        return Ok(());
    }
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
