//! Packages of the distribution that a task cannot do without.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

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

/// Makes sure that a program is there, installing the package that has it.
pub fn need(program: &str, package: &str, reason: &str) -> Result<()> {
    match command::find(program) {
        Some(_) => Ok(()),
        None => install(&[package], &format!("{program} is missing: {reason}")),
    }
}
