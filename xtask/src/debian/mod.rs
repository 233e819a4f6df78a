//! Packages of the distribution: installed where a task cannot do without, or only unpacked.

mod archive;

use std::{path::Path, process::Command};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

pub use self::archive::{Archive, cache, whole};
use crate::command;

/// Installs Debian packages, saying so; where that cannot be done, says what to type.
pub fn install(packages: &[&str], reason: &str) -> Result<()> {
    let line = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !Path::new("/etc/debian_version").exists() {
        bail!("{reason}. On Debian: {line}");
    }
    if !geteuid().is_root() {
        bail!("{reason}. As root: {line}");
    }
    eprintln!("{reason}; running: {line}");
    let apt = |arguments: &[&str]| {
        command::run(
            Command::new("apt-get")
                .arg("-qq")
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdout(std::process::Stdio::from(std::io::stderr())),
        )
    };
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

/// A program that a task executes.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name along PATH.
    pub program: &'static str,
    /// The package that has it.
    pub package: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
}

/// Makes sure that programs are there, installing the packages of those that are not.
pub fn need(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| command::find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = missing.iter().map(|tool| format!("{} is missing: {}", tool.program, tool.purpose)).collect();
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    install(&packages, &reasons.join("; "))
}
