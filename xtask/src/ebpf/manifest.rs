//! What the committed object was made of.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::command;

/// Everything that decides the bytes of the object, by path below the root.
const SOURCES: [&str; 5] = [
    "minicni-ebpf/Cargo.toml",
    "minicni-ebpf/Cargo.lock",
    "minicni-ebpf/src",
    "minicni-common/Cargo.toml",
    "minicni-common/src",
];

/// Written beside the object.
#[derive(Deserialize, Serialize)]
pub(super) struct Manifest {
    /// SHA-256 over the sources: their paths and contents.
    pub(super) sources: String,
    /// SHA-256 of the object.
    pub(super) object: String,
    /// Compiler, its LLVM, and linker.
    pub(super) toolchain: String,
}

impl Manifest {
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is malformed", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

pub(super) fn hash_of_sources() -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&command::root().join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file.strip_prefix(command::root()).unwrap_or(&file).to_string_lossy().into_owned();
        hash.update(format!("{name} {}\n", content.len()));
        hash.update(content);
    }
    Ok(hex(hash.finalize().as_slice()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
