//! Building the two programs as they are shipped.

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use crate::{command, lab::Programs};

/// Builds both programs in release mode, with progress on stderr.
pub fn release() -> Result<Programs> {
    let start = Instant::now();
    let cargo = |subcommand: &str, program: &str, flags: &[&str]| {
        command::run(
            Command::new("cargo")
                .args([subcommand, "--release", "--package", "minicni-user", "--bin", program])
                .args(flags)
                .current_dir(command::root())
                .stdout(std::process::Stdio::from(std::io::stderr())),
        )
    };
    // The plugin is executed for every pod, and a static program starts in two thirds of the time.
    cargo("rustc", "minicni", &["--", "-C", "target-feature=+crt-static"])?;
    cargo("build", "minicnid", &[])?;
    eprintln!("built in {:.0?}", start.elapsed());
    Ok(Programs::in_dir(&target_dir()?.join("release")))
}

fn target_dir() -> Result<PathBuf> {
    let metadata = command::output(
        Command::new("cargo").args(["metadata", "--format-version=1", "--no-deps"]).current_dir(command::root()),
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let directory = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}
