//! `image`: the container image of minicni, made without a container runtime.

mod archive;
mod packages;
mod root;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};

use self::root::Root;
use crate::{
    build, command,
    debian::{self, Tool},
};

/// Arguments of `image`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The archive to write: a docker archive and an OCI layout in one
    #[arg(long, value_name = "FILE", default_value = "target/minicni-image.tar")]
    output: PathBuf,
    /// What the image is called
    #[arg(long, default_value = concat!("docker.io/library/minicni:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// Write the files of the image into this directory, and no archive
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// What the image of minicni executes.
const COMMAND: Command = Command { program: "/usr/local/bin/minicnid", arguments: &["run"] };

const BUSYBOX: Tool =
    Tool { program: "busybox", package: "busybox-static", purpose: "the image of a shell script is made of it" };

/// What an image executes, and what it is given where a container says nothing else.
struct Command {
    program: &'static str,
    arguments: &'static [&'static str],
}

/// Writes the archive of an image with one static program, which it executes as `/traffic serve`.
pub(crate) fn of_traffic(program: &Path, name: &str, archive: &Path) -> Result<()> {
    let mut root = Root::default();
    root.add(program, "traffic")?;
    let image = archive::pack(&root, name, &Command { program: "/traffic", arguments: &["serve"] })?;
    fs::write(archive, &image.bytes).with_context(|| format!("write {}", archive.display()))
}

/// Writes the archive of an image with kubectl, busybox, and `nft` with what else the daemon of minicni executes.
pub(crate) fn of_shell(kubectl: &Path, name: &str, archive: &Path) -> Result<()> {
    debian::need(&[BUSYBOX])?;
    let busybox = command::find(BUSYBOX.program).context("busybox is missing")?;
    let mut root = Root::default();
    root.add(kubectl, "usr/bin/kubectl")?;
    root.add(&busybox, "usr/bin/busybox")?;
    for applet in command::output(std::process::Command::new(&busybox).arg("--list"))?.lines() {
        if applet != BUSYBOX.program {
            root.link(format!("usr/bin/{applet}"), BUSYBOX.program);
        }
    }
    packages::add(&mut root)?;
    let image = archive::pack(&root, name, &Command { program: "/usr/bin/sh", arguments: &[] })?;
    fs::write(archive, &image.bytes).with_context(|| format!("write {}", archive.display()))
}

/// Builds the programs, adds what the daemon executes, and packs all that.
pub fn run(arguments: &Arguments) -> Result<()> {
    let programs = build::portable()?;
    let start = Instant::now();
    let mut root = Root::default();
    root.add(&programs.minicni, "usr/local/bin/minicni")?;
    root.add(&programs.minicnid, "usr/local/bin/minicnid")?;
    packages::add(&mut root)?;
    if let Some(directory) = &arguments.root {
        root.write(directory)?;
        println!("{} files below {}", root.len(), directory.display());
        return Ok(());
    }
    let image = archive::pack(&root, &arguments.name, &COMMAND)?;
    fs::write(&arguments.output, &image.bytes).with_context(|| format!("write {}", arguments.output.display()))?;
    eprintln!("packed in {:.1?}", start.elapsed());
    println!(
        "{}: {}, {:.1} MB compressed, {:.1} MB unpacked, {}",
        arguments.output.display(),
        arguments.name,
        megabytes(image.compressed),
        megabytes(image.unpacked),
        image.digest,
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
