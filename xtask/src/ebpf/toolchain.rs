//! A compiler that can build `core` for eBPF, and a bpf-linker that can read what it writes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use super::manifest::Manifest;
use crate::{command, debian};

/// The version that is built where none is there.
const LINKER_VERSION: &str = "0.13.0";
const PACKAGES: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev", "llvm-22"];
const LLVM: &str = "/usr/lib/llvm-22";

/// Programs that fit together.
pub(super) struct Toolchain {
    /// What is said of it in the manifest.
    pub(super) identity: String,
    /// `llvm-strip`.
    pub(super) strip: PathBuf,
    /// Where the compiler keeps the sources of `core`.
    pub(super) sysroot: PathBuf,
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// Cargo of this toolchain, without what the outer cargo left in the environment.
    pub(super) fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        for name in
            ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"]
        {
            cargo.env_remove(name);
        }
        let linker_dir = self.linker.parent().unwrap_or(Path::new("/"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(linker_dir.to_owned()).chain(std::env::split_paths(&path)));
        // A stable compiler builds `core` when told that it may use what is unstable.
        cargo.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").env("PATH", path.unwrap_or_default());
        cargo
    }
}

/// Finds a toolchain, the manifest's where it is there; installs Debian's where nothing is.
pub(super) fn find(committed: Option<&Manifest>) -> Result<Toolchain> {
    let mut found = candidates();
    if found.is_empty() {
        prepare()?;
        found = candidates();
    }
    let wanted = committed.and_then(|manifest| found.iter().position(|found| found.identity == manifest.toolchain));
    if found.is_empty() {
        bail!("no toolchain builds eBPF here even after the installation; see docs/building.md");
    }
    Ok(found.swap_remove(wanted.unwrap_or(0)))
}

/// Every compiler here that has the sources of `core` and a linker for its LLVM.
fn candidates() -> Vec<Toolchain> {
    let rustup = Command::new("rustup").args(["toolchain", "list"]).stderr(Stdio::null()).output();
    let names = rustup.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let nightly = names
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .filter_map(|name| Some((which(name, "cargo")?, which(name, "rustc")?)));
    let debian = ("/usr/bin/cargo".into(), "/usr/bin/rustc".into());
    nightly.chain([debian]).filter_map(|(cargo, rustc)| fitting(cargo, rustc)).collect()
}

fn which(toolchain: &str, program: &str) -> Option<PathBuf> {
    let output = Command::new("rustup").args(["which", "--toolchain", toolchain, program]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn fitting(cargo: PathBuf, rustc: PathBuf) -> Option<Toolchain> {
    let ask = |argument: &[&str]| {
        let output = Command::new(&rustc).args(argument).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = ask(&["-vV"])?;
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() || !cargo.exists() {
        return None;
    }
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let (linker, linker_version) = linker_for(llvm.split('.').next()?)?;
    let strip = [PathBuf::from(LLVM).join("bin/llvm-strip")]
        .into_iter()
        .chain(command::find("llvm-strip"))
        .find(|strip| strip.is_file())?;
    let identity = format!("{}, LLVM {llvm}, {linker_version}", version.lines().next()?);
    Some(Toolchain { identity, strip, sysroot, cargo, rustc, linker })
}

/// A bpf-linker for a major version of LLVM: ours, which is built for Debian's, or the one along PATH, which does not say
/// what it was built for, but was installed by someone who has this compiler.
fn linker_for(llvm: &str) -> Option<(PathBuf, String)> {
    let ours = command::root().join("target/bpf-linker/bin/bpf-linker");
    let version = |linker: &Path| {
        let output = Command::new(linker).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if LLVM.ends_with(&format!("-{llvm}")) && ours.is_file() {
        let version = version(&ours)?;
        return Some((ours, version));
    }
    let linker = command::find("bpf-linker")?;
    let version = version(&linker)?;
    Some((linker, version))
}

/// Installs Debian's compiler and builds the linker for it.
fn prepare() -> Result<()> {
    let missing = PACKAGES.iter().any(|package| !installed(package));
    if missing {
        debian::install(&PACKAGES, "no toolchain with rust-src and a matching bpf-linker builds eBPF here")?;
    }
    let root = command::root().join("target/bpf-linker");
    eprintln!("building bpf-linker {LINKER_VERSION} into {} (about a minute)", root.display());
    command::run(
        Command::new("cargo")
            .args(["install", "bpf-linker", "--quiet", "--locked", "--version", LINKER_VERSION])
            .args(["--no-default-features", "--features", "llvm-22", "--root"])
            .arg(&root)
            .env("LLVM_PREFIX", LLVM),
    )
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}
