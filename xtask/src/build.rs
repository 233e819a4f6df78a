//! Building the two programs as they are shipped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

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

/// Builds both programs as they are in the image: static, and the same bytes wherever the sources and cargo's home are.
pub fn portable() -> Result<Programs> {
    let start = Instant::now();
    let directory = target_dir()?.join("image");
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(command::root()).stdout(std::process::Stdio::from(std::io::stderr()));
        cargo
    };
    // So that the registry's directory is there to be named.
    command::run(cargo().args(["fetch", "--locked"]))?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut forget = |path: &Path, name: &str| flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    forget(command::root(), "minicni");
    for registry in registries()? {
        forget(&registry, "registry");
    }
    // The flags are for what runs on the target alone: procedural macros cannot be static.
    let target = host()?;
    command::run(
        cargo()
            .args(["build", "--release", "--locked", "--package", "minicni-user", "--bins"])
            .args(["--target", &target, "--target-dir"])
            .arg(&directory)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")),
    )?;
    eprintln!("built in {:.0?}", start.elapsed());
    Ok(Programs::in_dir(&directory.join(target).join("release")))
}

/// Where cargo has the sources of other crates.
fn registries() -> Result<Vec<PathBuf>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sources = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    let entries = fs::read_dir(&sources).with_context(|| format!("list {}", sources.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// What we are built for, as rustc calls it.
fn host() -> Result<String> {
    let version = command::output(Command::new("rustc").arg("--version").arg("--verbose"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn target_dir() -> Result<PathBuf> {
    let metadata = command::output(
        Command::new("cargo").args(["metadata", "--format-version=1", "--no-deps"]).current_dir(command::root()),
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let directory = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}
