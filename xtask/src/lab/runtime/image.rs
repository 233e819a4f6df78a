//! An image for containers, made without a registry: busybox.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::command;

/// What the image is called.
pub const NAME: &str = "localhost/busybox:1";

/// Writes the image as a docker archive of one layer, which every runtime reads. It has what busybox can do, and a
/// directory `/www`.
pub fn write(archive: &Path) -> Result<()> {
    write_with(archive, NAME, &["sh"])
}

/// As [`write()`], with another name and command.
pub fn write_with(archive: &Path, name: &str, command_line: &[&str]) -> Result<()> {
    let work = archive.with_extension("work");
    let root = work.join("root");
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "www"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = command::find("busybox").context("busybox is missing")?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    for library in libraries(&busybox)? {
        let copy = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(copy.parent().context("a library has a directory")?)?;
        fs::copy(&library, copy)?;
    }
    for applet in command::output(Command::new(&busybox).arg("--list"))?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let tar = |dir: &Path, to: &Path, files: &[&str]| {
        command::run(Command::new("tar").args(["--numeric-owner", "-C"]).arg(dir).arg("-cf").arg(to).args(files))
    };
    tar(&root, &work.join("layer.tar"), &["."])?;
    let layer = command::output(Command::new("sha256sum").arg(work.join("layer.tar")))?;
    let layer = layer.split(' ').next().context("sha256sum says nothing")?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": command_line },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    });
    fs::write(work.join("config.json"), config.to_string())?;
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    tar(&work, archive, &["manifest.json", "config.json", "layer.tar"])?;
    Ok(fs::remove_dir_all(work)?)
}

/// The libraries that a program is linked to; none where it is static.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
