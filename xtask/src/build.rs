//! Building the two programs as they are shipped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{command, lab::Programs};

/// Builds both programs as they are in the image, with progress on stderr: [`package`].
pub fn portable() -> Result<Programs> {
    Ok(Programs::in_dir(&package("minicni-user")?))
}

/// Builds the programs of a package as they are in an image: static, and the same bytes wherever the sources and cargo's home
/// are. Gives their directory.
pub fn package(package: &str) -> Result<PathBuf> {
    let start = Instant::now();
    let directory = target_dir()?.join("image");
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(command::root()).stdout(std::process::Stdio::from(std::io::stderr()));
        // `cargo xtask` sets these for us. Build scripts look at them, and would be run anew, and all that depends on them.
        for (name, _) in std::env::vars_os() {
            let is_ours = |prefix: &&str| name.to_string_lossy().starts_with(*prefix);
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(is_ours) {
                cargo.env_remove(name);
            }
        }
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
            .args(["build", "--release", "--locked", "--package", package, "--bins"])
            .args(["--target", &target, "--target-dir"])
            .arg(&directory)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")),
    )?;
    eprintln!("built in {:.0?}", start.elapsed());
    Ok(directory.join(target).join("release"))
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
